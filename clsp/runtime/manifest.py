"""One manifest per artefact: who made it, from what, how, and what came out (audit.md 2.1).

An artefact is a set of files in one folder with a manifest beside them, an in-toto shaped
statement whose subjects are the files. It is written last, so a folder without a manifest holds
no artefact. Reports and audits read manifests, never the run's memory.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clsp.runtime.canonical import canonical_json, parse_json, sha256_file, sha256_json
from clsp.runtime.errors import DataError, IncompleteError
from clsp.runtime.files import write_atomic

SCHEMA = 1
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:clsp-suite:step:v1"
ENDING = "manifest.json"
FAILED = "failed.json"


def failure_of(manifest: Path) -> Path:
    """Where a failed attempt at an artefact is recorded: beside its manifest."""
    return manifest.with_name(manifest.name.removesuffix(ENDING) + FAILED)


def describe_file(path: Path, name: str) -> dict[str, Any]:
    """Name, size and sha256 of one file; for a folder, of every file in it."""
    return {"name": name, "digest": {"sha256": sha256_file(path)}, "size": path.stat().st_size}


def describe(path: Path, name: str) -> list[dict[str, Any]]:
    """Descriptions of a file, or of every file below a folder in sorted order."""
    if not path.is_dir():
        return [describe_file(path, name)]
    inside = sorted(p for p in path.rglob("*") if p.is_file())
    return [describe_file(p, f"{name}/{p.relative_to(path).as_posix()}") for p in inside]


@dataclass(frozen=True)
class Artefact:
    """A finished artefact, known by its manifest."""

    manifest: Path
    statement: dict[str, Any]

    @property
    def folder(self) -> Path:
        """The folder that subject names are relative to."""
        return self.manifest.parent

    @property
    def predicate(self) -> dict[str, Any]:
        """Everything recorded about the step that made it."""
        return self.statement["predicate"]

    @property
    def stage(self) -> str:
        """Name of the stage, for example "pretrain-encoder"."""
        return self.predicate["step"]

    @property
    def spec(self) -> dict[str, Any]:
        """The canonical spec of the job."""
        return self.predicate["externalParameters"]["spec"]

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics the stage returned."""
        return self.predicate["metrics"]

    @property
    def subjects(self) -> dict[str, dict[str, Any]]:
        """Subject by name."""
        return {subject["name"]: subject for subject in self.statement["subject"]}

    def path(self, name: str) -> Path:
        """Path of a subject.

        Raises:
            DataError: If the artefact has no such file.
        """
        if not any(known == name or known.startswith(f"{name}/") for known in self.subjects):
            listed = ", ".join(self.subjects)
            raise DataError(f"{self.manifest}: has no file {name}; it has {listed}")
        return self.folder / name

    def verify(self) -> None:
        """Rehash every file.

        Raises:
            DataError: Naming the first file that is missing or whose bytes changed.
        """
        for name, subject in self.subjects.items():
            path = self.folder / name
            if not path.is_file():
                raise DataError(f"{path}: missing, but {self.manifest} lists it")
            found, expected = sha256_file(path), subject["digest"]["sha256"]
            if found != expected:
                raise DataError(
                    f"{path}: corrupt: sha256 {found[:16]}... instead of {expected[:16]}... "
                    f"recorded in {self.manifest}; delete it and run snakemake again"
                )


def read_manifest(path: Path) -> Artefact:
    """Read and check the outer shape of a manifest.

    Raises:
        DataError: If it is missing or is no manifest of this suite.
        IncompleteError: If it was written by a newer version.
    """
    try:
        statement = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: not a manifest ({error})") from error
    if not isinstance(statement, dict) or statement.get("predicateType") != PREDICATE:
        raise DataError(f"{path}: not a manifest of this suite")
    version = statement.get("predicate", {}).get("schema_version")
    if type(version) is int and version < SCHEMA:
        raise DataError(f"{path}: schema_version {version} is none that this tool reads ({SCHEMA})")
    if type(version) is not int or version > SCHEMA:
        raise IncompleteError(
            f"{path}: schema_version {version} is newer than this tool ({SCHEMA})"
        )
    return Artefact(path, statement)


def write_manifest(
    path: Path, outputs: dict[str, Path], inputs: list[dict[str, Any]], predicate: dict[str, Any]
) -> Artefact:
    """Write the manifest of finished outputs, atomically, as the last act of a job.

    Args:
        path: Final path; ends in manifest.json.
        outputs: Subject name -> file or folder.
        inputs: Resolved dependencies.
        predicate: Everything else; see clsp.runtime.stage.
    """
    subjects = [item for name, final in sorted(outputs.items()) for item in describe(final, name)]
    spec = predicate["externalParameters"]["spec"]
    predicate["externalParameters"]["spec_sha256"] = sha256_json(spec)
    statement = {
        "_type": STATEMENT,
        "predicateType": PREDICATE,
        "subject": subjects,
        "predicate": {"schema_version": SCHEMA, "resolvedDependencies": inputs, **predicate},
    }
    write_atomic(path, canonical_json(statement) + "\n")
    return Artefact(path, statement)


def group_artefacts(paths: list[Path]) -> list[Artefact]:
    """The artefacts among given files: one per manifest, in the order given.

    Raises:
        DataError: If files are given but no manifest is among them.
    """
    manifests = [path for path in paths if path.name.endswith(ENDING)]
    if paths and not manifests:
        raise DataError(f"{paths[0]}: no {ENDING} among the files given")
    return [read_manifest(path) for path in manifests]
