"""Progress of long work: a bar on a terminal, plain lines with rate and time left in a log."""

import os
import sys
import time
from typing import IO

from tqdm import tqdm

EVERY = 15.0  # seconds between plain lines
BYTES = "B"  # a unit that is shown in kB, MB and GB


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


def _amount(count: float) -> str:
    """Bytes, in a unit that people read."""
    return f"{tqdm.format_sizeof(count)}B"


class Progress:
    """Counts steps of one job. Use as a context manager and call `step`.

    Args:
        label: What is being done, for example "pretrain digits.tiny.simclr.none.s0".
        total: Steps in all; 0 if that is not known.
        unit: Name of a step, for example "step" or "image"; "B" for bytes.
        done: Steps already done by an earlier attempt.
    """

    def __init__(self, label: str, total: int, unit: str, done: int = 0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = self.begun_at = done
        self.started = self.told = time.monotonic()
        stream = _terminal()
        self.bar = stream and tqdm(
            total=total or None,
            initial=done,
            desc=label,
            unit=unit,
            unit_scale=unit == BYTES,
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
        shown = "".join(f", {k} {v:.4g}" for k, v in values.items())
        known = self.total and rate > 0
        left = f", {(self.total - self.done) / rate:.0f} s left" if known else ""
        if self.unit == BYTES:
            counted = f"{_amount(self.done)} of {_amount(self.total) if self.total else '?'}"
            pace = f"{_amount(rate)}/s"
        else:
            counted, pace = f"{self.unit} {self.done} of {self.total}", f"{rate:.1f} {self.unit}/s"
        print(
            f"{self.label}: {counted}{shown}, {pace}{left}",
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
