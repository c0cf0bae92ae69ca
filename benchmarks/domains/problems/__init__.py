"""Data, rivals and judges of the domains."""
