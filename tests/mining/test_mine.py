"""The stage mine-pairs: what it stores, what can be derived from it again, what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from encoding import as_encoded

from clsp.config.schema import PairsSpec
from clsp.data.pairs import PAIR, open_pairs, owner_of
from clsp.data.prepared import open_prepared
from clsp.job import Call
from clsp.job import run as run_job
from clsp.mining import mine as module
from clsp.mining.mine import mine, mine_pairs
from clsp.models.features import extract, open_frozen
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import Artefact, write_manifest
from clsp.runtime.stage import Outcome

SLUG = "digits.tiny.simclr.none.s0"
CPU = torch.device("cpu")
Make = Callable[..., Artefact]


def spec_of(**changes) -> PairsSpec:
    return PairsSpec.model_validate(
        {"dataset": "digits", "run": SLUG, "neighbours": 4, "threshold": 0.5, **changes}
    )


def run(
    folder: Path, spec: PairsSpec, encoder: Artefact, dataset: Artefact
) -> tuple[np.ndarray, np.ndarray, Outcome]:
    folder.mkdir()
    outcome = mine_pairs(spec, encoder, dataset, folder / "pairs.npy", folder / "features.npy")
    return np.load(folder / "pairs.npy"), np.load(folder / "features.npy"), outcome


def test_pairs_follow_from_the_stored_features(
    make_dataset: Make, make_run: Make, tmp_path: Path
) -> None:
    encoder, dataset = make_run(), make_dataset()
    pairs, features, outcome = run(tmp_path / "out", spec_of(), encoder, dataset)
    images = open_prepared(dataset).split("train").images
    assert pairs.dtype == PAIR and features.dtype == np.float16 and features.shape == (48, 32)
    np.testing.assert_array_equal(mine(features, spec_of(), CPU), pairs)
    plain = extract(open_frozen(encoder, SLUG, CPU), images, 16, "test")
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(features, plain, atol=1e-3)
    assert (pairs["left"] < pairs["right"]).all() and (pairs["cosine"] >= 0.5).all()
    again = run(tmp_path / "again", spec_of(), encoder, dataset)
    np.testing.assert_array_equal(again[0], pairs)
    assert again[2] == outcome


def test_pairs_of_encoded_images_are_those_of_their_pixels(
    make_dataset: Make, make_run: Make, tmp_path: Path
) -> None:
    encoder, dataset = make_run(), make_dataset()
    arrays = run(tmp_path / "arrays", spec_of(), encoder, dataset)
    twin = as_encoded(dataset, tmp_path / "encoded")
    encoded = run(tmp_path / "out", spec_of(), encoder, twin)
    for one, other in zip(arrays, encoded, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_reported(make_dataset: Make, make_run: Make, tmp_path: Path) -> None:
    encoder, dataset = make_run(), make_dataset()
    pairs, _, outcome = run(tmp_path / "out", spec_of(), encoder, dataset)
    prepared = open_prepared(dataset)
    labels = prepared.split("train").labels
    paired = {image for pair in pairs for image in (pair["left"], pair["right"])}
    agree = np.mean([labels[pair["left"]] == labels[pair["right"]] for pair in pairs])
    assert outcome.metrics["pairs/count"] == len(pairs) > 10
    assert outcome.metrics["pairs/anchors_share"] == len(paired) / 48
    assert outcome.metrics["pairs/mean_cosine"] == pytest.approx(pairs["cosine"].mean())
    assert outcome.metrics["analysis/label_agreement"] == pytest.approx(agree)
    assert outcome.facts["dataset"] == owner_of(prepared)
    assert outcome.facts["dataset"]["split"] == "train"
    assert outcome.facts["run"] == SLUG
    assert outcome.facts["paired_anchors"] == len(paired)
    held = encoder.subjects["encoder.safetensors"]["digest"]["sha256"]
    assert outcome.facts["encoder_sha256"] == held
    assert outcome.facts["label_conditioned"] is False


def test_pairs_of_a_label_trained_encoder_say_so(
    make_dataset: Make, make_run: Make, tmp_path: Path
) -> None:
    _, _, outcome = run(tmp_path / "out", spec_of(), make_run(label_free=False), make_dataset())
    assert outcome.facts["label_conditioned"] is True


def test_labels_change_nothing_but_their_own_metric(
    make_dataset: Make, make_run: Make, tmp_path: Path
) -> None:
    encoder, dataset = make_run(), make_dataset()
    pairs, _, outcome = run(tmp_path / "a", spec_of(), encoder, dataset)
    unlabelled = np.full(72, -1)
    np.save(dataset.path("labels.npy"), unlabelled)
    without, _, found = run(tmp_path / "b", spec_of(), encoder, dataset)
    np.testing.assert_array_equal(without, pairs)
    assert found.metrics == {k: v for k, v in outcome.metrics.items() if "analysis" not in k}


def test_the_encoder_may_come_from_another_dataset(
    make_dataset: Make, make_run: Make, tmp_path: Path
) -> None:
    pairs, _, outcome = run(
        tmp_path / "out", spec_of(), make_run(dataset="elsewhere"), make_dataset()
    )
    assert len(pairs) and outcome.facts["dataset"]["anchors"] == 48


def test_what_the_stage_writes_can_be_opened(
    make_dataset: Make, make_run: Make, tmp_path: Path
) -> None:
    dataset, folder = make_dataset(), tmp_path / "digits.near"
    pairs, _, outcome = run(folder, spec_of(), make_run(), dataset)
    predicate = {"step": "mine-pairs", "facts": outcome.facts}
    predicate["externalParameters"] = {"spec": spec_of().canonical(), "arguments": {}}
    files = {"pairs.npy": folder / "pairs.npy"}
    opened = open_pairs(write_manifest(folder / "manifest.json", files, [], predicate))
    opened.check_belongs(open_prepared(dataset))
    np.testing.assert_array_equal(opened.pairs, pairs)
    with pytest.raises(DataError, match=r"pairs digits\.near belong to another dataset"):
        opened.check_belongs(open_prepared(make_dataset("other", seed=5)))


def test_a_threshold_that_nothing_reaches_names_the_largest_cosine() -> None:
    features = np.eye(6, 4, dtype=np.float16)
    features[1, 0] = 1.0  # the cosine of images 0 and 1 is 1 / sqrt(2)
    message = r"pairs.threshold: no two of the 6 training images reach 0\.9; .* is 0\.7071"
    with pytest.raises(ConfigError, match=message):
        mine(features, spec_of(neighbours=2, threshold=0.9), CPU)


def test_the_threshold_itself_is_reached() -> None:
    features = np.ones((3, 2), np.float16)
    assert len(mine(features, spec_of(neighbours=2, threshold=1.0), CPU)) == 3


def test_what_does_not_fit_is_refused(make_dataset: Make, make_run: Make, tmp_path: Path) -> None:
    encoder, dataset = make_run(), make_dataset()
    other = make_dataset("other")
    with pytest.raises(ConfigError, match=r'pairs images of "digits", but .* is "other"'):
        run(tmp_path / "a", spec_of(), encoder, other)
    with pytest.raises(
        ConfigError, match=r"pairs.neighbours: 48 are asked for, but each of the 48"
    ):
        run(tmp_path / "b", spec_of(neighbours=48), encoder, dataset)
    with pytest.raises(ConfigError, match=rf'holds run "{SLUG}", but the spec judges "another"'):
        run(tmp_path / "c", spec_of(run="another"), encoder, dataset)


def test_an_interrupted_job_leaves_nothing_and_the_next_one_is_whole(
    make_dataset: Make, make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, dataset = make_run(), make_dataset()
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pairs" / "digits.pairs"
    arguments = {
        "spec": json.dumps(spec_of().canonical()),
        "encoder": [encoder.manifest],
        "dataset": [dataset.manifest],
        "pairs": folder / "pairs.npy",
        "features": folder / "features.npy",
    }
    call = Call("mine-pairs", mine_pairs, arguments, folder / "manifest.json", "code", 1)

    def interrupted(*given: object) -> np.ndarray:
        raise KeyboardInterrupt  # after the features were written

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "mine", interrupted)
        run_job(call)
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    made = run_job(call)
    straight = run(tmp_path / "straight", spec_of(), encoder, dataset)
    np.testing.assert_array_equal(np.load(folder / "pairs.npy"), straight[0])
    assert made.predicate["facts"] == straight[2].facts
