"""Fixed-point format of exact sums."""

__all__ = ["BIAS", "DIGITS"]

BIAS = 3300
"""Binary places of exact sums: more than three times the smallest exponent has, so w * l * l is an integer."""

DIGITS = 208
"""Number of base-2**32 digits of a sum: up to three times the largest exponent, with room for 2**64 terms."""
