"""How records name files: without the folders of the machine that they were made on.

Records travel. Where somebody's home folder lies is nobody's business, and a path that exists on
one machine alone helps nobody on another.
"""

import re
import tempfile
from pathlib import Path

from clsp.runtime.digest import ROOT

TOPS = ("results", "reports")  # folders with one folder per profile
# An absolute path in running text: nothing before the slash that makes it a part of something else.
ABSOLUTE = re.compile(r"(?<![\w.~:/\\>)-])/(?:[^\s/:;,'\"()\[\]<>]+/)+")


def place_of_file(path: Path) -> str:
    """How a record names a file: a relative path as it is, an absolute one without its beginning.

    It is cut at the working folder or at the copy of the suite if the file lies below one of them,
    else at `results/` or `reports/`. A file that lies elsewhere keeps its path.
    """
    path = Path(path)
    if not path.is_absolute():
        return str(path)
    for home in (Path.cwd(), ROOT):
        if path.is_relative_to(home):
            return str(path.relative_to(home))
    for folder in (path, *path.parents):
        if folder.parent.name in TOPS:
            return str(path.relative_to(folder.parent.parent))
    return str(path)


def without_places(text: str) -> str:
    """A message without absolute paths: their last part stays, or what lies below this folder."""
    for home in (Path.cwd(), ROOT, Path(tempfile.gettempdir()), Path.home()):
        prefix = str(home).rstrip("/")
        if prefix:
            text = text.replace(f"{prefix}/", "")
    return ABSOLUTE.sub(".../", text)
