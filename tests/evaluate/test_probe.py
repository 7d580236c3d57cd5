"""The stage probe-encoder as a whole."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clsp.config.evaluation import KnnSpec, LinearSpec, ProbeSpec
from clsp.evaluate.probe import probe_encoder
from clsp.job import Call, run
from clsp.runtime.canonical import canonical_json
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import Artefact
from clsp.runtime.stage import Outcome

SLUG = "digits.tiny.simclr.none.s0"
FILES = ("linear.json", "knn.json", "linear.npz", "knn.npz", "features.npy")
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


def probe(folder: Path, encoder: Artefact, dataset: Artefact, spec: ProbeSpec = SPEC) -> Outcome:
    folder.mkdir()
    return probe_encoder(spec, encoder, dataset, *(folder / name for name in FILES))


def test_results_follow_from_the_stored_logits(
    tmp_path: Path, make_dataset: Make, make_run: Make
) -> None:
    splits = {"train": 48, "val": 6, "test": 24}
    outcome = probe(tmp_path / "out", make_run(), make_dataset(splits=splits))
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
    features = np.load(tmp_path / "out" / "features.npy")
    assert (features.dtype, features.shape) == (np.float32, (24, 32))


def test_k_beyond_the_training_set(tmp_path: Path, make_dataset: Make, make_run: Make) -> None:
    encoder, dataset = make_run(), make_dataset()
    outcome = probe(tmp_path / "out", encoder, dataset)
    assert outcome.facts["knn"]["skipped_k"] == [100]
    assert set(outcome.facts["knn"]["correct_by_k"]) == {"3", "5", "10"}
    assert outcome.facts["results"][2]["selection"]["among"] == [3, 10]
    with pytest.raises(ConfigError, match=r"knn.k: 49 neighbours .* \"digits\" has 48 images"):
        probe(tmp_path / "too-many", encoder, dataset, knn_spec(k=49))
    fixed = probe(tmp_path / "fixed", encoder, dataset, knn_spec(best_of=(100,)))
    assert [r["variant"] for r in fixed.facts["results"]] == ["", ""]


def test_the_best_k_is_the_best_and_of_equals_the_smallest(
    tmp_path: Path, make_dataset: Make, make_run: Make
) -> None:
    rng = np.random.default_rng(0)
    dataset = make_dataset(labels=rng.integers(0, 3, 72))
    for name in ("images.npy",):  # images that say nothing: k decides by chance
        np.save(dataset.path(name), rng.integers(0, 256, (72, 8, 8, 3), dtype=np.uint8))
    among = (1, 2, 3, 5, 8, 13, 21, 34, 48)
    outcome = probe(tmp_path / "out", make_run(), dataset, knn_spec(best_of=among))
    correct = {int(k): n for k, n in outcome.facts["knn"]["correct_by_k"].items()}
    assert len(set(correct.values())) > 1
    best = outcome.facts["results"][2]
    top = max(correct[k] for k in among)
    assert best["correct"] == top
    assert best["selection"]["k"] == min(k for k in among if correct[k] == top)


def test_the_probe_is_deterministic_and_its_seed_counts(
    tmp_path: Path, make_dataset: Make, make_run: Make
) -> None:
    encoder, dataset = make_run(), make_dataset()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        probe(tmp_path / name, encoder, dataset, SPEC.model_copy(update={"seed": seed}))
    for file in FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    first, other = (np.load(tmp_path / n / "linear.npz")["logits"] for n in "ac")
    assert not np.array_equal(first, other)


def test_the_flip_probe_changes_the_linear_result_only(
    tmp_path: Path, make_dataset: Make, make_run: Make
) -> None:
    encoder, dataset = make_run(), make_dataset()
    flip = SPEC.model_copy(update={"linear": SPEC.linear.model_copy(update={"flip": True})})
    probe(tmp_path / "plain", encoder, dataset)
    probe(tmp_path / "flip", encoder, dataset, flip)
    same = {
        f: (tmp_path / "plain" / f).read_bytes() == (tmp_path / "flip" / f).read_bytes()
        for f in ("linear.npz", "knn.npz", "features.npy")
    }
    assert same == {"linear.npz": False, "knn.npz": True, "features.npy": True}


def test_a_mean_per_class_dataset_is_judged_by_it(
    tmp_path: Path, make_dataset: Make, make_run: Make
) -> None:
    dataset = make_dataset("pets", metric="mean_per_class")
    outcome = probe(tmp_path / "out", make_run(dataset="pets"), dataset)
    assert set(outcome.metrics) == {
        "linear/mean_per_class",
        "knn/mean_per_class",
        "knn_best_of_k/mean_per_class",
    }


def test_another_dataset_is_refused(tmp_path: Path, make_dataset: Make, make_run: Make) -> None:
    with pytest.raises(ConfigError, match=r'pretrained on "digits", but the dataset given is "x"'):
        probe(tmp_path / "out", make_run(), make_dataset("x"))


def _call(home: Path, encoder: Artefact, dataset: Artefact) -> Call:
    outputs = ("linear", "knn", "linear_logits", "knn_logits", "features")
    arguments = {
        "spec": canonical_json(SPEC.canonical()),
        "encoder": [encoder.manifest, encoder.path("encoder.safetensors")],
        "dataset": [dataset.manifest],
        **{flag: home / file for flag, file in zip(outputs, FILES, strict=True)},
    }
    return Call("probe-encoder", probe_encoder, arguments, home / "manifest.json", "", 1)


def test_it_runs_as_a_job_and_leaves_a_manifest(
    tmp_path: Path, make_dataset: Make, make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    artefact = run(_call(tmp_path / "probes" / SLUG, make_run(), make_dataset()))
    assert set(artefact.subjects) == set(FILES)
    artefact.verify()
    assert artefact.metrics["linear/top1"] == artefact.predicate["facts"]["results"][0]["value"]


def test_a_truncated_encoder_stops_the_job_and_leaves_nothing(
    tmp_path: Path, make_dataset: Make, make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder, home = make_run(), tmp_path / "probes" / SLUG
    path = encoder.path("encoder.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"encoder.safetensors: corrupt"):
        run(_call(home, encoder, make_dataset()))
    assert not home.exists() or not list(home.iterdir())
    shutil.rmtree(home, ignore_errors=True)
