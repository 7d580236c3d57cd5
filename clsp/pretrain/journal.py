"""The step log of a run; values stay on the device until a whole epoch is written at once."""

from typing import Any

import torch
from torch import Tensor

from clsp.runtime.history import History


class Journal:
    """Collects one record per step.

    Args:
        history: Receives the records.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.waiting: list[tuple[int, dict[str, float | int], dict[str, Tensor]]] = []

    def add(self, step: int, known: dict[str, float | int], scalars: dict[str, Tensor]) -> None:
        """Note one step: numbers known on the host, and scalars on the device."""
        self.waiting.append((step, known, {k: v.detach() for k, v in scalars.items()}))

    def flush(self) -> None:
        """Copy what waits in one transfer, and write it."""
        if not self.waiting:
            return
        columns = [v.double() for _, _, scalars in self.waiting for v in scalars.values()]
        numbers = iter(torch.stack(columns).tolist())
        for step, known, scalars in self.waiting:
            self.history.log(step, **known, **{name: next(numbers) for name in scalars})
        self.waiting.clear()

    @property
    def records(self) -> list[dict[str, Any]]:
        """Everything written so far."""
        return self.history.records
