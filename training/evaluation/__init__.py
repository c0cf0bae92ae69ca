"""Metrics of a trained model on held-out rows and of what it generates."""
