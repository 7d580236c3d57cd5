"""What must not leave the machine: absolute paths, which name users and folders."""

from pathlib import Path
from typing import Any

from clsp.runtime.places import names_places, without_places


def public(value: Any) -> Any:
    """A JSON value without absolute paths in any of its texts, keys among them."""
    if isinstance(value, str):
        return without_places(value)
    if isinstance(value, list | tuple):
        return [public(item) for item in value]
    if isinstance(value, dict):
        return {without_places(str(key)): public(item) for key, item in value.items()}
    return value


def names_machine(path: Path) -> bool:
    """Whether a text file holds an absolute path, and so has to stay where it is."""
    return names_places(path.read_text(encoding="utf-8", errors="replace"))
