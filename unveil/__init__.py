"""The `unveil` command: thin and lazy, the only place that knows both training and service."""

__version__ = "0.1.0"
