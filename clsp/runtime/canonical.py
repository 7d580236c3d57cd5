"""Canonical JSON and content hashes: the same value gives the same bytes on every machine."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from clsp.runtime.errors import DataError

CHUNK = 1 << 20


def canonical_json(value: Any) -> str:
    """Serialise to UTF-8 JSON with sorted keys, no white space and no NaN or infinity.

    Raises:
        ValueError: If a float is not finite; such a number must never reach a record.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def sha256_text(text: str) -> str:
    """Hex sha256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_json(value: Any) -> str:
    """Hex sha256 of the canonical JSON of a value."""
    return sha256_text(canonical_json(value))


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in blocks.

    Raises:
        DataError: If the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while block := stream.read(CHUNK):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def sha256_array(array: np.ndarray) -> str:
    """Hex sha256 over dtype, shape and C-order bytes: independent of the file that holds them."""
    digest = hashlib.sha256(f"{array.dtype.str}|{array.shape}|".encode())
    rows = max(1, CHUNK // max(1, array[:1].nbytes)) if array.ndim else 1
    for start in range(0, max(1, len(array)) if array.ndim else 1, rows):
        block = array[start : start + rows] if array.ndim else array
        digest.update(np.ascontiguousarray(block).tobytes())
    return digest.hexdigest()


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(keys) != len(set(keys)):
        raise ValueError(f"duplicate key {next(k for k in keys if keys.count(k) > 1)!r}")
    return dict(pairs)


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number a record may hold")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is larger than any number a record may hold")
    return value


def parse_json(text: str) -> Any:
    """Parse JSON strictly: duplicate keys, NaN, infinity and half a surrogate pair are errors.

    Raises:
        ValueError: If the text is not such JSON.
    """
    value = json.loads(
        text,
        object_pairs_hook=_refuse_duplicates,
        parse_constant=_refuse_constant,
        parse_float=_finite,
    )
    if "\\ud" in text.lower():  # the only way to a string that is no text, which none can write
        json.dumps(value, ensure_ascii=False).encode()
    return value


def read_json(path: Path) -> Any:
    """Parse one JSON file strictly.

    Raises:
        DataError: If the file is missing or is not strict JSON.
    """
    try:
        return parse_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error})") from error
