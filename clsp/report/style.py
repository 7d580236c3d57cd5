"""One look for every figure: legible in grey, safe for colour blindness, marked when a demo."""

import io

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from clsp.report.cells import DEMONSTRATION

WIDTH = 9.0  # inches
DPI = 150
GREY = "#595959"
# Colour, dash and marker together, so that lines stay apart in print and for every eye.
DASHES = ["", (4, 1.5), (1, 1), (3, 1, 1, 1), (5, 1, 1, 1, 1, 1), (2, 2)]
MARKERS = ["o", "s", "^", "D", "v", "P"]


def apply_style() -> None:
    """Set the house style; every figure calls it first."""
    import seaborn as sns  # with scipy more than a second, which no command pays that draws nothing

    sns.set_theme(style="whitegrid", context="notebook", palette="colorblind")
    plt.rcParams.update(
        {
            "font.family": "DejaVu Sans",
            "font.size": 10,
            "axes.titlesize": 10,
            "axes.labelsize": 9,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "legend.fontsize": 9,
            "axes.edgecolor": GREY,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
        }
    )


def colours(count: int) -> list[tuple[float, float, float]]:
    """Distinct colours that also differ in lightness."""
    import seaborn as sns  # see apply_style

    if count <= 10:
        return list(sns.color_palette("colorblind", count))
    return list(sns.color_palette("viridis", count + count // 4)[:count])  # not the palest


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
