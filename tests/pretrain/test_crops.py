"""Crops of image files: torchvision's own, whatever the threads, each image decoded once."""

import numpy as np
import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as F
from pretraining import write_encoded

from clsp.data import decoders, encoded
from clsp.data.crops import Cuts, Cutting
from clsp.data.prepared import open_prepared
from clsp.runtime.errors import DataError

ROWS = np.array([3, 0, 7, 3, 11])


@pytest.fixture
def images(tmp_path):
    return open_prepared(write_encoded(tmp_path / "toy", side=16)).split("train").images


def cuts_of(images, rows=ROWS, interpolation="bilinear", seed=0):
    generator = np.random.default_rng(seed)
    boxes = []
    for height, width in zip(*images.sides(rows), strict=True):
        h, w = generator.integers(1, height + 1), generator.integers(1, width + 1)
        boxes.append(
            (generator.integers(0, height - h + 1), generator.integers(0, width - w + 1), h, w)
        )
    return Cuts(rows, np.array(boxes), np.arange(len(rows)) % 2 == 1, interpolation)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [5, 40])
def test_crops_are_exactly_torchvisions(images, interpolation, size):
    cuts = cuts_of(images, interpolation=interpolation)
    (made,) = Cutting(images, [cuts], size).wait()
    assert made.dtype == np.uint8 and made.shape == (5, size, size, 3)
    for place, row in enumerate(ROWS):
        expected = F.resized_crop(
            images.picture(int(row)),
            *cuts.boxes[place].tolist(),
            [size, size],
            T.InterpolationMode(interpolation),
        )
        expected = F.hflip(expected) if cuts.mirrored[place] else expected
        np.testing.assert_array_equal(made[place], np.asarray(expected))


def test_an_image_is_decoded_once_for_all_its_crops(images, monkeypatch):
    seen, real = [], encoded.decode
    monkeypatch.setattr(encoded, "decode", lambda file, name: seen.append(name) or real(file, name))
    Cutting(images, [cuts_of(images), cuts_of(images, ROWS[:3], "bicubic", 1)], 8).wait()
    assert len(seen) == len(set(seen)) == 4


def test_threads_change_nothing(images, monkeypatch):
    made = []
    for threads in ("1", "5"):
        monkeypatch.setenv(decoders.VARIABLE, threads)
        wanted = [cuts_of(images), cuts_of(images, ROWS[::-1].copy(), "bicubic", 1)]
        made.append(Cutting(images, wanted, 8).wait())
    for one, other in zip(*made, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_damaged_image_is_named(images, monkeypatch):
    content = images.file.content
    monkeypatch.setattr(
        images.file, "content", lambda row: content(row)[: 30 if row == 7 else None]
    )
    cutting = Cutting(images, [cuts_of(images)], 8)
    with pytest.raises(DataError, match=r"images\.arrow: image 7: not a readable image"):
        cutting.wait()


def test_rows_count_from_the_start_of_the_split(images):
    part = images.window(3, 12)
    cuts = cuts_of(part, np.array([0, 4]))
    (made,) = Cutting(part, [cuts], 8).wait()
    (whole,) = Cutting(
        images, [Cuts(cuts.rows + 3, cuts.boxes, cuts.mirrored, "bilinear")], 8
    ).wait()
    np.testing.assert_array_equal(made, whole)
    assert torch.from_numpy(made).float().std() > 0
