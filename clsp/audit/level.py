"""How deep an audit goes (audit.md R8), and the seed of what it samples.

L0 structure, L1 rehash, L2 recompute from stored predictions and features, L3 replay samples,
L4 rerun whole jobs.
"""

import secrets
from typing import Any

import numpy as np

from clsp.runtime.canonical import sha256_text
from clsp.runtime.errors import ConfigError

L0, L1, L2, L3, L4 = LEVELS = ("L0", "L1", "L2", "L3", "L4")
DEFAULT = L2


def level_of(check: Any) -> str:
    """The least level at which a check does anything."""
    return getattr(check, "LEVEL", DEFAULT)


def reaches(level: str, wanted: str) -> bool:
    """Whether an audit of one level does what another one asks for."""
    return LEVELS.index(level) >= LEVELS.index(wanted)


def read_nonce(given: str | None) -> str:
    """The auditor's nonce in lower case, or one drawn now.

    Raises:
        ConfigError: If it is not hexadecimal.
    """
    if given is None:
        return secrets.token_hex(8)
    text = given.lower()
    if not text or any(letter not in "0123456789abcdef" for letter in text):
        raise ConfigError(f"--nonce {given}: expected hexadecimal digits")
    return text


def generator_of(nonce: str, head: str, *purpose: str) -> np.random.Generator:
    """What is sampled: a function of the nonce, the ledger's head and the purpose alone.

    Whoever made the results cannot know the nonce, and whoever audits them cannot choose the head.
    """
    digest = sha256_text("\0".join([sha256_text(nonce + head), *purpose]))
    return np.random.default_rng(int(digest[:16], 16))
