"""Progress of long work: a bar on a terminal, plain lines with rate and time left in a log."""

import os
import sys
import time
from typing import IO

from tqdm import tqdm

EVERY = 15.0  # seconds between plain lines


def _terminal() -> IO[str] | None:
    """The user's terminal, also when Snakemake has redirected stderr into the job's log."""
    if os.environ.get("CLSP_PROGRESS") == "plain":
        return None
    if sys.stderr.isatty():
        return sys.stderr
    try:
        return open("/dev/tty", "w")
    except OSError:
        return None


class Progress:
    """Counts steps of one job. Use as a context manager and call `step`.

    Args:
        label: What is being done, for example "pretrain digits.tiny.simclr.none.s0".
        total: Steps in all.
        unit: Name of a step, for example "step" or "image".
        done: Steps already done by an earlier attempt.
    """

    def __init__(self, label: str, total: int, unit: str, done: int = 0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = self.begun_at = done
        self.started = self.told = time.monotonic()
        stream = _terminal()
        self.bar = stream and tqdm(
            total=total,
            initial=done,
            desc=label,
            unit=unit,
            file=stream,
            leave=False,
            mininterval=0.5,
            dynamic_ncols=True,
        )
        self.plain = stream is not sys.stderr

    def step(self, count: int = 1, **values: float) -> None:
        """Record `count` finished steps and show the latest values, such as loss=1.23."""
        self.done += count
        now = time.monotonic()
        if self.bar is not None:
            if values:
                self.bar.set_postfix({k: f"{v:.4g}" for k, v in values.items()}, refresh=False)
            self.bar.update(count)
        if self.plain and now - self.told >= EVERY:
            self._tell(now, values)

    def due(self) -> bool:
        """Whether the next `step` prints a plain line; lets a loop skip work for its values."""
        return self.bar is not None or time.monotonic() - self.told >= EVERY

    def _tell(self, now: float, values: dict[str, float]) -> None:
        rate = (self.done - self.begun_at) / max(now - self.started, 1e-9)
        left = (self.total - self.done) / max(rate, 1e-9)
        shown = "".join(f", {k} {v:.4g}" for k, v in values.items())
        print(
            f"{self.label}: {self.unit} {self.done} of {self.total}{shown}, "
            f"{rate:.1f} {self.unit}/s, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )
        self.told = now

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *failure: object) -> None:
        if self.bar is not None:
            self.bar.close()
        if self.plain:
            self._tell(time.monotonic(), {})
