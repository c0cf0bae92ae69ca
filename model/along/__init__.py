"""Generation and scoring along the order: what is revealed is computed once and kept."""
