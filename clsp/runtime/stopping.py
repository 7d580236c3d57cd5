"""A job that is told to end finishes the step it is in, so that its state can be saved whole."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)

# Seconds. Terminals and batch systems signal a job and its parents, and parents pass it on, so the
# same wish may arrive more than once; what comes later was meant.
ECHO = 2.0


class Stop:
    """Whether the process was told to end.

    Attributes:
        number: Of the signal, or 0.
    """

    def __init__(self, orphaned: Callable[[], bool] | None) -> None:
        self.number = 0
        self.noted = 0.0
        self.orphaned = orphaned

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal: remember the first one, obey the second one at once.

        A process that works for another leaves that to it: whoever started it kills what does not
        end.
        """
        if self.orphaned is not None and self.orphaned():
            os._exit(128 + number)  # the job is gone, and another may already work on its files
        now = time.monotonic()
        if not self.number:
            self.number, self.noted = number, now
        elif self.orphaned is None and now - self.noted >= ECHO:
            raise SystemExit(128 + number)


@contextlib.contextmanager
def stoppable(orphaned: Callable[[], bool] | None = None) -> Iterator[Stop]:
    """Hold back SIGTERM and SIGINT; whoever asks the yielded object ends in its own time.

    Signals reach the main thread only; elsewhere nothing changes.

    Args:
        orphaned: Of a process that works for another: tells whether that one has died.
    """
    stop = Stop(orphaned)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.note) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
