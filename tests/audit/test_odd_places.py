"""Trees in folders with odd names, and trees that came out of a store that was damaged."""

import os
import stat
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from auditing import audit, ids
from faults import Tree
from results_tree import tiny_params

from clsp.runtime.canonical import canonical_json

COMPOSED, PARTED = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
NAMES = ["$(touch pwned) `touch pwned`", f"{COMPOSED}{PARTED} '\"&;", "two\nlines", "-rf"]


@pytest.mark.parametrize("name", NAMES, ids=["command", "unicode", "line feed", "option"])
def test_a_tree_in_a_folder_with_an_odd_name(name: str, tree: Tree, tmp_path: Path) -> None:
    home = tmp_path / name
    home.mkdir()
    for folder in ("results", "reports"):
        (tmp_path / folder).rename(home / folder)
    command = [sys.executable, "-m", "clsp", "audit", "--without-mlflow"]
    command += [f"--results={name}/results/tiny", f"--reports={name}/reports/tiny"]
    command += ["--spec", canonical_json(tiny_params().canonical()), "--level", "L1"]
    given = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("pwned")) and (home / "reports/tiny/audit.json").is_file()


def _dvc(folder: Path, *arguments: str) -> str:
    given = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_bit_flipped_in_the_store_of_dvc_is_found_though_dvc_is_content(
    tree: Tree, tmp_path: Path
) -> None:
    """DVC trusts a read-only object of its cache without hashing it (audit.md 1.3)."""
    bank = tree.results / "banks/digits.mix/images.npy"
    _dvc(tmp_path, "init", "--no-scm", "-q")
    _dvc(tmp_path, "add", "-q", "results")
    held = bank.read_bytes()
    cache = tmp_path / ".dvc/cache/files/md5"
    (stored,) = [path for path in cache.rglob("*") if path.is_file() and path.read_bytes() == held]
    assert stat.S_IMODE(stored.stat().st_mode) == 0o444
    times = stored.stat()
    stored.chmod(0o644)
    stored.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
    os.utime(stored, ns=(times.st_atime_ns, times.st_mtime_ns))
    stored.chmod(0o444)
    bank.unlink()
    _dvc(tmp_path, "checkout", "-q")
    assert bank.read_bytes() != held
    assert "up to date" in _dvc(tmp_path, "status")
    (tmp_path / "results.dvc").unlink()  # what the audit finds does not come from there
    record = audit(tree, tmp_path / "audit.json")[1]
    assert ids(record) == {"A02", "A10"}
    (found,) = [f for f in record["findings"] if f["id"] == "A02"]
    assert found["file"] == str(bank)
    spoiled = {cell["label"] for cell in record["cells"] if cell["verdict"] == "invalid"}
    assert "CLSP-SimCLR" in spoiled
