"""What is served: how soon, how fast over HTTP, and whether it is what was trained and always the same."""
