"""Packs results trees with the suite's own command, and makes archives that nobody should trust."""

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from injecting import Tree
from tree_params import PARAMS

from clsp.audit.run import main as audit_main
from clsp.bundle.layout import MANIFEST
from clsp.bundle.run import main as bundle_main
from clsp.runtime.canonical import canonical_json, sha256_text


def params_file(folder: Path, **changes: Any) -> Path:
    """A params.yaml of the tiny tree."""
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump({**PARAMS, **changes}, sort_keys=False), encoding="utf-8")
    return path


def pack(tree: Tree, out: Path, *flags: str, **changes: Any) -> Path:
    """Bundle a tree; `changes` as those of its parameters."""
    given = ["--params", str(params_file(out.parent, **changes)), "--out", str(out), *flags]
    given += ["--results", str(tree.results), "--reports", str(tree.reports)]
    given += ["--mlflow", f"sqlite:///{tree.store}"] if tree.store else ["--without-mlflow"]
    here = Path.cwd()
    os.chdir(tree.results.parents[1])
    try:
        assert bundle_main(["create", *given]) == 0
    finally:
        os.chdir(here)
    return out


def audit_bundle(bundle: Path, out: Path, *flags: str) -> tuple[int, dict[str, Any]]:
    """Exit code and audit.json of a bundle's audit."""
    code = audit_main([str(bundle), "--out", str(out), *flags])
    return code, json.loads(out.read_text(encoding="utf-8"))


Members = list[tuple[zipfile.ZipInfo, bytes]]


def members_of(bundle: Path) -> Members:
    """All members with their content."""
    with zipfile.ZipFile(bundle) as archive:
        return [(entry, archive.read(entry)) for entry in archive.infolist()]


def write_members(path: Path, members: Members) -> Path:
    """An archive of given members, whatever they are."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for entry, text in members:
            archive.writestr(entry, text)
    path.write_bytes(content.getvalue())
    return path


def rewrite(bundle: Path, path: Path, change: Callable[[Members], Members]) -> Path:
    """A bundle with other members; its manifest is as it was."""
    return write_members(path, change(members_of(bundle)))


def edit_manifest(bundle: Path, path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A bundle with another manifest."""
    members = []
    for entry, text in members_of(bundle):
        if entry.filename == MANIFEST:
            told = json.loads(text)
            change(told)
            text = canonical_json(told).encode()
        members.append((entry, text))
    return write_members(path, members)


def without(bundle: Path, path: Path, name: str) -> Path:
    """A bundle that never had a member: neither the archive nor its manifest names it."""

    def drop(told: dict[str, Any]) -> None:
        told["files"] = [each for each in told["files"] if each["name"] != name]

    edit_manifest(bundle, path, drop)
    return rewrite(path, path, lambda held: [m for m in held if m[0].filename != name])


def fingerprint(path: Path) -> str:
    """Of an archive's bytes."""
    return sha256_text(path.read_bytes().hex())
