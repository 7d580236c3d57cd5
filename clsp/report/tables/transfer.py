"""The transfer table: logistic regression on frozen features of every downstream dataset."""

import pandas as pd

from clsp.config.schema import Params
from clsp.report import downstream
from clsp.report.cells import Table
from clsp.report.published import PublishedNumbers

TITLE = "Transfer by L2-regularised logistic regression, in percent"


def select(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the frame that this table shows: runs and floors."""
    return downstream.select(frame, "transfer")


def build(params: Params, frame: pd.DataFrame, published: PublishedNumbers) -> Table:
    """One row per (dataset, encoder, label); no published transfer value is known."""
    judged = params.evaluation.transfer
    if judged is None or frame.empty:
        return Table(TITLE, [], notes=["Nothing to show: params.yaml asks for no transfer."])
    cells, fit = downstream.build_cells(frame), judged.logistic
    chosen_on = downstream.validation_note(fit.validation, fit.validation_fraction)
    notes = [
        *downstream.metric_notes(cells),
        downstream.dataset_note(params),
        f"The regulariser is one of {fit.count}, chosen on {chosen_on}; then the classifier is "
        "refit on training and validation images.",
        downstream.rank_note(frame),
        *downstream.convergence_notes(frame),
        "The paper's transfer table was not readable for us, so none is printed beside.",
    ]
    return Table(TITLE, cells, notes=notes)
