"""Accuracy against the interpolation weight of the bank."""

import pandas as pd

from clsp.config.schema import Params
from clsp.report.ablation_figure import draw_ablation
from clsp.report.figure import Drawing
from clsp.report.records import Records

TITLE = "Ablation of the interpolation weight of the bank"


def draw(params: Params, records: Records, frame: pd.DataFrame) -> Drawing:
    """Linear probe and kNN, mean and spread over seeds."""
    return draw_ablation(params, frame, "interpolation_weight")
