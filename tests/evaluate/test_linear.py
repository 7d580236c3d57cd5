"""The linear probe: closed cases, schedule, keyed randomness."""

import numpy as np
import pytest
import torch

from clsp.config.evaluation import LinearSpec
from clsp.evaluate.linear import (
    Samples,
    decay_of,
    initial_layer,
    linear_logits,
    load_samples,
    rows_of_epoch,
    slopes,
    train_linear,
    train_rates,
)
from clsp.runtime.errors import ConfigError

CPU = torch.device("cpu")
SPEC = LinearSpec(
    epochs=20,
    batch_size=32,
    learning_rate=1.0,
    momentum=0.0,
    weight_decay=0.0,
    milestones=(12, 16),
    decay=0.1,
    flip=False,
)


def clusters(count: int, width: int = 16, classes: int = 4, seed: int = 0) -> tuple:
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % classes
    centres = 3 * np.eye(classes, width)
    return (centres[labels] + 0.2 * rng.normal(size=(count, width))).astype(np.float32), labels


def samples_of(*parts: np.ndarray, labels: np.ndarray) -> Samples:
    return load_samples(parts, labels, 4, CPU)


def train(spec: LinearSpec, features: np.ndarray, labels: np.ndarray, seed: int = 0) -> tuple:
    return train_linear(spec, samples_of(features, labels=labels), seed=seed, label="linear test")


def test_separable_classes_are_separated() -> None:
    weight, bias = train(SPEC, *clusters(150))
    features, labels = clusters(80, seed=1)
    logits = linear_logits(features, weight, bias)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits.argmax(1), labels)


def test_the_same_seed_gives_the_same_weights_whatever_the_global_generator_does() -> None:
    torch.manual_seed(1)
    first = train(SPEC, *clusters(50))
    torch.manual_seed(2)
    second = train(SPEC, *clusters(50))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], train(SPEC, *clusters(50), seed=1)[0])


@pytest.mark.parametrize(
    "changed",
    [
        {"epochs": 19},
        {"batch_size": 31},
        {"learning_rate": 0.5},
        {"momentum": 0.9},
        {"weight_decay": 0.01},
        {"milestones": (3,)},
        {"decay": 0.5},
    ],
)
def test_every_setting_changes_the_probe(changed: dict) -> None:
    base = train(SPEC, *clusters(50))[0]
    assert not torch.equal(base, train(SPEC.model_copy(update=changed), *clusters(50))[0])


def test_steps_equal_a_naive_rewrite_in_numpy() -> None:
    spec = SPEC.model_copy(
        update={"epochs": 3, "milestones": (1,), "momentum": 0.9, "weight_decay": 0.05}
    )
    features, labels = clusters(50)
    weight, bias = (t.numpy().astype(np.float64) for t in initial_layer(16, 4, 7))
    velocity = [np.zeros_like(weight), np.zeros_like(bias)]
    for epoch in range(3):
        order = rows_of_epoch(spec, 50, 7, epoch)
        for start in range(0, 50, 32):  # 32 images, then the 18 that are left
            rows = order[start : start + 32]
            logits = features[rows] @ weight.T + bias
            chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            chances[np.arange(len(rows)), labels[rows]] -= 1
            slopes = [
                chances.T @ features[rows] / len(rows) + 0.05 * weight,
                chances.mean(0) + 0.05 * bias,
            ]
            velocity = [0.9 * v + s for v, s in zip(velocity, slopes, strict=True)]
            rate = 1.0 if epoch < 1 else 0.1
            weight, bias = weight - rate * velocity[0], bias - rate * velocity[1]
    found = train(spec, features, labels, seed=7)
    np.testing.assert_allclose(found[0].numpy(), weight, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1].numpy(), bias, rtol=1e-4, atol=1e-5)


def by_autograd(spec: LinearSpec, features: np.ndarray, labels: np.ndarray) -> torch.nn.Linear:
    """torch's own layer, loss and optimizer, fed in the probe's order."""
    layer = torch.nn.Linear(16, 4)
    with torch.no_grad():
        for own, drawn in zip((layer.weight, layer.bias), initial_layer(16, 4, 0), strict=True):
            own.copy_(drawn)
    how = {"momentum": spec.momentum, "weight_decay": spec.weight_decay}
    optimizer = torch.optim.SGD(layer.parameters(), lr=spec.learning_rate, **how)
    for epoch in range(spec.epochs):
        optimizer.param_groups[0]["lr"] = spec.learning_rate * decay_of(spec, epoch)
        order = rows_of_epoch(spec, 50, 0, epoch)
        for rows in (order[:32], order[32:]):
            logits = layer(torch.from_numpy(features[rows]))
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels[rows]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return layer


@pytest.mark.parametrize("changed", [{}, {"momentum": 0.9, "weight_decay": 0.01}])
def test_steps_equal_torch_sgd(changed: dict) -> None:
    spec = SPEC.model_copy(update=changed)
    features, labels = clusters(50)
    layer = by_autograd(spec, features, labels)
    weight, bias = train(spec, features, labels)
    torch.testing.assert_close(weight, layer.weight.detach())
    torch.testing.assert_close(bias, layer.bias.detach())
    if not changed:  # as the suite trained it before slopes were written out, to the bit
        assert torch.equal(weight, layer.weight) and torch.equal(bias, layer.bias)


def test_slopes_have_the_bits_of_autograd() -> None:
    stream = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(37, 20, generator=stream), torch.arange(37) % 5
    layer = [torch.randn(*shape, generator=stream) for shape in ((5, 20), (5,))]
    found = slopes(inputs, labels, *layer, 5)
    leaves = [tensor.clone().requires_grad_() for tensor in layer]
    logits = torch.nn.functional.linear(inputs, *leaves)
    loss = torch.nn.functional.cross_entropy(logits, labels)
    for own, expected in zip(found, torch.autograd.grad(loss, leaves), strict=True):
        assert torch.equal(own, expected)


@pytest.mark.parametrize("changed", [{}, {"momentum": 0.9, "weight_decay": 0.01}, {"flip": True}])
def test_every_rate_of_a_grid_is_what_it_would_be_alone(changed: dict) -> None:
    features, labels = clusters(70)
    spec = SPEC.model_copy(update=changed)
    copies = [features, np.roll(features, 1, axis=1)] if spec.flip else [features]
    samples, rates = samples_of(*copies, labels=labels), (0.03, 1.0, 4.0)
    weights, biases = train_rates(spec, samples, rates, seed=3, label="linear test")
    assert (weights.shape, biases.shape) == ((3, 4, 16), (3, 4))
    for rate, weight, bias in zip(rates, weights, biases, strict=True):
        alone = spec.model_copy(update={"learning_rate": rate})
        single = train_linear(alone, samples, seed=3, label="linear test")
        torch.testing.assert_close(weight, single[0])
        torch.testing.assert_close(bias, single[1])


def test_a_rate_that_diverges_leaves_the_others_as_they_are() -> None:
    features, labels = clusters(70)
    spec = SPEC.model_copy(update={"momentum": 0.9, "weight_decay": 0.5})
    samples = samples_of(features, labels=labels)
    tame = train_rates(spec, samples, (0.1, 0.5, 0.7), seed=0, label="linear test")
    wild = train_rates(spec, samples, (0.1, 1e30, 0.7), seed=0, label="linear test")
    assert not wild[0][1].isfinite().all()
    for one, other in zip(tame, wild, strict=True):
        assert torch.equal(one[::2], other[::2])


def test_images_that_are_not_chosen_are_not_learnt_from() -> None:
    features, labels = clusters(60)
    chosen, spec = np.arange(60)[np.arange(60) % 3 > 0], SPEC.model_copy(update={"flip": True})
    spoilt = features.copy()
    spoilt[::3] = np.nan
    samples = samples_of(spoilt, spoilt, labels=labels)
    weight, _ = train_rates(spec, samples, [1.0], seed=0, label="linear test", images=chosen)
    assert weight.isfinite().all()
    rows = rows_of_epoch(spec, 60, 0, 5, chosen)
    assert sorted(rows % 60) == chosen.tolist()
    every = set(rows_of_epoch(spec, 60, 0, 5))
    assert set(rows) <= every  # whether an image is flipped does not depend on the others


def test_the_rate_falls_at_each_milestone() -> None:
    spec = SPEC.model_copy(update={"epochs": 100, "milestones": (60, 80)})
    factors = [decay_of(spec, epoch) for epoch in (0, 59, 60, 79, 80, 99)]
    assert factors == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01, 0.01])


def test_the_first_layer_is_drawn_like_torch_linear() -> None:
    weight, bias = initial_layer(64, 500, 0)
    assert weight.shape == (500, 64)
    assert bias.shape == (500,)
    for drawn in (weight, bias):
        assert drawn.abs().max() <= 1 / 8
        assert drawn.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.05)
    assert not torch.equal(weight, initial_layer(64, 500, 1)[0])


def test_orders_are_permutations_that_differ_by_epoch() -> None:
    first, second = (rows_of_epoch(SPEC, 40, 0, epoch) for epoch in (0, 1))
    assert sorted(first) == list(range(40))
    assert not np.array_equal(first, second)


def test_flips_take_each_image_or_its_mirror_half_of_the_time() -> None:
    spec = SPEC.model_copy(update={"flip": True})
    epochs = [rows_of_epoch(spec, 200, 0, epoch) for epoch in range(50)]
    for rows in epochs:
        assert sorted(rows % 200) == list(range(200))
    mirrored = np.array([np.bincount(rows[rows >= 200] - 200, minlength=200) for rows in epochs])
    assert mirrored.mean() == pytest.approx(0.5, abs=0.02)
    assert mirrored.sum(0).min() > 5
    assert mirrored.sum(0).max() < 45
    # keyed by the image: more images change no draw of the earlier ones
    longer = rows_of_epoch(spec, 300, 0, 0)
    of_longer = np.bincount(longer[longer >= 300] - 300, minlength=300)[:200]
    np.testing.assert_array_equal(of_longer, mirrored[0])


def test_the_flip_probe_learns_from_both_copies() -> None:
    features, labels = clusters(60)
    spec = SPEC.model_copy(update={"flip": True})
    elsewhere = np.roll(features, 4, axis=1)  # a mirror image with features of its own
    samples = samples_of(features, elsewhere, labels=labels)
    layer = train_linear(spec, samples, seed=0, label="linear test")
    for copy in (features, elsewhere):
        np.testing.assert_array_equal(linear_logits(copy, *layer).argmax(1), labels)
    with pytest.raises(ValueError, match="60 features, 60 labels, flip True"):
        train(spec, features, labels)


def test_divergence_is_reported_with_the_rate() -> None:
    features, labels = clusters(50)
    wild = SPEC.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(ConfigError, match=r"linear test: diverged at learning_rate 1e\+30"):
        train(wild, features * 1e6, labels)
