"""One training step: batches, losses, updates, orders decided by search."""
