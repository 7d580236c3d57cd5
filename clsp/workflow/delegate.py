"""A job's side of the shared process (shared_process.py): hand over, pass signals on, end alike."""

import contextlib
import json
import os
import resource
import select
import signal
import socket
from types import FrameType

from clsp.workflow.handover import (
    GO,
    LENGTH,
    PATIENCE,
    PER_JOB,
    READY,
    SOCKET,
    STATUS,
    SWITCH,
    address,
    circumstances,
    receive,
    same_user,
)

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def offered() -> bool:
    """Whether this job was told of a shared process and may use it."""
    return SOCKET in os.environ and os.environ.get(SWITCH) != "0"


def delegate(arguments: list[str]) -> int | None:
    """Have a job done by the shared process.

    Args:
        arguments: Of the command line.

    Returns:
        The exit code, or None if the job has to be done here: the process is gone, it was started
        under other circumstances, or it died before the job was done. A job that ends by a signal
        ends this process by the same signal.
    """
    with socket.socket(socket.AF_UNIX) as channel:
        handle = _hand_over(channel, arguments)
        if handle is None:
            return None
        try:
            return _ended(*_wait(channel, handle))
        finally:
            os.close(handle)


def _hand_over(channel: socket.socket, arguments: list[str]) -> int | None:
    """A descriptor of the child that does the job, or None."""
    own = circumstances()
    # The child runs with what the shared process sees, which must be what this process sees.
    variables = {name: os.environ[name] for name in PER_JOB if name in os.environ}
    variables.pop(SOCKET)
    request = {"arguments": arguments, "circumstances": own, "variables": variables}
    body = json.dumps(request).encode()
    try:
        channel.settimeout(PATIENCE)
        channel.connect(address(os.environ[SOCKET]))
        if not same_user(channel):
            return None
        socket.send_fds(channel, [LENGTH.pack(len(body))], [0, 1, 2])
        channel.sendall(body)
        if receive(channel, 1) != READY:
            return None
        channel.sendall(GO)
        _, handles, _, _ = socket.recv_fds(channel, 1, 1)
        channel.setblocking(True)
    except OSError:
        return None
    return handles[0] if handles else None


def _wait(channel: socket.socket, handle: int) -> tuple[int | None, int]:
    """Pass signals on until the child has ended.

    Returns:
        Its wait status, or None if the shared process died with it; and the last signal passed on,
        or 0.
    """
    told = 0

    def pass_on(number: int, _frame: FrameType | None) -> None:
        nonlocal told
        told = number
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)

    before = {number: signal.signal(number, pass_on) for number in PASSED_ON}
    try:
        return STATUS.unpack(receive(channel, STATUS.size))[0], told
    except OSError:
        # The child is told to end by the kernel. Two must not work on one artefact: it goes first.
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        select.select([handle], [], [])
        return None, told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ended(status: int | None, told: int) -> int | None:
    if status is None:
        return 128 + told if told else None
    if os.WIFSIGNALED(status):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the child has left its own
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:  # which has no handler
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return os.waitstatus_to_exitcode(status)
