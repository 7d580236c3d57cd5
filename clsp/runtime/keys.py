"""Keys of random streams, and host-side streams made from them. Torch-free.

A stream is a function of its key alone, so no draw depends on what else was drawn before it.
"""

import hashlib

import numpy as np


def key_of(*parts: int | str) -> int:
    """Hash a seed and a purpose, such as (0, "noise"), to 63 bits that depend on every part."""
    text = "\0".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_stream(*parts: int | str) -> np.random.Generator:
    """A numpy Generator for host-side draws such as splits and orders."""
    return np.random.Generator(np.random.Philox(key=key_of(*parts)))
