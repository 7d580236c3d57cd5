"""How records and exports name files: without the folders of the machine that made them.

Both travel. Where somebody's home folder lies is nobody's business, and a path that exists on one
machine alone helps nobody on another.
"""

import re
import tempfile
from functools import cache
from pathlib import Path

from clsp.runtime.digest import ROOT

TOPS = ("results", "reports")  # folders with one folder per profile
# An absolute path in running text: nothing before the slash that makes it a part of something else.
ABSOLUTE = re.compile(r"(?<![\w.~:/\\>)-])/(?:[^\s/:;,'\"()\[\]<>]+/)+")
# First folders of absolute paths on the systems that jobs run on.
ROOTS = (
    "home|Users|root|tmp|work|mnt|media|srv|opt|var|private|scratch|lustre|gpfs|beegfs|nfs|data|"
    "datasets|storage|cluster|projects?|export|fsx|shared|workspace|content|kaggle|etc|usr|run|dev"
)
# What is an absolute path in any text, pages and pictures inside them too: below a known root, on a
# drive of Windows, or between quotes.
CERTAIN = re.compile(
    rf"(?<![\w.~/:<+-])(?:file://)?/(?:{ROOTS})/[^\s\"'<>|,;:)\]}}]*"
    r"|(?<!\w)[A-Za-z]:\\[^\s\"'<>|,;:)\]}]*"
    r"|(?<=[\"'=])/[\w.+@-]+/[^\s\"'<>]*(?=[\"'])"
)
OMITTED = "..."


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


@cache
def _folders(*homes: Path) -> re.Pattern[str]:
    """Some folders, with the slash behind them; matches nothing for the root of the file system."""
    named = [re.escape(text) for home in homes if (text := str(home).rstrip("/"))]
    return re.compile(rf"(?<![\w.~/+-])(?:{'|'.join(named) or '(?!)'})(?:/|(?![\w-]|\.\w))")


def _here() -> tuple[Path, ...]:
    """Folders of this machine that are private, whatever they look like."""
    return Path.cwd(), ROOT, Path(tempfile.gettempdir()), Path.home()


def _last_part(found: re.Match[str]) -> str:
    """A path without its folders; nothing of it where its last part is the name of a user."""
    *folders, last = re.split(r"[/\\]", found[0].rstrip("/\\"))
    return OMITTED if folders[-1] in ("home", "Users") else f"{OMITTED}/{last}"


def without_places(text: str) -> str:
    """A text without absolute paths: their last part stays, or what lies below this folder."""
    if "/" not in text and "\\" not in text:
        return text
    own = _folders(*_here())
    text = own.sub(lambda found: "" if found[0].endswith("/") else OMITTED, text)
    return ABSOLUTE.sub(f"{OMITTED}/", CERTAIN.sub(_last_part, text))


def names_places(text: str) -> bool:
    """Whether a text, however long, holds an absolute path for certain."""
    # Where everybody has a folder of that name, such as /tmp, the name alone tells nothing.
    own = _folders(*(folder for folder in _here() if len(folder.parts) > 2))
    return CERTAIN.search(text) is not None or own.search(text) is not None
