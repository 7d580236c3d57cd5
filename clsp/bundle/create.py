"""Makes a bundle: gather, write, search for what is private, and only then give it its name."""

import contextlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from clsp import __version__
from clsp.audit import mirror
from clsp.audit.suite import Suite
from clsp.bundle.collect import collect, commits, missing, vocabulary
from clsp.bundle.layout import LEVEL, MLFLOW, PARAMS, SCHEMA, SPEC, TYPE, Member
from clsp.bundle.pack import Source, room_for, sha256_of, write_archive
from clsp.bundle.parts import shared_parts
from clsp.bundle.private import FORMS, words_of_machine
from clsp.bundle.scan import scan
from clsp.bundle.unpack import read_contents
from clsp.runtime.canonical import canonical_json, sha256_json
from clsp.runtime.errors import ClspError, ConfigError, DataError
from clsp.runtime.source import source_state

SHOWN = 20
CHANGED = (
    "params.json is params.yaml with all defaults, without comments and without what changes no "
    "number",
    "mlflow.json has status, final values, curves and settings of the mirrored runs; users, "
    "folders, dates and tags of the store are not in it",
)


@contextlib.contextmanager
def _becoming(path: Path) -> Iterator[IO[bytes]]:
    """A file beside the final one, which takes its name only if nothing goes wrong.

    Raises:
        DataError: If it cannot be written.
    """
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        partial = Path(name)
        with os.fdopen(handle, "w+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.chmod(0o644)
        partial.replace(path)
        partial = None
    except OSError as error:
        raise DataError(f"{error.filename or path}: {error.strerror or error}") from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def _mlflow(suite: Suite) -> dict[str, bytes]:
    """What is kept of the MLflow store; nothing where no job was mirrored or no store is here."""
    wanted = {str(a.predicate.get("mlflow_run_id") or "") for a in suite.tracked} - {""}
    if not wanted or suite.mlflow is None or not mirror.exists(suite.mlflow):
        return {}
    kept = mirror.export_runs(mirror.read_runs(suite.mlflow, wanted))
    return {MLFLOW: (canonical_json(kept) + "\n").encode()}


def _describe(suite: Suite, files: dict[str, Source], left_out: list[dict]) -> dict[str, Any]:
    """The manifest, but for its list of files and what was searched for."""
    ledger, absent, source = suite.ledger, missing(suite), source_state()
    tops = {name: path for name, path in files.items() if name.startswith(f"{SPEC}/")}
    return {
        "schema_version": SCHEMA,
        "type": TYPE,
        "profile": suite.params.profile,
        "level": LEVEL,
        "complete": not absent,
        "missing": absent,
        "suite": {
            "version": __version__,
            "git_commit": source["git_commit"],
            "dirty": source["dirty"],
            "made_at": commits(suite),
        },
        "spec_sha256": sha256_json(suite.params.canonical()),
        "ledger": {
            "head": ledger.head if ledger else None,
            "lines": len(ledger.lines) if ledger else 0,
        },
        "expectations": {name: sha256_of(path) for name, path in sorted(tops.items())},
        "left_out": left_out,
        "changed": list(CHANGED if MLFLOW in files else CHANGED[:1]),
    }


def _refuse(path: Path, suite: Suite) -> None:
    for folder in (suite.results, suite.reports):
        if path.resolve().is_relative_to(folder.resolve()):
            told = "a bundle among results would be a file that no manifest names"
            raise ConfigError(f"--out {path}: lies below {folder}; {told}")


def create(suite: Suite, out: Path, patterns: Sequence[str] = ()) -> tuple[list[Member], dict]:
    """Pack a profile.

    Args:
        suite: Its parameters, results, reports and MLflow store.
        out: The bundle.
        patterns: Of files that are left out; an audit then says so and gives no pass.

    Returns:
        Every file, and what the manifest says.

    Raises:
        ClspError: If something private is in it; nothing is written then.
        ConfigError: If `out` or a pattern makes no sense.
        DataError: If a file cannot be packed or written.
    """
    _refuse(out, suite)
    collected = collect(suite, patterns)
    # In the order of params.yaml, which is that of tables; canonical JSON would sort it.
    params = json.dumps(suite.params.canonical(), ensure_ascii=False, allow_nan=False)
    files: dict[str, Source] = {**collected.files, PARAMS: f"{params}\n".encode(), **_mlflow(suite)}
    words = words_of_machine(vocabulary(suite))
    record = _describe(suite, files, collected.left_out)
    record["scanned"] = sorted({word.what for word in words} | {form.what for form in FORMS})
    names = {path: name for name, path in collected.files.items()}
    parts = shared_parts(suite.records, names)
    with _becoming(out) as stream:
        if lacking := room_for(out, {n: s for n, s in files.items() if n not in parts}):
            raise DataError(f"{out}: {lacking} bytes are missing on the disk")
        members = write_archive(stream, files, parts, record)
        stream.seek(0)
        with zipfile.ZipFile(stream) as archive:
            read_contents(out, archive)  # what its own reader refuses is no bundle
            found = scan(archive, words)
        if found:
            lines = [hit.line for hit in found[:SHOWN]]
            more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
            told = f"{out}: not written, because {len(found)} private things are in it"
            raise ClspError("\n  ".join([told, *lines, *more]))
    return members, record
