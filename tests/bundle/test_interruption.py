"""Nothing half-written stays under a final name, and no temporary folder stays behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bundling import pack, params_file
from faults import Tree
from results_tree import REPO

from clsp.runtime.errors import DataError

STOP = """
import os, signal, sys
import {module} as module
from clsp.__main__ import entry
before = module.{name}
def slow(*given, **named):
    made = before(*given, **named)
    os.kill(os.getpid(), signal.{signal})
    return made
module.{name} = slow
sys.argv = ["clsp", *sys.argv[1:]]
entry()
"""


def _run(
    module: str, name: str, number: str, arguments: list[str], folder: Path, temporary: Path
) -> int:
    """Exit code of a command that gets a signal right after a function of it was called."""
    code = STOP.format(module=module, name=name, signal=number)
    environment = {**os.environ, "PYTHONPATH": str(REPO), "TMPDIR": str(temporary)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True).returncode


@pytest.mark.parametrize(
    ("module", "name", "number"),
    [
        ("clsp.bundle.pack", "_put", "SIGTERM"),
        ("clsp.bundle.create", "write_archive", "SIGINT"),
        ("clsp.bundle.create", "scan", "SIGTERM"),
    ],
)
def test_packing_is_stopped(
    module: str, name: str, number: str, tree: Tree, tmp_path: Path
) -> None:
    room = tmp_path / "out"
    room.mkdir()
    given = ["--params", str(params_file(tmp_path)), "--out", str(room / "a.zip")]
    arguments = ["bundle", "create", *given, "--without-mlflow"]
    folder = tree.results.parents[1]
    code = _run(module, name, number, arguments, folder, tmp_path)
    assert code == (143 if number == "SIGTERM" else 130)
    assert list(room.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "name", "number"),
    [("clsp.audit.run", "_suite", "SIGTERM"), ("clsp.bundle.opened", "unpack", "SIGINT")],
)
def test_an_audit_is_stopped(
    module: str, name: str, number: str, bundle: Path, tmp_path: Path
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    arguments = ["audit", str(bundle), "--out", str(tmp_path / "audit.json")]
    code = _run(module, name, number, arguments, tmp_path, temporary)
    assert code == (143 if number == "SIGTERM" else 130)
    assert list(temporary.glob("clsp-bundle-*")) == [] and not (tmp_path / "audit.json").exists()


def test_a_killed_pack_leaves_no_bundle(tree: Tree, tmp_path: Path) -> None:
    room = tmp_path / "out"
    room.mkdir()
    given = ["--params", str(params_file(tmp_path)), "--out", str(room / "a.zip")]
    command = [sys.executable, "-m", "clsp", "bundle", "create", *given, "--without-mlflow"]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    with subprocess.Popen(command, cwd=tree.results.parents[1], env=environment) as child:
        until = time.monotonic() + 60
        while not list(room.iterdir()) and child.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
    done = (room / "a.zip").exists()
    assert done == (child.returncode == 0)
    pack(tree, room / "a.zip")  # what was left is no obstacle
    assert (room / "a.zip").is_file()


def test_an_old_bundle_survives_a_failure(tree: Tree, tmp_path: Path) -> None:
    out = pack(tree, tmp_path / "a.zip")
    before = out.read_bytes()
    (tree.reports / "link.md").symlink_to(out)
    with pytest.raises(DataError):
        pack(tree, out)
    assert out.read_bytes() == before


def test_a_folder_that_cannot_be_written(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "params.yaml").write_text("")
    with pytest.raises((DataError, OSError)):
        pack(tree, tmp_path / "file" / "a.zip")
