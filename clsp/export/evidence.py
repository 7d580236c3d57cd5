"""What exports may say: records whose digests hold, and nothing else."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from clsp.config.schema import Params
from clsp.report.records import Records, manifest_digest
from clsp.runtime.canonical import read_json, sha256_file
from clsp.runtime.errors import DataError, IncompleteError
from clsp.runtime.ledger import NAME, Chain, ledger_below, read_ledger
from clsp.runtime.manifest import Artefact

AUDIT = "audit.json"


@dataclass(frozen=True)
class Audited:
    """What the last audit said, and whether anything was tried since."""

    verdict: str
    level: str
    sha256: str
    current: bool  # no attempt has been recorded since


@dataclass(frozen=True)
class Evidence:
    """The records of one profile.

    Attributes:
        params: What params.yaml asks for.
        results: Folder of the profile's results.
        reports: Folder of the profile's report.
    """

    params: Params
    results: Path
    reports: Path

    @cached_property
    def records(self) -> Records:
        """Manifests of the results."""
        return Records(self.results)

    @cached_property
    def report_records(self) -> Records:
        """Manifests of the report."""
        return Records(self.reports)

    @cached_property
    def ledger(self) -> Chain:
        """The ledger of attempts, or the copy that travelled with the results.

        Raises:
            IncompleteError: If there is none.
            DataError: If a line of it was changed.
        """
        path = ledger_below(self.results)
        if path is None:
            raise IncompleteError(f"{self.results / NAME}: no such file; nothing was recorded here")
        chain = read_ledger(path)
        if chain.problems:
            line, expected, found = chain.problems[0]
            told = f"line {line}: expected {expected}, found {found}"
            raise DataError(f"{path}: {told}; python -m clsp audit says more")
        return chain

    @cached_property
    def made(self) -> dict[str, str]:
        """Digest of the manifest that an attempt ended with, by attempt."""
        ends = (line for line in self.ledger.lines if line.get("status") == "completed")
        return {str(line.get("attempt")): str(line.get("manifest_sha256")) for line in ends}

    def trusted(self, artefact: Artefact) -> Artefact:
        """The same artefact, if its manifest is the one that its attempt ended with.

        Raises:
            DataError: If the manifest was changed since.
            IncompleteError: If the ledger does not know the attempt.
        """
        uid, found = str(artefact.predicate.get("run_uid")), manifest_digest(artefact)
        if uid not in self.made:
            raise IncompleteError(f"{artefact.manifest}: its attempt {uid} is not in the ledger")
        if found != self.made[uid]:
            raise DataError(
                f"{artefact.manifest}: changed after it was made: sha256 {found[:16]}... instead "
                f"of {self.made[uid][:16]}... in the ledger"
            )
        return artefact

    def file(self, artefact: Artefact, name: str) -> Path:
        """Path of one file of an artefact, if its bytes are those of the manifest.

        Raises:
            DataError: If it is missing or was changed.
        """
        path = artefact.path(name)
        expected, found = artefact.subjects[name]["digest"]["sha256"], sha256_file(path)
        if found != expected:
            raise DataError(
                f"{path}: sha256 {found[:16]}... instead of {expected[:16]}... recorded in "
                f"{artefact.manifest}; it is not exported"
            )
        return path

    @cached_property
    def audited(self) -> Audited | None:
        """The last audit of the profile, or None.

        Raises:
            DataError: If audit.json is not what an audit writes.
        """
        path = self.reports / AUDIT
        if not path.is_file():
            return None
        record = read_json(path)
        try:
            head = record["ledger"]["head"]
            told = (str(record["verdict"]), str(record["level"]), sha256_file(path))
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}: not a record of an audit (lacks {error})") from error
        return Audited(*told, head == self.ledger.head)
