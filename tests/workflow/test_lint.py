"""Style and structure are tests: Python, Snakemake, import contracts, sizes."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SOURCES = sorted((ROOT / "clsp").rglob("*.py"))


def _run(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "format", "--check", "."],
        ["ruff", "check", "."],
        ["lint-imports", "--no-cache"],
        ["snakefmt", "--check", "Snakefile", "rules"],
    ],
    ids=lambda c: " ".join(c[:2]),
)
def test_linters_are_silent(command):
    done = _run(BIN / command[0], *command[1:])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_snakemake_lint_finds_only_the_absent_environments():
    done = _run(BIN / "snakemake", "--lint")
    text = done.stdout + done.stderr
    found = set(re.findall(r"^    \* (.+?):?$", text, re.M))
    known = {"Specify a conda environment or container for each rule."}
    assert found <= known, text


def test_no_file_or_function_grows_out_of_hand():
    long_files = [f"{p}: {n}" for p in SOURCES if (n := len(p.read_text().splitlines())) > 330]
    long_functions = [
        f"{path}:{node.lineno} {node.name}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno > 60
    ]
    assert long_files + long_functions == []


FORBIDDEN = {"pickle", "joblib", "cloudpickle", "dill"}


def test_nothing_unsafe_is_loaded():
    """No pickles, no weights_only=False, no yaml.load without our safe loader, no shell=True."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [a.name for a in node.names] + [getattr(node, "module", "") or ""]
                found += [f"{path}: {m}" for m in modules if m.split(".")[0] in FORBIDDEN]
            if isinstance(node, ast.Call):
                for keyword in node.keywords:
                    value = getattr(keyword.value, "value", None)
                    bad = (keyword.arg, value) in {
                        ("weights_only", False),
                        ("shell", True),
                        ("allow_pickle", True),
                    }
                    found += [f"{path}:{node.lineno} {keyword.arg}"] if bad else []
    assert found == []


def test_the_lock_file_names_no_registry():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    pinned = re.findall(r"^[A-Za-z0-9_.-]+==", text, re.M)
    assert len(pinned) > 100
    assert text.count("--hash=sha256:") >= len(pinned)
