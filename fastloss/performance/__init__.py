"""How fast the losses are: the cases, what they are compared with, and how they are timed."""
