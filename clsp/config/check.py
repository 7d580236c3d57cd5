"""Validate a params.yaml and list what it asks for: `python -m clsp check [FILE]`."""

import argparse
import sys
from collections import Counter
from pathlib import Path

from clsp.config.foreign import expand_imported
from clsp.config.grid import expand_runs
from clsp.config.load import load_params, read_yaml
from clsp.config.plan import expected_jobs


def main(argv: list[str]) -> int:
    """Print the runs, the imported encoders and job counts, or the first problem.

    Raises:
        ConfigError: Naming the key path, what was found and what was expected.
    """
    parser = argparse.ArgumentParser(prog="python -m clsp check", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=Path("params.yaml"))
    arguments = parser.parse_args(argv)
    params = load_params(read_yaml(arguments.file), str(arguments.file))
    for run in expand_runs(params).values():
        sys.stdout.write(f"{run.slug}  {run.label}\n")
    for imported in expand_imported(params).values():
        sys.stdout.write(f"{imported.slug}  {imported.label} (imported: {imported.spec.path})\n")
    counts = Counter(job.stage for job in expected_jobs(params))
    for stage, count in counts.items():
        sys.stdout.write(f"{count:6} {stage}\n")
    return 0
