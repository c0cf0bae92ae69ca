"""Exact enumeration of short sequences: what everything else is tested against."""
