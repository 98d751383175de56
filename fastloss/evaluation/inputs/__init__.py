"""Inputs of an evaluation: paths and URIs, text read in blocks, other libraries' tables, labels of text."""
