"""Losses in full precision, whatever the networks run in (methods.md 7, 10)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
HALF = (torch.bfloat16, torch.float16)
_COMPILER: ContextVar[str | None] = ContextVar("compiler", default=None)


@contextmanager
def compiled_losses(compiler: str | None) -> Iterator[None]:
    """Let losses be compiled by a backend of torch.compile; None leaves them as they are."""
    token = _COMPILER.set(compiler)
    try:
        yield
    finally:
        _COMPILER.reset(token)


@cache
def _compiled(loss: Callable[P, R], compiler: str) -> Callable[P, R]:
    return torch.compile(loss, backend=compiler, dynamic=False)


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
        chosen = loss
        if not torch.compiler.is_compiling() and (compiler := _COMPILER.get()) is not None:
            chosen = _compiled(loss, compiler)
        with torch.autocast(device, enabled=False):
            return chosen(*given, **{name: _full(value) for name, value in kwargs.items()})

    return inside


def check_pair(a: Tensor, b: Tensor) -> None:
    """Refuse two batches of embeddings of different shape.

    Raises:
        ValueError: With both shapes.
    """
    if a.shape != b.shape:
        raise ValueError(f"embeddings differ in shape: {tuple(a.shape)} and {tuple(b.shape)}")
