"""Search for a loss by a metric on held-out data."""
