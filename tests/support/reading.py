"""Dataset kinds in tests: draw a miniature, read a folder."""

from clsp.config.schema import KINDS, DatasetSpec
from clsp.runtime.registry import load, names, settings_class

KINDS_ALL = names(KINDS)
FETCHED = tuple(kind for kind in KINDS_ALL if settings_class(KINDS, kind).fetched)
SPLITS = ("train", "val", "test")


def module_of(kind):
    return load(KINDS, kind, "kind")


def draw(kind, files, seed=0):
    """Draw the miniature of a kind into a folder; returns the folder."""
    files.mkdir(parents=True, exist_ok=True)
    module_of(kind).draw(files, seed)
    return files


def settings_of(kind, **options):
    return DatasetSpec(kind=kind, size=8, **options).settings()


def read(kind, files, **options):
    """What the reader of a kind finds in a folder; a fetched kind's is a miniature by default."""
    if kind in FETCHED:
        options = {"source": "miniature", "seed": 0, **options}
    return module_of(kind).read(settings_of(kind, **options), files)


def counts_of(source):
    return tuple(len(source.splits[split]) for split in SPLITS)


def names_of(source, split):
    return [item.name for item in source.splits[split]]


def labels_of(source, split):
    return [item.label for item in source.splits[split]]
