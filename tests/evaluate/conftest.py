"""Tiny prepared datasets, encoder artefacts and feature caches."""

from frozen import make_dataset, make_features, make_run, on_cpu

__all__ = ["make_dataset", "make_features", "make_run", "on_cpu"]
