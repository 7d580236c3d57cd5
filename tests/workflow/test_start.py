"""A command imports what it needs and no more, so that it starts at once."""

import subprocess
import sys

import pytest

from clsp.__main__ import COMMANDS, ON_GPU, STAGES

HEAVY = {
    *("torch", "torchvision", "diffusers", "mlflow"),
    *("sklearn", "scipy", "matplotlib", "seaborn", "pandas"),
}
# What a command cannot do without.
NEEDED = {
    "fetch-dataset": set(),
    "prepare-dataset": set(),
    "check-data": set(),
    "count-duplicates": set(),
    "gather-bank": set(),
    "collect-results": {"pandas"},
    "judge-claims": {"pandas"},
    "render-table": {"pandas"},
    "render-figure": {"pandas"},
    "render-report": {"pandas"},
    **{command: set() for command in COMMANDS},
    "audit": {"pandas"},
    "bundle": {"pandas"},
}
TORCH = {*ON_GPU, "import-denoiser", "import-encoder", "memory"}
NEEDED = {command: libraries for command, libraries in NEEDED.items() if command not in TORCH}
PROGRAM = """
import contextlib, io, sys
from clsp.__main__ import main
heavy = set(sys.argv[2].split(","))
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main([sys.argv[1], "--help"])
print(*sorted(heavy & set(sys.modules)))
"""


def test_every_stage_is_judged():
    assert {*STAGES, *COMMANDS} == {*NEEDED, *TORCH}


@pytest.mark.parametrize("command", NEEDED)
def test_a_command_imports_only_what_it_needs(command):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, command, ",".join(HEAVY)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= NEEDED[command]
