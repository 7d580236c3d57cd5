"""Quality of banks against the interpolation weight."""

import pandas as pd

from clsp.config.schema import Params
from clsp.report.figure import Drawing
from clsp.report.quality_figure import draw_quality
from clsp.report.records import Records

TITLE = "Quality of banks by the interpolation weight"


def draw(params: Params, records: Records, frame: pd.DataFrame) -> Drawing:
    """Distance, likeness, diversity, memorisation and label agreement."""
    return draw_quality(params, frame, "interpolation_weight")
