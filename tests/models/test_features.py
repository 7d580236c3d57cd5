"""Feature extraction with a frozen encoder."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from clsp.data.prepared import open_prepared
from clsp.models.encoder import normalise
from clsp.models.features import (
    LARGEST_BATCH,
    PIXELS,
    PixelSource,
    batch_size_for,
    extract,
    open_frozen,
    open_untrained,
)
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import Artefact

SLUG = "digits.tiny.simclr.none.s0"
CPU = torch.device("cpu")
Make = Callable[..., Artefact]


def test_features_equal_one_forward_pass_in_eval_mode(make_dataset: Make, make_run: Make) -> None:
    images = open_prepared(make_dataset()).images
    frozen = open_frozen(make_run(), SLUG, CPU)
    with torch.no_grad():
        batch = normalise(torch.from_numpy(np.array(images)), frozen.statistics)
        expected = frozen.encoder.eval()(batch).numpy()
    found = extract(frozen, images, 16, "test")
    assert found.dtype == np.float32
    assert found.shape == (72, 32)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 72, 500])
def test_batch_size_changes_nothing_but_rounding(
    make_dataset: Make, make_run: Make, batch_size: int
) -> None:
    images = open_prepared(make_dataset()).images
    frozen = open_frozen(make_run(), SLUG, CPU)
    found = extract(frozen, images, batch_size, "test")
    np.testing.assert_allclose(found, extract(frozen, images, 32, "test"), rtol=1e-4, atol=1e-5)


def test_extraction_leaves_the_encoder_as_it_was(make_dataset: Make, make_run: Make) -> None:
    frozen = open_frozen(make_run(), SLUG, CPU)
    before = {name: tensor.clone() for name, tensor in frozen.encoder.state_dict().items()}
    extract(frozen, open_prepared(make_dataset()).images, 16, "test")
    assert not frozen.encoder.training
    assert "bn1.running_mean" in before
    for name, tensor in frozen.encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_mirrored_features_are_those_of_mirrored_images(make_dataset: Make, make_run: Make) -> None:
    images = np.array(open_prepared(make_dataset()).images)
    frozen = open_frozen(make_run(), SLUG, CPU)
    mirrored = extract(frozen, images, 16, "test", mirrored=True)
    np.testing.assert_array_equal(mirrored, extract(frozen, images[:, :, ::-1], 16, "test"))
    assert not np.allclose(mirrored, extract(frozen, images, 16, "test"))


def test_batches_shrink_with_resolution() -> None:
    assert batch_size_for(np.empty((1, 8, 8, 3), np.uint8)) == LARGEST_BATCH
    assert batch_size_for(np.empty((1, 64, 64, 3), np.uint8)) == PIXELS // 64**2
    assert batch_size_for(np.empty((1, 1024, 1024, 3), np.uint8)) == 1


def test_no_images_give_no_features(make_run: Make) -> None:
    frozen = open_frozen(make_run(), SLUG, CPU)
    assert extract(frozen, np.empty((0, 8, 8, 3), np.uint8), 16, "test").shape == (0, 32)


def test_features_go_where_they_are_wanted(make_dataset: Make, make_run: Make) -> None:
    images = open_prepared(make_dataset()).images
    frozen, into = open_frozen(make_run(), SLUG, CPU), np.zeros((72, 32), np.float32)
    found = extract(frozen, images, 16, "test", into=into)
    assert found is into
    np.testing.assert_array_equal(into, extract(frozen, images, 16, "test"))


def test_pixels_are_features_in_unit_range_and_of_bounded_number() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    found = extract(PixelSource(), images, 2, "test")
    np.testing.assert_allclose(found, images.reshape(5, -1) / 255, rtol=1e-6)
    large = np.full((2, 96, 96, 3), 51, np.uint8)
    np.testing.assert_allclose(extract(PixelSource(), large, 2, "test"), np.full((2, 3072), 0.2))
    assert (PixelSource().resolution(images), PixelSource().resolution(large)) == (8, 32)


def test_an_untrained_encoder_belongs_to_no_epoch(make_run: Make) -> None:
    frozen = open_untrained(make_run(), CPU)
    assert (frozen.run, frozen.epoch) == (SLUG, None)
    assert frozen.path.name == "start.safetensors"
    with pytest.raises(ConfigError, match=r"expected a run of pretrain-encoder"):
        open_untrained(make_run("other", stage="train-denoiser"), CPU)


def test_what_results_need_to_know_comes_from_the_run(make_run: Make) -> None:
    frozen = open_frozen(make_run(), SLUG, CPU)
    assert (frozen.run, frozen.epoch) == (SLUG, 20)


def test_another_run_or_stage_is_refused(make_run: Make) -> None:
    with pytest.raises(ConfigError, match=r'holds run "other", but the spec judges "digits\.'):
        open_frozen(make_run("other"), SLUG, CPU)
    with pytest.raises(ConfigError, match=r"expected a run of pretrain-encoder, .*train-denoiser"):
        open_frozen(make_run(stage="train-denoiser"), SLUG, CPU)


def test_a_truncated_encoder_is_named(make_run: Make) -> None:
    run = make_run()
    path = run.path("encoder.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=rf"{SLUG}/encoder.safetensors: not a readable checkpoint"):
        open_frozen(run, SLUG, CPU)


def test_features_that_are_not_finite_name_the_encoder(make_dataset: Make, make_run: Make) -> None:
    frozen = open_frozen(make_run(scale=float("nan")), SLUG, CPU)
    with pytest.raises(DataError, match=r"encoder.safetensors: .*not finite"):
        extract(frozen, open_prepared(make_dataset()).images, 16, "test")
