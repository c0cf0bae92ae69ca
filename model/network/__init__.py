"""What computes logits: networks of our own and imported ones, as they train and as they are served."""
