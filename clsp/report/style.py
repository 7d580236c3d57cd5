"""One look for every figure: legible in grey, safe for colour blindness, marked when a demo."""

import io

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from clsp.report.cells import DEMONSTRATION

WIDTH = 9.0  # inches
DPI = 150
GREY = "#595959"
# Colour, dash and marker together, so that lines stay apart in print and for every eye.
DASHES = ["", (4, 1.5), (1, 1), (3, 1, 1, 1), (5, 1, 1, 1, 1, 1), (2, 2)]
MARKERS = ["o", "s", "^", "D", "v", "P"]


# Ten colours that colour-blind eyes tell apart too: the palette "colorblind" of seaborn 0.13, after
# B. Wong, Nature Methods 8:441 (2011). Importing seaborn for it takes more than a second.
COLOURS = (
    *("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc"),
    *("#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9"),
)
INK, LINES = ".15", ".8"  # greys of text and of the grid behind the data
TICKS = {"major.size": 6.0, "major.width": 1.25, "minor.size": 4.0, "minor.width": 1.0}  # points
STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 1.25,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.titlesize": 10,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "grid.color": LINES,
    "grid.linewidth": 1.0,
    "legend.fontsize": 9,
    "legend.title_fontsize": 12,
    "lines.solid_capstyle": "round",
    "patch.edgecolor": "w",
    "patch.force_edgecolor": True,
    "savefig.facecolor": "white",
    "text.color": INK,
    "xtick.bottom": False,
    "xtick.color": INK,
    "xtick.labelsize": 8,
    "ytick.color": INK,
    "ytick.labelsize": 8,
    "ytick.left": False,
    # Not drawn, but labels keep their distance from them.
    **{f"{axis}tick.{name}": value for axis in "xy" for name, value in TICKS.items()},
}


def apply_style() -> None:
    """Set the house style; every figure calls it first."""
    plt.rcdefaults()
    plt.rcParams.update(STYLE)


def colours(count: int) -> list[tuple[float, float, float]]:
    """Distinct colours that also differ in lightness."""
    if count <= len(COLOURS):
        return [to_rgb(colour) for colour in COLOURS[:count]]
    steps = np.linspace(0, 1, count + 2)[1:-1]  # without the ends, which are hard to see
    return [tuple(colour[:3]) for colour in plt.get_cmap("viridis")(steps)]


def to_png(figure: Figure, demonstration: bool) -> bytes:
    """The figure as png bytes, the same for the same input; a demo carries its mark."""
    if demonstration:
        figure.text(
            0.5,
            0.5,
            "DEMONSTRATION",
            fontsize=38,
            color="black",
            alpha=0.07,
            rotation=24,
            ha="center",
            va="center",
            weight="bold",
        )
        figure.text(0.5, 1.01, DEMONSTRATION, fontsize=9, color="#8a1c1c", ha="center", va="bottom")
    stream = io.BytesIO()
    # Without the software's name and version the bytes depend on the drawing alone.
    figure.savefig(stream, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    return stream.getvalue()
