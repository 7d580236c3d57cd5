"""Memory that the runs of a params.yaml need: `python -m clsp memory [--configfile FILE]`."""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clsp.config.catalog import dataset_info
from clsp.config.execution import EXACT, switches
from clsp.config.grid import expand_runs
from clsp.config.load import load_params, read_yaml
from clsp.config.schema import DatasetSpec, Params, RunSpec
from clsp.pretrain.memory import GIB, Forecast, forecast

DEVICES = (16, 24, 40, 80)  # usual sizes of a GPU's memory, GB of 10^9 bytes
CLASSES = 1000  # taken where the catalogue does not know; only a supervised head depends on it
ABOUT = """
GiB: method, optimizer and one step of one process, views and workspace included. Pixels: training
images that lie on the device beside them, where their number is known. A bank lies there as well if
it takes at most a quarter of what is free. Last columns: about the largest batch of one process for
a GPU of so many GB; a method may ask for a batch that divides its queue. torch.compile needs less.
"""


@dataclass(frozen=True)
class Row:
    """One configuration in one precision."""

    names: tuple[str, ...]  # dataset, encoder, method, positives
    precision: str
    batch: int
    needed: Forecast  # at that batch
    double: Forecast  # at twice that batch
    pixels: int | None  # bytes

    def most(self, room: int) -> int:
        """About the largest batch that fits into so many bytes, on a straight line; 0 if none."""
        slope = (self.double.total - self.needed.total) / self.batch
        left = room - self.needed.total - (self.pixels or 0)
        return max(0, int(self.batch + left / slope))


def _counts(dataset: DatasetSpec) -> tuple[int, int | None]:
    """Classes and training images of a dataset, as far as the catalogue knows them."""
    known = list(dataset_info(dataset.kind).counts.values())
    if not known or dataset.options.get("source") == "miniature":
        return CLASSES, None
    fits = [c for c in known if all(dataset.options.get(k) == v for k, v in c.options.items())]
    chosen = (fits or known)[0]
    train = chosen.train if dataset.limit is None else min(chosen.train, dataset.limit)
    return chosen.classes, train


def _row(params: Params, names: tuple[str, ...], spec: RunSpec, precision: str) -> Row:
    dataset = params.datasets[spec.dataset]
    classes, train = _counts(dataset)
    pixels = None if train is None or dataset.encoded else train * 3 * dataset.size**2
    execution = switches(spec.execution).model_copy(update={"precision": precision})
    mine = spec.model_copy(update={"execution": None if execution == EXACT else execution})
    batch = spec.recipe.batch_size
    needed, double = (forecast(mine, classes, n, dataset.size, "cuda") for n in (batch, 2 * batch))
    return Row(names, precision, batch, needed, double, pixels)


def requirements(params: Params) -> Iterator[Row]:
    """Each distinct dataset, encoder, method and kind of positives, in both precisions."""
    seen = set()
    for run in expand_runs(params).values():
        axes = ("dataset", "encoder", "method", "positives")
        names = tuple(str(run.axes[axis]) for axis in axes)
        if names not in seen:
            seen.add(names)
            for precision in ("full", "bf16"):
                yield _row(params, names, run.spec, precision)


def _cells(row: Row) -> list[str]:
    pixels = "-" if row.pixels is None else f"{row.pixels / GIB:.2f}"
    fitting = [str(row.most(size * 10**9)) for size in DEVICES]
    needed = f"{row.needed.total / GIB:.2f}"
    return [*row.names, row.precision, str(row.batch), needed, pixels, *fitting]


def main(argv: list[str]) -> int:
    """Print a table; nothing is trained and no data are needed.

    Raises:
        ConfigError: If the file is wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m clsp memory", description=__doc__)
    parser.add_argument("--configfile", type=Path, default=Path("params.yaml"), metavar="FILE")
    given = parser.parse_args(argv)
    params = load_params(read_yaml(given.configfile), str(given.configfile))
    heads = ["dataset", "encoder", "method", "positives", "precision", "batch", "GiB", "pixels"]
    lines = [[*heads, *(f"{size} GB" for size in DEVICES)], *map(_cells, requirements(params))]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(padded).rstrip() + "\n")
    sys.stdout.write(ABOUT)
    return 0
