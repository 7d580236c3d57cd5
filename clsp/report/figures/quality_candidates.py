"""Quality of banks against the number of candidates."""

import pandas as pd

from clsp.config.schema import Params
from clsp.report.figure import Drawing
from clsp.report.quality_figure import draw_quality
from clsp.report.records import Records

TITLE = "Quality of banks by the number of candidates"


def draw(params: Params, records: Records, frame: pd.DataFrame) -> Drawing:
    """Distance, likeness, diversity, memorisation and label agreement."""
    return draw_quality(params, frame, "candidates")
