"""The chain of custody of every number: the runs behind it, their files, settings and records."""

from dataclasses import dataclass, field

from clsp.config.floors import Floor
from clsp.config.foreign import Imported
from clsp.config.grid import Run
from clsp.config.plan import encoder_job, judging_jobs
from clsp.config.schema import Params
from clsp.report.chain import (
    Chain,
    Digest,
    Source,
    Step,
    build_chain,
    build_step,
    dataset_source,
    digest_of,
    mlflow_of,
    short,
    source_of,
)
from clsp.report.collect import (
    Judged,
    Key,
    Name,
    all_judged,
    counted,
    current_artefacts,
    expected_numbers,
    results_of,
    row_name,
)
from clsp.report.escape import anchor
from clsp.report.records import Records
from clsp.runtime.manifest import Artefact

STAGES = {
    "pretrain-encoder": "pretraining",
    "import-encoder": "import",
    "extract-features": "features",
    "probe-encoder": "linear probe and kNN",
    "fine-tune-encoder": "fine-tuning",
    "probe-transfer": "transfer",
    "probe-few-shot": "few-shot curves",
    "measure-bank": "quality of the bank",
}
KINDS = {
    "method": "run",
    "step": "run",
    "imported": "imported encoder",
    "floor": "floor",
}


@dataclass(frozen=True)
class Number:
    """One number of a run or bank and the file it is recomputed from."""

    name: str
    value: float | None
    correct: int | None
    total: int | None
    metric: str
    selected_on: str
    epoch: int | None
    file: str
    sha256: str
    mlflow: str


@dataclass(frozen=True)
class Custody:
    """Everything behind the numbers of one encoder, floor or bank."""

    slug: str
    kind: str  # "run", "imported encoder", "floor" or "bank"
    anchor: str
    seed: int | None  # None where it is not known
    chain: Chain | None  # None where it has not been made
    steps: list[Step]
    numbers: dict[Key, Number]
    inputs: list[Digest]  # files that pretraining or the import read
    outputs: list[Digest]  # files that it wrote
    missing: list[str]

    @property
    def title(self) -> str:
        """How a column is headed: the seed, or the name where there is none."""
        return self.slug if self.seed is None else f"seed {self.seed}"


@dataclass(frozen=True)
class Group:
    """Runs or floors that differ only in their seed: one row of a table."""

    anchor: str
    title: str
    kind: str  # "method"; "step" of an ablation; "imported"; "floor"
    runs: list[Custody] = field(default_factory=list)


def _number(key: Key, artefact: Artefact | None) -> Number:
    task, protocol, variant = key
    name = " ".join(filter(None, (protocol, variant.replace("_", " "), task)))
    record = results_of(artefact).get(key) if artefact else None
    if artefact is None or record is None:
        return Number(name, None, None, None, "", "", None, "", "", "")
    file = record["predictions"]["file"]
    return Number(
        name,
        record["value"],
        record["correct"],
        record["total"],
        record["metric"],
        record["selected_on"],
        record["epoch"],
        file,
        digest_of(artefact, file),
        mlflow_of(artefact),
    )


def _data(judged: Judged, main: Artefact) -> list[Source]:
    """What an encoder was trained on; of a floor, which trains nothing, what it was judged on."""
    if isinstance(judged, Floor):
        return [dataset_source(name, main) for name in judged.features.tasks]
    found = [dataset_source(judged.spec.dataset, main)]
    if isinstance(judged, Run) and judged.spec.bank:
        found.append(source_of("bank", judged.spec.bank, main, "images.npy"))
    if isinstance(judged, Run) and judged.spec.pairs:
        found.append(source_of("pairs", judged.spec.pairs, main, "pairs.npy"))
    return found


def _checkpoints(judged: Judged, main: Artefact) -> list[Digest]:
    """The weights that were judged: files, and digests of the tensors in them."""
    facts, name = main.predicate["facts"], "encoder.safetensors"
    if isinstance(judged, Floor):
        start = ("checkpoints/start.safetensors",)
        uses = [d for d in main.predicate["resolvedDependencies"] if d["uri"].endswith(start)]
        return [(short(d["uri"]), d["digest"]["sha256"]) for d in uses]
    files = [(name, digest_of(main, name))]
    if isinstance(judged, Imported):
        source = facts.get("source")
        source = source if isinstance(source, dict) else {}
        foreign = str(source.get("path", "unknown")).rpartition("/")[2]
        tensors = [("its tensors", str(facts.get("tensors_sha256")))]
        return [*files, *tensors, (f"from {foreign}", str(source.get("sha256")))]
    ends = [("at the end", "final_sha256"), ("at the start", "init_sha256")]
    return files + [(f"tensors {when}", str(facts.get(key))) for when, key in ends]


def _missing(judged: Judged, artefacts: dict[str, Artefact], records: Records) -> list[str]:
    """Jobs that have left nothing current, each with the reason if it failed."""
    told = []
    for job in (encoder_job(judged), *judging_jobs(judged)):
        if job is not None and job.stage not in artefacts:
            reason = records.failure(job.stage, job.name, job.spec)
            told.append(STAGES[job.stage] + (f" (failed: {reason})" if reason else ""))
    return told


def _custody(judged: Judged, records: Records) -> Custody:
    artefacts, expected = current_artefacts(judged, records), expected_numbers(judged)
    maker = encoder_job(judged)
    trained = artefacts.get(maker.stage) if maker else None
    main = trained if maker else artefacts.get("extract-features")
    numbers = {
        key: _number(key, counted(judged, stage, artefacts))
        for stage, keys in expected.items()
        for key in keys
    }
    chain, inputs, outputs = None, [], []
    if main is not None:
        weights, data = _checkpoints(judged, main), _data(judged, main)
        chain = build_chain(main, artefacts.values(), weights, data, records)
    if trained is not None:
        used = trained.predicate["resolvedDependencies"]
        inputs = [(short(d["uri"]), d["digest"]["sha256"]) for d in used]
        outputs = [(name, s["digest"]["sha256"]) for name, s in trained.subjects.items()]
    return Custody(
        slug=judged.slug,
        kind=KINDS[_kind(judged)],
        anchor=f"run-{judged.slug}",
        seed=_seed(judged),
        chain=chain,
        steps=[build_step(t, artefacts[s], records) for s, t in STAGES.items() if s in artefacts],
        numbers=numbers,
        inputs=inputs,
        outputs=outputs,
        missing=_missing(judged, artefacts, records),
    )


def _seed(judged: Judged) -> int | None:
    if isinstance(judged, Imported):
        return None
    return judged.seed if isinstance(judged, Floor) else judged.spec.seed


def _kind(judged: Judged) -> str:
    if not isinstance(judged, Run):
        return "imported" if isinstance(judged, Imported) else "floor"
    return "step" if judged.variation else "method"


def build_groups(params: Params, records: Records) -> list[Group]:
    """Everything that params.yaml judges with its custody, grouped as tables group them."""
    groups: dict[Name, Group] = {}
    for judged in all_judged(params).values():
        name = row_name(judged)
        dataset, encoder, label = name
        title = f"{label} on {dataset}, {encoder}"
        group = groups.setdefault(name, Group(anchor("runs", *name), title, _kind(judged)))
        group.runs.append(_custody(judged, records))
    return list(groups.values())
