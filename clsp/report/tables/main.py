"""The main table: linear probe and weighted kNN of every label, on the dataset it is judged on."""

import pandas as pd

from clsp.config.schema import Params
from clsp.report import judged
from clsp.report.cells import Table
from clsp.report.published import PublishedNumbers

TITLE = "Linear evaluation and weighted kNN, accuracy in percent"


def select(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the frame that this table shows: ablations have tables of their own."""
    return judged.select(frame)


def build(params: Params, frame: pd.DataFrame, published: PublishedNumbers) -> Table:
    """One row per (dataset, encoder, label), then the published rows that nobody runs here."""
    return judged.build_table(params, TITLE, frame, published, others=lambda label: True)
