"""Every number of measure-bank against plain loops over the same images and features."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from encoding import as_encoded
from measuring import PROBE, RUN, Result, draw_candidates, quality_spec

from clsp.config.quality import metrics_of
from clsp.data.bank import other_anchors
from clsp.data.encoded import EncodedImages
from clsp.data.prepared import open_prepared
from clsp.evaluate import closest
from clsp.evaluate.linear import linear_logits, load_samples, train_linear
from clsp.models.features import open_frozen
from clsp.runtime.errors import ConfigError, DataError

N, M, K = 48, 20, 3
ROWS = [i * N // M for i in range(M)]


@pytest.fixture
def dataset(make_dataset):
    return make_dataset()


@pytest.fixture
def images(dataset):
    return np.array(open_prepared(dataset).split("train").images)


@pytest.fixture
def candidates(images):
    """Among them an exact copy of another image, and one image drawn three times."""
    drawn = draw_candidates(images, K)
    drawn[ROWS[4], 0] = images[7]
    drawn[ROWS[6]] = drawn[ROWS[6], 0]
    return drawn


@pytest.fixture
def measured(dataset, make_run, make_bank, measure, candidates) -> Result:
    return measure(quality_spec(), make_bank(dataset, candidates), dataset, [make_run()])


def _features(tmp_path, images: np.ndarray) -> np.ndarray:
    from clsp.runtime.manifest import read_manifest

    artefact = read_manifest(tmp_path / "runs" / RUN / "manifest.json")
    source = open_frozen(artefact, RUN, torch.device("cpu"))
    return source.describe(images.reshape(-1, *images.shape[-3:])).astype(np.float64)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))


def _mse(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a / 255.0 - b / 255.0) ** 2).mean())


def _closest(distance: Any, count: int, skipped: int | None = None) -> tuple[int, float]:
    found = [(distance(row), row) for row in range(count) if row != skipped]
    least = min(found)
    return least[1], least[0]


def _frechet(a: np.ndarray, b: np.ndarray) -> float:
    """By the eigenvalues of a symmetric product, as the formula has it."""
    mean = a.mean(0) - b.mean(0)
    one, other = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(one)
    root = vectors @ np.diag(np.sqrt(np.clip(values, 0, None))) @ vectors.T
    both = np.linalg.eigvalsh(root @ other @ root)
    cross = np.sqrt(np.clip(both, 0, None)).sum()
    return float(mean @ mean + np.trace(one) + np.trace(other) - 2 * cross)


@pytest.mark.parametrize("k", [1, K])
def test_every_number_by_plain_loops(k, measured, tmp_path, images, candidates) -> None:
    train = _features(tmp_path, images)
    drawn = _features(tmp_path, candidates[ROWS]).reshape(M, K, -1)
    others = other_anchors(3, N)
    sums: dict[str, list[float]] = {}

    def note(**values: float) -> None:
        for name, value in values.items():
            sums.setdefault(name, []).append(value)

    for place, row in enumerate(ROWS):
        for j in range(k):
            image, feature, other = candidates[row, j], drawn[place, j], others[row]
            own, random = _cosine(feature, train[row]), _cosine(feature, train[other])
            near, far = _mse(image, images[row]), _mse(image, images[other])
            note(own_cosine=own, random_cosine=random, nearer_cosine=100 * (own > random))
            note(own_mse=near, random_mse=far, nearer_mse=100 * (near < far))
            for i in range(j):
                note(
                    diversity_cosine=1 - _cosine(drawn[place, i], feature),
                    diversity_mse=_mse(candidates[row, i], image),
                )
            for space, apart, beside in (
                (
                    "feature",
                    lambda r, f=feature: float(np.linalg.norm(_unit(f) - _unit(train[r]))),
                    lambda r, s: float(np.linalg.norm(_unit(train[s]) - _unit(train[r]))),
                ),
                (
                    "pixel",
                    lambda r, im=image: math.sqrt(_mse(im, images[r])),
                    lambda r, s: math.sqrt(_mse(images[s], images[r])),
                ),
            ):
                found, distance = _closest(apart, N)
                _, gap = _closest(lambda r, s=found, b=beside: b(r, s), N, found)
                note(
                    **{
                        f"nearest_own_{space}": 100 * (found == row),
                        f"ratio_{space}": distance / gap,
                        f"copies_{space}": distance < 0.5 * gap,
                        f"others_{space}": distance < 0.5 * gap and found != row,
                    }
                )
    numbers = measured.numbers(k)
    for space in ("feature", "pixel"):
        ratio = np.median(sums.pop(f"ratio_{space}"))
        assert numbers[f"distance_ratio_{space}"] == pytest.approx(ratio, abs=1e-5)
        assert numbers[f"near_copies_{space}"] == sum(sums.pop(f"copies_{space}"))
        assert numbers[f"copies_of_others_{space}"] == sum(sums.pop(f"others_{space}"))
    assert numbers["near_copies_pixel"] >= numbers["copies_of_others_pixel"] >= 1  # the exact copy
    for name, values in sums.items():
        assert numbers[name] == pytest.approx(np.mean(values), abs=1e-5), name
    first = drawn[:, :k].reshape(M * k, -1)
    assert numbers["frechet_distance"] == pytest.approx(_frechet(first, train), rel=1e-4, abs=1e-6)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_the_probe_and_its_accuracy_on_the_anchors(measured, tmp_path, images, candidates) -> None:
    labels = np.arange(N) % 3
    train = _features(tmp_path, images).astype(np.float32)
    drawn = _features(tmp_path, candidates[ROWS]).astype(np.float32)
    samples = load_samples([train], labels, 3, torch.device("cpu"))
    layer = train_linear(PROBE, samples, seed=0, label="again")
    guess = linear_logits(drawn, *layer).argmax(1).reshape(M, K)
    right = labels[ROWS]
    for k in (1, K):
        numbers = measured.numbers(k)
        assert numbers["label_agreement"] == 100 * (guess[:, :k] == right[:, None]).mean()
        known = linear_logits(train[ROWS], *layer).argmax(1)
        assert numbers["anchor_accuracy"] == 100 * (known == right).mean()
    assert measured.outcome.facts["labels_read_for_analysis"] is True
    assert measured.outcome.facts["label_conditioned"] is False


def test_what_is_recorded(measured) -> None:
    spec = quality_spec()
    for k in (1, K):
        assert list(measured.numbers(k)) == sorted(measured.numbers(k))
        assert set(measured.numbers(k)) == set(metrics_of(spec, k))
        for name, value in measured.numbers(k).items():
            assert measured.outcome.metrics[f"quality/k{k}/{name}"] == value
    assert "diversity_cosine" not in measured.numbers(1)
    network = measured.outcome.facts["network"]
    assert (network["name"], network["features"]) == (RUN, 32)
    assert len(network["weights_sha256"]) == 64
    images = [r["images"] for r in measured.document["quality"]]
    assert images == [{"candidates": M, "training": N}, {"candidates": M * K, "training": N}]
    assert [r["singular"] for r in measured.document["quality"]] == [True, False]  # 20 of 32 wide


def test_identical_candidates_have_no_diversity(
    dataset, make_run, make_bank, measure, images
) -> None:
    drawn = np.repeat(draw_candidates(images, 1), K, axis=1)
    found = measure(quality_spec(), make_bank(dataset, drawn), dataset, [make_run()])
    assert found.numbers(K)["diversity_mse"] == 0
    assert found.numbers(K)["diversity_cosine"] == pytest.approx(0, abs=1e-12)


def test_training_images_as_candidates_are_all_near_copies(
    dataset, make_run, make_bank, measure, images
) -> None:
    spec = quality_spec(candidates=(1,), anchors=N)
    found = measure(spec, make_bank(dataset, images[:, None].copy()), dataset, [make_run()])
    numbers = found.numbers(1)
    assert numbers["near_copies_pixel"] == numbers["near_copies_feature"] == N
    assert numbers["copies_of_others_pixel"] == numbers["copies_of_others_feature"] == 0
    assert numbers["nearest_own_pixel"] == numbers["nearest_own_feature"] == 100
    assert numbers["own_mse"] == numbers["distance_ratio_pixel"] == 0
    assert numbers["frechet_distance"] == pytest.approx(0, abs=1e-5)
    assert numbers["label_agreement"] == numbers["anchor_accuracy"]


def test_a_duplicate_among_training_images_is_no_yardstick() -> None:
    from clsp.evaluate.quality_numbers import _memorised

    distance, neighbour = np.array([0.0, 1.0, 3.0]), np.array([0.0, 0.0, 6.0])
    for beside, expected in ((neighbour, 0.5), (np.zeros(3), None)):
        ratio, copies = _memorised(distance, beside, 0.4)
        assert ratio == expected and copies.tolist() == [True, False, False]


def test_equal_features_are_no_yardstick_whatever_their_rounding() -> None:
    from clsp.evaluate.quality_numbers import _apart

    almost = np.array([1.0, 1 - 2e-16, 1 - 1e-12, 0.5, -1.0])
    assert _apart(almost).tolist() == [0.0, 0.0, 0.0, 1.0, 2.0]


def test_encoded_images_give_the_same_numbers_and_are_decoded_once(
    dataset, make_run, make_bank, measure, candidates, tmp_path, monkeypatch
) -> None:
    run, bank = make_run(), make_bank(dataset, candidates)
    usual = measure(quality_spec(), bank, dataset, [run])
    twin, seen = as_encoded(dataset, tmp_path / "encoded"), []
    read = EncodedImages.__getitem__
    monkeypatch.setattr(
        EncodedImages,
        "__getitem__",
        lambda self, key: seen.append(found := read(self, key)) or found,
    )
    found = measure(quality_spec(), bank, twin, [run])
    assert found.document == usual.document
    assert all((found.arrays[name] == usual.arrays[name]).all() for name in usual.arrays)
    assert sum(map(len, seen)) == N


def test_no_room_for_decoded_images(dataset, make_run, make_bank, measure, tmp_path, monkeypatch):
    twin = as_encoded(dataset, tmp_path / "encoded")

    def refuse(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", refuse)
    with pytest.raises(DataError, match=f"no room for {N * 8 * 8 * 3} bytes beside it"):
        measure(quality_spec(), make_bank(dataset), twin, [make_run()])


def test_keys_that_stay_on_the_device_are_bounded() -> None:
    cpu = torch.device("cpu")
    for width in (512, 3072, 128 * 128 * 3, 1 << 30):
        keys = closest.Rows(np.empty((1, width), np.uint8), np.zeros(200_000, np.int64))
        held = closest.held_of(keys, cpu)
        assert 1 <= held <= closest.MOST_HELD and held * width <= max(closest.HELD["cpu"], width)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_any_block_gives_the_same_rows(size: int, images, candidates) -> None:
    drawn = candidates.reshape(-1, 8, 8, 3)
    images[9] = images[2]  # of equal ones the first counts
    cpu = torch.device("cpu")
    found = closest.nearest(drawn, images, closest.Pixels(), cpu, block=size)
    gaps = ((drawn[:, None].astype(int) - images.astype(int)) ** 2).sum((2, 3, 4))
    assert (found == gaps.argmin(1)).all()
    own = np.arange(N)
    found = closest.nearest(images, images, closest.Pixels(), cpu, own, block=size)
    gaps = ((images[:, None].astype(int) - images.astype(int)) ** 2).sum((2, 3, 4))
    assert (found == (gaps + np.eye(N) * 1e9).argmin(1)).all()
    features = np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32)
    features[11] = 2 * features[3]  # the same direction
    found = closest.nearest(features, features, closest.Features(), cpu, own, block=size)
    assert (found[3], found[11]) == (11, 3)


def test_numbers_do_not_depend_on_blocks(
    dataset, make_run, make_bank, measure, candidates, monkeypatch
) -> None:
    bank, run = make_bank(dataset, candidates), make_run()
    usual = measure(quality_spec(), bank, dataset, [run])
    monkeypatch.setattr(closest, "LARGEST", 5)
    small = measure(quality_spec(), bank, dataset, [run])
    for k in (1, K):
        assert small.numbers(k) == pytest.approx(usual.numbers(k), rel=1e-6, abs=1e-7)
    for name in ("nearest_pixel", "nearest_squares", "neighbour_squares", "nearest_feature"):
        assert (small.arrays[name] == usual.arrays[name]).all()


def test_fewer_candidates_are_a_prefix(dataset, make_run, make_bank, measure, candidates) -> None:
    bank, run = make_bank(dataset, candidates), make_run()
    both = measure(quality_spec(), bank, dataset, [run])
    alone = measure(quality_spec(candidates=(1,)), bank, dataset, [run])
    assert alone.numbers(1) == pytest.approx(both.numbers(1), rel=1e-9, abs=1e-9)
    mirrored = PROBE.model_copy(update={"flip": True})
    flipped = measure(quality_spec(label_agreement=mirrored), bank, dataset, [run])
    assert flipped.numbers(1)["own_cosine"] == pytest.approx(both.numbers(1)["own_cosine"])


def test_without_agreement_no_label_is_read(dataset, make_run, make_bank, measure) -> None:
    found = measure(
        quality_spec(label_agreement=None, candidates=(2,)), make_bank(dataset), dataset,
        [make_run()],
    )  # fmt: skip
    assert not {"label_agreement", "anchor_accuracy"} & set(found.numbers(2))
    assert not {"labels", "predicted"} & set(found.arrays)
    assert found.outcome.facts["labels_read_for_analysis"] is False


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"anchors": 49}, r"quality\.anchors: 49 exceeds the 48 anchors of bank digits\.mix"),
        ({"candidates": (5,)}, r"quality\.candidates: 5 exceeds the 4 candidates"),
        ({"anchors": 1, "candidates": (1,)}, "a covariance needs two images"),
        ({"bank": "other"}, '--bank: the spec names "other", given is "digits.mix"'),
        ({"dataset": "other"}, '--dataset: the spec names "other"'),
        ({"encoder": "another"}, 'holds run "digits.tiny.simclr.none.s0"'),
    ],
)
def test_settings_that_do_not_fit(changes, message, dataset, make_run, make_bank, measure) -> None:
    with pytest.raises(ConfigError, match=message):
        measure(quality_spec(**changes), make_bank(dataset), dataset, [make_run()])


def test_labels_that_there_are_not(make_dataset, make_run, make_bank, measure) -> None:
    labels = np.full(72, -1)
    labels[48:] = 0
    dataset = make_dataset(labels=labels)
    with pytest.raises(ConfigError, match=r"quality\.label_agreement: training images of dataset"):
        measure(quality_spec(), make_bank(dataset), dataset, [make_run()])


def test_unlabelled_anchors_do_not_count(make_dataset, make_run, make_bank, measure) -> None:
    labels = np.arange(72) % 3
    labels[ROWS[:10]] = -1
    dataset = make_dataset(labels=labels)
    found = measure(quality_spec(), make_bank(dataset), dataset, [make_run()])
    known = found.arrays["labels"] >= 0
    assert known.sum() == 10
    hits = found.arrays["anchor_predicted"][known] == found.arrays["labels"][known]
    assert found.numbers(1)["anchor_accuracy"] == 100 * hits.mean()


def test_a_bank_of_other_images(make_dataset, make_run, make_bank, measure) -> None:
    bank = make_bank(make_dataset())
    other = make_dataset("others", seed=7)
    with pytest.raises(DataError, match="belongs to another dataset"):
        measure(quality_spec(dataset="others"), bank, other, [make_run()])


def test_two_networks_or_none(dataset, make_run, make_bank, measure) -> None:
    bank, runs = make_bank(dataset), [make_run(), make_run("second")]
    for encoders in ([], runs):
        with pytest.raises(ConfigError, match="needs 1 encoders, found"):
            measure(quality_spec(), bank, dataset, encoders)
