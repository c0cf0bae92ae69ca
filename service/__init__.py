"""The HTTP service. Meets training only in an artifact; only `service.engine` knows torch."""
