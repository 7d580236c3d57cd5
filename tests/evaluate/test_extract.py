"""The stage extract-features and the cache that it writes."""

import os
from collections.abc import Callable
from errno import ENOSPC
from os import strerror
from pathlib import Path

import numpy as np
import pytest
from frozen import untrained
from safetensors.numpy import load_file, save_file

from clsp.config.evaluation import FeatureSpec
from clsp.data.prepared import open_prepared
from clsp.evaluate.cache import feature_file, open_features
from clsp.evaluate.extract import extract_features
from clsp.evaluate.labelled import open_task
from clsp.models.features import extract, open_frozen, open_untrained
from clsp.runtime.checkpoint import save_tensors
from clsp.runtime.device import resolve
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import Artefact

SLUG = "digits.tiny.simclr.none.s0"
Make = Callable[..., Artefact]


def spec_of(**changes: object) -> FeatureSpec:
    given = {"run": SLUG, "source": "encoder", "own": "digits", "mirrored": False, "tasks": ["b"]}
    return FeatureSpec(**{**given, **changes})


def test_every_split_of_every_dataset_is_extracted_once(
    tmp_path: Path, make_dataset: Make, make_run: Make
) -> None:
    run, own = make_run(), make_dataset()
    other = make_dataset("b", splits={"train": 12, "val": 6, "test": 9}, seed=3)
    spec, file = spec_of(mirrored=True, tasks=["b", "digits"]), tmp_path / "features.safetensors"
    outcome = extract_features(spec, [run], [own, other], file)
    stored = load_file(file)
    counts = {
        "digits/train": 48,
        "digits/train.mirrored": 48,
        "digits/test": 24,
        "b/train": 12,
        "b/val": 6,
        "b/test": 9,
    }
    assert {name: array.shape for name, array in stored.items()} == {
        name: (count, 32) for name, count in counts.items()
    }
    assert {array.dtype for array in stored.values()} == {np.dtype(np.float32)}
    frozen, images = open_frozen(run, SLUG, resolve()), open_prepared(own).images
    plain = extract(frozen, images, 64, "test")
    np.testing.assert_array_equal(stored["digits/train"], plain[:48])
    np.testing.assert_array_equal(stored["digits/test"], plain[48:])
    mirrored = extract(frozen, images[:48], 64, "test", mirrored=True)
    np.testing.assert_array_equal(stored["digits/train.mirrored"], mirrored)
    assert outcome.facts == {
        "epoch": 20,
        "source": "encoder",
        "features": 32,
        "resolutions": {"digits": 8, "b": 8},
    }
    assert outcome.counters == {"images": sum(counts.values()), "datasets": 2}
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [file.name]


def test_images_without_a_label_are_left_out(make_dataset: Make, make_run: Make) -> None:
    labels = np.arange(72) % 3
    labels[5:40:7] = -1
    dataset, run = make_dataset(labels=labels), make_run()
    task = open_task(dataset)
    extracted = extract(open_frozen(run, SLUG, resolve()), task.train.images, 64, "test")
    every = extract(open_frozen(run, SLUG, resolve()), open_prepared(dataset).images, 64, "test")
    assert len(extracted) == 43
    np.testing.assert_allclose(extracted, every[task.train.rows], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(task.train.rows, np.flatnonzero(labels[:48] >= 0))


def test_an_untrained_encoder_has_the_weights_before_the_first_step(
    make_dataset: Make, make_run: Make, make_features: Make
) -> None:
    run, dataset = make_run(), make_dataset("b")
    artefact = make_features(run, [dataset], slug="digits.tiny.random.s0", source="random")
    cached = open_features(artefact, "digits.tiny.random.s0")
    assert (cached.epoch, cached.source, cached.own) == (None, "random", None)
    frozen = open_untrained(run, resolve())
    state = frozen.encoder.state_dict()
    for name, tensor in untrained().items():
        if name.startswith("encoder."):
            np.testing.assert_array_equal(state[name.removeprefix("encoder.")], tensor)
    assert not frozen.encoder.training
    trained = open_frozen(run, SLUG, resolve())
    assert frozen.statistics == trained.statistics
    images = open_task(dataset).test.images
    np.testing.assert_array_equal(cached.get("b", "test"), extract(frozen, images, 64, "test"))
    assert not np.allclose(cached.get("b", "test"), extract(trained, images, 64, "test"))


def test_pixels_are_the_pixels(make_dataset: Make, make_features: Make) -> None:
    dataset = make_dataset("b")
    cached = open_features(make_features(None, [dataset], slug="p", source="pixels"), "p")
    expected = np.array(open_task(dataset).train.images).reshape(48, -1) / 255
    np.testing.assert_allclose(cached.get("b", "train"), expected, rtol=1e-6)
    assert (cached.epoch, cached.resolutions) == (None, {"b": 8})


def test_large_images_are_reduced_before_their_pixels_count(
    tmp_path: Path, make_dataset: Make, make_features: Make
) -> None:
    dataset = make_dataset("b", splits={"train": 3, "val": 0, "test": 3})
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    np.save(dataset.path("images.npy"), images)
    cached = open_features(make_features(None, [dataset], slug="p", source="pixels"), "p")
    found = cached.get("b", "test")
    assert (found.shape, cached.resolutions) == ((3, 3 * 32 * 32), {"b": 32})
    blocks = images[3:].reshape(3, 32, 2, 32, 2, 3).mean((2, 4))  # means of 2 x 2 pixels
    # It rounds after either direction.
    np.testing.assert_allclose(255 * found, blocks.reshape(3, -1), atol=1.01)


def test_pixels_of_datasets_of_several_sizes_have_no_common_width(
    tmp_path: Path, make_dataset: Make
) -> None:
    small, large = make_dataset("a"), make_dataset("b")
    images = np.zeros((72, 16, 16, 3), np.uint8)
    np.save(large.path("images.npy"), images)
    spec = spec_of(source="pixels", own=None, tasks=["a", "b"])
    outcome = extract_features(spec, [], [small, large], tmp_path / "features.safetensors")
    assert (outcome.facts["features"], outcome.facts["resolutions"]) == (None, {"a": 8, "b": 16})


def test_several_classes_per_image_are_extracted_like_one(
    make_dataset: Make, make_run: Make, make_features: Make
) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (72, 3))
    dataset = make_dataset("voc", labels=labels, metric="map11")
    cached = open_features(make_features(make_run(), [dataset]), SLUG)
    assert cached.of(open_task(dataset), "train").shape == (48, 32)


@pytest.mark.parametrize(
    ("changes", "given", "message"),
    [
        ({}, ["b", "digits"], r"asks for 2 in this order: digits, b; given are 2: b, digits"),
        ({}, ["digits"], r"asks for 2 in this order: digits, b; given are 1: digits"),
        ({"source": "pixels", "own": None}, ["b"], r'from "pixels" need 0 encoders, found 1'),
        ({"own": None, "mirrored": True}, ["b"], r"mirrored features are asked for, but no own"),
        ({"run": "x"}, ["digits", "b"], r'holds run "digits\..*but the spec judges "x"'),
    ],
)
def test_what_does_not_fit_the_spec_is_refused(
    tmp_path: Path, make_dataset: Make, make_run: Make, changes: dict, given: list, message: str
) -> None:
    datasets = [make_dataset(name) for name in given]
    with pytest.raises(ConfigError, match=message):
        extract_features(spec_of(**changes), [make_run()], datasets, tmp_path / "f.safetensors")


@pytest.mark.parametrize("source", ["encoder", "random"])
def test_a_missing_encoder_is_refused(tmp_path: Path, make_dataset: Make, source: str) -> None:
    spec = spec_of(source=source, own=None)
    with pytest.raises(ConfigError, match=rf'from "{source}" need 1 encoders, found 0'):
        extract_features(spec, [], [make_dataset("b")], tmp_path / "features.safetensors")


def test_a_snapshot_of_another_architecture_is_named(make_run: Make) -> None:
    run = make_run()
    tensors = {n: t for n, t in untrained().items() if "layer4" not in n}
    save_tensors(run.path("checkpoints/start.safetensors"), tensors, {})
    with pytest.raises(DataError, match=r"start.safetensors: does not fit the architecture"):
        open_untrained(run, resolve())


def test_features_that_are_not_finite_leave_no_file(
    tmp_path: Path, make_dataset: Make, make_run: Make
) -> None:
    file, run = tmp_path / "features.safetensors", make_run(scale=float("nan"))
    with pytest.raises(DataError, match=r"encoder.safetensors: .*not finite"):
        extract_features(spec_of(own=None), [run], [make_dataset("b")], file)
    assert not file.exists()


def test_another_run_or_stage_is_no_cache(
    make_dataset: Make, make_run: Make, make_features: Make
) -> None:
    run = make_run()
    cache = make_features(run, [make_dataset("b")])
    with pytest.raises(ConfigError, match=rf'holds features of "{SLUG}", but the spec judges "x"'):
        open_features(cache, "x")
    with pytest.raises(ConfigError, match=r"expected features of extract-features, .*pretrain-enc"):
        open_features(run, SLUG)


def test_cached_features_are_mapped_and_written_to_in_memory_alone(
    make_dataset: Make, make_run: Make, make_features: Make
) -> None:
    artefact = make_features(make_run(), [make_dataset("b")])
    cached, path = open_features(artefact, SLUG), artefact.path("features.safetensors")
    before, stored = path.read_bytes(), load_file(path)
    found = cached.get("b", "train")
    assert isinstance(found, np.memmap)
    for split in ("train", "test"):
        np.testing.assert_array_equal(cached.get("b", split), stored[f"b/{split}"])
    found[:] = 0
    assert path.read_bytes() == before


def test_a_manifest_without_facts_is_named(
    make_dataset: Make, make_run: Make, make_features: Make
) -> None:
    cache = make_features(make_run(), [make_dataset("b")])
    del cache.predicate["facts"]["epoch"]
    with pytest.raises(DataError, match=r"manifest.json: lacks 'epoch'"):
        open_features(cache, SLUG)


def test_features_that_are_not_there_or_damaged_are_named(
    make_dataset: Make, make_run: Make, make_features: Make
) -> None:
    dataset = make_dataset("b")
    artefact = make_features(make_run(), [dataset])
    cached, path = open_features(artefact, SLUG), artefact.path("features.safetensors")
    with pytest.raises(DataError, match=r'has no features "b/val"; it has b/test, b/train'):
        cached.get("b", "val")
    with pytest.raises(DataError, match=r'has no features "b/train.mirrored"'):
        cached.get("b", "train", mirrored=True)
    save_file({"b/train": np.zeros((40, 32), np.float32), "b/test": np.zeros(24)}, path)
    with pytest.raises(DataError, match=r"b/train: features of 40 images, .* has 48 labelled"):
        cached.of(open_task(dataset), "train")
    with pytest.raises(DataError, match=r"b/test: expected F32 \(N, F\), found F64"):
        cached.get("b", "test")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"features.safetensors: not a readable feature file"):
        cached.get("b", "train")


def test_a_feature_file_is_filled_in_place(tmp_path: Path) -> None:
    path, rng = tmp_path / "features.safetensors", np.random.default_rng(0)
    wanted = {f"d/{i}": rng.normal(size=(i + 1, 5)).astype(np.float32) for i in range(4)}
    shapes = {name: array.shape for name, array in wanted.items()}
    for _ in range(2):
        with feature_file(path, shapes, {"run": "x"}) as arrays:
            for name, array in wanted.items():
                arrays[name][:] = array
        stored = load_file(path)
        assert set(stored) == set(wanted)
        for name, array in wanted.items():
            np.testing.assert_array_equal(stored[name], array)
    with pytest.raises(RuntimeError), feature_file(tmp_path / "b", shapes, {}):
        raise RuntimeError
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_full_disk_is_an_error_and_no_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def full(descriptor: int, offset: int, size: int) -> None:
        asked.append((offset, size))
        raise OSError(ENOSPC, strerror(ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    shapes = {"d/train": (3, 5), "d/test": (2, 5)}
    with (
        pytest.raises(DataError, match=r"f\.safetensors: no room for 100 bytes .*No space left"),
        feature_file(tmp_path / "f.safetensors", shapes, {}),
    ):
        raise AssertionError
    assert asked == [(0, 100)] and list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    (tmp_path / "f.safetensors").mkdir()  # it cannot be written here either
    with (
        pytest.raises(DataError, match=r"f\.safetensors: cannot be written"),
        feature_file(tmp_path / "f.safetensors", shapes, {}),
    ):
        pass


def test_the_same_encoder_gives_the_same_bytes(
    tmp_path: Path, make_dataset: Make, make_run: Make
) -> None:
    run, datasets = make_run(), [make_dataset(), make_dataset("b")]
    for name in ("first", "second"):
        extract_features(spec_of(), [run], datasets, tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
