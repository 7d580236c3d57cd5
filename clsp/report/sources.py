"""What runs were made from, as the page tells it: datasets, denoisers, banks, pairs, imports."""

from collections.abc import Iterator
from typing import Any

from clsp.config.denoisers import DenoiserSpec
from clsp.config.plan import (
    banks_needed,
    datasets_needed,
    denoisers_needed,
    expected_jobs,
    pairs_needed,
)
from clsp.config.schema import Params
from clsp.report.chain import (
    build_step,
    digest_of,
    environment_text,
)
from clsp.report.escape import anchor
from clsp.report.records import SHARD, Records, name_of, shard_of
from clsp.runtime.canonical import read_json
from clsp.runtime.manifest import Artefact

Entry = dict[str, Any]


def build_cards(params: Params, records: Records) -> list[Entry]:
    """The card of every dataset that the runs need, with its archives; without one, that."""
    cards = []
    for name in datasets_needed(params):
        entry: Entry = {"dataset": name, "anchor": anchor("dataset", name), "card": None}
        for artefact in records.named("prepare-dataset", name)[:1]:
            entry["card"] = read_json(artefact.path("card.json"))
            entry["manifest"] = records.relative(artefact)
            entry["files"] = [(file, digest_of(artefact, file)) for file in artefact.subjects]
        for fetched in records.named("fetch-dataset", name)[:1]:
            archives = fetched.predicate["facts"].get("archives")
            entry["archives"] = archives if isinstance(archives, list) else []
            entry["drawn"] = bool(fetched.predicate["facts"].get("miniature"))
        cards.append(entry)
    return cards


def _stored(records: Records, kind: str, stage: str, names: list[str], file: str) -> list[Entry]:
    """What is known of every artefact of a stage; one that is not there has no step."""
    found = []
    for name in names:
        entry: Entry = {"name": name, "anchor": anchor(kind, name), "step": None}
        for artefact in records.named(stage, name)[:1]:
            entry |= {
                "step": build_step(stage, artefact, records),
                "sha256": digest_of(artefact, file),
                "metrics": artefact.metrics,
                "counters": artefact.predicate.get("counters", {}),
                "spec": artefact.spec,
                "facts": artefact.predicate["facts"],
                "label_conditioned": artefact.predicate["facts"].get("label_conditioned"),
            }
        found.append(entry)
    return found


def build_banks(params: Params, records: Records) -> list[Entry]:
    """What is known of every bank that a run reads, with the denoiser that drew it."""
    banks = _stored(records, "bank", "gather-bank", banks_needed(params), "images.npy")
    for bank in banks:
        bank["denoiser"] = params.banks[bank["name"]].denoiser
    return banks


def build_denoisers(params: Params, records: Records) -> list[Entry]:
    """What is known of every denoiser behind them; digests are of tensors, by set of weights."""
    found = []
    for name in denoisers_needed(params):
        trained = isinstance(params.denoisers[name], DenoiserSpec)
        stage = "train-denoiser" if trained else "import-denoiser"
        (entry,) = _stored(records, "denoiser", stage, [name], "")
        digests = entry.get("facts", {}).get("tensors_sha256")
        entry["digests"] = sorted(digests.items()) if isinstance(digests, dict) else []
        found.append({**entry, "trained": trained})
    return found


def build_pairs(params: Params, records: Records) -> list[Entry]:
    """What is known of all pairs that a run trains on."""
    return _stored(records, "pairs", "mine-pairs", pairs_needed(params), "pairs.npy")


def build_imports(params: Params, records: Records) -> list[Entry]:
    """What is known of every file that a denoiser or an encoder was imported from.

    Where the file lay on the machine that read it is left out: it is of no use elsewhere.
    """
    jobs = [
        job for job in expected_jobs(params) if job.stage in ("import-denoiser", "import-encoder")
    ]
    found = []
    for job in jobs:
        for artefact in records.named(job.stage, job.name)[:1]:
            facts = artefact.predicate["facts"]
            source = facts.get("source")
            source = source if isinstance(source, dict) else {}
            found.append(
                {
                    "name": job.name,
                    "anchor": anchor("import", job.stage, job.name),
                    "manifest": records.relative(artefact),
                    "source": {k: v for k, v in source.items() if k not in ("path", "resolved")},
                    "asked": job.spec.get("path", ""),
                    "facts": {
                        key: facts.get(key)
                        for key in ("format", "architecture", "dropped", "label_conditioned")
                        if key in facts
                    },
                }
            )
    return found


def _in_use(params: Params, records: Records) -> Iterator[Artefact]:
    """Every artefact that params.yaml asks for; what lies there from earlier settings is not."""
    wanted = {(job.stage, job.name) for job in expected_jobs(params)}
    for artefact in records:
        name = name_of(artefact)
        spare = artefact.stage == SHARD and shard_of(artefact) not in records.shards_of(name)
        if (artefact.stage, name) in wanted and not spare:
            yield artefact


def build_environments(params: Params, records: Records) -> list[tuple[str, str, list[str]]]:
    """Each environment that made something: anchor, text, and the number of jobs per stage."""
    seen: dict[str, dict[str, int]] = {}
    for artefact in _in_use(params, records):
        stages = seen.setdefault(environment_text(artefact), {})
        stages[artefact.stage] = stages.get(artefact.stage, 0) + 1
    return [
        (
            anchor("environment", text),
            text,
            [f"{count} × {stage}" for stage, count in sorted(stages.items())],
        )
        for text, stages in sorted(seen.items())
    ]
