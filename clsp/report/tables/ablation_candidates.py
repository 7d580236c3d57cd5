"""The ablation over the number of synthetic candidates per anchor."""

import pandas as pd

from clsp.config.schema import Params
from clsp.report import ablation
from clsp.report.cells import Table
from clsp.report.published import PublishedNumbers

TITLE = "Ablation of the number of synthetic candidates per anchor, top-1 accuracy in percent"


def select(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the frame that this table shows."""
    return ablation.select(frame)


def build(params: Params, frame: pd.DataFrame, published: PublishedNumbers) -> Table:
    """One row per value; no published number of this ablation is known."""
    return ablation.build_table(params, frame, "candidates", TITLE)
