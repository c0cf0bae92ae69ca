"""Rivals and a judge for text."""
