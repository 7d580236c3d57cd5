"""The stage fine-tune-encoder: choice on validation, one test number, and picking up again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoding import as_encoded

from clsp.config.evaluation import FineTuneJobSpec, FineTuneSpec
from clsp.evaluate import fine_tune, tuning
from clsp.evaluate.fine_tune import fine_tune_encoder
from clsp.evaluate.tuning import rate_of
from clsp.runtime.errors import ConfigError, DataError, DivergedError
from clsp.runtime.manifest import Artefact
from clsp.runtime.stage import Outcome

SLUG = "digits.tiny.simclr.none.s0"
Make = Callable[..., Artefact]
TUNED = FineTuneSpec(
    epochs=3,
    batch_size=16,
    learning_rates=(0.05, 0.001),
    weight_decays=(0.0, 0.001),
    momentum=0.9,
    crop_scale=0.6,
    flip=0.0,
    validation="stratified",
    validation_fraction=0.25,
    seed=0,
)


@pytest.fixture
def official(make_dataset: Make) -> Artefact:
    return make_dataset("dtd-mini", splits={"train": 36, "val": 12, "test": 18}, seed=1)


def tuned(
    folder: Path,
    encoder: Artefact,
    datasets: list[Artefact],
    scratch: Path | None = None,
    **how: Any,
) -> tuple[Outcome, dict[str, np.ndarray]]:
    folder.mkdir(exist_ok=True)
    names = tuple(how.pop("names", [artefact.folder.name for artefact in datasets]))
    spec = TUNED.model_copy(update=how)
    outcome = fine_tune_encoder(
        FineTuneJobSpec(run=SLUG, datasets=names, fine_tune=spec),
        encoder,
        datasets,
        folder / "fine_tune.json",
        folder / "predictions.npz",
        scratch or folder / "scratch",
    )
    with np.load(folder / "predictions.npz", allow_pickle=False) as arrays:
        return outcome, dict(arrays)


def test_one_result_per_dataset_follows_from_its_stored_logits(
    tmp_path: Path, make_dataset: Make, make_run: Make, official: Artefact
) -> None:
    carved = make_dataset("pets-mini", metric="mean_per_class", classes=4, seed=2)
    outcome, stored = tuned(tmp_path / "out", make_run(), [official, carved])
    document = json.loads((tmp_path / "out/fine_tune.json").read_text())
    assert document["results"] == outcome.facts["results"]
    for result, rows in zip(document["results"], ((48, 66), (48, 72)), strict=True):
        name, where = result["task"], result["predictions"]
        np.testing.assert_array_equal(stored[where["rows"]], np.arange(*rows))
        logits, labels = stored[where["logits"]], stored[where["labels"]]
        hits = logits.argmax(1) == labels
        assert (logits.dtype, result["correct"]) == (np.float32, int(hits.sum()))
        assert (result["protocol"], result["selected_on"]) == ("fine_tune", "val")
        assert outcome.metrics[f"fine_tune/{name}"] == result["value"]
        tried = outcome.facts["fits"][name]
        assert [(t["learning_rate"], t["weight_decay"]) for t in tried] == [
            (0.05, 0.0),
            (0.05, 0.001),
            (0.001, 0.0),
            (0.001, 0.001),
        ]
        best = max(tried, key=lambda record: record["validation_value"])  # the first of equal ones
        chosen = result["selection"]
        assert {key: chosen[key] for key in best if key != "diverged"} == {
            key: value for key, value in best.items() if key != "diverged"
        }
        assert chosen["diverged_in_grid"] == 0
    assert document["results"][0]["selection"]["validation"]["rule"] == "official"
    assert outcome.counters == {"fits": 10, "test_images": 42}


def test_it_learns_and_leaves_the_encoder_alone(
    tmp_path: Path, make_run: Make, official: Artefact
) -> None:
    run = make_run()
    before = (run.folder / "encoder.safetensors").read_bytes()
    rates = {"learning_rates": (0.05,), "weight_decays": (0.0,)}
    outcome, _ = tuned(tmp_path / "out", run, [official], epochs=8, **rates)
    assert outcome.facts["results"][0]["value"] > 80
    assert (run.folder / "encoder.safetensors").read_bytes() == before


def test_batch_norm_is_trained(tmp_path: Path, make_run: Make, official: Artefact) -> None:
    seen = []

    def watch(network: Any, *rest: Any) -> np.ndarray:
        seen.append((network.training, network.encoder.bn1.running_mean.clone()))
        return predict(network, *rest)

    predict = tuning.predict
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fine_tune, "predict", watch)
        tuned(tmp_path / "out", make_run(), [official], epochs=1)
    assert not any(training for training, _ in seen)
    first, *others = (mean for _, mean in seen)
    assert all(not torch.equal(first, mean) for mean in others)


def test_an_interrupted_job_is_picked_up_and_ends_the_same(
    tmp_path: Path, make_dataset: Make, make_run: Make, official: Artefact
) -> None:
    """Killed in the third pair of the second dataset, it does only what is left."""
    data = [official, make_dataset("pets-mini", classes=4, seed=2)]
    run, calls = make_run(), []

    def killed(*given: Any) -> Any:
        calls.append(given[4])
        if len(calls) == 8:
            raise KeyboardInterrupt
        return tune(*given)

    tune = tuning.tune
    whole, expected = tuned(tmp_path / "whole", run, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fine_tune, "tune", killed)
        with pytest.raises(KeyboardInterrupt):
            tuned(tmp_path / "part", run, data)
        outcome, stored = tuned(tmp_path / "part", run, data)
    assert len(calls) == 8 + 3  # pairs three and four of the second dataset, and its refit
    assert outcome == whole
    assert stored.keys() == expected.keys()
    for name, array in stored.items():
        np.testing.assert_array_equal(array, expected[name])


def test_other_settings_do_not_use_what_was_kept(
    tmp_path: Path, make_run: Make, official: Artefact
) -> None:
    run, scratch = make_run(), tmp_path / "scratch"
    first, _ = tuned(tmp_path / "a", run, [official], scratch, epochs=1)
    second, _ = tuned(tmp_path / "b", run, [official], scratch, epochs=1, seed=1)
    fresh, _ = tuned(tmp_path / "c", run, [official], epochs=1, seed=1)
    assert second == fresh and second != first


def test_damaged_scratch_is_named(tmp_path: Path, make_run: Make, official: Artefact) -> None:
    run, scratch = make_run(), tmp_path / "scratch"
    tuned(tmp_path / "a", run, [official], scratch, epochs=1)
    (path,) = scratch.rglob("dtd-mini.final.npy")
    path.write_bytes(b"x")
    with pytest.raises(DataError, match=r"dtd-mini.final.npy: not a readable array"):
        tuned(tmp_path / "a", run, [official], scratch, epochs=1)


def test_a_diverged_pair_scores_nothing_and_is_marked(
    tmp_path: Path, make_run: Make, official: Artefact
) -> None:
    outcome, stored = tuned(
        tmp_path / "out", make_run(), [official], learning_rates=(1e18, 0.01), epochs=1
    )
    tried = outcome.facts["fits"]["dtd-mini"]
    assert [(t["validation_value"] is None, t["diverged"]) for t in tried] == [
        (True, True),
        (True, True),
        (False, False),
        (False, False),
    ]
    (result,) = outcome.facts["results"]
    assert result["selection"]["learning_rate"] == 0.01
    assert result["selection"]["diverged_in_grid"] == 2
    assert np.isfinite(stored["dtd-mini.logits"]).all()


def test_where_everything_diverges_the_job_says_so(
    tmp_path: Path, make_run: Make, official: Artefact
) -> None:
    with pytest.raises(DivergedError, match=r"on dtd-mini diverged .* lower .*learning_rates"):
        tuned(tmp_path / "out", make_run(), [official], learning_rates=(1e18,), epochs=1)


def test_a_pair_that_breaks_on_all_images_gives_way_to_the_next(
    tmp_path: Path, make_run: Make, official: Artefact
) -> None:
    tune, calls = tuning.tune, []

    def broken(*given: Any) -> Any:
        calls.append(given[4])
        return None if len(calls) == 5 else tune(*given)  # the first refit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fine_tune, "tune", broken)
        outcome, _ = tuned(tmp_path / "out", make_run(), [official], epochs=1)
    chosen = outcome.facts["results"][0]["selection"]
    first, second = calls[4:]
    assert chosen["diverged_in_refit"] == [[first.learning_rate, first.weight_decay]]
    assert (chosen["learning_rate"], chosen["weight_decay"]) == (
        second.learning_rate,
        second.weight_decay,
    )


def test_the_rate_falls_along_half_a_cosine() -> None:
    rates = [rate_of(0.2, step, 4) for step in range(5)]
    assert rates == pytest.approx([0.2, 0.1 * (1 + 0.5**0.5), 0.1, 0.1 * (1 - 0.5**0.5), 0])


def test_several_classes_per_image_are_tuned_too(
    tmp_path: Path, make_dataset: Make, make_run: Make
) -> None:
    labels = np.eye(3, dtype=np.uint8)[np.arange(72) % 3]
    labels[::4, 0] = 1
    splits = {"train": 36, "val": 12, "test": 24}
    data = make_dataset("voc-mini", splits=splits, labels=labels, metric="map11", seed=1)
    outcome, stored = tuned(tmp_path / "out", make_run(), [data], learning_rates=(0.05,))
    (result,) = outcome.facts["results"]
    assert result["metric"] == "map11" and 0 < result["value"] <= 100
    assert stored["voc-mini.labels"].shape == (24, 3)


def test_image_files_are_tuned_on_like_pixels(
    tmp_path: Path, make_run: Make, official: Artefact
) -> None:
    """Crops of the whole image show the same pixels, so that nothing may differ."""
    run, twin = make_run(), as_encoded(official, tmp_path / "encoded")
    whole = {"epochs": 1, "crop_scale": 1.0, "flip": 0.5}
    pixels, _ = tuned(tmp_path / "a", run, [official], **whole)
    files, _ = tuned(tmp_path / "b", run, [twin], **whole)
    assert files == pixels
    cropped, _ = tuned(tmp_path / "c", run, [twin], epochs=1, crop_scale=0.3)
    assert cropped != pixels


def test_unlabelled_training_images_are_left_out(
    tmp_path: Path, make_dataset: Make, make_run: Make
) -> None:
    labels = np.arange(72) % 3
    labels[5:20] = -1
    data = make_dataset("stl-mini", labels=labels, seed=1)
    outcome, _ = tuned(tmp_path / "out", make_run(), [data], epochs=8, learning_rates=(0.05,))
    assert outcome.facts["results"][0]["value"] > 80


def test_foreign_inputs_are_refused(tmp_path: Path, make_run: Make, official: Artefact) -> None:
    with pytest.raises(
        ConfigError, match="asks for 2 in this order: pets, dtd-mini; given are 1: dtd"
    ):
        tuned(tmp_path / "a", make_run(), [official], names=("pets", "dtd-mini"))
    other = make_run("digits.tiny.moco.none.s0")
    with pytest.raises(ConfigError, match=r'the spec judges "digits.tiny.simclr.none.s0"'):
        tuned(tmp_path / "b", other, [official])
