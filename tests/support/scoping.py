"""What every row of the fault matrix also asks for: the place is named, and nothing else suffers.

Written from the names of files alone, not from what the audit knows of dependencies.
"""

import re
from pathlib import Path
from typing import Any

from injecting import RUN

State = dict[str, tuple[str, int]]
BASE = "SimCLR"  # label of the rows that read neither a bank nor pairs
READ_BY_CLSP = re.compile(rf"/results/tiny/(banks|pairs|denoisers|quality|\w+/{re.escape(RUN)})/")
OF_TASK = re.compile(r"/results/tiny/(data|fetched)/(target|multi)-mini/")
BOOKS = re.compile(r"/results/tiny/ledger\.jsonl$|/mlflow\.db|/answers\.json$")
# Of whole rows: whoever stands beside them changes them.
RELATIVE = re.compile(r"rank")
# The best of a column is marked, so that a mark rests on the rows beside it; a record that cannot be
# read may be of anything (A01).
SHARED = {"A01", "A22", "A26"}


def changed_files(before: State, after: State) -> list[str]:
    """Files that were changed, added or removed."""
    return sorted(
        path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    )


def names_the_place(changed: list[str], findings: list[dict[str, Any]], home: Path) -> bool:
    """Whether some finding names a changed file, its folder, or the artefact that it is part of.

    A mirror is named by the artefacts that it shows otherwise than they are.
    """
    told = [finding["file"].split(", line")[0] for finding in findings]
    about = " ".join(f"{finding['subject']} {finding['found']}" for finding in findings)
    for path in changed or [str(home)]:
        parts = Path(path).parts
        named = any(file == path or path.startswith(f"{file}/") for file in told)
        beside = any(str(Path(file).parent) == str(Path(path).parent) for file in told)
        artefact = len(parts) > 2 and parts[-2] in about
        if named or beside or artefact or "mlflow" in parts[-1] or parts[-1] == "answers.json":
            return bool(findings)
    return not changed or "expectations" in changed[0]


def spared_but_spoiled(changed: list[str], cells: list[dict[str, Any]]) -> list[str]:
    """Cells that cannot depend on the changed files, and are not verified all the same."""
    files = [path for path in changed if not BOOKS.search(path)]
    if not files:
        return []
    if all(READ_BY_CLSP.search(path) for path in files):
        spared = [cell for cell in cells if cell["label"] == BASE]
    elif all(OF_TASK.search(path) for path in files):
        spared = [cell for cell in cells if cell["table"] == "main"]
    else:
        return []
    return [
        f"{cell['table']} {cell['label']} {cell['column']}: {cell['because']}"
        for cell in spared
        if cell["verdict"] != "verified"
        and not RELATIVE.search(cell["column"])
        and not set(cell["because"]) <= SHARED
    ]
