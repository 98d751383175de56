"""Kernels of losses of uncertain predictions: divergences, ordered quantiles, sampled logits, calibration."""
