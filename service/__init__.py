"""The HTTP service. Meets training only in an artifact; only `engine.thread` knows torch."""
