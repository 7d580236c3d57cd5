"""Stored tensors as numpy sees them: nothing is unpickled, no model is built."""

import hashlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

Tensors = dict[str, np.ndarray]
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def read_tensors(
    path: Path, wanted: Collection[str] | None = None
) -> tuple[Tensors, dict[str, str]]:
    """Tensors by name and the metadata of a safetensors file.

    Args:
        path: The file.
        wanted: Names of the tensors that are read, as far as they are there; None: all.

    Raises:
        ValueError: If it is no whole safetensors file.
        OSError: If it cannot be read.
    """
    try:
        with safe_open(path, framework="np") as stored:
            names = [n for n in list(stored.keys()) if wanted is None or n in wanted]
            tensors = {name: stored.get_tensor(name) for name in names}
            return tensors, dict(stored.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"not a whole safetensors file ({error})") from error


def digest_of(tensors: Tensors) -> str:
    """Hex sha256 over sorted (name, dtype, shape, C-order bytes)."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]  # tobytes is in C order, and leaves a single number its empty shape
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def below(tensors: Tensors, prefix: str) -> Tensors:
    """Tensors whose names begin with a prefix, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def trained(tensors: Tensors) -> Tensors:
    """Parameters alone: no counters, no statistics of batch norm."""
    return {
        name: tensor
        for name, tensor in tensors.items()
        if tensor.dtype.kind == "f" and not name.endswith(BUFFERS)
    }


def distance(before: Tensors, after: Tensors) -> float:
    """|after - before| / |before| over the parameters that both have."""
    names = trained(before).keys() & trained(after).keys()
    gaps = [np.square(after[n].astype(np.float64) - before[n]).sum() for n in names]
    sizes = [np.square(before[n].astype(np.float64)).sum() for n in names]
    return float(np.sqrt(sum(gaps) / max(sum(sizes), 1e-300)))
