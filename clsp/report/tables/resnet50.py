"""The ResNet-50 table: linear probe and weighted kNN of the larger encoder alone."""

import pandas as pd

from clsp.config.schema import Params
from clsp.report import judged
from clsp.report.cells import Table
from clsp.report.published import PublishedNumbers

TITLE = "Linear evaluation and weighted kNN of ResNet-50, accuracy in percent"


def select(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the frame that this table may show."""
    return judged.select(frame)


def build(params: Params, frame: pd.DataFrame, published: PublishedNumbers) -> Table:
    """One row per (dataset, encoder, label) of the encoders that are a ResNet-50."""
    large = [name for name, spec in params.encoders.items() if spec.architecture == "resnet50"]
    shown = frame[frame["encoder"].isin(large)]
    if shown.empty:
        return Table(TITLE, [], notes=["Nothing to show: no run of params.yaml is a ResNet-50."])
    return judged.build_table(params, TITLE, shown, published, others=lambda label: True)
