"""Every attempt at a job, from the ledger, and the artefact that it left if that is there."""

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from clsp.export.evidence import Evidence
from clsp.runtime.errors import DataError
from clsp.runtime.manifest import Artefact
from clsp.runtime.places import without_places

COMPLETED, FAILED = "CompletedActionStatus", "FailedActionStatus"


@dataclass(frozen=True)
class Attempt:
    """One attempt at a job.

    Attributes:
        uid: Its name in the ledger.
        stage: What was run.
        place: Manifest of the artefact, below the profile's folder.
        completed: Whether it ended well.
        error: Why it did not, without paths of the machine; empty if it did.
        started: ISO 8601, or nothing if nobody recorded it.
        finished: The same of its end.
        about: Digests of settings and code, and the commit, as the ledger has them.
        artefact: What it made, unless a later attempt replaced it.
    """

    uid: str
    stage: str
    place: str
    completed: bool
    error: str
    started: str
    finished: str
    about: dict[str, str]
    artefact: Artefact | None

    @property
    def id(self) -> str:
        """Of its action in a crate."""
        return f"urn:uuid:{UUID(self.uid)}"

    @property
    def status(self) -> str:
        """Its schema.org status."""
        return COMPLETED if self.completed else FAILED


def artefacts_of(evidence: Evidence) -> list[tuple[Artefact, str]]:
    """Everything with a manifest, and its folder below the suite's.

    Raises:
        DataError: If a manifest cannot be read or was changed.
    """
    found = []
    for parent, records in (("results", evidence.records), ("reports", evidence.report_records)):
        for message in records.read[1].values():
            raise DataError(message)
        home = f"{parent}/{evidence.params.profile}"
        for artefact in records:
            folder = artefact.folder.relative_to(records.root).as_posix()
            label = home if folder == "." else f"{home}/{folder}"
            found.append((evidence.trusted(artefact), label))
    return found


def _ending(end: dict[str, str] | None) -> str:
    """Why an attempt did not complete."""
    if end is None:
        return "no end was recorded: it is still running, or was killed outright"
    status = str(end.get("status"))
    return without_places(": ".join(filter(None, (status, str(end.get("reason") or "")))))


def attempts_of(evidence: Evidence, artefacts: list[Artefact]) -> list[Attempt]:
    """Every attempt in the order in which they began.

    Args:
        evidence: The records.
        artefacts: That are there.
    """
    lines = evidence.ledger.lines
    ends = {line["attempt"]: line for line in lines if line.get("event") == "end"}
    left = {str(artefact.predicate["run_uid"]): artefact for artefact in artefacts}
    found = []
    for line in lines:
        if line.get("event") != "start":
            continue
        uid, end = line["attempt"], ends.get(line["attempt"])
        artefact = left.get(uid)
        details = artefact.predicate["runDetails"] if artefact else {}
        completed = end is not None and end.get("status") == "completed"
        found.append(
            Attempt(
                uid=uid,
                stage=str(line["stage"]),
                place=str(line["manifest"]),
                completed=completed,
                error="" if completed else _ending(end),
                started=str(line.get("time") or details.get("started") or ""),
                finished=str((end or {}).get("time") or details.get("finished") or ""),
                about={
                    k: str(line[k]) for k in ("spec_sha256", "code", "git_commit") if line.get(k)
                },
                artefact=artefact,
            )
        )
    return found


def place_name(place: str) -> str:
    """Short name of an artefact: its folder, or for files beside others their first part."""
    path = Path(place)
    stem = path.name.removesuffix("manifest.json").strip(".")
    return f"{path.parent.name} {stem}".strip()
