"""Stage check-data: whether the prepared data can carry what params.yaml asks of them.

Everything else about params.yaml is judged without data. What needs their counts is judged here,
over all datasets at once and before anything is trained: by a job where nothing is trained yet, and
by the Snakefile while it parses wherever the datasets lie prepared. Torch-free for that reason.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clsp.config.denoisers import DenoiserSpec
from clsp.config.foreign import expand_imported
from clsp.config.grid import expand_runs
from clsp.config.labels import spec_uses_labels
from clsp.config.measured import measured_banks
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
    """Images and classes per split of one prepared dataset.

    Attributes:
        train: Training images.
        test: Test images.
        train_classes: Classes that training images show.
        test_classes: Classes that test images show.
        labelled: Training images that have a label.
    """

    train: int
    test: int
    train_classes: int
    test_classes: int
    labelled: int


def read_counts(card: Path) -> Counts:
    """Counts as a prepared dataset's card gives them.

    Raises:
        DataError: If the file is no such card.
    """
    described = read_json(card)
    try:
        images = [stop - start for start, stop in (described["splits"][s] for s in JUDGED)]
        classes = [sum(count > 0 for count in described["counts"][split]) for split in JUDGED]
        return Counts(*images, *classes, labelled=images[0] - described["unlabelled"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{card}: gives no counts of images (field {error})") from error


@dataclass(frozen=True)
class _Demand:
    """Something that must not exceed the training images of a dataset, or the labelled ones."""

    key: str
    value: int
    dataset: str
    labelled: bool = False

    def problem(self, counts: Counts) -> str | None:
        """What is wrong, in one line; None if nothing is."""
        available = counts.labelled if self.labelled else counts.train
        which = "labelled training" if available < counts.train else "training"
        if self.value <= available:
            return None
        subject = f"the {available} {which} images of dataset {self.dataset}"
        return f"{self.key}: {self.value} exceeds {subject}"


def _demands(params: Params, shards: int) -> Iterator[_Demand]:
    for run in expand_runs(params).values():
        recipe = params.methods[str(run.axes["method"])].recipe
        dataset = run.spec.dataset
        yield _Demand(f"recipes.{recipe}.batch_size", run.spec.recipe.batch_size, dataset)
        yield _Demand("evaluation.knn.k", run.probe.knn.k, run.judged_on, labelled=True)
    for each in expand_imported(params).values():
        yield _Demand("evaluation.knn.k", each.probe.knn.k, each.judged_on, labelled=True)
    for name in denoisers_needed(params):
        denoiser = params.denoisers[name]
        if not isinstance(denoiser, DenoiserSpec):
            continue
        yield _Demand(f"denoisers.{name}.batch_size", denoiser.batch_size, denoiser.dataset)
    for name in banks_needed(params):
        yield _Demand("shards", shards, params.banks[name].dataset)
    for name in measured_banks(params):
        yield _Demand("quality.anchors", params.quality.anchors, params.banks[name].dataset)
    for name in pairs_needed(params):
        pairs = params.pairs[name]
        yield _Demand(f"pairs.{name}.neighbours", pairs.neighbours, pairs.dataset)


def _unusable(params: Params, counts: Mapping[str, Counts]) -> Iterator[str]:
    """What methods and positive sources find wrong with the images that they train on."""
    for run in expand_runs(params).values():
        dataset = run.spec.dataset
        if dataset not in counts:
            continue
        found = counts[dataset]
        try:
            params.methods[str(run.axes["method"])].settings().check_images(found.train)
        except ValueError as error:
            yield f"methods.{run.axes['method']}: {error} of dataset {dataset}"
        uses = spec_uses_labels(run.spec)
        for section, axis in (("methods", "method"), ("positives", "positives")):
            if uses[axis] and found.labelled < found.train:
                yield (
                    f"{section}.{run.axes[axis]}: uses labels, but {found.train - found.labelled} "
                    f"of the {found.train} training images of dataset {dataset} have none"
                )
    for name in banks_needed(params):
        bank = params.banks[name]
        seen = counts.get(bank.dataset)
        if seen and bank.settings().uses_labels and seen.labelled < seen.train:
            yield (
                f"banks.{name}: generator {bank.generator} uses labels, but "
                f"{seen.train - seen.labelled} of the {seen.train} training images of dataset "
                f"{bank.dataset} have none"
            )
    for name in denoisers_needed(params):
        denoiser = params.denoisers[name]
        found = counts.get(denoiser.dataset)
        if denoiser.uses_labels and found and found.labelled < found.train:
            yield (
                f"denoisers.{name}.label_drop: uses labels, but {found.train - found.labelled} of "
                f"the {found.train} training images of dataset {denoiser.dataset} have none"
            )


def _labelled(params: Params) -> Iterator[str]:
    """Datasets whose labels are used: encoders are judged on them."""
    yield from (run.judged_on for run in expand_runs(params).values())
    yield from (each.judged_on for each in expand_imported(params).values())
    if params.evaluation.transfer:
        yield from params.evaluation.transfer.datasets


def _unlabelled(params: Params, counts: Mapping[str, Counts]) -> Iterator[str]:
    """Datasets on which the agreement of candidates with labels means nothing."""
    for bank in measured_banks(params) if params.quality and params.quality.label_agreement else ():
        name = params.banks[bank].dataset
        if name in counts and counts[name].train_classes < 2:
            found = f"{counts[name].labelled} labelled images of {counts[name].train_classes}"
            yield (
                f"quality.label_agreement: the training split of dataset {name} has {found} "
                "classes; a probe needs 2 classes or more"
            )


def find_problems(params: Params, shards: int, counts: Mapping[str, Counts]) -> list[str]:
    """Everything that the data cannot meet, one line each; datasets without counts are passed over.

    Args:
        params: What is asked for.
        shards: Jobs that every bank is split into.
        counts: By name of the dataset.
    """
    demands = [each for each in _demands(params, shards) if each.dataset in counts]
    problems = (each.problem(counts[each.dataset]) for each in demands)
    lines = [problem for problem in problems if problem]
    lines += _unusable(params, counts)
    lines += _unlabelled(params, counts)
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
