"""Bytes in and out: bodies, connections, error replies, large JSON in pieces."""
