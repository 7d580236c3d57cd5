"""What the rows of a table do not share is refused, or said below it: recipes, and labels."""

import pandas as pd

from clsp.config.labels import MARK
from clsp.config.schema import Params
from clsp.report.cells import Table
from clsp.report.collect import runs_by_name
from clsp.runtime.errors import ConfigError

LABELS = (
    f'Rows that end in "{MARK.strip()}" use the labels of the training images in pretraining; the '
    "others see none."
)


def check_recipes(params: Params, frame: pd.DataFrame) -> None:
    """Refuse a frame in which runs of one dataset and encoder follow several recipe families.

    Raises:
        ConfigError: Naming the families, and what to write to compare them all the same.
    """
    if params.comparison.recipes == "mixed":
        return
    for (dataset, encoder), rows in frame.groupby(["dataset", "encoder"], sort=False):
        families = list(rows["recipe"].unique())
        if len(families) > 1:
            raise ConfigError(
                f"frame.csv: runs on dataset {dataset} with encoder {encoder} follow recipes of "
                f"the families {', '.join(families)}; expected one, unless params.yaml says "
                '"comparison: {recipes: mixed}"'
            )


def comparison_notes(params: Params, table: Table) -> list[str]:
    """A note for labels, and one per dataset and encoder whose rows mix recipe families."""
    named = runs_by_name(params)
    mixed: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in table.rows:
        family = named[row][0].spec.recipe.family
        mixed.setdefault(row[:2], {}).setdefault(family, []).append(row[2])
    notes = [LABELS] if any(row[2].endswith(MARK) for row in table.rows) else []
    for (dataset, encoder), families in mixed.items():
        if len(families) > 1:
            listed = "; ".join(f"{name}: {', '.join(rows)}" for name, rows in families.items())
            notes.append(
                f"Recipes of several families are mixed on {dataset}, {encoder}, so that a "
                f"difference between rows may be the recipe's ({listed})."
            )
    return notes
