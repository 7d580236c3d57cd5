"""What is shown together and is not alike is refused, or said beside it: recipes, and labels."""

from collections.abc import Iterable

import pandas as pd

from clsp.config.execution import departures
from clsp.config.foreign import METHOD, expand_imported
from clsp.config.grid import expand_runs
from clsp.config.labels import MARK
from clsp.config.schema import Params
from clsp.report.collect import Name, row_name
from clsp.runtime.errors import ConfigError

LABELS = (
    f'Methods whose label ends in "{MARK.strip()}" use the labels of the training images in '
    "pretraining, directly or through another run; the others use none."
)


IMPORTED = (
    "Imported, trained elsewhere by a recipe that no record here shows, so that a difference from "
    "other rows may be the recipe's"
)


def imported_notes(frame: pd.DataFrame) -> list[str]:
    """The files behind imported encoders, by label, with their digests; nothing without any."""
    rows = frame[frame["method"] == METHOD][["label", "checkpoint"]].drop_duplicates()
    told = [f"{r.label}: {r.checkpoint or 'not there yet'}" for r in rows.itertuples(index=False)]
    return [f"Files of imported encoders: {'; '.join(told)}."] if told else []


def execution_note(params: Params) -> str:
    """What a reader must know of runs that were not computed in the mode exact; else nothing."""
    if params.execution is None:
        return ""
    return (
        f"Pretrained in a mode that is not exact ({departures(params.execution)}): a number "
        "repeats within the spread over seeds, not bit for bit."
    )


def check_recipes(params: Params, frame: pd.DataFrame) -> None:
    """Refuse a frame in which runs on one dataset follow several recipe families.

    Raises:
        ConfigError: Naming the families, and what to write to compare them all the same.
    """
    if params.comparison.recipes == "mixed":
        return
    known = frame[~frame["method"].isin(["", METHOD])]  # floors and imported encoders have none
    for dataset, rows in known.groupby("dataset", sort=False):
        families = list(rows["recipe"].unique())
        if len(families) > 1:
            raise ConfigError(
                f"frame.csv: runs on dataset {dataset} follow recipes of the families "
                f"{', '.join(families)}; expected one, unless params.yaml says "
                '"comparison: {recipes: mixed}"'
            )


def _families(params: Params) -> dict[Name, str]:
    """The recipe family behind every label that a table or a figure may show."""
    found: dict[Name, str] = {}
    for run in expand_runs(params).values():
        place = (str(run.axes["dataset"]), str(run.axes["encoder"]))
        for label in (*run.names, *map(run.label_beside, run.values)):
            found.setdefault((*place, label), run.spec.recipe.family)
    return found


def comparison_notes(params: Params, shown: Iterable[Name]) -> list[str]:
    """Notes on what the rows do not share.

    One for labels, one for imported encoders, one for runs that are not exact, and one per dataset
    on which what is shown mixes recipe families.

    Args:
        params: The validated parameters.
        shown: Dataset, encoder and label of everything that a table or a figure shows.
    """
    known, marked = _families(params), False
    imported = {row_name(each) for each in expand_imported(params).values()}
    foreign: dict[str, None] = {}
    mixed: dict[str, dict[str, dict[str, None]]] = {}  # dataset -> family -> labels
    for name in shown:
        dataset, _, label = name
        if name in known:  # floors follow no recipe
            mixed.setdefault(dataset, {}).setdefault(known[name], {})[label] = None
        if name in imported:
            foreign[label] = None
        marked |= label.endswith(MARK)
    notes = [LABELS] if marked else []
    if foreign:
        notes.append(f"{IMPORTED}: {', '.join(foreign)}.")
    if mixed and (note := execution_note(params)):
        notes.append(note)
    for dataset, families in mixed.items():
        if len(families) > 1:
            listed = "; ".join(f"{name}: {', '.join(labels)}" for name, labels in families.items())
            notes.append(
                f"Recipes of several families are mixed on {dataset}, so that a difference "
                f"between methods may be the recipe's ({listed})."
            )
    return notes
