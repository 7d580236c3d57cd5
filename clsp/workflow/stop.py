"""Ends Snakemake with the suite's own messages and exit codes."""

import sys
from collections.abc import Callable
from typing import Any

from clsp.runtime.errors import ClspError


def or_stop(check: Callable[..., Any], *arguments: Any) -> Any:
    """Call a check while Snakemake parses; if it objects, print why and exit with its code."""
    try:
        return check(*arguments)
    except ClspError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
