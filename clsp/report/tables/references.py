"""The table of references with labels: supervised, class-conditional, same-class positives."""

import pandas as pd

from clsp.config.schema import Params
from clsp.report import judged
from clsp.report.cells import Table
from clsp.report.published import PublishedNumbers

TITLE = "References that use labels, beside the label-free runs of their methods"


def select(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the frame that this table may show."""
    return judged.select(frame)


def build(params: Params, frame: pd.DataFrame, published: PublishedNumbers) -> Table:
    """Every row that uses labels, and the other rows of the methods behind them."""
    used = frame["uses_labels"] == "yes"
    shown = frame[judged.rows_of_methods(frame, used)]
    if shown.empty:
        return Table(TITLE, [], notes=["Nothing to show: no run of params.yaml uses labels."])
    return judged.build_table(params, TITLE, shown, published, others=judged.uses_labels)
