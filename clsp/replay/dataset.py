"""A dataset prepared once more, from the same files or drawing, into a folder of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clsp.config.schema import DatasetSpec
from clsp.config.strict import parse
from clsp.data.prepare import prepare_dataset
from clsp.data.prepared import ARRAYS_FILE, CARD_FILE, ENCODED_FILE, LABELS_FILE
from clsp.runtime.canonical import read_json, sha256_file
from clsp.runtime.errors import ConfigError
from clsp.runtime.machine import describe_machine
from clsp.runtime.manifest import Artefact

LIST_FILE = "items.csv"


def prepare_again(dataset: Artefact, raw: Sequence[Artefact], folder: Path) -> dict[str, Any]:
    """Prepare a dataset again.

    Args:
        dataset: Of prepare-dataset; gives the settings.
        raw: Its fetched files, where its kind has some.
        folder: Where the files are made.

    Returns:
        files: name -> sha256; counts: images of each class by split; machine: what it ran on.

    Raises:
        ConfigError: If the artefact is no prepared dataset, or raw files do not fit.
        DataError: If files are missing or damaged.
    """
    if dataset.stage != "prepare-dataset":
        raise ConfigError(f"--dataset {dataset.manifest}: expected prepare-dataset")
    spec = parse(DatasetSpec, dataset.spec, f"{dataset.manifest}")
    for artefact in raw:
        artefact.verify()
    images = ENCODED_FILE if spec.encoded else ARRAYS_FILE
    made = {name: folder / name for name in (images, LABELS_FILE, LIST_FILE, CARD_FILE)}
    prepare_dataset(spec, list(raw), *made.values())
    return {
        "files": {name: sha256_file(path) for name, path in made.items()},
        "counts": read_json(made[CARD_FILE])["counts"],
        "machine": describe_machine(1),
    }
