"""Servers and clients in processes of their own."""
