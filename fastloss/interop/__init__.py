"""Adapters to other libraries, one module each, which import their library only when they are used."""
