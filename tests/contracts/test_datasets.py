"""Every dataset kind, found through the registry: a new file is tested the day it appears."""

import gzip
import hashlib
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from mirror import take_as_published
from PIL import Image

from clsp.config.catalog import dataset_info
from clsp.config.schema import KINDS, DatasetSpec, FetchSpec
from clsp.data.catalog import Source
from clsp.data.fetch import fetch_dataset
from clsp.data.pictures import fit
from clsp.data.prepare import prepare_dataset
from clsp.data.prepared import SPLITS, open_prepared
from clsp.runtime.canonical import read_json, sha256_array
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import Artefact, write_manifest
from clsp.runtime.registry import load, names, settings_class

ALL = names(KINDS)
DRAWN = tuple(kind for kind in ALL if settings_class(KINDS, kind).fetched)
HERE = {"digits": {"test_fraction": 0.25, "seed": 0}, "fashion_mnist": {}}
METRICS = {  # methods.md 4.1; the others: top1
    "flowers102": "mean_per_class",
    "pets": "mean_per_class",
    "aircraft": "mean_per_class",
    "caltech101": "mean_per_class",
    "voc2007": "map11",
}


def drawn_spec(kind: str, seed: int = 0, **fields) -> DatasetSpec:
    return DatasetSpec(kind=kind, size=16, source="miniature", seed=seed, **fields)


def as_artefact(folder: Path, stage: str, spec: DatasetSpec, outputs: list[str]) -> Artefact:
    predicate = {"step": stage, "externalParameters": {"spec": spec.canonical()}}
    paths = {name: folder / name for name in outputs}
    return write_manifest(folder / "manifest.json", paths, [], predicate)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Folder of the miniature of each kind, seed 0."""
    home = tmp_path_factory.mktemp("miniatures")
    for kind in DRAWN:
        (home / kind).mkdir()
        fetch_dataset(drawn_spec(kind), home / kind / "files")
    return home


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + values.tobytes(), 1))


@pytest.fixture
def local_kind(tmp_path, monkeypatch):
    """Options of the kinds that are not fetched, with files to read."""
    stream = np.random.default_rng(0)
    fashion = tmp_path / "fashion"
    fashion.mkdir()
    for prefix, count in (("train", 30), ("t10k", 20)):
        images = stream.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(fashion / f"{prefix}-images-idx3-ubyte.gz", images)
        labels = np.arange(count, dtype=np.uint8) % 10
        write_idx(fashion / f"{prefix}-labels-idx1-ubyte.gz", labels)
    take_as_published(fashion, monkeypatch)
    monkeypatch.setenv("FASHION_MNIST_ROOT", str(fashion))
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "folder" / split / name
            folder.mkdir(parents=True)
            pixels = stream.integers(0, 256, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "0.png")
    for folder in ("train", "val"):
        for wnid in dataset_info("imagenet100").class_names:
            (tmp_path / "imagenet" / folder / wnid).mkdir(parents=True)
            pixels = stream.integers(0, 256, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "imagenet" / folder / wnid / "0.JPEG")
    imagenet = {"root": str(tmp_path / "imagenet"), "counts": "as_found"}
    return {**HERE, "image_folder": {"root": str(tmp_path / "folder")}, "imagenet100": imagenet}


def read_drawn(kind: str, home: Path, seed: int = 0) -> Source:
    return load(KINDS, kind, "kind").read(drawn_spec(kind, seed).settings(), home / kind / "files")


def labels_of(items) -> list[int]:
    labels = (item.label if isinstance(item.label, tuple) else (item.label,) for item in items)
    return [label for each in labels for label in each]


def tree_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


@pytest.mark.parametrize("kind", ALL)
def test_the_facts_are_complete(kind):
    known = dataset_info(kind)
    for field in ("title", "license", "source", "citation"):
        assert getattr(known, field), field
    assert known.metric == METRICS.get(kind, "top1")


@pytest.mark.parametrize("kind", DRAWN)
def test_archives_are_https_with_confirmed_digests(kind):
    archives = dataset_info(kind).archives
    assert archives
    for archive in archives:
        assert archive.urls or archive.manual
        for url in archive.urls:
            parts = urlsplit(url)
            assert parts.scheme == "https" and parts.username is None and not parts.query
            assert any(parts.hostname.endswith(host) for host in archive.hosts)
        assert archive.size > 0 and archive.checked
        assert re.fullmatch(r"[0-9a-f]{64}", archive.sha256)
        assert archive.md5 is None or re.fullmatch(r"[0-9a-f]{32}", archive.md5)


@pytest.mark.parametrize("kind", ALL)
def test_an_unknown_option_is_refused(kind):
    here = {**HERE, "image_folder": {"root": "x"}, "imagenet100": {"root": "x"}}
    options = {"source": "miniature", "seed": 0} if kind in DRAWN else here[kind]
    DatasetSpec(kind=kind, size=8, **options)
    with pytest.raises(ValueError, match='unknown key "sizze"'):
        DatasetSpec(kind=kind, size=8, sizze=1, **options)


@pytest.mark.parametrize("kind", DRAWN)
def test_a_miniature_needs_a_seed(kind):
    with pytest.raises(ValueError, match="seed"):
        DatasetSpec(kind=kind, size=8, source="miniature")


@pytest.mark.parametrize("kind", DRAWN)
def test_a_miniature_is_read_by_the_real_reader(kind, drawn):
    source = read_drawn(kind, drawn)
    assert len(set(source.classes)) == len(source.classes) >= 4
    assert all(name.strip() for name in source.classes)
    seen = {}
    for split in SPLITS:
        labels = set(labels_of(source.splits[split]))
        assert labels == set(range(len(source.classes))) or (split == "val" and not labels)
        for item in source.splits[split]:
            content = fit(item.open(), 16).tobytes()
            assert content not in seen, f"{split} repeats an image of {seen.get(content)}"
            seen[content] = split


@pytest.mark.parametrize("kind", DRAWN)
def test_a_miniature_depends_on_its_seed_alone(kind, drawn, tmp_path):
    np.random.seed(5)  # the global stream must not matter
    fetch_dataset(drawn_spec(kind), tmp_path / "again")
    fetch_dataset(drawn_spec(kind, seed=1), tmp_path / "other")
    first = tree_digest(drawn / kind / "files")
    assert tree_digest(tmp_path / "again") == first
    assert tree_digest(tmp_path / "other") != first


def test_miniatures_are_small_and_differ_from_each_other(drawn):
    total = sum(p.stat().st_size for p in drawn.rglob("*") if p.is_file())
    assert total < 5 << 20
    means = [fit(read_drawn(k, drawn).splits["test"][0].open(), 16).mean((0, 1)) for k in DRAWN]
    assert len({tuple(mean) for mean in means}) == len(DRAWN)


@pytest.mark.parametrize("kind", ALL)
def test_a_kind_prepares(kind, drawn, local_kind, tmp_path):
    raw = []
    if kind in DRAWN:
        spec = drawn_spec(kind)
        raw = [as_artefact(drawn / kind, "fetch-dataset", FetchSpec.behind(spec), ["files"])]
    else:
        spec = DatasetSpec(kind=kind, size=16, **local_kind[kind])
    names_out = ("images.npy", "labels.npy", "items.csv", "card.json")
    outcome = prepare_dataset(spec, raw, *(tmp_path / name for name in names_out))
    dataset = open_prepared(as_artefact(tmp_path, "prepare-dataset", spec, list(names_out)))
    card = dataset.card
    assert card == read_json(tmp_path / "card.json")
    assert card["images_sha256"] == sha256_array(dataset.images)
    assert card["labels_sha256"] == sha256_array(dataset.labels)
    assert outcome.counters["images"] == len(dataset.labels) == card["splits"]["test"][1]
    assert card["miniature"] is (kind in DRAWN)
    assert ("miniature" in card["title"]) is card["miniature"]
    assert card["metric"] == dataset_info(kind).metric
    assert card["multilabel"] is (kind == "voc2007")
    for split in SPLITS:
        part = dataset.split(split)
        shown = part.labels if dataset.multilabel else np.eye(len(dataset.classes))[part.labels]
        assert shown.sum(axis=0).astype(int).tolist() == card["counts"][split]
    train = dataset.split("train").images.astype(np.float64) / 255
    np.testing.assert_allclose(dataset.mean, train.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, train.std((0, 1, 2)), rtol=1e-9)


@pytest.mark.parametrize("kind", DRAWN)
def test_missing_files_are_named(kind, tmp_path):
    settings = drawn_spec(kind).settings()
    with pytest.raises(DataError, match=str(tmp_path)):
        load(KINDS, kind, "kind").read(settings, tmp_path)


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in DRAWN])
def test_what_lies_here_is_not_fetched(kind, local_kind, tmp_path):
    spec = DatasetSpec(kind=kind, size=8, **local_kind[kind])
    with pytest.raises(ConfigError, match="nothing to fetch"):
        fetch_dataset(spec, tmp_path / "files")


def test_the_data_stage_does_not_import_torch(tmp_path):
    """Seventeen jobs of the demo are spared two seconds each."""
    modules = ["clsp.data.fetch", "clsp.data.prepare", *(f"{KINDS}.{kind}" for kind in ALL)]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
