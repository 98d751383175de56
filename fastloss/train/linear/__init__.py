"""Linear models with any loss."""
