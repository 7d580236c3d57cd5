"""The step log of a run; values stay on the device until many steps are read at once."""

import math
from typing import Any

import torch
from torch import Tensor

from clsp.runtime.errors import DivergedError
from clsp.runtime.history import StepLog

# Steps at most between readings within an epoch: values that wait, and steps taken after one that
# is not finite, stay few, while the device is waited for no more than every few seconds.
READ_EVERY = 500
MUST_BE_FINITE = ("loss", "gradient_norm")


class Journal:
    """Collects one record per step.

    Args:
        history: Receives the records; None in a process that does not write, which still reads,
            so that it notices what its leader notices.
    """

    def __init__(self, history: StepLog | None) -> None:
        self.history = history
        self.last: dict[str, Any] = {}  # the latest record that was read
        self._waiting: list[tuple[int, dict[str, float | int], list[str], Tensor]] = []

    def add(self, step: int, known: dict[str, float | int], scalars: dict[str, Tensor]) -> None:
        """Note one step: numbers known on the host, and scalars on the device."""
        values = torch.stack([value.detach().double() for value in scalars.values()])
        self._waiting.append((step, known, list(scalars), values))

    @property
    def full(self) -> bool:
        """Whether so much waits that it is time to read."""
        return len(self._waiting) >= READ_EVERY

    def flush(self) -> None:
        """Copy what waits in one transfer, and append it to the log in one write.

        Raises:
            DivergedError: Naming the first step whose loss or gradient is not finite; the steps
                before it are logged, it and what came after are not.
        """
        if not self._waiting:
            return
        numbers = iter(torch.cat([values for *_, values in self._waiting]).tolist())
        records, broken = [], None
        for step, known, names, _ in self._waiting:
            record = {"step": step, **known, **{name: next(numbers) for name in names}}
            if not all(math.isfinite(record.get(name, 0.0)) for name in MUST_BE_FINITE):
                broken = record
                break
            records.append(record)
        latest = self._waiting[-1][0]
        self._waiting.clear()
        if records:
            self.last = records[-1]
            if self.history is not None:
                self.history.extend(records)
        if broken is not None:
            raise DivergedError(f"{describe(broken)} after step {latest}, when that was read")


def describe(record: dict[str, Any]) -> str:
    """A step that is not finite, with its rate and all other values that were taken."""
    known = ("step", "epoch")
    found = ", ".join(f"{name} {value:g}" for name, value in record.items() if name not in known)
    return (
        f"step {record['step']} (epoch {record['epoch']}): not finite ({found}), "
        "so training stopped"
    )
