"""Stage check-data: whether the prepared data can carry what params.yaml asks of them.

Everything else about params.yaml is judged without data. What needs their counts is judged here,
over all datasets at once and before anything is trained: by a job where nothing is trained yet, and
by the Snakefile while it parses wherever the datasets lie prepared. Torch-free for that reason.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clsp.config.grid import expand_runs
from clsp.config.plan import (
    banks_needed,
    datasets_needed,
    denoisers_needed,
    pairs_needed,
    prepare_job,
)
from clsp.config.schema import Params
from clsp.runtime.canonical import canonical_json, read_json
from clsp.runtime.errors import ClspError, ConfigError, DataError
from clsp.runtime.files import write_atomic
from clsp.runtime.manifest import ENDING, read_manifest
from clsp.runtime.stage import Inputs, Outcome, Output

JUDGED = ("train", "test")


@dataclass(frozen=True)
class Counts:
    """Images and classes per split of one prepared dataset."""

    train: int
    test: int
    train_classes: int
    test_classes: int


def read_counts(card: Path) -> Counts:
    """Counts as a prepared dataset's card gives them.

    Raises:
        DataError: If the file is no such card.
    """
    described = read_json(card)
    try:
        per_class = [described["counts"][split] for split in JUDGED]
        classes = [sum(count > 0 for count in counts) for counts in per_class]
        return Counts(*(sum(counts) for counts in per_class), *classes)
    except (KeyError, TypeError) as error:
        raise DataError(f"{card}: gives no counts of images (field {error})") from error


def _demands(params: Params, shards: int) -> Iterator[tuple[str, int, str]]:
    """Key path, value and dataset of everything that must not exceed the training images."""
    for run in expand_runs(params).values():
        recipe = params.methods[str(run.axes["method"])].recipe
        yield f"recipes.{recipe}.batch_size", run.spec.recipe.batch_size, run.spec.dataset
        yield "evaluation.knn.k", run.probe.knn.k, run.spec.dataset
    for name in denoisers_needed(params):
        denoiser = params.denoisers[name]
        yield f"denoisers.{name}.batch_size", denoiser.batch_size, denoiser.dataset
    for name in banks_needed(params):
        yield "shards", shards, params.banks[name].dataset
    for name in pairs_needed(params):
        yield f"pairs.{name}.neighbours", params.pairs[name].neighbours, params.pairs[name].dataset


def _unusable(params: Params, counts: Mapping[str, Counts]) -> Iterator[str]:
    """What methods themselves find wrong with the number of images that they train on."""
    for run in expand_runs(params).values():
        name, dataset = run.axes["method"], run.spec.dataset
        if dataset in counts:
            try:
                params.methods[str(name)].settings().check_images(counts[dataset].train)
            except ValueError as error:
                yield f"methods.{name}: {error} of dataset {dataset}"


def _labelled(params: Params) -> Iterator[str]:
    """Datasets whose labels are used: encoders are judged on them."""
    yield from (run.spec.dataset for run in expand_runs(params).values())
    if params.evaluation.transfer:
        yield from params.evaluation.transfer.datasets


def find_problems(params: Params, shards: int, counts: Mapping[str, Counts]) -> list[str]:
    """Everything that the data cannot meet, one line each; datasets without counts are passed over.

    Args:
        params: What is asked for.
        shards: Jobs that every bank is split into.
        counts: By name of the dataset.
    """
    lines = [
        f"{key}: {value} exceeds the {counts[name].train} training images of dataset {name}"
        for key, value, name in _demands(params, shards)
        if name in counts and value > counts[name].train
    ]
    lines += _unusable(params, counts)
    for name in _labelled(params):
        for split in JUDGED if name in counts else ():
            found = getattr(counts[name], f"{split}_classes")
            if found < 2:
                lines.append(
                    f"datasets.{name}: {split} has {getattr(counts[name], split)} images of "
                    f"{found} classes; encoders are judged on 2 classes or more"
                )
    return list(dict.fromkeys(lines))


def _refuse(problems: Iterable[str]) -> None:
    if problems:
        raise ConfigError("\n  ".join(problems))


def check_prepared(params: Params, cards: Mapping[str, Path], contents: Mapping[str, str]) -> None:
    """Judge params.yaml by the datasets that lie prepared already, made as it asks for now.

    Args:
        params: With its number of shards.
        cards: Where each dataset's card is, or would be; its manifest lies beside it.
        contents: Fingerprint of each dataset's folder, as clsp.data.fingerprint gives it.

    Raises:
        ConfigError: Naming every key whose value the data cannot meet.
    """
    counts = {}
    for name, card in cards.items():
        job = prepare_job(params, name)
        try:
            made = read_manifest(card.with_name(ENDING)).predicate
            inside = made["internalParameters"].get("code")
            current = (made["externalParameters"]["spec"], inside) == (job.spec, job.code)
            if current and read_json(card).get("fingerprint") == contents[name]:
                counts[name] = read_counts(card)
        except (ClspError, KeyError, TypeError, AttributeError):
            continue  # not prepared, or damaged: prepare-dataset and the audit say so
    _refuse(find_problems(params, params.shards, counts))


def check_data(spec: Params, datasets: Inputs, shards: int, checked: Output) -> Outcome:
    """Compare batch sizes, neighbours and shards with the prepared datasets, and write the counts.

    Args:
        spec: All of params.yaml but what concerns the machine.
        datasets: Every prepared dataset that the runs need.
        shards: Jobs that every bank is split into.
        checked: JSON with the counts that were looked at.

    Raises:
        ConfigError: Naming every key whose value the data cannot meet, or a dataset not given.
        DataError: If a card is damaged.
    """
    counts = {made.folder.name: read_counts(made.path("card.json")) for made in datasets}
    absent = [name for name in datasets_needed(spec) if name not in counts]
    if absent:
        raise ConfigError(f"--datasets: {', '.join(absent)} not among those given")
    _refuse(find_problems(spec, shards, counts))
    seen: dict[str, Any] = {name: asdict(found) for name, found in counts.items()}
    write_atomic(checked, canonical_json({"schema_version": 1, "datasets": seen}) + "\n")
    return Outcome(counters={"datasets": len(counts)})
