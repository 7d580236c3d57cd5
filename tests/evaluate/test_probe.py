"""The stage probe-encoder as a whole."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from clsp.config.evaluation import KnnSpec, LinearSpec, ProbeSpec
from clsp.evaluate.labelled import open_task
from clsp.evaluate.linear import decay_of, initial_layer, rows_of_epoch
from clsp.evaluate.probe import probe_encoder
from clsp.job import Call, run
from clsp.models.features import open_frozen
from clsp.runtime.canonical import canonical_json
from clsp.runtime.device import resolve
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import Artefact
from clsp.runtime.stage import Outcome

SLUG = "digits.tiny.simclr.none.s0"
FILES = ("linear.json", "knn.json", "linear.npz", "knn.npz")
Make = Callable[..., Artefact]
SPEC = ProbeSpec(
    run=SLUG,
    linear=LinearSpec(
        epochs=10,
        batch_size=16,
        learning_rate=1.0,
        momentum=0.0,
        weight_decay=0.0,
        milestones=(6, 8),
        decay=0.1,
        flip=False,
    ),
    knn=KnnSpec(k=5, temperature=0.07, best_of=(3, 10, 100)),
    seed=0,
)


def knn_spec(**changed: object) -> ProbeSpec:
    return SPEC.model_copy(update={"knn": SPEC.knn.model_copy(update=changed)})


def probe(folder: Path, features: Artefact, dataset: Artefact, spec: ProbeSpec = SPEC) -> Outcome:
    folder.mkdir()
    return probe_encoder(spec, features, dataset, *(folder / name for name in FILES))


@pytest.fixture
def cache(make_run: Make, make_features: Make) -> Callable[[Artefact], Artefact]:
    """Features of one encoder on its own dataset, with mirror images."""

    def make(dataset: Artefact) -> Artefact:
        own = dataset.folder.name
        return make_features(make_run(dataset=own), [dataset], own=own, mirrored=True)

    return make


def test_results_follow_from_the_stored_logits(
    tmp_path: Path, make_dataset: Make, cache: Make
) -> None:
    splits = {"train": 48, "val": 6, "test": 24}
    dataset = make_dataset(splits=splits)
    outcome = probe(tmp_path / "out", cache(dataset), dataset)
    documents = [
        json.loads((tmp_path / "out" / f"{n}.json").read_text()) for n in ("linear", "knn")
    ]
    assert [(d["schema_version"], d["run"]) for d in documents] == [(1, SLUG)] * 2
    results = [result for document in documents for result in document["results"]]
    assert results == outcome.facts["results"]
    assert [(r["protocol"], r["variant"], r["selected_on"]) for r in results] == [
        ("linear", "", "none"),
        ("knn", "", "none"),
        ("knn", "best_of_k", "test"),
    ]
    for result in results:
        where = result["predictions"]
        with np.load(tmp_path / "out" / where["file"], allow_pickle=False) as stored:
            logits, labels = stored[where["logits"]], stored[where["labels"]]
            np.testing.assert_array_equal(stored[where["rows"]], np.arange(54, 78))
        assert (logits.dtype, logits.shape) == (np.float32, (24, 3))
        np.testing.assert_array_equal(labels, np.arange(54, 78) % 3)
        assert result["correct"] == (logits.argmax(1) == labels).sum()
        assert result["value"] == 100 * result["correct"] / 24
        assert (result["task"], result["epoch"], result["total"]) == ("digits", 20, 24)
    assert outcome.metrics == {
        "linear/top1": results[0]["value"],
        "knn/top1": results[1]["value"],
        "knn_best_of_k/top1": results[2]["value"],
    }
    assert results[0]["value"] > 80  # prototypes with little noise; chance is 33


def test_the_cached_flips_give_what_running_the_encoder_in_every_epoch_gives(
    tmp_path: Path, make_dataset: Make, make_run: Make, make_features: Make
) -> None:
    dataset, encoder = make_dataset(), make_run()
    features = make_features(encoder, [dataset], own="digits", mirrored=True)
    spec = SPEC.model_copy(update={"linear": SPEC.linear.model_copy(update={"flip": True})})
    probe(tmp_path / "out", features, dataset, spec)

    frozen, task, linear = open_frozen(encoder, SLUG, resolve()), open_task(dataset), spec.linear
    images, labels = np.array(task.train.images), torch.from_numpy(task.train.labels)
    layer = torch.nn.Linear(32, 3)
    with torch.no_grad():
        for own, drawn in zip(layer.parameters(), initial_layer(32, 3, spec.seed), strict=True):
            own.copy_(drawn)
    optimizer = torch.optim.SGD(layer.parameters(), lr=linear.learning_rate)
    for epoch in range(linear.epochs):
        optimizer.param_groups[0]["lr"] = linear.learning_rate * decay_of(linear, epoch)
        order = rows_of_epoch(linear, 48, spec.seed, epoch)
        for rows in np.split(order, range(16, 48, 16)):
            batch = images[rows % 48]
            batch[rows >= 48] = batch[rows >= 48][:, :, ::-1]  # flipped, then seen by the encoder
            logits = layer(torch.from_numpy(frozen.describe(batch)))
            loss = torch.nn.functional.cross_entropy(logits, labels[rows % 48])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    expected = layer(torch.from_numpy(frozen.describe(np.array(task.test.images))))
    with np.load(tmp_path / "out" / "linear.npz") as stored:
        np.testing.assert_allclose(stored["logits"], expected.detach(), rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(stored["logits"].argmax(1), expected.argmax(1))


def test_k_beyond_the_training_set(tmp_path: Path, make_dataset: Make, cache: Make) -> None:
    dataset = make_dataset()
    features = cache(dataset)
    outcome = probe(tmp_path / "out", features, dataset)
    assert outcome.facts["knn"]["skipped_k"] == [100]
    assert set(outcome.facts["knn"]["correct_by_k"]) == {"3", "5", "10"}
    assert outcome.facts["results"][2]["selection"]["among"] == [3, 10]
    with pytest.raises(ConfigError, match=r"knn.k: 49 neighbours .* \"digits\" has 48 labelled"):
        probe(tmp_path / "too-many", features, dataset, knn_spec(k=49))
    fixed = probe(tmp_path / "fixed", features, dataset, knn_spec(best_of=(100,)))
    assert [r["variant"] for r in fixed.facts["results"]] == ["", ""]


def test_the_best_k_is_the_best_and_of_equals_the_smallest(
    tmp_path: Path, make_dataset: Make, cache: Make
) -> None:
    rng = np.random.default_rng(0)
    dataset = make_dataset(labels=rng.integers(0, 3, 72))
    for name in ("images.npy",):  # images that say nothing: k decides by chance
        np.save(dataset.path(name), rng.integers(0, 256, (72, 8, 8, 3), dtype=np.uint8))
    among = (1, 2, 3, 5, 8, 13, 21, 34, 48)
    outcome = probe(tmp_path / "out", cache(dataset), dataset, knn_spec(best_of=among))
    correct = {int(k): n for k, n in outcome.facts["knn"]["correct_by_k"].items()}
    assert len(set(correct.values())) > 1
    best = outcome.facts["results"][2]
    top = max(correct[k] for k in among)
    assert best["correct"] == top
    assert best["selection"]["k"] == min(k for k in among if correct[k] == top)


def test_the_probe_is_deterministic_and_its_seed_counts(
    tmp_path: Path, make_dataset: Make, cache: Make
) -> None:
    dataset = make_dataset()
    features = cache(dataset)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        probe(tmp_path / name, features, dataset, SPEC.model_copy(update={"seed": seed}))
    for file in FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    first, other = (np.load(tmp_path / n / "linear.npz")["logits"] for n in "ac")
    assert not np.array_equal(first, other)


def test_the_flip_probe_changes_the_linear_result_only(
    tmp_path: Path, make_dataset: Make, cache: Make
) -> None:
    dataset = make_dataset()
    features = cache(dataset)
    flip = SPEC.model_copy(update={"linear": SPEC.linear.model_copy(update={"flip": True})})
    probe(tmp_path / "plain", features, dataset)
    probe(tmp_path / "flip", features, dataset, flip)
    same = {
        f: (tmp_path / "plain" / f).read_bytes() == (tmp_path / "flip" / f).read_bytes()
        for f in ("linear.npz", "knn.npz")
    }
    assert same == {"linear.npz": False, "knn.npz": True}


def test_a_mean_per_class_dataset_is_judged_by_it(
    tmp_path: Path, make_dataset: Make, cache: Make
) -> None:
    dataset = make_dataset("pets", metric="mean_per_class")
    outcome = probe(tmp_path / "out", cache(dataset), dataset)
    assert set(outcome.metrics) == {
        "linear/mean_per_class",
        "knn/mean_per_class",
        "knn_best_of_k/mean_per_class",
    }


def test_another_dataset_is_refused(tmp_path: Path, make_dataset: Make, cache: Make) -> None:
    with pytest.raises(ConfigError, match=r'judged on "digits", but the dataset given is "x"'):
        probe(tmp_path / "out", cache(make_dataset()), make_dataset("x"))


def test_missing_mirror_images_are_named(
    tmp_path: Path, make_dataset: Make, make_run: Make, make_features: Make
) -> None:
    dataset = make_dataset()
    features = make_features(make_run(), [dataset], own="digits")
    flip = SPEC.model_copy(update={"linear": SPEC.linear.model_copy(update={"flip": True})})
    with pytest.raises(DataError, match=r'has no features "digits/train.mirrored"'):
        probe(tmp_path / "out", features, dataset, flip)


def test_images_that_show_several_classes_are_refused(
    tmp_path: Path, make_dataset: Make, cache: Make
) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (72, 3))
    dataset = make_dataset("voc", labels=labels, metric="map11")
    with pytest.raises(ConfigError, match=r'images of "voc" show several classes'):
        probe(tmp_path / "out", cache(dataset), dataset)


def test_only_labelled_images_are_learnt_from(
    tmp_path: Path, make_dataset: Make, cache: Make
) -> None:
    labels = np.arange(72) % 3
    labels[20:48] = -1
    dataset = make_dataset(labels=labels)
    outcome = probe(tmp_path / "out", cache(dataset), dataset)
    assert outcome.counters == {"train_images": 20, "test_images": 24}
    assert outcome.facts["knn"]["skipped_k"] == [100]


def _call(home: Path, features: Artefact, dataset: Artefact) -> Call:
    outputs = ("linear", "knn", "linear_logits", "knn_logits")
    arguments = {
        "spec": canonical_json(SPEC.canonical()),
        "features": [features.manifest, features.path("features.safetensors")],
        "dataset": [dataset.manifest],
        **{flag: home / file for flag, file in zip(outputs, FILES, strict=True)},
    }
    return Call("probe-encoder", probe_encoder, arguments, home / "manifest.json", "", 1)


def test_it_runs_as_a_job_and_leaves_a_manifest(
    tmp_path: Path, make_dataset: Make, cache: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    dataset = make_dataset()
    artefact = run(_call(tmp_path / "probes" / SLUG, cache(dataset), dataset))
    assert set(artefact.subjects) == set(FILES)
    artefact.verify()
    assert artefact.metrics["linear/top1"] == artefact.predicate["facts"]["results"][0]["value"]


def test_truncated_features_stop_the_job_and_leave_nothing(
    tmp_path: Path, make_dataset: Make, cache: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset, home = make_dataset(), tmp_path / "probes" / SLUG
    features = cache(dataset)
    path = features.path("features.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"features.safetensors: corrupt"):
        run(_call(home, features, dataset))
    assert not home.exists() or not list(home.iterdir())
