"""Others' masked language models to artifacts. Knows no training."""
