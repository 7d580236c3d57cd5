"""What a killed run leaves behind, and how it is picked up again."""

import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from clsp.runtime.checkpoint import SAVE_EVERY, StateWriter, host_copy, load_state
from clsp.runtime.errors import ConfigError, DivergedError
from clsp.runtime.history import StepLog
from clsp.runtime.team import ALONE, Team

log = logging.getLogger(__name__)
LOG = "history.jsonl"  # the step log, in the scratch folder


@dataclass
class Position:
    """How far a run has come.

    Attributes:
        step: Optimizer steps done.
        log_bytes: Length of the step log that belongs to them.
        middle: Tensors of the middle checkpoint, once that point has passed.
        terms: Names of the method's loss terms, once a step was taken.
    """

    step: int = 0
    log_bytes: int = 0
    middle: dict[str, Tensor] | None = None
    terms: list[str] = field(default_factory=list)


def snapshot(method: nn.Module) -> dict[str, Tensor]:
    """A copy of everything the method remembers, on the CPU."""
    copied = host_copy(method.state_dict())
    if any(tensor.is_cuda for tensor in method.state_dict().values()):
        torch.cuda.synchronize()
    return copied


class Resume:
    """Saves state by the clock and restores it; the writing itself is done by a thread.

    Args:
        folder: The job's scratch folder.
        fingerprint: Of spec and inputs; state of another job is not resumed.
        method: Restored in place.
        optimizer: Restored in place.
        team: Its leader writes for all.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        method: nn.Module,
        optimizer: torch.optim.Optimizer,
        team: Team = ALONE,
    ) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        self.method, self.optimizer, self.team = method, optimizer, team
        self.saved = time.monotonic()
        self._writer = StateWriter(folder)

    def restore(self) -> Position:
        """Continue where an earlier attempt stopped, or start at 0.

        Raises:
            ConfigError: If another number of processes wrote the state.
            DataError: If the state is corrupt.
        """
        state = load_state(self.folder)
        if state is None:
            return Position()
        if state["fingerprint"] != self.fingerprint:
            log.info("%s holds the state of another spec or input: starting anew", self.folder)
            return Position()
        if state["processes"] != self.team.size:
            raise ConfigError(
                f"pretrain-encoder: the state in {self.folder}, after step {state['step']}, is of "
                f"{state['processes']} processes, but this job has {self.team.size}; rounding "
                "depends on that number, so the result would be that of neither. Ask for "
                f"{state['processes']} again, or delete the folder to start anew"
            )
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        log.info("resuming after step %d", state["step"])
        return Position(state["step"], state["log_bytes"], state["middle"], state["terms"])

    def due(self) -> bool:
        """Whether it is time to save; a slow disk delays saving, not training.

        Of several processes the one that writes decides.

        Raises:
            DataError: If an earlier state could not be written.
        """
        self._writer.check()
        if not self.team.leads or (SAVE_EVERY and self._writer.busy):
            return False
        return time.monotonic() - self.saved >= SAVE_EVERY

    @property
    def kept(self) -> str:
        """The last good state of this run, for a message."""
        if not self.team.leads:  # the file may be replaced just now
            return f"what process 0 saved last is kept in {self.folder}"
        self._writer.wait()
        state = load_state(self.folder)
        if state is None or state["fingerprint"] != self.fingerprint:
            return "no state had been saved yet"
        return f"the last good state, after step {state['step']}, is kept in {self.folder}"

    def refuse_broken(self, step: int) -> None:
        """Stop if the last update broke the weights; one transfer from the device.

        Raises:
            DivergedError: If a weight is NaN or infinite.
        """
        named = dict(self.method.named_parameters())
        with torch.no_grad():
            largest = torch.stack(torch._foreach_norm(list(named.values()), math.inf)).tolist()
        for name, size in zip(named, largest, strict=True):
            if not math.isfinite(size):
                raise DivergedError(f"step {step}: {name} is no longer finite, so training stopped")

    def save(self, position: Position, written: StepLog | None = None) -> None:
        """Begin to save, unless the weights are no longer finite: the last good state then stays.

        Args:
            position: Where the run is; all that was logged up to there has been read.
            written: The step log, which goes to the disk before the state that counts on it.

        Raises:
            DivergedError: If a weight is NaN or infinite.
            DataError: If an earlier state could not be written.
        """
        self.refuse_broken(position.step)
        if self.team.leads:
            position.log_bytes = 0 if written is None else written.length
            state = {
                "fingerprint": self.fingerprint,
                "processes": self.team.size,
                "step": position.step,
                "log_bytes": position.log_bytes,
                "middle": position.middle,
                "terms": position.terms,
                "method": self.method.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            }
            self._writer.begin(state, None if written is None else written.sync)
        self.saved = time.monotonic()

    def close(self) -> None:
        """Wait until what was begun is on the disk.

        Raises:
            DataError: If it cannot be written.
        """
        self._writer.close()
