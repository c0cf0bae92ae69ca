"""Others' masked language models to artifacts."""
