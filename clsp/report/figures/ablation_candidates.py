"""Accuracy against the number of synthetic candidates per anchor."""

import pandas as pd

from clsp.config.schema import Params
from clsp.report.ablation_figure import draw_ablation
from clsp.report.figure import Drawing
from clsp.report.records import Records

TITLE = "Ablation of the number of synthetic candidates per anchor"


def draw(params: Params, records: Records, frame: pd.DataFrame) -> Drawing:
    """Linear probe and kNN, mean and spread over seeds."""
    return draw_ablation(params, frame, "candidates")
