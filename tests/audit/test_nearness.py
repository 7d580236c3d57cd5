"""Candidates that look like test images are noticed; those of training images and noise are not."""

import time

import numpy as np

from clsp.audit.nearness import nearness

DRAW = np.random.default_rng(0)
REAL = DRAW.integers(0, 256, (600, 8, 8, 3), dtype=np.uint8)
TRAIN, TEST = REAL[:500], REAL[500:]


def near(images: np.ndarray) -> np.ndarray:
    """Images with a few grey levels added."""
    noise = DRAW.integers(-20, 21, images.shape)
    return np.clip(images.astype(int) + noise, 0, 255).astype(np.uint8)


def test_a_naive_count_agrees():
    candidates = np.concatenate([near(TRAIN[:20]), near(TEST[:7])])
    gaps = [((REAL.astype(float) - c.astype(float)) ** 2).sum(axis=(1, 2, 3)) for c in candidates]
    expected = sum(int(gap.argmin() >= len(TRAIN)) for gap in gaps)
    found = nearness(candidates, TRAIN, TEST)
    assert (found.nearer, found.candidates) == (expected, 27) == (7, 27)


def test_only_candidates_of_test_images_are_striking():
    assert not nearness(near(TRAIN[:200]), TRAIN, TEST).striking
    assert nearness(near(np.repeat(TEST, 2, axis=0)), TRAIN, TEST).striking
    noise = DRAW.integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
    found = nearness(noise, TRAIN, TEST)
    assert not found.striking and found.chance == 1 / 6


def test_it_takes_little_time_for_many_images():
    began = time.monotonic()
    nearness(near(TRAIN[:256]), np.repeat(TRAIN, 20, axis=0), TEST)
    assert time.monotonic() - began < 10
