"""Which anchors belong to which shard of a bank. Needs no torch, as joining them needs none."""

import re

from clsp.runtime.errors import ConfigError


def parse_shard(text: str) -> tuple[int, int]:
    """Split "I-of-N" into 1-based I and N.

    Raises:
        ConfigError: If it is not of that form, or I is not in 1..N.
    """
    match = re.fullmatch(r"(\d+)-of-(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f'--shard: expected I-of-N with 1 <= I <= N, found "{text}"')
    return int(match[1]), int(match[2])


def anchors_of(shard: str, anchors: int) -> tuple[int, int]:
    """First anchor of a shard and the one after its last, when N shards split them evenly.

    Raises:
        ConfigError: If the shard's name is malformed, or there are more shards than anchors.
    """
    number, count = parse_shard(shard)
    if count > anchors:
        raise ConfigError(f"--shard {shard}: more shards than the {anchors} anchors")
    return anchors * (number - 1) // count, anchors * number // count
