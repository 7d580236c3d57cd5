"""What jobs and the shared process say to each other, and what both must have in common.

A job connects and sends its standard streams and, as JSON, its arguments, circumstances and
variables. READY says that all it needs is imported, GO asks for the child, the answer to that
carries a descriptor of the child, and STATUS ends it.
"""

import os
import socket
import struct
import sys
from pathlib import Path
from typing import Any

SWITCH = "CLSP_SHARED_PROCESS"  # "0": every job runs by itself
SOCKET = "CLSP_SHARED_SOCKET"  # set by `shared_process.start`: where jobs find the process
ROOT = Path(__file__).parents[1]

READY, REFUSED, GO = b"+", b"-", b"!"
PATIENCE = 60.0  # seconds that one side waits for the other before the job starts
LENGTH, STATUS = struct.Struct("!Q"), struct.Struct("!i")
# Variables that no library reads when it is imported: a job brings its own values along.
PER_JOB = (
    "CLSP_PROCESSES",
    "CLSP_DECODE_THREADS",
    *("TMPDIR", "TMP", "TEMP", "TEMPDIR"),
    *("_", "PWD", "OLDPWD", "SHLVL", SWITCH, SOCKET),
)


def circumstances() -> dict[str, Any]:
    """Everything that an import may depend on; a job is taken only if it agrees in all of it."""
    mask = os.umask(0)
    os.umask(mask)
    return {
        "python": sys.executable,
        "flags": [*sys.flags, *sys.warnoptions, *sorted(map(str, sys._xoptions.items()))],
        "path": sys.path,
        "package": str(ROOT),
        "folder": str(Path.cwd()),
        "umask": mask,
        "environment": {k: v for k, v in sorted(os.environ.items()) if k not in PER_JOB},
    }


def address(name: str) -> str:
    """The socket's address. It is abstract: no file remains, whoever is killed."""
    return f"\0{name}"


def same_user(channel: socket.socket) -> bool:
    """Whether the other side runs under this user."""
    credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", credentials)[1] == os.getuid()


def receive(channel: socket.socket, count: int) -> bytes:
    """Exactly so many bytes.

    Raises:
        ConnectionError: If the other side closes before.
    """
    parts = bytearray()
    while len(parts) < count:
        part = channel.recv(count - len(parts))
        if not part:
            raise ConnectionError("closed by the other side")
        parts += part
    return bytes(parts)
