"""Record finished results with DVC: `python -m clsp snapshot` after a run."""

import argparse
import logging
import subprocess
import sys

from clsp.runtime.errors import DataError

log = logging.getLogger(__name__)


def _dvc(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip()
        raise DataError(f"dvc {' '.join(arguments)}: {reason}")


def main(argv: list[str]) -> int:
    """Commit every phase's results to DVC's cache, and push them if asked.

    Raises:
        DataError: With DVC's own message, for example outside a DVC repository.
    """
    parser = argparse.ArgumentParser(prog="python -m clsp snapshot", description=__doc__)
    parser.add_argument("stages", nargs="*", help="stages of dvc.yaml; all when left out")
    parser.add_argument("--push", action="store_true", help="also push to the default remote")
    arguments = parser.parse_args(argv)
    _dvc("commit", "-f", "-q", *arguments.stages)
    if arguments.push:
        _dvc("push", "-q", *arguments.stages)
    log.info("recorded in dvc.lock; commit that file to git to keep this state")
    return 0
