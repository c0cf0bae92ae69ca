"""Where a sample's own seed comes from. Torch-free; knows no request and no batch."""

import hashlib
import secrets

DRAWN_SEED_BITS = 53  # what a JavaScript client can hold exactly


def derive_seed(seed: int, prompt_index: int, sample_index: int) -> int:
    """The sample's own seed: `seed` itself for the first sample of the first prompt, else 53 bits of a hash.

    A derived seed given alone is therefore the seed of a first sample, and reproduces it.
    """
    if prompt_index == 0 and sample_index == 0:
        return seed
    digest = hashlib.sha256(f"unveil/{seed}/{prompt_index}/{sample_index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - DRAWN_SEED_BITS)


def attempt_seed(seed: int, attempt: int) -> int:
    """That of a sample's attempt to meet a condition: the first has the sample's own."""
    if attempt == 0:
        return seed
    digest = hashlib.sha256(f"unveil/attempt/{seed}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - DRAWN_SEED_BITS)


def draw_seed() -> int:
    """A fresh seed where the user gave none."""
    return secrets.randbits(DRAWN_SEED_BITS)
