"""What the spread over seeds does not hold: which images are tested, and the bank (audit.md 3.2).

Both are told beside the intervals and never added to them: more test images are not more seeds.
"""

from collections.abc import Iterable

from clsp.config.grid import Run
from clsp.config.schema import Params
from clsp.report.cells import Cell
from clsp.report.collect import Name, runs_by_name


def image_notes(cells: Iterable[Cell]) -> list[str]:
    """How far the finite test sets alone may move what a table shows."""
    errors = [cell.image_error for cell in cells if cell.image_error is not None]
    if not errors:
        return []
    least, most = min(errors), max(errors)
    return [
        "Apart from seeds: the finite test sets alone give these accuracies binomial standard "
        f"errors of {least:.2f} to {most:.2f} points (csv: image_error). Seeds share the images, "
        "so that no interval above holds it."
    ]


def bank_notes(params: Params, shown: Iterable[Name]) -> list[str]:
    """Whether the seeds behind rows with synthetic positives share their candidates."""
    rows = runs_by_name(params)
    shared: dict[str, None] = {}
    for name in shown:
        runs = [run for run in rows.get(name, ()) if isinstance(run, Run) and run.spec.bank]
        banks = {str(run.spec.bank) for run in runs}
        if len(runs) > len(banks):
            shared |= dict.fromkeys(sorted(banks))
    if not shared:
        return []
    return [
        "Seeds vary initialisation, order, augmentation and the choice among candidates. All of a "
        f"row share one bank ({', '.join(shared)}), so the spread is that with candidates fixed, "
        "without what generating them anew would add."
    ]
