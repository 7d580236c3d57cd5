"""The experiment as a Workflow Run RO-Crate: files, jobs, what they read and made, and failures.

Process, Workflow and Provenance Run Crate 0.5 on RO-Crate 1.1, written by the library rocrate.
A view of manifests and ledger: nothing reads it, and it proves no more than they do.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clsp.export.entities import Files
from clsp.export.evidence import AUDIT, Evidence
from clsp.export.folder import replacing
from clsp.export.graph import (
    RUN,
    SHOWN,
    WORKFLOW,
    Graph,
    job_action,
    note_tools,
    refs,
    run_actions,
    span_of,
    workflow_note,
)
from clsp.export.privacy import public
from clsp.report.cells import DEMONSTRATION
from clsp.runtime.canonical import canonical_json, sha256_file, sha256_text
from clsp.runtime.errors import DataError
from clsp.runtime.ledger import NAME as LEDGER
from clsp.runtime.source import ROOT

if TYPE_CHECKING:
    from rocrate.rocrate import ROCrate

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/provenance/0.5": ("Provenance Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
RO_CRATE = "https://w3id.org/ro/crate/1.1"
CONTEXT = "https://w3id.org/ro/terms/workflow-run/context"
BUILD = {"buildInstructions": "https://codemeta.github.io/terms/buildInstructions"}
SNAKEMAKE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
LICENCE = "https://spdx.org/licenses/Apache-2.0"
PARAMS, README, LOCK = "params.json", "README.md", "requirements.lock"
TYPES = ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"]
LICENCES = (
    "Code and records: Apache-2.0. Images, and what was trained on them, are under the terms of "
    "their datasets, which each card.json names."
)


def _shipped(files: Files, name: str, **properties: Any) -> str:
    """Register a file of the suite itself.

    Raises:
        DataError: If the suite is installed without it.
    """
    path = ROOT / name
    if not path.is_file():
        raise DataError(f"{path}: missing; export a crate from a checkout of the suite")
    return files.add(name, sha256_file(path), path, carried=True, **properties)


def _own_files(graph: Graph, evidence: Evidence) -> tuple[list[str], list[str]]:
    """Ids of the workflow's files, and of the profile's records that no manifest names."""
    rules = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "rules").glob("*.smk"))]
    code = [_shipped(graph.files, name) for name in (WORKFLOW, *rules, LOCK)]
    records, profile = [], evidence.params.profile
    for parent, root, name in (
        ("results", evidence.results, LEDGER),
        ("reports", evidence.reports, AUDIT),
    ):
        path = root / name
        if path.is_file():
            told = (f"{parent}/{profile}/{name}", sha256_file(path), path)
            records.append(graph.files.add(*told, carried=True, about={"@id": RUN}))
    return code, records


def _add_files(crate: "ROCrate", files: Files) -> None:
    for entity in files:
        if entity.id != WORKFLOW:
            crate.add_file(
                str(entity.source) if entity.source else entity.id,
                entity.id if entity.source else None,
                properties=entity.properties,
            )


def _add_workflow(crate: "ROCrate", graph: Graph, stages: list[str]) -> None:
    entity = next(entity for entity in graph.files if entity.id == WORKFLOW)
    workflow = crate.add_workflow(
        str(entity.source),
        WORKFLOW,
        main=True,
        lang="snakemake",
        properties={
            **entity.properties,
            "@type": TYPES,
            "encodingFormat": "text/x-snakemake",
            "version": ", ".join(graph.commits) or "unknown",
            "description": workflow_note(graph),
            "license": {"@id": LICENCE},
            "hasPart": refs(f"#tool-{stage}" for stage in stages),
            "step": refs(f"#step-{stage}" for stage in stages),
            "input": refs(["#parameters"]),
            "output": refs(["#report"]),
            "buildInstructions": {"@id": LOCK},
        },
    )
    crate.mainEntity = workflow


def _describe(crate: "ROCrate", evidence: Evidence, graph: Graph) -> None:
    """The crate itself: what it is, when the last job ended, which profiles it follows."""
    profile = evidence.params.profile
    mark = f" {DEMONSTRATION}" if evidence.params.demonstration else ""
    crate.name = f"CLSP reproducibility suite: profile {profile}"
    crate.description = (
        "A run of the suite that repeats Contrastive Learning with Synthetic Positives (ECCV 2024, "
        f"arXiv:2408.16965): every job, what it read and made, and attempts that failed.{mark}"
    )
    crate.datePublished = span_of(graph)[1]
    crate.license = crate.add_jsonld(
        {
            "@id": LICENCE,
            "@type": "CreativeWork",
            "name": "Apache License 2.0",
            "url": LICENCE,
            "description": LICENCES,
        }
    )
    for identifier, (name, version) in PROFILES.items():
        about = {"@id": identifier, "@type": "CreativeWork", "name": name, "version": version}
        crate.add_jsonld(about)
    crate.root_dataset["conformsTo"] = refs(PROFILES)
    crate.metadata["conformsTo"] = refs([RO_CRATE, list(PROFILES)[-1]])


def _readme(evidence: Evidence) -> str:
    """What a person needs to know who opens the folder."""
    mark = f"**{DEMONSTRATION}**\n\n" if evidence.params.demonstration else ""
    return (
        f"# CLSP reproducibility suite: profile {evidence.params.profile}\n\n{mark}"
        "An RO-Crate: `ro-crate-metadata.json` describes every job, what it read and made, and "
        "attempts that failed. Files named `ni:///sha-256;...` are not in the folder.\n\n"
        f"{LICENCES}\n\n"
        "The crate is a view. To find out whether its numbers are true, audit the results with "
        "`python -m clsp audit`.\n"
    )


def _add_text(crate: "ROCrate", path: str, text: str, **properties: Any) -> None:
    about = {"sha256": sha256_text(text), "contentSize": str(len(text.encode()))}
    crate.add_file(io.StringIO(text), path, properties={**properties, **about})


def _build(evidence: Evidence, whole: bool) -> tuple["ROCrate", dict[str, str]]:
    """The crate, and the sha256 of every file that it will hold."""
    from rocrate.rocrate import ROCrate

    graph = Graph(evidence, whole)
    jobs = [job_action(graph, attempt) for attempt in graph.attempts]
    stages = note_tools(graph)
    code, records = _own_files(graph, evidence)
    text = canonical_json(public(evidence.params.canonical())) + "\n"
    made = [a.uid for a in graph.attempts if a.artefact and a.stage in SHOWN]
    shown = [identifier for uid in made for identifier in graph.results[uid]]
    actions = run_actions(graph, [*shown, *records], [PARAMS, *code])

    crate = ROCrate(version="1.1")
    crate.metadata.extra_contexts.append(CONTEXT)
    crate.metadata.extra_terms.update(BUILD)
    _describe(crate, evidence, graph)
    _add_workflow(crate, graph, stages)
    about = {"name": "Parameters, resolved", "exampleOfWork": {"@id": "#parameters"}}
    _add_text(crate, PARAMS, text, encodingFormat="application/json", **about)
    readme = _readme(evidence)
    about = {"name": "What this folder is", "about": {"@id": "./"}}
    _add_text(crate, README, readme, encodingFormat="text/markdown", **about)
    _add_files(crate, graph.files)
    graph.note("#parameters", "FormalParameter", name="params.yaml", additionalType="File")
    graph.note("#report", "FormalParameter", name="report.html", additionalType="File")
    for entity in (*graph.context.values(), *jobs, *actions):
        crate.add_jsonld(dict(entity))  # which takes the id out
    page = f"reports/{evidence.params.profile}/report.html"
    if crate.get(page) is not None:
        crate.get(page)["exampleOfWork"] = {"@id": "#report"}
    crate.root_dataset["mentions"] = refs(action["@id"] for action in (*jobs, *actions[:2]))
    held = {e.id: e.sha256 for e in graph.files if e.source is not None}
    return crate, {**held, PARAMS: sha256_text(text), README: sha256_text(readme)}


def export_crate(evidence: Evidence, final: Path, whole: bool = False) -> None:
    """Write the crate of one profile.

    Args:
        evidence: The records.
        final: Folder to write; one that is there is replaced.
        whole: Copy arrays, weights and step logs too; else their digests alone stand in it.

    Raises:
        DataError: If a file, a manifest or the ledger was changed, or nothing can be written.
        IncompleteError: If nothing was recorded.
    """
    crate, held = _build(evidence, whole)
    with replacing(final) as fresh:
        crate.write(fresh)
        for name, sha256 in held.items():
            if sha256_file(fresh / name) != sha256:
                raise DataError(f"{name}: changed while it was copied")
