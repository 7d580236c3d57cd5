"""Which value of a column is the best, and which are not significantly below it.

The rule is printed below every table that marks values. Rows with labels and floors do not compete,
nor do rows whose runs are not all there: an unfinished mean could be best by the choice of seeds.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from clsp.config.labels import MARK
from clsp.report.cells import BEST, TIED, Cell
from clsp.report.statistics import MINIMUM, paired, welch

LEVEL = 0.05
RULE = (
    "Bold: best value of its column, dataset and encoder. Underlined (markdown: italic): not "
    f"significantly below it, two-sided at {LEVEL:g} (paired t-test over common seeds, Welch's "
    f"without enough of them; at least {MINIMUM} seeds, no correction for many rows). Rows that "
    "use labels, floors and rows with missing runs do not compete."
)
FEW = f"With fewer than {MINIMUM} seeds only the best value is marked."

Values = dict[str, float]  # by seed


def tied(best: Values, other: Values) -> bool:
    """Whether the data do not tell two rows apart; False where too few seeds are there to ask."""
    common = sorted(best.keys() & other.keys())
    if len(common) >= MINIMUM:
        found = paired([best[s] for s in common], [other[s] for s in common])
    elif min(len(best), len(other)) >= MINIMUM:
        found = welch([*best.values()], [*other.values()])
    else:
        return False
    return found.p_different() >= LEVEL


def _values(cell: Cell, frame: pd.DataFrame) -> Values:
    """The values behind a cell by seed: means over its tasks."""
    mine = (
        frame["run"].isin(cell.runs.split())
        & frame["task"].isin(cell.tasks.split())
        & (frame["protocol"] == cell.protocol)
        & (frame["variant"] == cell.variant)
    )
    rows = frame[mine & (frame["status"] == "done")]
    return {str(seed): float(of["value"].mean()) for seed, of in rows.groupby("seed", sort=False)}


def _competes(cell: Cell, floors: set[str]) -> bool:
    whole = cell.mean is not None and cell.n == cell.expected
    return whole and not cell.label.endswith(MARK) and cell.label not in floors


def _standings(cells: Sequence[Cell], frame: pd.DataFrame) -> dict[Cell, str]:
    """How the cells of one column, dataset and encoder stand."""
    lowest = cells[0].unit == "rank"
    means = [cell.mean for cell in cells if cell.mean is not None]
    top = min(means) if lowest else max(means)
    found = {cell: BEST for cell in cells if cell.mean == top}
    if lowest:
        return found
    best = _values(next(iter(found)), frame)
    others = [cell for cell in cells if cell not in found]
    return found | {cell: TIED for cell in others if tied(best, _values(cell, frame))}


def with_standings(cells: list[Cell], frame: pd.DataFrame) -> list[Cell]:
    """The same cells, the best and tied ones marked. One row alone is not the best of anything."""
    floors = set(frame.loc[frame["method"] == "", "label"])
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        if cell.unit in ("percent", "rank") and _competes(cell, floors):
            groups.setdefault((cell.dataset, cell.encoder, cell.column), []).append(cell)
    found: dict[Cell, str] = {}
    for group in groups.values():
        if len(group) > 1:
            found |= _standings(group, frame)
    return [replace(cell, standing=found.get(cell, "")) for cell in cells]


def standing_notes(cells: Sequence[Cell], frame: pd.DataFrame) -> list[str]:
    """The rule, where anything is marked, and whether too few seeds compete to tell rows apart."""
    marked = [cell for cell in cells if cell.standing]
    if not marked:
        return []
    floors = set(frame.loc[frame["method"] == "", "label"])
    competing = [cell for cell in cells if cell.unit == "percent" and _competes(cell, floors)]
    few = any(cell.n < MINIMUM for cell in competing)
    return [RULE, *([FEW] if few else [])]
