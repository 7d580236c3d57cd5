"""Which source made a number: commit, whether the tree was clean, lock file and libraries."""

import importlib.util
import re
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from clsp.runtime.canonical import sha256_file, sha256_text

ROOT = Path(__file__).parents[2]
# Module -> distribution of every library that a number goes through.
LIBRARIES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "diffusers": "diffusers",
    "numpy": "numpy",
    "sklearn": "scikit-learn",
    "scipy": "scipy",
    "pandas": "pandas",
    "PIL": "pillow",
}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


@cache
def source_state() -> dict[str, Any]:
    """Commit and state of the checkout; the commit is None outside a git checkout.

    `dirty` tells of changed or new code files, and `diff_sha256` identifies them.
    """
    top, commit = _git("rev-parse", "--show-toplevel"), _git("rev-parse", "HEAD")
    if top is None or commit is None or Path(top.strip()).resolve() != ROOT.resolve():
        return {"git_commit": None, "dirty": None}
    code = ("--", "clsp", "rules", "Snakefile")
    diff = _git("diff", "HEAD", *code) or ""
    untracked = (_git("ls-files", "--others", "--exclude-standard", *code) or "").splitlines()
    diff += "".join(f"{name} {sha256_file(ROOT / name)}\n" for name in sorted(untracked))
    state: dict[str, Any] = {"git_commit": commit.strip(), "dirty": bool(diff)}
    if diff:
        state["diff_sha256"] = sha256_text(diff)
    return state


@cache
def lock_digest() -> str | None:
    """sha256 of requirements.lock, or None for an installation without it."""
    lock = ROOT / "requirements.lock"
    return sha256_file(lock) if lock.is_file() else None


def _build(module: str) -> str | None:
    """The version that a module itself states, which of torch names the build ("2.10.0+cu128")."""
    found = importlib.util.find_spec(module)
    file = Path(found.origin).with_name("version.py") if found and found.origin else None
    if file is None or not file.is_file():
        return None
    stated = re.search(r"^__version__\b.*?['\"](.+?)['\"]", file.read_text("utf-8"), re.M)
    return stated and stated[1]


@cache
def library_versions() -> dict[str, str]:
    """Versions of the numerical libraries that are installed, read without importing any.

    What a job happens to have imported is not asked: libraries import each other, and jobs that
    share a process find more of them imported than one that runs by itself.
    """
    versions = {}
    for module, distribution in LIBRARIES.items():
        try:
            installed = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
        build = _build(module) or ""
        versions[module] = build if build.startswith(f"{installed}+") else installed
    return versions
