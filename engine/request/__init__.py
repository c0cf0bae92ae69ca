"""A request's body to a plan for the engine, and its events to a reply. Knows no HTTP and no torch."""
