"""What `fastloss track` does: measure ratios, compare them, compare two revisions on one machine, keep the history."""
