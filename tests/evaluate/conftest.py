"""Tiny prepared datasets and encoder artefacts."""

from frozen import make_dataset, make_run, on_cpu

__all__ = ["make_dataset", "make_run", "on_cpu"]
