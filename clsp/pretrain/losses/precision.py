"""Losses in full precision, whatever the networks run in (methods.md 7, 10)."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
HALF = (torch.bfloat16, torch.float16)


def _full(value: object) -> object:
    return value.float() if isinstance(value, Tensor) and value.dtype in HALF else value


def full_precision(loss: Callable[P, R]) -> Callable[P, R]:
    """Run a loss outside autocast, its half-precision tensors raised to float32.

    exp(x / T) overflows float16 for T below 0.09, and exp(1 / 0.05) of Sinkhorn does too.
    """

    @wraps(loss)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        given = [_full(value) for value in args]
        device = next((v.device.type for v in given if isinstance(v, Tensor)), "cpu")
        with torch.autocast(device, enabled=False):
            return loss(*given, **{name: _full(value) for name, value in kwargs.items()})

    return inside


def check_pair(a: Tensor, b: Tensor) -> None:
    """Refuse two batches of embeddings of different shape.

    Raises:
        ValueError: With both shapes.
    """
    if a.shape != b.shape:
        raise ValueError(f"embeddings differ in shape: {tuple(a.shape)} and {tuple(b.shape)}")
