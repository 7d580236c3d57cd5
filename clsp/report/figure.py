"""Stage render-figure: one figure as png, with the numbers it shows as csv."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clsp.config.schema import FIGURES, Params
from clsp.report.cells import MARKS, marks
from clsp.report.collect import Name
from clsp.report.comparison import comparison_notes
from clsp.report.escape import write_csv
from clsp.report.records import Records
from clsp.report.table import read_frame
from clsp.report.verdict import rounded
from clsp.runtime import registry
from clsp.runtime.files import write_atomic
from clsp.runtime.stage import Files, Input, Outcome, Output

if TYPE_CHECKING:  # drawing takes half a second to import, which no command pays that draws nothing
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawing:
    """What a figure's plug-in returns.

    Attributes:
        figure: The drawing.
        columns: Columns of the csv; a figure with "label" has "dataset" and "encoder" too.
        rows: The numbers shown.
        caption: What is seen, for every reader.
        alt: What is seen, for readers who do not see it.
    """

    figure: "Figure"
    columns: tuple[str, ...]
    rows: list[dict[str, Any]]
    caption: str
    alt: str


def empty_drawing(reason: str) -> Drawing:
    """A figure that says why there is nothing to draw, instead of none."""
    from matplotlib.figure import Figure

    from clsp.report import style

    figure = Figure(figsize=(style.WIDTH, 1.2))
    figure.text(0.5, 0.5, reason, ha="center", va="center", color=style.GREY)
    return Drawing(figure, ("reason",), [{"reason": reason}], reason, reason)


def _shown(drawing: Drawing) -> list[Name]:
    """What a figure compares, if it compares anything."""
    if "label" not in drawing.columns:
        return []
    return [(str(row["dataset"]), str(row["encoder"]), row["label"]) for row in drawing.rows]


def draw_figure(
    spec: Params, figure: str, records: Records, frame: str, expectations: dict[str, Path]
) -> tuple[Drawing, str, dict[str, Any]]:
    """Draw a figure in memory.

    Args:
        spec: The validated parameters.
        figure: Name of a module in clsp/report/figures.
        records: Of the results of one profile.
        frame: Text of frame.csv.
        expectations: Files of reports/spec by name, for figures that set READS_EXPECTATIONS.

    Returns:
        The drawing, its numbers as csv, and what is told of it. The caption ends with what the
        labels shown do not share: recipes, and labels.
    """
    from clsp.report import style

    module = registry.load(FIGURES, figure, "figure")
    style.apply_style()
    reads = getattr(module, "READS_EXPECTATIONS", False)
    more: dict[str, Any] = {"expectations": expectations} if reads else {}
    drawing: Drawing = module.draw(spec, records, read_frame(frame), **more)
    notes = comparison_notes(spec, _shown(drawing))
    columns, mark = (*drawing.columns, *MARKS), marks(spec.demonstration, notes)
    # Means differ in their last bits from machine to machine, and the audit compares the text.
    numbers = write_csv(columns, [rounded(row) | mark for row in drawing.rows])
    caption = " ".join([drawing.caption, *notes])
    told = {"figure": figure, "title": module.TITLE, "caption": caption, "alt": drawing.alt}
    return drawing, numbers, told


def render_figure(
    spec: Params,
    figure: str,
    root: Path,
    frame: Input,
    expectations: Files,
    csv: Output,
    png: Output,
) -> Outcome:
    """Render one figure.

    Args:
        spec: The validated parameters.
        figure: Name of a module in clsp/report/figures.
        root: Folder with the results of one profile.
        frame: Made by collect-results.
        expectations: Files of reports/spec, for figures that set READS_EXPECTATIONS.
        csv: The numbers shown.
        png: The drawing.
    """
    from clsp.report import style

    text = frame.path("frame.csv").read_text(encoding="utf-8")
    known = {path.name: path for path in expectations}
    drawing, numbers, told = draw_figure(spec, figure, Records(root), text, known)
    write_atomic(csv, numbers)
    write_atomic(png, style.to_png(drawing.figure, spec.demonstration))
    return Outcome(counters={"rows": len(drawing.rows)}, facts=told)
