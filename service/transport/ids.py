"""Ids of requests and replies: unique, and no secrets."""

from random import Random

_draws = Random()  # seeded by the system once: asking it each time hands the interpreter to another thread


def new_id(prefix: str) -> str:
    """`prefix` and 128 random bits in hexadecimal."""
    return f"{prefix}-{_draws.getrandbits(128):032x}"
