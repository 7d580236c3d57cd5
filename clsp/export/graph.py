"""What a Workflow Run RO-Crate says: jobs, tools and settings as entities of schema.org.

Terms and requirements: Process, Workflow and Provenance Run Crate 0.5
(ResearchObject/workflow-run-crate at 23f7b03).
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clsp.config.plan import expected_jobs
from clsp.export.attempts import COMPLETED, FAILED, Attempt, artefacts_of, attempts_of, place_name
from clsp.export.entities import Files
from clsp.export.evidence import Evidence
from clsp.export.privacy import public
from clsp.runtime.canonical import canonical_json, sha256_file, sha256_json, sha256_text
from clsp.runtime.errors import IncompleteError
from clsp.runtime.ledger import NAME as LEDGER
from clsp.runtime.manifest import Artefact
from clsp.runtime.source import ROOT, source_state

WORKFLOW, RUN, ENGINE = "Snakefile", "#workflow-run", "#engine-run"
RAW = "fetch-dataset"  # thousands of files: their record lists them, and stands for them here
SHOWN = ("collect-results", "judge-claims", "render-table", "render-figure", "render-report")
Json = dict[str, Any]
Reference = dict[str, str]


def refs(ids: Iterable[str]) -> Reference | list[Reference]:
    """References to entities, each once; a single one stands alone, as RO-Crate has it."""
    found = [{"@id": identifier} for identifier in dict.fromkeys(ids)]
    return found[0] if len(found) == 1 else found


class Graph:
    """The entities of a crate.

    Args:
        evidence: The records.
        whole: Whether arrays, weights and step logs are copied too.
    """

    def __init__(self, evidence: Evidence, whole: bool) -> None:
        self.evidence, self.files = evidence, Files(whole)
        found = artefacts_of(evidence)
        self.attempts = attempts_of(evidence, [artefact for artefact, _ in found])
        if not self.attempts:
            raise IncompleteError(f"{evidence.results / LEDGER}: holds no attempt")
        self.context: dict[str, Json] = {}  # contextual entities by id
        self.raw: dict[str, str] = {}  # folder of raw files -> id of the record that lists them
        self.results: dict[str, list[str]] = {}  # attempt -> ids of what it made
        for artefact, folder in found:
            self._made(artefact, folder)

    def note(self, identifier: str, kind: str, **properties: Any) -> str:
        """Register a contextual entity; returns its id."""
        kept = {k: v for k, v in properties.items() if v not in (None, "", [])}
        self.context[identifier] = {"@id": identifier, "@type": kind, **kept}
        return identifier

    def _made(self, artefact: Artefact, folder: str) -> None:
        place = f"{folder}/{artefact.manifest.name}"
        record = self.files.add(
            "records/" + place.removesuffix("manifest.json") + "record.json",
            self.evidence.made[str(artefact.predicate["run_uid"])],
            artefact.manifest,
            carried=True,
            alternateName=place,
        )
        ids = [record]
        if artefact.stage == RAW:
            self.raw[folder] = record
        else:
            for name, subject in artefact.subjects.items():
                carried = artefact.stage in SHOWN or name.endswith(".json")
                told = (f"{folder}/{name}", subject["digest"]["sha256"], artefact.folder / name)
                ids.append(self.files.add(*told, carried=carried))
        self.results[str(artefact.predicate["run_uid"])] = ids

    def read(self, dependency: Json) -> str:
        """Id of a file that a job has read."""
        uri, sha256 = str(dependency["uri"]), dependency["digest"]["sha256"]
        profile = re.escape(self.evidence.params.profile)
        inside = re.search(rf"(?:^|/)((?:results|reports)/{profile}/.*)$", uri)
        if inside is None:
            path = Path(uri)
            # A file from elsewhere is not the experiment's, and would be copied out of the crate.
            own = not path.is_absolute() and ".." not in path.parts
            same = own and path.is_file() and sha256_file(path) == sha256
            return self.files.add(
                uri, sha256, path if same else None, carried=path.suffix == ".yaml"
            )
        for folder, record in self.raw.items():
            if inside[1].startswith(f"{folder}/"):
                return record
        return self.files.add(inside[1], sha256)

    @property
    def commits(self) -> list[str]:
        """Every commit that an attempt names, sorted."""
        return sorted({a.about["git_commit"] for a in self.attempts if "git_commit" in a.about})

    def parameters(self, attempt: Attempt, spec: Json) -> str:
        """Id of the settings of a job."""
        formal = f"#settings-of-{attempt.stage}"
        return self.note(
            f"#settings-{attempt.stage}-{sha256_json(spec)[:16]}",
            "PropertyValue",
            name="spec",
            value=canonical_json(public(spec)),
            exampleOfWork={"@id": formal},
        )

    def variables(self, artefact: Artefact) -> list[str]:
        """Ids of the environment variables that a job recorded."""
        told = artefact.predicate["internalParameters"].get("variables") or {}
        return [
            self.note(
                f"#variable-{name}-{sha256_text(str(value))[:8]}",
                "PropertyValue",
                name=name,
                value=public(str(value)),
            )
            for name, value in sorted(told.items())
        ]

    def software(self, artefact: Artefact) -> list[str]:
        """Ids of the libraries that a job recorded."""
        inside = artefact.predicate["internalParameters"]
        told = {"python": inside.get("python"), **(inside.get("versions") or {})}
        return [
            self.note(f"#{name}-{v}", "SoftwareApplication", name=name, softwareVersion=str(v))
            for name, v in sorted(told.items())
            if v
        ]


def _told(attempt: Attempt) -> str:
    """The line that describes an action: what was run, and where."""
    about = [f"{name} {value}" for name, value in attempt.about.items()]
    inside = attempt.artefact.predicate["internalParameters"] if attempt.artefact else {}
    about += [
        f"{k} {inside[k]}" for k in ("lock_sha256", "device", "cpu", "threads") if inside.get(k)
    ]
    if attempt.completed and attempt.artefact is None:
        about.append("a later attempt replaced what it made")
    return public(f"python -m clsp {attempt.stage}; " + "; ".join(about))


def job_action(graph: Graph, attempt: Attempt) -> Json:
    """The action of one attempt."""
    action: Json = {
        "@id": attempt.id,
        "@type": "CreateAction",
        "name": f"{attempt.stage}: {place_name(attempt.place)}",
        "description": _told(attempt),
        "instrument": {"@id": f"#tool-{attempt.stage}"},
        "startTime": attempt.started,
        "endTime": attempt.finished,
        "actionStatus": f"http://schema.org/{attempt.status}",
        "error": attempt.error,
    }
    if attempt.artefact is not None:
        predicate = attempt.artefact.predicate
        read = [graph.read(d) for d in predicate["resolvedDependencies"]]
        spec = predicate["externalParameters"]["spec"]
        action["object"] = refs([*read, graph.parameters(attempt, spec)])
        action["result"] = refs(graph.results[attempt.uid])
        action["environment"] = refs(graph.variables(attempt.artefact))
    return {key: value for key, value in action.items() if value not in ("", [])}


def note_tools(graph: Graph) -> list[str]:
    """One tool and one step per stage; returns the names of the stages."""
    stages = list(dict.fromkeys(attempt.stage for attempt in graph.attempts))
    for stage in stages:
        of_stage = [attempt for attempt in graph.attempts if attempt.stage == stage]
        commits = sorted({a.about["git_commit"] for a in of_stage if "git_commit" in a.about})
        needed = [name for a in of_stage if a.artefact for name in graph.software(a.artefact)]
        formal = f"#settings-of-{stage}"
        about = "Everything that decides what the job makes, as canonical JSON."
        graph.note(
            formal,
            "FormalParameter",
            name="spec",
            additionalType="PropertyValue",
            description=about,
        )
        graph.note(
            f"#tool-{stage}",
            "SoftwareApplication",
            name=f"clsp {stage}",
            softwareVersion=", ".join(commits),
            softwareRequirements=refs(needed),
            input=refs([formal]),
        )
        graph.note(f"#step-{stage}", "HowToStep", name=stage, workExample={"@id": f"#tool-{stage}"})
    return stages


def _unfinished(evidence: Evidence) -> list[str]:
    """Jobs of params.yaml that left nothing current."""
    return [
        f"{job.stage} {job.name}"
        for job in expected_jobs(evidence.params)
        if evidence.records.current(job.stage, job.name, job.spec) is None
    ]


def span_of(graph: Graph) -> tuple[str, str]:
    """When the first attempt began and the last one ended, ISO 8601."""
    starts = [attempt.started for attempt in graph.attempts if attempt.started]
    ends = [attempt.finished for attempt in graph.attempts if attempt.finished]
    return min(starts, default=""), max(ends, default="")


def _engine_version() -> str | None:
    """The version of Snakemake that requirements.lock pins."""
    lock = ROOT / "requirements.lock"
    found = re.search(r"^snakemake==(\S+)", lock.read_text(encoding="utf-8"), re.M)
    return found and found[1]


def run_actions(graph: Graph, shown: list[str], read: list[str]) -> list[Json]:
    """The actions of the whole run, of its engine and of its steps."""
    missing, (start, end) = _unfinished(graph.evidence), span_of(graph)
    error = ""
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        error = f"not finished: {', '.join(missing[:3])}{more}"
    status = f"http://schema.org/{FAILED if missing else COMPLETED}"
    times = {"startTime": start, "endTime": end}
    run = {
        "@id": RUN,
        "@type": "CreateAction",
        "name": f"Run of the profile {graph.evidence.params.profile}",
        "description": "From the first attempt of any job to the last: all calls of Snakemake.",
        "instrument": {"@id": WORKFLOW},
        **times,
        "actionStatus": status,
        "error": error,
        "object": refs(read),
        "result": refs(shown),
    }
    controls = [
        {
            "@id": f"#control-{attempt.uid}",
            "@type": "ControlAction",
            "name": f"job of {attempt.stage}",
            "instrument": {"@id": f"#step-{attempt.stage}"},
            "object": {"@id": attempt.id},
            "actionStatus": f"http://schema.org/{attempt.status}",
        }
        for attempt in graph.attempts
    ]
    graph.note(
        "#snakemake",
        "SoftwareApplication",
        name="Snakemake",
        softwareVersion=_engine_version(),
        url="https://snakemake.github.io",
    )
    engine = {
        "@id": ENGINE,
        "@type": "OrganizeAction",
        "name": "Runs of Snakemake",
        "description": "All calls together; a single call leaves no record of its own.",
        "instrument": {"@id": "#snakemake"},
        **times,
        "object": refs(control["@id"] for control in controls),
        "result": {"@id": RUN},
    }
    made = [run, engine, *controls]
    return [{k: v for k, v in each.items() if v not in ("", [])} for each in made]


def workflow_note(graph: Graph) -> str:
    """Whether the workflow's files are those that the jobs ran with."""
    here = source_state()
    text = "The rules of the experiment; the method is in the package clsp, which they call."
    if here["dirty"] or graph.commits != [here["git_commit"]]:
        text += (
            " Its files are those of the copy that this crate was made with, which is not, or not "
            "unchanged, the commit that every job names."
        )
    return text
