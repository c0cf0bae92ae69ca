"""MOSES's protocol (Polykovskiy et al., arXiv 1811.12823): samples of one model, and every metric of its table."""
