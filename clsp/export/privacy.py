"""What must not leave the machine: absolute paths, which name users and folders."""

import re
from pathlib import Path
from typing import Any

# First folders of absolute paths on the systems that jobs run on, and drives of Windows.
ROOTS = (
    "home|Users|root|tmp|work|mnt|media|srv|opt|var|private|scratch|lustre|gpfs|beegfs|nfs|data|"
    "datasets|storage|cluster|projects?|export|fsx|shared|workspace|content|kaggle|etc|usr|run|dev"
)
# A path begins a word, so that addresses and divisions are none. Between quotes any path is one.
ABSOLUTE = re.compile(
    rf"(?<![\w.~/:<+-])(?:file://)?/(?:{ROOTS})/[^\s\"'<>|,;:)\]}}]*"
    r"|(?<!\w)[A-Za-z]:\\[^\s\"'<>|,;:)\]}]*"
    r"|(?<=[\"'=])/[\w.+@-]+/[^\s\"'<>]*(?=[\"'])"
)
SHOWN = "(a path of the machine)/"


def _hidden(found: re.Match[str]) -> str:
    return SHOWN + re.split(r"[/\\]", found[0].rstrip("/\\"))[-1]


def _places() -> list[str]:
    """Folders of this machine that are known to be private, whatever they look like."""
    known = {str(Path.cwd()), str(Path.home())}
    return sorted((place for place in known if place.count("/") > 1), key=len, reverse=True)


def public_text(text: str) -> str:
    """The text with every absolute path cut down to its last part."""
    for place in _places():
        text = text.replace(f"{place}/", SHOWN).replace(place, SHOWN.rstrip("/"))
    return ABSOLUTE.sub(_hidden, text)


def public(value: Any) -> Any:
    """A JSON value with `public_text` applied to all of its texts."""
    if isinstance(value, str):
        return public_text(value)
    if isinstance(value, list | tuple):
        return [public(item) for item in value]
    if isinstance(value, dict):
        return {public_text(str(key)): public(item) for key, item in value.items()}
    return value


def names_machine(path: Path) -> bool:
    """Whether a text file holds an absolute path, and so has to stay where it is."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return any(place in text for place in _places()) or ABSOLUTE.search(text) is not None
