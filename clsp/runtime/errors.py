"""Errors a user can act on. The CLI prints their message alone and exits with their code."""


class ClspError(Exception):
    """Base of every error that is reported in one message, without a traceback."""

    exit_code = 1


class DivergedError(ClspError):
    """Training turned non-finite and stopped before the update that would have spread it (1)."""


class ConfigError(ClspError):
    """The request is wrong: an unknown key or name, or a value out of range (exit code 2)."""

    exit_code = 2


class IncompleteError(ClspError):
    """The work cannot be judged or done now: missing records, or somebody else is at it (3)."""

    exit_code = 3


class DataError(ClspError):
    """Files or the environment are wrong: missing, corrupt, unreadable, or no GPU (exit code 4)."""

    exit_code = 4


class ExhaustedError(DataError):
    """The device or this machine has no memory left; nothing is made smaller to go on (4)."""


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's, or torch's on a GPU or a CPU."""
    named = type(error).__name__ == "OutOfMemoryError"  # torch's; not imported here for its sake
    return isinstance(error, MemoryError) or named or "can't allocate memory" in str(error)
