"""The stage probe-few-shot: what is drawn, what is fitted, and what is stored of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as Reference

from clsp.config.evaluation import FewShotJobSpec, FewShotSpec
from clsp.data.prepared import open_prepared
from clsp.evaluate.few_shot import count_of, draw_images, probe_few_shot, unit
from clsp.runtime.canonical import sha256_array
from clsp.runtime.checkpoint import save_tensors
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import Artefact, write_manifest
from clsp.runtime.stage import Outcome

SLUG = "digits.tiny.simclr.none.s0"
WIDTH = 6
Make = Callable[..., Artefact]
FEW = FewShotSpec(
    shots=(1, 5),
    fractions=(0.25,),
    draws=3,
    log10_lambda=-1.0,
    max_iterations=500,
    tolerance=1e-6,
    seed=0,
)


def features_of(
    folder: Path, datasets: list[Artefact], slug: str = SLUG, epoch: int | None = 20
) -> Artefact:
    """Cached features in which classes are spread around points of their own."""
    tensors = {}
    for artefact in datasets:
        prepared, name = open_prepared(artefact), artefact.folder.name
        centres = np.random.default_rng(5).normal(0, 2, (len(prepared.classes), WIDTH))
        for split in ("train", "val", "test"):
            labels = prepared.split(split).labels
            labels = labels.argmax(1) if labels.ndim == 2 else labels[labels >= 0]
            noise = np.random.default_rng(len(labels)).normal(0, 1, (len(labels), WIDTH))
            if len(labels):
                found = (centres[labels] + noise).astype(np.float32)
                tensors[f"{name}/{split}"] = torch.from_numpy(found)
    home = folder / "features" / slug
    home.mkdir(parents=True)
    save_tensors(home / "features.safetensors", tensors, {})
    names = [artefact.folder.name for artefact in datasets]
    source = "encoder" if epoch else "random"
    spec = {"run": slug, "source": source, "mirrored": False, "tasks": names}
    predicate = {
        "step": "extract-features",
        "externalParameters": {"spec": spec, "arguments": {}},
        "metrics": {},
        "facts": {
            "epoch": epoch,
            "source": source,
            "features": WIDTH,
            "resolutions": dict.fromkeys(names, 8),
        },
    }
    outputs = {"features.safetensors": home / "features.safetensors"}
    return write_manifest(home / "manifest.json", outputs, [], predicate)


def judge(
    folder: Path, features: Artefact, datasets: list[Artefact], few: FewShotSpec = FEW, **spec: Any
) -> tuple[Outcome, dict[str, np.ndarray]]:
    folder.mkdir()
    names = tuple(spec.pop("names", [artefact.folder.name for artefact in datasets]))
    job = FewShotJobSpec(**{"run": SLUG, "datasets": names, "few_shot": few, **spec})
    stored = folder / "predictions.npz"
    outcome = probe_few_shot(job, features, datasets, folder / "few_shot.json", stored)
    with np.load(stored, allow_pickle=False) as arrays:
        return outcome, dict(arrays)


@pytest.mark.parametrize(
    ("wanted", "there", "count"),
    [(5, 9, 5), (5, 3, 3), (0.1, 4, 1), (0.1, 100, 10), (0.01, 1, 1), (0.1, 26, 3)],
)
def test_counts(wanted: float | int, there: int, count: int) -> None:
    assert count_of(wanted, there) == count


def test_draws_are_keyed_by_class_alone() -> None:
    labels = np.array([2, 0, 1, 2, 0, 1, 2, 2, 0, 0])
    rows = draw_images(labels, 2, 0, "few-shot", "dtd", "shots=2", 0)
    assert sorted(labels[rows]) == [0, 0, 1, 1, 2, 2] and len(set(rows)) == 6
    again = draw_images(labels, 2, 0, "few-shot", "dtd", "shots=2", 0)
    np.testing.assert_array_equal(rows, again)
    without = draw_images(np.where(labels == 1, 3, labels), 2, 0, "few-shot", "dtd", "shots=2", 0)
    np.testing.assert_array_equal(rows[labels[rows] != 1], without[:-2])
    draws = {tuple(draw_images(labels, 2, 0, "few-shot", "dtd", "shots=2", n)) for n in range(20)}
    assert len(draws) > 10


def test_every_image_is_equally_likely() -> None:
    labels = np.zeros(5, np.int64)
    found = [draw_images(labels, 2, 0, "test", number) for number in range(2000)]
    shares = np.bincount(np.concatenate(found), minlength=5) / 2000
    np.testing.assert_allclose(shares, 0.4, atol=0.04)


def test_features_of_length_zero_stay() -> None:
    given = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(unit(given), [[0.6, 0.8], [0, 0]], rtol=1e-6)


def test_results_follow_from_the_stored_classes(tmp_path: Path, make_dataset: Make) -> None:
    official = make_dataset("dtd-mini", splits={"train": 24, "val": 12, "test": 18}, seed=1)
    carved = make_dataset("pets-mini", metric="mean_per_class", classes=4, seed=2)
    datasets = [official, carved]
    outcome, stored = judge(tmp_path / "out", features_of(tmp_path, datasets), datasets)
    document = json.loads((tmp_path / "out/few_shot.json").read_text())
    results = document["results"]
    assert (document["run"], results) == (SLUG, outcome.facts["results"])
    points = ["shots=1", "shots=5", "fraction=0.25"]
    assert [(r["task"], r["variant"]) for r in results] == [
        (task, point) for task in ("dtd-mini", "pets-mini") for point in points
    ]
    for result in results:
        where, chosen = result["predictions"], result["selection"]
        name, labels = result["task"], stored[where["labels"]]
        assert where["predicted"] == f"{name}.{result['variant']}.predicted"
        guess = stored[where["predicted"]]
        assert guess.dtype == np.int32 and guess.shape == (3, len(labels))
        np.testing.assert_array_equal(
            stored[where["rows"]], np.arange(36, 54) if name == "dtd-mini" else np.arange(48, 72)
        )
        hits = guess == labels
        counts = [
            [int(hits[:, labels == c].sum()), 3 * int((labels == c).sum())]
            for c in range(len(result["per_class"]))
        ]
        assert result["per_class"] == counts
        assert (result["correct"], result["total"]) == (hits.sum(), hits.size)
        shares = 100 * hits.mean(1)
        if result["metric"] == "mean_per_class":
            shares = np.mean([100 * hits[:, labels == c].mean(1) for c in set(labels)], axis=0)
        assert result["value"] == pytest.approx(shares.mean())
        assert chosen["values"] == pytest.approx(shares.tolist())
        assert chosen["std"] == pytest.approx(np.std(shares, ddof=1))
        assert (result["selected_on"], result["epoch"], chosen["converged"]) == ("none", 20, True)
        metric = f"few_shot/{name}/{result['variant'].replace('=', '_')}"
        assert outcome.metrics[metric] == result["value"]
    assert outcome.counters == {"fits": 18, "test_images": 42}


def test_images_come_from_train_and_val_and_are_recorded(
    tmp_path: Path, make_dataset: Make
) -> None:
    data = make_dataset("dtd-mini", splits={"train": 24, "val": 12, "test": 18}, seed=1)
    outcome, stored = judge(tmp_path / "out", features_of(tmp_path, [data]), [data])
    labels, seen = open_prepared(data).labels, set()
    for result, images in zip(outcome.facts["results"], (3, 15, 9), strict=True):
        drawn = stored[f"dtd-mini.{result['variant']}.drawn"]
        assert drawn.shape == (3, images) and result["selection"]["images"] == images
        assert result["selection"]["drawn_sha256"] == sha256_array(drawn)
        for rows in drawn:
            assert len(set(rows)) == images
            assert np.bincount(labels[rows]).tolist() == [images // 3] * 3
        seen |= set(drawn.flatten())
    assert max(seen) < 36 and seen & set(range(24, 36))


def test_fits_are_scikit_learn_s(tmp_path: Path, make_dataset: Make) -> None:
    data = make_dataset("dtd-mini", seed=1)
    features = features_of(tmp_path, [data])
    outcome, stored = judge(tmp_path / "out", features, [data])
    from clsp.evaluate.cache import open_features

    cached, labels = open_features(features, SLUG), open_prepared(data).labels
    train, test = unit(cached.get("dtd-mini", "train")), unit(cached.get("dtd-mini", "test"))
    for point in ("shots=5", "fraction=0.25"):
        for rows, guess in zip(
            stored[f"dtd-mini.{point}.drawn"], stored[f"dtd-mini.{point}.predicted"], strict=True
        ):
            model = Reference(C=10.0, tol=1e-8, max_iter=5000).fit(train[rows], labels[rows])
            assert (model.predict(test) == guess).mean() > 0.99
    assert outcome.facts["results"][1]["value"] > 60


def test_a_small_class_gives_all_it_has_and_the_result_says_so(
    tmp_path: Path, make_dataset: Make
) -> None:
    labels = np.array([0] * 20 + [1] * 20 + [2] * 2 + [0, 1, 2] * 4)
    data = make_dataset(
        "tail-mini", splits={"train": 42, "val": 0, "test": 12}, labels=labels, seed=1
    )
    outcome, stored = judge(tmp_path / "out", features_of(tmp_path, [data]), [data])
    one, five, quarter = outcome.facts["results"]
    assert [r["selection"]["short_classes"] for r in (one, five, quarter)] == [0, 1, 0]
    assert [r["selection"]["images"] for r in (one, five, quarter)] == [3, 12, 11]
    drawn = stored["tail-mini.shots=5.drawn"]
    assert all({40, 41} <= set(rows) for rows in drawn)


def test_unlabelled_images_are_never_drawn(tmp_path: Path, make_dataset: Make) -> None:
    labels = np.arange(72) % 3
    labels[5:20] = -1
    data = make_dataset("stl-mini", labels=labels, seed=1)
    _, stored = judge(tmp_path / "out", features_of(tmp_path, [data]), [data])
    seen = np.concatenate([a.flatten() for n, a in stored.items() if n.endswith(".drawn")])
    assert (labels[seen] >= 0).all() and seen.max() < 48 and (seen >= 20).any()


def test_one_draw_has_no_spread_and_stopping_early_is_recorded(
    tmp_path: Path, make_dataset: Make
) -> None:
    data = make_dataset("dtd-mini", seed=1)
    features = features_of(tmp_path, [data], epoch=None)
    once = FEW.model_copy(update={"draws": 1, "max_iterations": 1, "tolerance": 1e-12})
    outcome, _ = judge(tmp_path / "out", features, [data], once)
    for result in outcome.facts["results"]:
        chosen = result["selection"]
        assert (chosen["std"], chosen["not_converged"], chosen["converged"]) == (None, 1, False)
        assert result["epoch"] is None


def test_what_is_judged_does_not_depend_on_what_else_is(tmp_path: Path, make_dataset: Make) -> None:
    first, second = make_dataset("dtd-mini", seed=1), make_dataset("pets-mini", seed=2)
    both, _ = judge(tmp_path / "a", features_of(tmp_path / "x", [first, second]), [first, second])
    alone, _ = judge(tmp_path / "b", features_of(tmp_path / "y", [second]), [second])
    assert both.facts["results"][3:] == alone.facts["results"]


def test_foreign_inputs_are_refused(tmp_path: Path, make_dataset: Make) -> None:
    data = make_dataset("dtd-mini", seed=1)
    features = features_of(tmp_path, [data])
    with pytest.raises(
        ConfigError, match="asks for 2 in this order: pets, dtd-mini; given are 1: dtd"
    ):
        judge(tmp_path / "a", features, [data], names=("pets", "dtd-mini"))
    with pytest.raises(ConfigError, match="another"):
        judge(tmp_path / "b", features, [data], run="another.run")
    labels = np.eye(3, dtype=np.uint8)[np.arange(72) % 3]
    several = make_dataset("voc-mini", labels=labels, metric="map11", seed=1)
    with pytest.raises(DataError, match="images show several classes"):
        judge(tmp_path / "c", features_of(tmp_path / "f", [several]), [several])
