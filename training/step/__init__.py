"""One training step: batches, losses, updates, candidate orders."""
