"""What a killed run leaves behind, and how it is picked up again."""

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clsp.runtime.checkpoint import SAVE_EVERY, load_state, save_state
from clsp.runtime.errors import DivergedError

log = logging.getLogger(__name__)


@dataclass
class Position:
    """How far a run has come.

    Attributes:
        step: Optimizer steps done.
        records: Step log so far.
        middle: Tensors of the middle checkpoint, once that point has passed.
        terms: Names of the method's loss terms, once a step was taken.
    """

    step: int = 0
    records: list[dict[str, Any]] = field(default_factory=list)
    middle: dict[str, Tensor] | None = None
    terms: list[str] = field(default_factory=list)


def snapshot(method: nn.Module) -> dict[str, Tensor]:
    """A copy of everything the method remembers, on the CPU."""
    state = method.state_dict().items()
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state}


class Resume:
    """Saves state by the clock and restores it.

    Args:
        folder: The job's scratch folder.
        fingerprint: Of spec and inputs; state of another job is not resumed.
        method: Restored in place.
        optimizer: Restored in place.
    """

    def __init__(
        self, folder: Path, fingerprint: str, method: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        self.method, self.optimizer = method, optimizer
        self.saved = time.monotonic()

    def restore(self) -> Position:
        """Continue where an earlier attempt stopped, or start at 0.

        Raises:
            DataError: If the state is corrupt.
        """
        state = load_state(self.folder)
        if state is None:
            return Position()
        if state["fingerprint"] != self.fingerprint:
            log.info("%s holds the state of another spec or input: starting anew", self.folder)
            return Position()
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        log.info("resuming after step %d", state["step"])
        return Position(state["step"], state["records"], state["middle"], state["terms"])

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self.saved >= SAVE_EVERY

    @property
    def kept(self) -> str:
        """The last good state of this run, for a message."""
        state = load_state(self.folder)
        if state is None or state["fingerprint"] != self.fingerprint:
            return "no state had been saved yet"
        return f"the last good state, after step {state['step']}, is kept in {self.folder}"

    def refuse_broken(self, step: int) -> None:
        """Stop if the last update broke the weights.

        Raises:
            DivergedError: If a weight is NaN or infinite.
        """
        for name, parameter in self.method.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise DivergedError(
                    f"step {step}: {name} is no longer finite, so training stopped; {self.kept}"
                )

    def save(self, position: Position) -> None:
        """Save, unless the weights are no longer finite: the last good state then stays.

        Raises:
            DivergedError: If a weight is NaN or infinite.
        """
        self.refuse_broken(position.step)
        state = {
            "fingerprint": self.fingerprint,
            "step": position.step,
            "records": position.records,
            "middle": position.middle,
            "terms": position.terms,
            "method": snapshot(self.method),
            "optimizer": self.optimizer.state_dict(),
        }
        save_state(self.folder, state)
        self.saved = time.monotonic()
