"""Every figure the project claims has its script here: `python -m benchmarks NAME [--quick] [--seeds N] [--json]`."""
