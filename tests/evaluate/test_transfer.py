"""The stage probe-transfer as a whole."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression as Reference

from clsp.config.evaluation import LogisticSpec, TransferSpec
from clsp.data.prepared import open_prepared
from clsp.evaluate.cache import open_features
from clsp.evaluate.metrics import average_precision
from clsp.evaluate.splits import ssl_transfer_draw
from clsp.evaluate.transfer import probe_transfer
from clsp.runtime.canonical import sha256_array
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import Artefact
from clsp.runtime.stage import Outcome

SLUG = "digits.tiny.simclr.none.s0"
Make = Callable[..., Artefact]
LOGISTIC = LogisticSpec(
    low=-6,
    high=5,
    count=12,
    max_iterations=1000,
    tolerance=1e-6,
    validation="stratified",
    validation_fraction=0.25,
    seed=0,
)


@pytest.fixture
def transfer(tmp_path: Path, make_run: Make, make_features: Make) -> Callable[..., Outcome]:
    """Judge one encoder on datasets; results go to tmp_path / "out"."""

    def judge(
        datasets: list[Artefact],
        names: tuple[str, ...] | None = None,
        logistic: LogisticSpec = LOGISTIC,
    ) -> Outcome:
        folder = tmp_path / "out"
        folder.mkdir()
        names = names or tuple(artefact.folder.name for artefact in datasets)
        spec = TransferSpec(run=SLUG, datasets=names, logistic=logistic)
        features = make_features(make_run(), datasets)
        return probe_transfer(
            spec, features, datasets, folder / "transfer.json", folder / "predictions.npz"
        )

    return judge


def test_one_result_per_dataset_follows_from_its_stored_logits(
    tmp_path: Path, make_dataset: Make, transfer: Make
) -> None:
    official = make_dataset(
        "dtd-mini", splits={"train": 24, "val": 12, "test": 18}, metric="top1", seed=1
    )
    carved = make_dataset("pets-mini", metric="mean_per_class", classes=4, seed=2)
    outcome = transfer([official, carved])
    document = json.loads((tmp_path / "out" / "transfer.json").read_text())
    assert (document["schema_version"], document["run"]) == (1, SLUG)
    first, second = document["results"]
    assert document["results"] == outcome.facts["results"]
    assert [r["selection"]["validation"]["rule"] for r in (first, second)] == [
        "official",
        "stratified",
    ]
    with np.load(tmp_path / "out" / "predictions.npz", allow_pickle=False) as stored:
        assert len(stored.files) == 8
        for result, rows in ((first, (36, 54)), (second, (48, 72))):
            name, where = result["task"], result["predictions"]
            assert where == {
                "file": "predictions.npz",
                "logits": f"{name}.logits",
                "labels": f"{name}.labels",
                "rows": f"{name}.rows",
            }
            np.testing.assert_array_equal(stored[where["rows"]], np.arange(*rows))
            chosen, about = stored[f"{name}.validation_rows"], result["selection"]["validation"]
            assert (about["count"], about["rows_sha256"]) == (len(chosen), sha256_array(chosen))
            assert result["selection"]["resolution"] == 8
            hits = stored[where["logits"]].argmax(1) == stored[where["labels"]]
            assert result["correct"] == hits.sum()
            assert (result["selected_on"], result["split"], result["epoch"]) == ("val", "test", 20)
            assert outcome.metrics[f"transfer/{name}"] == result["value"]
            assert result["value"] > 80
    shares = [100 * c / t for c, t in second["per_class"]]
    assert second["value"] == pytest.approx(np.mean(shares))


def test_every_fit_is_recorded_and_the_first_best_lambda_is_refitted(
    tmp_path: Path, make_dataset: Make, transfer: Make
) -> None:
    outcome = transfer([make_dataset("a"), make_dataset("b")])
    assert outcome.counters["fits"] == 26
    for result in outcome.facts["results"]:
        *tried, final = outcome.facts["fits"][result["task"]]
        strengths = [record["log10_lambda"] for record in tried]
        assert strengths == sorted(strengths, reverse=True)
        scores = [record["validation_value"] for record in tried]
        assert final["refit"]
        assert final["log10_lambda"] == strengths[scores.index(max(scores))]
        assert result["selection"]["log10_lambda"] == final["log10_lambda"]
        assert result["selection"]["converged"] == final["converged"] == (final["gradient"] <= 1e-6)


def test_the_test_number_is_scikit_learns(
    make_dataset: Make, make_run: Make, make_features: Make, tmp_path: Path
) -> None:
    splits = {"train": 30, "val": 30, "test": 60}
    dataset = make_dataset("a", splits=splits)
    images = open_prepared(dataset).images
    noise = np.random.default_rng(5).integers(0, 256, images.shape)
    np.save(dataset.path("images.npy"), (0.25 * images + 0.75 * noise).astype(np.uint8))
    cache = make_features(make_run(), [dataset])
    spec = TransferSpec(run=SLUG, datasets=("a",), logistic=LOGISTIC)
    outcome = probe_transfer(spec, cache, [dataset], tmp_path / "t.json", tmp_path / "p.npz")
    (result,) = outcome.facts["results"]
    cached = open_features(cache, SLUG)
    parts = [cached.get("a", split).astype(np.float64) for split in ("train", "val", "test")]
    train, val, test = parts
    labels = np.arange(120) % 3
    scores = {}
    for strength in np.linspace(5, -6, 12):
        model = Reference(C=10.0**-strength, tol=1e-6, max_iter=5000).fit(train, labels[:30])
        scores[strength] = model.score(val, labels[30:60])
    chosen = max(scores, key=scores.get)
    assert result["selection"]["log10_lambda"] == pytest.approx(chosen)
    model = Reference(C=10.0**-chosen, tol=1e-6, max_iter=5000)
    model.fit(np.concatenate([train, val]), labels[:60])
    assert result["value"] == pytest.approx(100 * model.score(test, labels[60:]), abs=0.1)
    assert 33 < result["value"] < 100


def test_several_classes_per_image_are_judged_by_eleven_point_precision(
    tmp_path: Path, make_dataset: Make, transfer: Make
) -> None:
    rng = np.random.default_rng(0)
    labels = np.eye(3, dtype=np.uint8)[np.arange(120) % 3]
    labels |= rng.uniform(size=labels.shape) < 0.2
    splits = {"train": 60, "val": 0, "test": 60}
    dataset = make_dataset("voc", labels=labels, splits=splits, metric="map11")
    draw = LOGISTIC.model_copy(update={"validation": "ssl_transfer"})
    outcome = transfer([dataset], logistic=draw)
    (result,) = outcome.facts["results"]
    with np.load(tmp_path / "out" / "predictions.npz", allow_pickle=False) as stored:
        logits, found = stored["voc.logits"], stored["voc.labels"]
    np.testing.assert_array_equal(found, labels[60:])
    assert (found.dtype, logits.shape) == (np.uint8, (60, 3))
    points = [average_precision(logits[:, c], found[:, c] == 1) for c in range(3)]
    assert result["value"] == pytest.approx(100 * np.mean(points))
    assert result["value"] > 60
    assert outcome.metrics == {"transfer/voc": result["value"]}


def test_both_published_rules_can_be_chosen(make_dataset: Make, transfer: Make) -> None:
    draw = LOGISTIC.model_copy(update={"validation": "ssl_transfer"})
    outcome = transfer([make_dataset("a")], logistic=draw)
    about = outcome.facts["results"][0]["selection"]["validation"]
    rows = np.sort(ssl_transfer_draw(48, 0.25, 0))
    digest = sha256_array(rows)
    assert about == {
        "rule": "ssl_transfer",
        "seed": 0,
        "fraction": 0.25,
        "count": 12,
        "rows_sha256": digest,
    }


def test_a_floor_is_judged_like_an_encoder(
    tmp_path: Path, make_dataset: Make, make_features: Make
) -> None:
    dataset = make_dataset("a")
    cache = make_features(None, [dataset], slug="floor", source="pixels")
    spec = TransferSpec(run="floor", datasets=("a",), logistic=LOGISTIC)
    outcome = probe_transfer(spec, cache, [dataset], tmp_path / "t.json", tmp_path / "p.npz")
    (result,) = outcome.facts["results"]
    assert (result["epoch"], result["protocol"]) == (None, "transfer")
    assert result["value"] > 80


def test_fits_that_do_not_converge_are_marked(
    tmp_path: Path, make_dataset: Make, transfer: Make
) -> None:
    hasty = LOGISTIC.model_copy(update={"max_iterations": 1, "tolerance": 1e-12})
    outcome = transfer([make_dataset("a")], logistic=hasty)
    (result,) = outcome.facts["results"]
    assert result["selection"]["converged"] is False
    assert result["selection"]["not_converged_in_grid"] > 6


@pytest.mark.parametrize(
    ("given", "wanted"), [(["a", "b"], ("b", "a")), (["a"], ("a", "b")), (["a", "b"], ("a",))]
)
def test_datasets_that_do_not_fit_the_spec_are_refused(
    tmp_path: Path, make_dataset: Make, transfer: Make, given: list[str], wanted: tuple[str, ...]
) -> None:
    datasets = [make_dataset(name) for name in given]
    with pytest.raises(ConfigError, match=rf"order: {', '.join(wanted)}; given are {len(given)}"):
        transfer(datasets, wanted)


def test_unlabelled_images_are_refused_before_any_work(
    tmp_path: Path, make_dataset: Make, make_run: Make, make_features: Make
) -> None:
    good, bad = make_dataset("a"), make_dataset("b")
    cache = make_features(make_run(), [good, bad])
    np.save(bad.path("labels.npy"), np.full(72, -1))
    spec = TransferSpec(run=SLUG, datasets=("a", "b"), logistic=LOGISTIC)
    with pytest.raises(DataError, match=r"b/labels.npy: all 48 images .* unlabelled"):
        probe_transfer(spec, cache, [good, bad], tmp_path / "t.json", tmp_path / "p.npz")
    assert not list(tmp_path.glob("*.json"))


def test_features_of_other_datasets_are_named(
    tmp_path: Path, make_dataset: Make, make_run: Make, make_features: Make
) -> None:
    cache = make_features(make_run(), [make_dataset("a")])
    spec = TransferSpec(run=SLUG, datasets=("b",), logistic=LOGISTIC)
    with pytest.raises(DataError, match=r'has no features "b/train"'):
        probe_transfer(spec, cache, [make_dataset("b")], tmp_path / "t.json", tmp_path / "p.npz")


def test_eight_datasets_are_judged_in_one_job(
    tmp_path: Path, make_dataset: Make, transfer: Make
) -> None:
    splits = {"train": 80, "val": 0, "test": 40}
    datasets = [make_dataset(f"d{i}", classes=6, splits=splits, seed=i) for i in range(8)]
    outcome = transfer(datasets)
    assert sorted(outcome.metrics) == [f"transfer/d{i}" for i in range(8)]
