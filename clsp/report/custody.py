"""The chain of custody of every number, gathered from manifests for the report's appendix."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from clsp.config.floors import Floor
from clsp.config.foreign import Imported
from clsp.config.grid import Run
from clsp.config.plan import (
    banks_needed,
    datasets_needed,
    encoder_job,
    expected_jobs,
    pairs_needed,
)
from clsp.config.schema import Params
from clsp.report.collect import (
    Judged,
    Key,
    all_judged,
    counted,
    current_artefacts,
    expected_numbers,
    results_of,
    row_name,
)
from clsp.report.records import SHARD, Records, manifest_digest, name_of, shard_of
from clsp.runtime.canonical import read_json, sha256_json
from clsp.runtime.manifest import Artefact

STAGES = {
    "pretrain-encoder": "pretraining",
    "import-encoder": "import",
    "extract-features": "features",
    "probe-encoder": "linear probe and kNN",
    "fine-tune-encoder": "fine-tuning",
    "probe-transfer": "transfer",
    "probe-few-shot": "few-shot curves",
}


@dataclass(frozen=True)
class Step:
    """One job behind a run: its manifest, its source and when it ran."""

    title: str
    manifest: str
    manifest_sha256: str
    spec_sha256: str
    code: str
    commit: str
    mlflow: str
    started: str
    seconds: float
    device: str


@dataclass(frozen=True)
class Number:
    """One number of a run and the file it is recomputed from."""

    name: str
    value: float | None
    correct: int | None
    total: int | None
    metric: str
    selected_on: str
    epoch: int | None
    file: str
    sha256: str


@dataclass(frozen=True)
class Custody:
    """Everything behind the numbers of one encoder or floor."""

    slug: str
    seed: int | None  # None where it is not known
    steps: list[Step]
    numbers: list[Number]
    inputs: list[tuple[str, str]]  # (file, sha256) that pretraining or the import read
    outputs: list[tuple[str, str]]  # (file, sha256) that it wrote
    missing: list[str]


@dataclass(frozen=True)
class Group:
    """Runs or floors that differ only in their seed: one row of a table."""

    anchor: str
    title: str
    kind: str  # "method"; "step" of an ablation; "imported"; "floor"
    runs: list[Custody] = field(default_factory=list)


def commit_of(artefact: Artefact) -> str:
    """The commit, and whether the tree was clean."""
    inside = artefact.predicate["internalParameters"]
    commit = inside.get("git_commit")
    if commit is None:
        return "unknown"
    return f"{commit} (with local changes)" if inside.get("dirty") else str(commit)


def _step(title: str, artefact: Artefact, records: Records) -> Step:
    inside, details = artefact.predicate["internalParameters"], artefact.predicate["runDetails"]
    return Step(
        title=title,
        manifest=records.relative(artefact),
        manifest_sha256=manifest_digest(artefact),
        spec_sha256=sha256_json(artefact.spec),
        code=inside.get("code", ""),
        commit=commit_of(artefact),
        mlflow=artefact.predicate.get("mlflow_run_id") or "not mirrored",
        started=details.get("started", ""),
        seconds=details.get("seconds", 0.0),
        device=inside.get("device", "unknown"),
    )


def _number(key: Key, artefact: Artefact | None) -> Number:
    task, protocol, variant = key
    name = " ".join(filter(None, (protocol, variant.replace("_", " "), task)))
    record = results_of(artefact).get(key) if artefact else None
    if artefact is None or record is None:
        return Number(name, None, None, None, "", "", None, "", "")
    file = record["predictions"]["file"]
    subject = artefact.subjects.get(file, {"digest": {"sha256": "not recorded"}})
    return Number(
        name,
        record["value"],
        record["correct"],
        record["total"],
        record["metric"],
        record["selected_on"],
        record["epoch"],
        file,
        subject["digest"]["sha256"],
    )


def _short(uri: str) -> str:
    """The end of a path, from the artefact's kind on: data/digits/images.npy."""
    return "/".join(uri.split("/")[-3:])


def _custody(judged: Judged, records: Records) -> Custody:
    artefacts, expected = current_artefacts(judged, records), expected_numbers(judged)
    maker = encoder_job(judged)
    trained = artefacts.get(maker.stage) if maker else None
    steps = [_step(t, artefacts[s], records) for s, t in STAGES.items() if s in artefacts]
    numbers = [
        _number(key, counted(judged, stage, artefacts))
        for stage, keys in expected.items()
        for key in keys
    ]
    inputs, outputs = [], []
    if trained is not None:
        used = trained.predicate["resolvedDependencies"]
        inputs = [(_short(d["uri"]), d["digest"]["sha256"]) for d in used]
        outputs = [(name, s["digest"]["sha256"]) for name, s in trained.subjects.items()]
    wanted = [*([maker.stage] if maker else []), "extract-features", *expected]
    missing = [STAGES[stage] for stage in wanted if stage not in artefacts]
    return Custody(judged.slug, _seed(judged), steps, numbers, inputs, outputs, missing)


def _seed(judged: Judged) -> int | None:
    if isinstance(judged, Imported):
        return None
    return judged.seed if isinstance(judged, Floor) else judged.spec.seed


def group_anchor(dataset: str, encoder: str, label: str) -> str:
    """The HTML id of a row's group: letters, digits and dashes only."""
    text = f"runs-{dataset}-{encoder}-{label}"
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text)


def _kind(judged: Judged) -> str:
    if not isinstance(judged, Run):
        return "imported" if isinstance(judged, Imported) else "floor"
    return "step" if judged.variation else "method"


def build_groups(params: Params, records: Records) -> list[Group]:
    """Everything that params.yaml judges with its custody, grouped as tables group them."""
    groups: dict[str, Group] = {}
    for judged in all_judged(params).values():
        dataset, encoder, label = row_name(judged)
        anchor = group_anchor(dataset, encoder, label)
        title = f"{label} on {dataset}, {encoder}"
        group = groups.setdefault(anchor, Group(anchor, title, _kind(judged)))
        group.runs.append(_custody(judged, records))
    return list(groups.values())


def build_cards(params: Params, records: Records) -> list[dict[str, Any]]:
    """The card of every prepared dataset that the runs need, with its manifest."""
    cards = []
    for name in datasets_needed(params):
        for artefact in records.named("prepare-dataset", name)[:1]:
            card = read_json(artefact.path("card.json"))
            cards.append({"dataset": name, "manifest": records.relative(artefact), **card})
    return cards


def _stored(
    records: Records, stage: str, names: list[str], file: str, title: str
) -> list[dict[str, Any]]:
    """What is known of every artefact of a stage; `title` is the key of its name."""
    return [
        {
            title: name,
            "manifest": records.relative(artefact),
            "sha256": artefact.subjects.get(file, {"digest": {"sha256": ""}})["digest"]["sha256"],
            "metrics": artefact.metrics,
            "counters": artefact.predicate.get("counters", {}),
            "spec": artefact.spec,
            "label_conditioned": artefact.predicate["facts"].get("label_conditioned"),
        }
        for name in names
        for artefact in records.named(stage, name)[:1]
    ]


def build_banks(params: Params, records: Records) -> list[dict[str, Any]]:
    """What is known of every bank that a run reads."""
    return _stored(records, "gather-bank", banks_needed(params), "images.npy", "bank")


def build_pairs(params: Params, records: Records) -> list[dict[str, Any]]:
    """What is known of all pairs that a run trains on."""
    return _stored(records, "mine-pairs", pairs_needed(params), "pairs.npy", "pairs")


def build_imports(params: Params, records: Records) -> list[dict[str, Any]]:
    """What is known of every file that a denoiser or an encoder was imported from."""
    jobs = [
        job for job in expected_jobs(params) if job.stage in ("import-denoiser", "import-encoder")
    ]
    return [
        {
            "name": job.name,
            "manifest": records.relative(artefact),
            "source": artefact.predicate["facts"].get("source", {}),
            "facts": {
                key: artefact.predicate["facts"].get(key)
                for key in ("format", "architecture", "dropped", "label_conditioned")
            },
        }
        for job in jobs
        for artefact in records.named(job.stage, job.name)[:1]
    ]


def _in_use(params: Params, records: Records) -> Iterator[Artefact]:
    """Every artefact that params.yaml asks for; what lies there from earlier settings is not."""
    wanted = {(job.stage, job.name) for job in expected_jobs(params)}
    for artefact in records:
        name = name_of(artefact)
        spare = artefact.stage == SHARD and shard_of(artefact) not in records.shards_of(name)
        if (artefact.stage, name) in wanted and not spare:
            yield artefact


def build_environments(params: Params, records: Records) -> list[tuple[str, list[str]]]:
    """Each environment that made something, as text, with the number of jobs per stage."""
    seen: dict[str, dict[str, int]] = {}
    for artefact in _in_use(params, records):
        inside = artefact.predicate["internalParameters"]
        versions = ", ".join(f"{k} {v}" for k, v in sorted(inside.get("versions", {}).items()))
        lock = str(inside.get("lock_sha256"))[:12]
        text = (
            f"Python {inside.get('python')} on {inside.get('platform')}, {inside.get('device')}, "
            f"{inside.get('threads')} thread(s), lock {lock}; {versions or 'no library recorded'}"
        )
        stages = seen.setdefault(text, {})
        stages[artefact.stage] = stages.get(artefact.stage, 0) + 1
    return [
        (text, [f"{count} × {stage}" for stage, count in sorted(stages.items())])
        for text, stages in sorted(seen.items())
    ]
