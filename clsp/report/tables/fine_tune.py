"""The fine-tuning table: all weights trained on every downstream dataset."""

import pandas as pd

from clsp.config.schema import Params
from clsp.report import downstream
from clsp.report.cells import Table
from clsp.report.published import PublishedNumbers

TITLE = "Transfer by fine-tuning of all weights, in percent"


def select(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the frame that this table shows."""
    return downstream.select(frame, "fine_tune")


def build(params: Params, frame: pd.DataFrame, published: PublishedNumbers) -> Table:
    """One row per (dataset, encoder, label); no published value is known."""
    judged = params.evaluation.transfer
    tuned = judged and judged.fine_tune
    if not tuned or frame.empty:
        return Table(TITLE, [], notes=["Nothing to show: params.yaml asks for no fine-tuning."])
    cells = downstream.build_cells(frame)
    chosen_on = downstream.validation_note(tuned.validation, tuned.validation_fraction)
    notes = [
        *downstream.metric_notes(cells),
        downstream.dataset_note(params),
        f"All weights and a new linear layer are trained for {tuned.epochs} epochs. Learning rate "
        f"({len(tuned.learning_rates)} values) and weight decay ({len(tuned.weight_decays)}) are "
        f"chosen on {chosen_on}; then the encoder is tuned anew on training and validation images.",
        downstream.rank_note(frame),
        "No fine-tuning result of the paper is known to us, so none is printed beside.",
    ]
    return Table(TITLE, cells, notes=notes)
