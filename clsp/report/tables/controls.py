"""The table of extra-view controls: is a synthetic positive better than a third ordinary view?"""

import pandas as pd

from clsp.config.schema import Params
from clsp.report import judged
from clsp.report.cells import Table
from clsp.report.published import PublishedNumbers

TITLE = "Controls: no extra view, a third augmented view, a synthetic positive"
SOURCES = ("none", "augmentation", "bank")


def select(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the frame that this table may show."""
    return judged.select(frame)


def build(params: Params, frame: pd.DataFrame, published: PublishedNumbers) -> Table:
    """Label-free rows of every method that is run with a third augmented view too."""
    source = frame["positives"].map({k: entry.source for k, entry in params.positives.items()})
    controlled = judged.rows_of_methods(frame, source == "augmentation")
    shown = frame[source.isin(SOURCES) & (frame["uses_labels"] == "no") & controlled]
    if shown.empty:
        why = "Nothing to show: no grid of params.yaml runs a method with a third augmented view."
        return Table(TITLE, [], notes=[why])
    return judged.build_table(params, TITLE, shown, published)
