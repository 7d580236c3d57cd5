"""The stage probe-transfer as a whole."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression as Reference

from clsp.config.evaluation import LogisticSpec, TransferSpec
from clsp.data.prepared import open_prepared
from clsp.evaluate.transfer import carve, probe_transfer
from clsp.models.features import extract, open_frozen
from clsp.runtime.device import resolve
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import Artefact
from clsp.runtime.stage import Outcome

SLUG = "digits.tiny.simclr.none.s0"
Make = Callable[..., Artefact]
LOGISTIC = LogisticSpec(
    low=-6, high=5, count=12, max_iterations=1000, tolerance=1e-6, validation_fraction=0.25, seed=0
)


def transfer(
    folder: Path,
    encoder: Artefact,
    datasets: list[Artefact],
    names: tuple[str, ...] | None = None,
    logistic: LogisticSpec = LOGISTIC,
) -> Outcome:
    folder.mkdir()
    names = names or tuple(artefact.folder.name for artefact in datasets)
    spec = TransferSpec(run=SLUG, datasets=names, logistic=logistic)
    return probe_transfer(
        spec, encoder, datasets, folder / "transfer.json", folder / "predictions.npz"
    )


def test_one_result_per_dataset_follows_from_its_stored_logits(
    tmp_path: Path, make_dataset: Make, make_run: Make
) -> None:
    official = make_dataset(
        "dtd-mini", splits={"train": 24, "val": 12, "test": 18}, metric="top1", seed=1
    )
    carved = make_dataset("pets-mini", metric="mean_per_class", classes=4, seed=2)
    outcome = transfer(tmp_path / "out", make_run(), [official, carved])
    document = json.loads((tmp_path / "out" / "transfer.json").read_text())
    assert (document["schema_version"], document["run"]) == (1, SLUG)
    first, second = document["results"]
    assert document["results"] == outcome.facts["results"]
    assert [first["selection"]["validation"], second["selection"]["validation"]] == [
        "official",
        "carved",
    ]
    with np.load(tmp_path / "out" / "predictions.npz", allow_pickle=False) as stored:
        assert len(stored.files) == 6
        for result, rows in ((first, (36, 54)), (second, (48, 72))):
            name, where = result["task"], result["predictions"]
            assert where == {
                "file": "predictions.npz",
                "logits": f"{name}.logits",
                "labels": f"{name}.labels",
                "rows": f"{name}.rows",
            }
            np.testing.assert_array_equal(stored[where["rows"]], np.arange(*rows))
            hits = stored[where["logits"]].argmax(1) == stored[where["labels"]]
            assert result["correct"] == hits.sum()
            assert (result["selected_on"], result["split"], result["epoch"]) == ("val", "test", 20)
            assert outcome.metrics[f"transfer/{name}"] == result["value"]
            assert result["value"] > 80
    shares = [100 * c / t for c, t in second["per_class"]]
    assert second["value"] == pytest.approx(np.mean(shares))


def test_every_fit_is_recorded_and_the_first_best_lambda_is_refitted(
    tmp_path: Path, make_dataset: Make, make_run: Make
) -> None:
    outcome = transfer(tmp_path / "out", make_run(), [make_dataset("a"), make_dataset("b")])
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
    tmp_path: Path, make_dataset: Make, make_run: Make
) -> None:
    splits = {"train": 30, "val": 30, "test": 60}
    dataset, encoder = make_dataset("a", splits=splits), make_run()
    images = open_prepared(dataset).images
    noise = np.random.default_rng(5).integers(0, 256, images.shape)
    np.save(dataset.path("images.npy"), (0.25 * images + 0.75 * noise).astype(np.uint8))
    outcome = transfer(tmp_path / "out", encoder, [dataset])
    (result,) = outcome.facts["results"]
    frozen = open_frozen(encoder, SLUG, resolve())
    features = extract(frozen, open_prepared(dataset).images, 64, "test").astype(np.float64)
    labels = np.arange(120) % 3
    scores = {}
    for strength in np.linspace(5, -6, 12):
        model = Reference(C=10.0**-strength, tol=1e-6, max_iter=5000)
        scores[strength] = model.fit(features[:30], labels[:30]).score(
            features[30:60], labels[30:60]
        )
    chosen = max(scores, key=scores.get)
    assert result["selection"]["log10_lambda"] == pytest.approx(chosen)
    model = Reference(C=10.0**-chosen, tol=1e-6, max_iter=5000).fit(features[:60], labels[:60])
    assert result["value"] == pytest.approx(100 * model.score(features[60:], labels[60:]), abs=0.1)
    assert 33 < result["value"] < 100


def test_fits_that_do_not_converge_are_marked(
    tmp_path: Path, make_dataset: Make, make_run: Make
) -> None:
    hasty = LOGISTIC.model_copy(update={"max_iterations": 1, "tolerance": 1e-12})
    outcome = transfer(tmp_path / "out", make_run(), [make_dataset("a")], logistic=hasty)
    (result,) = outcome.facts["results"]
    assert result["selection"]["converged"] is False
    assert result["selection"]["not_converged_in_grid"] > 6


def test_carving_is_even_by_class_keyed_and_leaves_something_to_train_on() -> None:
    labels = np.repeat([0, 1, 2, 3], [20, 10, 2, 1])
    chosen = carve(labels, 0.2, 0, "pets")
    assert np.bincount(labels[chosen], minlength=4).tolist() == [4, 2, 1, 0]
    np.testing.assert_array_equal(chosen, carve(labels, 0.2, 0, "pets"))
    assert not np.array_equal(chosen, carve(labels, 0.2, 1, "pets"))
    assert not np.array_equal(chosen, carve(labels, 0.2, 0, "cars"))
    with pytest.raises(DataError, match=r'"pets": no validation split can be carved from 3'):
        carve(np.arange(3), 0.2, 0, "pets")


@pytest.mark.parametrize(
    ("given", "wanted"), [(["a", "b"], ("b", "a")), (["a"], ("a", "b")), (["a", "b"], ("a",))]
)
def test_datasets_that_do_not_fit_the_spec_are_refused(
    tmp_path: Path, make_dataset: Make, make_run: Make, given: list[str], wanted: tuple[str, ...]
) -> None:
    datasets = [make_dataset(name) for name in given]
    with pytest.raises(ConfigError, match=rf"order: {', '.join(wanted)}; given are {len(given)}"):
        transfer(tmp_path / "out", make_run(), datasets, wanted)


def test_unlabelled_images_are_refused_before_any_work(
    tmp_path: Path, make_dataset: Make, make_run: Make
) -> None:
    labels = np.full(72, -1)
    with pytest.raises(DataError, match=r"b/labels.npy: 48 of 48 images .* unlabelled"):
        transfer(
            tmp_path / "out", make_run(), [make_dataset("a"), make_dataset("b", labels=labels)]
        )
    assert not list((tmp_path / "out").iterdir())


def test_eight_datasets_are_judged_in_one_job(
    tmp_path: Path, make_dataset: Make, make_run: Make
) -> None:
    splits = {"train": 80, "val": 0, "test": 40}
    datasets = [make_dataset(f"d{i}", classes=6, splits=splits, seed=i) for i in range(8)]
    outcome = transfer(tmp_path / "out", make_run(), datasets)
    assert sorted(outcome.metrics) == [f"transfer/d{i}" for i in range(8)]
