"""Implementation of `fastloss track`: measured ratios, their comparison between records or revisions, and history."""
