"""Stage count-duplicates: test images that are exact duplicates of what something is trained on.

Compared by content hash, never by name: the pixels of an image at its own resolution (the column
`source` of items.csv), and the pixels that networks see (`stored`) where both sides have one size.
Near duplicates, such as a JPEG saved again, are not found this way.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clsp.config.foreign import expand_imported
from clsp.config.grid import expand_runs
from clsp.config.plan import banks_needed, datasets_needed, denoisers_needed, pairs_needed
from clsp.config.schema import Params
from clsp.data.bank import open_bank
from clsp.runtime.canonical import canonical_json, read_json
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.files import write_atomic
from clsp.runtime.manifest import Artefact
from clsp.runtime.progress import Progress
from clsp.runtime.stage import Inputs, Outcome, Output

SCHEMA = 1
EXAMPLES = 5  # of each comparison
SHORT = 16  # hex digits of a digest that a bank's index holds


@dataclass(frozen=True)
class Comparison:
    """One set that something is trained on, and a test split that something is judged on.

    Attributes:
        kind: "dataset" or "bank", whose images or candidates pretraining sees; "task", whose
            images a classifier is fitted on before it is judged on the same dataset.
        name: Of the dataset or bank.
        splits: Of the dataset; none of a bank.
        tested: Name of the dataset whose test split it is.
    """

    kind: str
    name: str
    splits: tuple[str, ...]
    tested: str

    @property
    def trained_on(self) -> str:
        """For example "digits/train", or "digits.mix" of a bank."""
        return f"{self.name}/{'+'.join(self.splits)}" if self.splits else self.name


@dataclass(frozen=True)
class Images:
    """Digests of a set of images, row by row; 32 hex digits, of a bank's candidates 16.

    Attributes:
        names: Of each image, "train/cat/0001.png" or "anchor 3, candidate 1".
        rows: Row of each image in the arrays.
        source: Digest of its pixels at its own resolution.
        stored: Digest of its pixels as networks see them.
        size: Side of those, pixels.
    """

    names: list[str]
    rows: list[int]
    source: list[str]
    stored: list[str]
    size: int


def compare_what(params: Params) -> list[Comparison]:
    """Every comparison that the runs of params.yaml call for, in their order."""
    runs = expand_runs(params).values()
    tasks = params.evaluation.transfer.datasets if params.evaluation.transfer else ()
    imported = expand_imported(params).values()
    judged = list(dict.fromkeys([*(each.judged_on for each in [*runs, *imported]), *tasks]))
    trained = [n for each in [*runs, *imported] for n in (each.spec.dataset, each.judged_on)]
    trained += [params.denoisers[name].dataset for name in denoisers_needed(params)]
    trained += [params.banks[name].dataset for name in banks_needed(params)]
    trained += [params.pairs[name].dataset for name in pairs_needed(params)]
    sets = [("dataset", name, ("train",)) for name in dict.fromkeys(trained)]
    sets += [("bank", name, ()) for name in banks_needed(params)]
    found = [Comparison(*each, tested) for each in sets for tested in judged]
    return found + [Comparison("task", task, ("train", "val"), task) for task in tasks]


def read_items(path: Path, size: int, splits: tuple[str, ...]) -> Images:
    """The images of some splits from a prepared dataset's items.csv.

    Raises:
        DataError: If the file cannot be read or lacks a column.
    """
    found = Images([], [], [], [], size)
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            for row, line in enumerate(csv.DictReader(stream)):
                if line["split"] in splits:
                    found.names.append(line["name"])
                    found.rows.append(row)
                    found.source.append(line["source"])
                    found.stored.append(line["stored"])
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise DataError(f"{path}: not a readable list of images ({error!r})") from error
    return found


def _read_bank(artefact: Artefact) -> Images:
    """The candidates of a bank. Nobody else has them at another resolution: both digests agree."""
    bank = open_bank(artefact)
    anchors, candidates = (bank.index[field].tolist() for field in ("anchor", "candidate"))
    names = [f"anchor {a}, candidate {c}" for a, c in zip(anchors, candidates, strict=True)]
    digests = [f"{number:0{SHORT}x}" for number in bank.index["sha64"].tolist()]
    return Images(names, list(range(len(names))), digests, digests, bank.images.shape[3])


def match(trained: Images, tested: Images) -> Iterator[tuple[int, int]]:
    """For every test image that has a duplicate: the place of the first one, and its own place."""
    digits = len(trained.source[0]) if trained.source else 0
    sources, stored = ({} for _ in range(2))
    for place, (source, seen) in enumerate(zip(trained.source, trained.stored, strict=True)):
        sources.setdefault(source, place)
        stored.setdefault(seen, place)
    for place, (source, seen) in enumerate(zip(tested.source, tested.stored, strict=True)):
        other = sources.get(source[:digits])
        if other is None and trained.size == tested.size:
            other = stored.get(seen[:digits])
        if other is not None:
            yield other, place


def _record(comparison: Comparison, trained: Images, tested: Images) -> dict[str, Any]:
    found = list(match(trained, tested))
    return {
        "kind": comparison.kind,
        "trained_on": comparison.trained_on,
        "tested_on": f"{comparison.tested}/test",
        "trained_images": len(trained.rows),
        "images": len(tested.rows),
        "duplicates": len(found),
        "examples": [
            {
                "rows": [trained.rows[place], tested.rows[other]],
                "names": [trained.names[place], tested.names[other]],
            }
            for place, other in found[:EXAMPLES]
        ],
    }


class _Opened:
    """Sets of images, read once each; what a comparison lacks is named."""

    def __init__(self, datasets: list[Artefact], banks: list[Artefact]) -> None:
        self._datasets = {artefact.folder.name: artefact for artefact in datasets}
        self._banks = {artefact.folder.name: artefact for artefact in banks}
        self._read: dict[tuple[str, tuple[str, ...]], Images] = {}

    def refuse_absent(self, params: Params) -> None:
        """Raise ConfigError if a dataset or bank that the runs need is not there."""
        for flag, needed, given in (
            ("--datasets", datasets_needed(params), self._datasets),
            ("--banks", banks_needed(params), self._banks),
        ):
            if absent := [name for name in needed if name not in given]:
                raise ConfigError(f"{flag}: {', '.join(absent)} not among those given")

    def images(self, name: str, splits: tuple[str, ...]) -> Images:
        """Some splits of a dataset, or without splits a bank."""
        key = name, splits
        if key not in self._read:
            self._read[key] = (
                self._dataset(name, splits) if splits else _read_bank(self._banks[name])
            )
        return self._read[key]

    def _dataset(self, name: str, splits: tuple[str, ...]) -> Images:
        artefact = self._datasets[name]
        card = artefact.path("card.json")
        described = read_json(card)
        try:
            size, ranges = int(described["size"]), described["splits"]
            expected = sum(ranges[split][1] - ranges[split][0] for split in splits)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(f"{card}: gives no size and splits (field {error})") from error
        path = artefact.path("items.csv")
        found = read_items(path, size, splits)
        if len(found.rows) != expected:
            raise DataError(
                f"{path}: {len(found.rows)} images of {'+'.join(splits)}, the card says {expected}"
            )
        return found


def count_duplicates(spec: Params, datasets: Inputs, banks: Inputs, duplicates: Output) -> Outcome:
    """Compare everything that is trained on with every test split that is judged on.

    Args:
        spec: All of params.yaml but what concerns the machine.
        datasets: Every prepared dataset that the runs need.
        banks: Every gathered bank that a run reads.
        duplicates: JSON: for each comparison the test images that have a duplicate among the
            images trained on, and the first of them by row and name.

    Raises:
        ConfigError: Naming a dataset or bank that is not given.
        DataError: If an artefact's files do not fit each other.
    """
    opened, records = _Opened(datasets, banks), []
    opened.refuse_absent(spec)
    wanted = compare_what(spec)
    with Progress("count duplicates", len(wanted), "comparison") as progress:
        for comparison in wanted:
            trained = opened.images(comparison.name, comparison.splits)
            tested = opened.images(comparison.tested, ("test",))
            records.append(_record(comparison, trained, tested))
            progress.step()
    write_atomic(duplicates, canonical_json({"schema_version": SCHEMA, "pairs": records}) + "\n")
    found = sum(record["duplicates"] for record in records)
    affected = sum(record["duplicates"] > 0 for record in records)
    counters = {"comparisons": len(records), "duplicates": found, "affected": affected}
    return Outcome(counters=counters)
