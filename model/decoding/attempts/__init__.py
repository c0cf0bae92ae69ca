"""What of a sample is taken back: searches that backtrack, and attempts to meet a condition."""
