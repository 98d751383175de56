"""Weights of several losses: by schedule, from their values, or from the Gramian of their gradients."""
