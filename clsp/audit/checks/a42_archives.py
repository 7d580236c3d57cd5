"""What was downloaded is what the catalogue of datasets, or the lock file, says it has to be."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clsp.audit.finding import BLOCKING, Finding
from clsp.audit.suite import Suite
from clsp.config.catalog import Archive, Members, dataset_info, is_known_host
from clsp.config.plan import datasets_needed, fetch_job, is_fetched
from clsp.runtime.canonical import read_json
from clsp.runtime.errors import ClspError
from clsp.runtime.manifest import Artefact

ID = "A42"
SEVERITY = BLOCKING
LEVEL = "L0"
LOCK = Path("datasets.lock.json")
LOCAL = "local"  # a file that the user put there
Problem = tuple[str, str]  # expected, found


def _pins(lock: Path = LOCK) -> dict[str, str]:
    """Archive -> the sha256 that its first good download pinned; none without a lock file."""
    if not lock.exists():
        return {}
    return {name: str(pin["sha256"]) for name, pin in read_json(lock)["archives"].items()}


def _address(archive: Archive, url: str) -> Problem | None:
    parts = urlsplit(url)
    known = is_known_host(parts.hostname or "", archive.hosts)
    if url == LOCAL or (parts.scheme == "https" and known):
        return None
    return f"https at {', '.join(archive.hosts) or 'no host'}, or {LOCAL}", url


def _contents(archive: Archive, parts: list[dict[str, Any]]) -> Iterator[Problem]:
    """Files that came out, by the pattern of the catalogue, of the archive and of those inside."""
    lists = [archive.members] if archive.members else []
    lists += [inner.members for inner in archive.nested]
    if not archive.packed:
        lists = [(Members(pattern=archive.name, count=1),)]
    if len(parts) != len(lists):
        yield f"{len(lists)} lists of files of {archive.name}", f"{len(parts)}"
        return
    for wanted, part in zip(lists, parts, strict=True):
        found = part["members"]
        if found.keys() != {each.pattern for each in wanted}:
            yield ", ".join(each.pattern for each in wanted), ", ".join(found)
            continue
        for each in wanted:
            number = found[each.pattern]
            least, most = each.count or 1, each.count or each.most or number
            if not least <= number <= most:
                yield f"{least} to {most} of {each.pattern}", f"{number}"


def _archive(archive: Archive, record: dict[str, Any], pins: dict[str, str]) -> Iterator[Problem]:
    wanted = {
        "size": archive.size,
        "sha256": archive.sha256 or pins.get(archive.name),
        "md5": archive.md5,
        "confirmed": archive.sha256 is not None,
    }
    for key, expected in wanted.items():
        found = record.get(key)
        if found is None or (expected is not None and found != expected):
            word = "recorded" if expected is None else expected
            yield f"{key} {word} of {archive.name}", f"{found}"
    if wrong := _address(archive, str(record.get("url"))):
        yield wrong
    yield from _contents(archive, record["contents"])


def _problems(suite: Suite, name: str, artefact: Artefact) -> list[Problem]:
    spec, facts = suite.params.datasets[name], artefact.predicate["facts"]
    drawn = spec.settings().source == "miniature"
    if bool(facts.get("miniature")) != drawn:
        word = "a miniature" if drawn else "the publisher's archives"
        return [(word, f"miniature: {facts.get('miniature')}")]
    if drawn:
        return []
    known = {archive.name: archive for archive in dataset_info(spec.kind).archives}
    try:
        lock = suite.place.beside(LOCK)
        records, pins = {record["name"]: record for record in facts["archives"]}, _pins(lock)
        if records.keys() != known.keys():
            return [(", ".join(known), ", ".join(records) or "none")]
        return [p for each in known for p in _archive(known[each], records[each], pins)]
    except (KeyError, TypeError, AttributeError, ValueError, ClspError) as error:
        return [("readable records of archives and pins", str(error))]


def check(suite: Suite) -> list[Finding]:
    """Compare the record of every fetched dataset with the catalogue."""
    findings = []
    for name in datasets_needed(suite.params):
        if not is_fetched(suite.params, name):
            continue
        job = fetch_job(suite.params, name)
        artefact = suite.records.current(job.stage, job.name, job.spec)
        if artefact is None:
            continue  # A01 and A05 report it
        message = "the archives are not those that the catalogue knows"
        numbers = suite.dependents(job.stage, name)
        findings += [
            Finding(ID, BLOCKING, str(artefact.manifest), *problem, message, name, numbers)
            for problem in _problems(suite, name, artefact)
        ]
    return findings
