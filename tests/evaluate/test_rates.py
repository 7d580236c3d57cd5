"""The best learning rate of the linear probe: chosen on training images, refitted on all of them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from clsp.config.evaluation import KnnSpec, LinearSpec, ProbeSpec, RateGridSpec
from clsp.evaluate.cache import open_features
from clsp.evaluate.labelled import open_task
from clsp.evaluate.linear import linear_logits, load_samples, train_linear
from clsp.evaluate.probe import probe_encoder
from clsp.evaluate.splits import stratified_draw
from clsp.runtime.device import resolve
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import Artefact
from clsp.runtime.stage import Outcome

SLUG = "digits.tiny.simclr.none.s0"
FILES = ("linear.json", "knn.json", "linear.npz", "knn.npz")
Make = Callable[..., Artefact]
LINEAR = LinearSpec(
    epochs=10,
    batch_size=16,
    learning_rate=0.001,
    momentum=0.0,
    weight_decay=0.01,
    milestones=(6, 8),
    decay=0.1,
    flip=True,
)
RATES = (0.0001, 2.0, 0.5, 1e30)


def spec_of(*rates: float, **changes: object) -> ProbeSpec:
    grid = RateGridSpec(learning_rates=rates, validation_fraction=0.25) if rates else None
    linear = LINEAR.model_copy(update={"grid": grid, **changes})
    return ProbeSpec(
        run=SLUG, linear=linear, knn=KnnSpec(k=5, temperature=0.07, best_of=()), seed=3
    )


@pytest.fixture
def given(make_dataset: Make, make_run: Make, make_features: Make) -> tuple[Artefact, Artefact]:
    """Features of one encoder on its own dataset with mirror images, and the dataset."""
    dataset = make_dataset(splits={"train": 48, "val": 6, "test": 24})
    return make_features(make_run(), [dataset], own="digits", mirrored=True), dataset


def probe(folder: Path, given: tuple[Artefact, Artefact], spec: ProbeSpec) -> Outcome:
    folder.mkdir()
    return probe_encoder(spec, *given, *(folder / name for name in FILES))


def test_the_headline_is_untouched_and_the_best_rate_stands_beside_it(
    tmp_path: Path, given: tuple
) -> None:
    plain = probe(tmp_path / "plain", given, spec_of())
    outcome = probe(tmp_path / "grid", given, spec_of(*RATES))
    assert outcome.facts["results"][0] == plain.facts["results"][0]
    assert "linear" not in plain.facts
    one, both = (np.load(tmp_path / name / "linear.npz") for name in ("plain", "grid"))
    np.testing.assert_array_equal(one["logits"], both["logits"])
    assert set(both.files) - set(one.files) == {"logits_best_rate", "validation_rows"}

    best = outcome.facts["results"][1]
    assert json.loads((tmp_path / "grid" / "linear.json").read_text())["results"][1] == best
    assert (best["variant"], best["selected_on"], best["split"]) == ("best_rate", "val", "test")
    assert best["predictions"]["logits"] == "logits_best_rate"
    assert best["correct"] == (both["logits_best_rate"].argmax(1) == both["labels"]).sum()
    assert best["value"] > plain.facts["results"][0]["value"]  # 0.001 learns nothing
    assert outcome.metrics["linear_best_rate/top1"] == best["value"]


def test_the_rate_is_chosen_on_training_images_and_refitted_on_all_of_them(
    tmp_path: Path, given: tuple
) -> None:
    outcome = probe(tmp_path / "out", given, spec_of(*RATES))
    best, facts = outcome.facts["results"][1], outcome.facts["linear"]
    by_rate = {one["learning_rate"]: one["value"] for one in facts["validation_by_rate"]}
    assert list(by_rate) == list(RATES)
    assert (facts["diverged"], by_rate[1e30], facts["diverged_on_all_images"]) == ([1e30], None, [])
    sound = {rate: value for rate, value in by_rate.items() if value is not None}
    top = max(sound.values())
    chosen = best["selection"]
    assert chosen["learning_rate"] == min(rate for rate in sound if sound[rate] == top)
    assert (chosen["validation_value"], chosen["among"]) == (top, list(RATES))

    task = open_task(given[1])
    drawn = stratified_draw(task.train.labels, 0.25, 3, "digits")
    stored = np.load(tmp_path / "out" / "linear.npz")
    np.testing.assert_array_equal(stored["validation_rows"], task.train.rows[drawn])
    assert stored["validation_rows"].max() < 48  # of train; neither val nor test
    assert (chosen["validation"]["rule"], chosen["validation"]["count"]) == ("stratified", 12)

    cached = open_features(given[0], SLUG)
    parts = [cached.of(task, "train"), cached.of(task, "train", mirrored=True)]
    samples = load_samples(parts, task.train.labels, 3, resolve())
    again = LINEAR.model_copy(update={"learning_rate": chosen["learning_rate"]})
    layer = train_linear(again, samples, seed=3, label="test")
    logits = linear_logits(cached.of(task, "test"), *layer)
    np.testing.assert_array_equal(stored["logits_best_rate"], logits)


def test_of_equally_good_rates_the_lowest_wins(tmp_path: Path, given: tuple) -> None:
    outcome = probe(tmp_path / "out", given, spec_of(1.0, 0.9, 0.8))
    values = [one["value"] for one in outcome.facts["linear"]["validation_by_rate"]]
    assert len(set(values)) == 1
    assert outcome.facts["results"][1]["selection"]["learning_rate"] == 0.8


def test_if_every_rate_diverges_the_job_says_so(tmp_path: Path, given: tuple) -> None:
    with pytest.raises(ConfigError, match=r"diverged at every rate of .*\(1e\+30, 2e\+30\)"):
        probe(tmp_path / "out", given, spec_of(1e30, 2e30))
    assert not list((tmp_path / "out").iterdir())


def test_a_dataset_without_images_to_spare_is_refused(
    tmp_path: Path, make_dataset: Make, make_run: Make, make_features: Make
) -> None:
    dataset = make_dataset(splits={"train": 3, "val": 0, "test": 24}, seed=1)
    features = make_features(make_run(), [dataset], own="digits", mirrored=True)
    spec = spec_of(0.1)
    spec = spec.model_copy(update={"knn": spec.knn.model_copy(update={"k": 1})})
    with pytest.raises(DataError, match=r'"digits": no validation images can be carved from 3'):
        probe(tmp_path / "out", (features, dataset), spec)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rates": []}, "learning_rates"),
        ({"learning_rates": [0.1, 0.1]}, "learning_rates"),
        ({"learning_rates": [0.0]}, "learning_rates"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"momentum": 0.9}, "momentum"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RateGridSpec.model_validate({"learning_rates": [0.1], "validation_fraction": 0.2} | changes)


def test_without_a_grid_the_spec_is_what_it_was() -> None:
    assert "grid" not in spec_of().canonical()["linear"]
    assert spec_of(0.1).canonical()["linear"]["grid"] == {
        "learning_rates": [0.1],
        "validation_fraction": 0.25,
    }
