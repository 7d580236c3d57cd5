"""How long a server is waited for, and how slow it may be."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from clsp.data.request import SlowError


@dataclass(frozen=True)
class Patience:
    """How long a server is given; tests shorten it.

    Attributes:
        timeout: Seconds without a byte.
        window: Seconds over which the rate is measured.
        rate: Bytes per second below which a server is given up.
        tries: Failures in a row, without new bytes, that a server is allowed.
        pause: Seconds before the second try; doubled each time.
        longest: Seconds that a pause may have, also at the server's wish.
        step: Bytes that count as progress.
        schemes: Of the addresses; only tests widen them.
        sleep: Waits.
        clock: Tells the time, seconds.
    """

    timeout: float = 60.0
    window: float = 60.0
    rate: float = 8192.0
    tries: int = 5
    pause: float = 1.0
    longest: float = 120.0
    step: int = 1 << 20
    schemes: tuple[str, ...] = ("https",)
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


PATIENCE = Patience()


class Pace:
    """Notices a server that sends too slowly to be worth waiting for."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self.since, self.bytes = patience.clock(), 0

    def add(self, count: int) -> None:
        """Count bytes.

        Raises:
            SlowError: If the last window brought too few.
        """
        self.bytes += count
        took = self.patience.clock() - self.since
        if took < self.patience.window:
            return
        if self.bytes < self.patience.rate * took:
            raise SlowError(f"sent {self.bytes} bytes in {took:.0f} s, too slow to wait for")
        self.since, self.bytes = self.patience.clock(), 0
