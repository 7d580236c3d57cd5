"""A tiny bank, its dataset and a random encoder."""

from frozen import make_dataset, make_run, on_cpu
from measuring import make_bank, measure

__all__ = ["make_bank", "make_dataset", "make_run", "measure", "on_cpu"]
