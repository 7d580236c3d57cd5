"""Short jobs of one workflow run share what they import.

Importing torch, torchvision and MLflow takes seconds, as long as many a job computes. Snakemake
therefore starts one process that imports what jobs need, when the first of them needs it, and forks
one child per job. The job itself, `python -m clsp STAGE --flags`, stays as it is: it hands its
arguments and standard streams over, passes signals on, and ends as its child ends (delegate.py).

Nothing depends on this process. A job that was started under other circumstances, by other code or
where the process is gone runs by itself, with the same result: the child is a fresh fork of a
process with one thread that has imported modules and done nothing else. It exits after its job.
"""

import atexit
import contextlib
import gc
import json
import logging
import os
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from clsp.workflow.handover import (
    GO,
    LENGTH,
    PATIENCE,
    PER_JOB,
    READY,
    REFUSED,
    ROOT,
    SOCKET,
    STATUS,
    SWITCH,
    address,
    circumstances,
    receive,
    same_user,
)

# What Snakemake sets for a job with one thread, as nearly all are.
THREADS = ("OMP", "GOTO", "OPENBLAS", "MKL", "NUMEXPR")
THREAD_VARIABLES = (*(f"{name}_NUM_THREADS" for name in THREADS), "VECLIB_MAXIMUM_THREADS")
# jemalloc, inside pyarrow, holds its locks over a fork and starts its thread anew in the child.
FORK_SAFE = {"jemalloc_bg_thd"}

log = logging.getLogger(__name__)

_STARTED: list[tuple[subprocess.Popen[bytes], int]] = []  # the process, and the pipe that holds it


def code_state() -> dict[str, tuple[int, int]]:
    """Time stamp and size of every file of the package."""
    found = {}
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in files:
            state = Path(folder, name).stat()
            found[f"{folder}/{name}"] = (state.st_mtime_ns, state.st_size)
    return found


def other_threads() -> list[str]:
    """Names of the threads of this process but the main one, Python's and those of libraries."""
    tasks = Path("/proc/self/task").iterdir()
    return [(t / "comm").read_text().strip() for t in tasks if t.name != str(os.getpid())]


def _supported() -> bool:
    """Whether this system is Linux 5.3 or later, where a process can be held by a descriptor."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def start(prefix: str, file: Path) -> None:
    """Start the process, which ends with this one. Called by Snakemake before the first job.

    Args:
        prefix: Shell text that every job's command begins with.
        file: Where it writes what it has to say.
    """
    if os.environ.get(SWITCH) == "0" or not _supported():
        return
    name = f"clsp-{secrets.token_hex(8)}"
    ended, alive = os.pipe()  # reads as ended once this process is gone, in whatever way
    file.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")}
    with socket.socket(socket.AF_UNIX) as listener, open(file, "wb") as stream:
        listener.bind(address(name))
        listener.listen(128)
        # The same shell as a job's, so that both see one environment.
        process = subprocess.Popen(
            ["bash", "-c", f"{prefix}exec python -m clsp share-process {listener.fileno()}"],
            env=environment,
            stdin=ended,
            stdout=stream,
            stderr=stream,
            pass_fds=[listener.fileno()],
            start_new_session=True,  # Ctrl-C is for the jobs, which pass it on
        )
    os.close(ended)
    os.environ[SOCKET] = name
    _STARTED.append((process, alive))


def stop() -> None:
    """End the process before this one ends. Called by Snakemake after the last job."""
    while _STARTED:
        process, alive = _STARTED.pop()
        os.close(alive)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)


class _Server:
    """The process that forks.

    Args:
        listener: Where jobs knock.
        prepare: Imports what a job with these arguments needs.
    """

    def __init__(self, listener: socket.socket, prepare: Callable[[list[str]], None]) -> None:
        self.listener, self.prepare = listener, prepare
        self.code, self.circumstances = code_state(), circumstances()
        self.running: dict[int, socket.socket] = {}  # child -> the job that waits for it
        self.selector = selectors.DefaultSelector()
        self.awake, self.wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self.wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for source in (sys.stdin.fileno(), self.awake, listener):
            self.selector.register(source, selectors.EVENT_READ)

    def serve(self) -> list[str] | None:
        """Until Snakemake is gone; returns in each child, with the arguments of its job."""
        wanted = True
        while wanted or self.running:
            for key, _ in self.selector.select():
                if key.fileobj == sys.stdin.fileno():  # what still runs was told by the jobs
                    wanted = False
                    self.selector.unregister(sys.stdin.fileno())
                elif key.fileobj == self.awake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self.awake, 4096)
                    self._reap()
                elif key.fileobj is self.listener:
                    arguments = self._welcome()
                    if arguments is not None:
                        return arguments
                else:
                    self._abandoned(key.fileobj)
        return None

    def _reap(self) -> None:
        for pid in list(self.running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                channel = self.running.pop(pid)
                with contextlib.suppress(OSError):
                    channel.sendall(STATUS.pack(status))
                self._close(channel)

    def _abandoned(self, channel: socket.socket) -> None:
        """The job of a child was killed; a job that is killed computes no further."""
        self._reap()  # it may have ended in the meantime
        for pid, owner in self.running.items():
            if owner is channel:
                os.kill(pid, signal.SIGKILL)
                self.selector.unregister(channel)

    def _close(self, channel: socket.socket) -> None:
        with contextlib.suppress(KeyError):
            self.selector.unregister(channel)
        channel.close()

    def _welcome(self) -> list[str] | None:
        """Take one job in: its arguments in the child, None here."""
        channel, _ = self.listener.accept()
        if not same_user(channel):  # anyone on this machine can find the address
            channel.close()
            return None
        channel.settimeout(PATIENCE)
        streams: list[int] = []
        try:
            head, streams, _, _ = socket.recv_fds(channel, LENGTH.size, 3)
            head += receive(channel, LENGTH.size - len(head))
            request = json.loads(receive(channel, *LENGTH.unpack(head)))
            refusal = self._refusal(request)
            if refusal is not None:
                log.info("%s runs by itself: %s", request["arguments"][0], refusal)
                channel.sendall(REFUSED)
            else:
                channel.sendall(READY)
                if receive(channel, 1) == GO:
                    return self._fork(channel, streams, request)
        except (OSError, ValueError) as error:  # the job has gone away
            log.info("a job was not taken: %s", error)
        finally:
            for stream in streams:
                os.close(stream)
        if channel not in self.running.values():
            channel.close()
        return None

    def _refusal(self, request: dict[str, Any]) -> str | None:
        """Why a job cannot be taken, or None after everything that it needs is imported."""
        theirs = request["circumstances"]
        if theirs != self.circumstances:
            one, two = ({**each, **each["environment"]} for each in (theirs, self.circumstances))
            names = {key for key in {*one, *two} if one.get(key) != two.get(key)}
            names = names - {"environment"} or names
            return f"it was started with another {', '.join(sorted(names))}"
        try:
            self.prepare(request["arguments"])
        except Exception as error:  # the job will meet it too, and say so in its own log
            return f"{type(error).__name__}: {error}"
        if code_state() != self.code:  # asked last: what was imported just now counts too
            return "the code has been edited"
        unsafe = set(other_threads()) - FORK_SAFE
        if unsafe:
            return f"an imported library has started the threads {', '.join(sorted(unsafe))}"
        return None

    def _fork(
        self, channel: socket.socket, streams: list[int], request: dict[str, Any]
    ) -> list[str] | None:
        gc.collect()
        gc.freeze()  # the collector of a child would otherwise copy every page
        parent, pid = os.getpid(), os.fork()
        if pid == 0:
            self._become(streams, request)
            channel.close()
            if os.getppid() != parent:
                os._exit(128 + signal.SIGTERM)
            return request["arguments"]
        try:
            handle = os.pidfd_open(pid)
        except OSError:  # no descriptor left: nobody could wait for the child
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        channel.setblocking(True)
        self.running[pid] = channel
        log.info("%s: process %d", request["arguments"][0], pid)
        self.selector.register(channel, selectors.EVENT_READ)
        try:
            socket.send_fds(channel, [GO], [handle])
        finally:
            os.close(handle)
        return None

    def _become(self, streams: list[int], request: dict[str, Any]) -> None:
        """Make this process what the job would be by itself."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.selector.close()
        self.listener.close()
        for owner in self.running.values():
            owner.close()
        os.close(self.awake)
        os.close(self.wake)
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
        for name in PER_JOB:
            os.environ.pop(name, None)
        os.environ.update(request["variables"])
        sys.argv[1:] = request["arguments"]
        tempfile.tempdir = None  # looked up again, in the job's variables


class _Ending:
    """Ends this process without taking apart what it has imported.

    A child would first copy all that memory. Registered before anything else, so that it runs after
    whatever else is registered for the end.
    """

    def __init__(self) -> None:
        self.code = 1  # of an exception that nobody catches
        atexit.register(self)

    def __call__(self) -> None:
        """The last act."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(self.code)


def serve(
    number: str, prepare: Callable[[list[str]], None], run: Callable[[list[str]], NoReturn]
) -> None:
    """Body of `python -m clsp share-process`.

    Args:
        number: Descriptor of the socket to listen at.
        prepare: Imports what a job with these arguments needs.
        run: Runs a job and ends the process with its exit code.
    """
    ending = _Ending()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with socket.socket(fileno=int(number)) as listener:
        arguments = _Server(listener, prepare).serve()
    if arguments is None:
        ending.code = 0
        return
    for handler in list(logging.root.handlers):  # the job sets up its own
        logging.root.removeHandler(handler)
    try:
        run(arguments)
    except SystemExit as end:
        ending.code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
