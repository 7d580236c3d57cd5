"""A job that is told to end finishes the step it is in, so that its state can be saved whole."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Whether the process was told to end.

    Attributes:
        number: Of the signal, or 0.
    """

    def __init__(self, orphaned: Callable[[], bool]) -> None:
        self.number = 0
        self.orphaned = orphaned

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal: remember the first one, obey the second one at once."""
        if self.orphaned():
            os._exit(128 + number)  # the job is gone, and another may already work on its files
        if self.number:
            raise SystemExit(128 + number)
        self.number = number


@contextlib.contextmanager
def stoppable(orphaned: Callable[[], bool] = lambda: False) -> Iterator[Stop]:
    """Hold back SIGTERM and SIGINT; whoever asks the yielded object ends in its own time.

    Signals reach the main thread only; elsewhere nothing changes.

    Args:
        orphaned: Tells whether the process that this one works for has died.
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
