"""Training: optimisers, schedules of learning rates, clipping of gradients, balancing of tasks."""
