"""Losses of embeddings: pairs, triplets, mining, contrastive softmax."""
