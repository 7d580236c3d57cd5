"""Tiny prepared datasets, and one thread: networks in these tests are tiny."""

import pytest
import torch
from frozen import make_dataset, on_cpu

__all__ = ["make_dataset", "on_cpu"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
