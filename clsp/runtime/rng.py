"""Random numbers that are a function of their key alone.

A counter-based generator, Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC'11), written in torch integer operations: every sample of a batch has its own counter,
so batch size, sharding, restarts and workers never change a draw. A draw is addressed by

    key      64 bits, a hash of (seed, purpose)
    counter  (block, a, b, c): block runs over the numbers of one sample; a, b, c are the caller's,
             for example (anchor, candidate, step) or (image, epoch, view)

Integers are bit-equal on every device; floats derived from them to rounding.
"""

import torch
from torch import Tensor

from clsp.runtime.keys import key_of, numpy_stream

__all__ = ["integers", "key_of", "normal", "numpy_stream", "philox", "torch_stream", "uniform"]

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10


def torch_stream(*parts: int | str) -> torch.Generator:
    """A CPU torch Generator for draws made once, such as weights."""
    return torch.Generator().manual_seed(key_of(*parts))


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: int) -> tuple[Tensor, ...]:
    """Four 32-bit words per counter, as int64 tensors of the counters' common shape.

    Works in place on copies, which takes a third to three quarters of the time of doing without.
    A product wraps modulo 2^64, which keeps all 64 bits of an unsigned one; its low half is not cut
    off before it is needed.
    """
    c0, c1, c2, c3 = (each.clone() for each in torch.broadcast_tensors(*counter))
    k0, k1 = key & MASK, (key >> 32) & MASK
    for _ in range(ROUNDS):
        product0, product1 = c0.mul_(MULTIPLIERS[0]), c2.mul_(MULTIPLIERS[1])
        high0, high1 = product0 >> 32, product1 >> 32
        c0 = high1.bitwise_xor_(c1).bitwise_xor_(k0).bitwise_and_(MASK)
        c2 = high0.bitwise_xor_(c3).bitwise_xor_(k1).bitwise_and_(MASK)
        c1, c3 = product1, product0
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return c0, c1.bitwise_and_(MASK), c2, c3.bitwise_and_(MASK)


def _column(value: Tensor | int, device: torch.device) -> Tensor:
    """A coordinate as int64 (B, 1) or (1, 1). A number is filled in: a copy would stall a GPU."""
    if isinstance(value, Tensor):
        return value.to(device, torch.int64).reshape(-1, 1) & MASK
    return torch.full((1, 1), value & MASK, dtype=torch.int64, device=device)


def _words(key: int, a: Tensor, b: Tensor | int, c: Tensor | int, count: int) -> Tensor:
    """At least `count` words for each sample, (B, 4 * blocks), int64 in [0, 2^32)."""
    device = a.device
    blocks = torch.arange(-(-count // 4), device=device)[None, :]  # (1, blocks)
    counter = [_column(v, device) for v in (a, b, c)]
    words = philox((blocks, *counter), key)
    return torch.stack(words, dim=-1).reshape(len(a), -1)


def uniform(key: int, a: Tensor, b: Tensor | int = 0, c: Tensor | int = 0, *, count: int) -> Tensor:
    """Uniform numbers in [0, 1), 24 bits each.

    Args:
        key: From `key_of`.
        a: One integer per sample, (B,), in [0, 2^32); its device is where numbers are made.
        b: Second coordinate, (B,) or one for all.
        c: Third coordinate, (B,) or one for all.
        count: Numbers per sample.

    Returns:
        float32 (B, count); row i depends on (key, a[i], b[i], c[i]) only.
    """
    return (_words(key, a, b, c, count)[:, :count] >> 8).to(torch.float32) * 2.0**-24


def normal(key: int, a: Tensor, b: Tensor | int = 0, c: Tensor | int = 0, *, count: int) -> Tensor:
    """Standard normal numbers by the Box-Muller transform; arguments as for `uniform`.

    Returns:
        float32 (B, count); row i depends on (key, a[i], b[i], c[i]) only.
    """
    words = _words(key, a, b, c, count + count % 2)
    pairs = ((words >> 8).to(torch.float32) + 0.5) * 2.0**-24  # in (0, 1): the log stays finite
    first, second = pairs[:, 0::2], pairs[:, 1::2]
    radius, angle = torch.sqrt(-2 * torch.log(first)), 2 * torch.pi * second
    drawn = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
    return drawn.reshape(len(a), -1)[:, :count]


def integers(
    key: int, a: Tensor, b: Tensor | int = 0, c: Tensor | int = 0, *, high: Tensor | int, count: int
) -> Tensor:
    """Integers in [0, high), int64 (B, count), bias below high / 2^32; else as `uniform`.

    `high` is one for all or int64 (B,), below 2^31; where it is 0, so is the result.
    """
    bound = high.reshape(-1, 1) if isinstance(high, Tensor) else high
    return (_words(key, a, b, c, count)[:, :count] * bound) >> 32
