"""Gaussian blur: against a naive rewrite and PIL, and its place in the pipeline."""

import math

import pytest
import torch
from PIL import ImageFilter
from pydantic import ValidationError

from clsp.data.blur import gaussian_blur
from clsp.data.colour import luminance, solarize
from clsp.data.views import make_views
from tests.support.viewing import (
    BLUR,
    JITTER,
    KEY,
    NOTHING,
    as_float,
    as_pil,
    from_pil,
    random_images,
    spec,
    worst,
)

SIGMAS = [0.1, 0.3, 0.6, 1.0, 1.4, math.sqrt(2), 1.7, 2.0]  # at sqrt(2) the radius is exactly 1


def radius_by_search(sigma):
    """Where the variance of three boxes of that radius is sigma squared."""
    low, high = 0.0, 9.0
    for _ in range(60):
        radius = (low + high) / 2
        weights = {d: min(1.0, max(0.0, radius + 1 - abs(d))) for d in range(-10, 11)}
        variance = sum(w * d * d for d, w in weights.items()) / sum(weights.values())
        low, high = (radius, high) if 3 * variance < sigma * sigma else (low, radius)
    return low


def box_slowly(image, radius):
    """One pass over the last dimension of a float64 image, pixel by pixel, edges repeated."""
    width, result = image.shape[-1], torch.zeros_like(image)
    for x in range(width):
        for d in range(-10, 11):
            weight = min(1.0, max(0.0, radius + 1 - abs(d))) / (2 * radius + 1)
            result[..., x] += weight * image[..., min(max(x + d, 0), width - 1)]
    return result


def blurred_slowly(image, sigma, finish=lambda pixels: pixels):
    """(C, H, W): three passes along the rows, three along the columns; `finish` follows each."""
    radius, image = radius_by_search(sigma), image.double()
    for _ in range(2):  # directions
        for _ in range(3):
            image = finish(box_slowly(image, radius))
        image = image.mT
    return image


def blurred_by_pil(images, sigma):
    pairs = zip(images, sigma.tolist(), strict=True)
    return from_pil([as_pil(i).filter(ImageFilter.GaussianBlur(s)) for i, s in pairs])


def smooth_images(count, side):
    """Two ramps and a wave, uint8 (B, H, W, 3)."""
    x, y = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="xy")
    wave = torch.cos(2 * math.pi * (x + y) / side)
    image = torch.stack([x / (side - 1), 1 - y / (side - 1), (1 + wave) / 2], dim=-1)
    return (255 * image).round().to(torch.uint8).expand(count, -1, -1, -1)


@pytest.mark.parametrize("shape", [(9, 5), (3, 12), (1, 2)])
def test_blur_equals_a_naive_rewrite(shape):
    """Also where the boxes are wider than the image."""
    height, width = shape
    images, sigma = random_images(len(SIGMAS))[:, :height, :width], torch.tensor(SIGMAS)
    pairs = [(i, float(s)) for i, s in zip(as_float(images), sigma, strict=True)]
    expected = torch.stack([blurred_slowly(i, s) for i, s in pairs])
    assert worst(gaussian_blur(as_float(images), sigma, 2.0), expected) < 2e-6


def test_the_naive_rewrite_is_pils_blur_once_it_rounds_as_pil_does():
    """PIL's weights have 24 bits, so a tie may fall either way; these sigmas give hardly any."""
    images, sigma = random_images(7), torch.tensor([0.17, 0.37, 0.6, 1.13, 1.41, 1.7, 1.93])
    pairs = [(i, float(s)) for i, s in zip(255 * as_float(images), sigma, strict=True)]
    rounded = [blurred_slowly(i, s, lambda pixels: (pixels + 0.5).floor()) for i, s in pairs]
    difference = 255 * blurred_by_pil(images, sigma) - torch.stack(rounded)
    assert difference.abs().max() < 1.01
    assert (difference.abs() > 0.5).double().mean() < 0.005


@pytest.mark.parametrize("side", [8, 32, 96])
@pytest.mark.parametrize("draw", [random_images, smooth_images])
def test_blur_is_pils_but_for_its_rounding(draw, side):
    """In grey levels: PIL rounds six times, by half a level at most; no box makes an error grow."""
    images, sigma = draw(60, side), torch.linspace(0.1, 2, 60)
    ours = gaussian_blur(as_float(images), sigma, 2.0)
    difference = 255 * (ours - blurred_by_pil(images, sigma)).abs()
    assert difference.max() < 3 and difference.mean() < 0.5


@pytest.mark.parametrize("shape", [(8, 8), (2, 3), (1, 1)])
def test_the_weights_of_every_pixel_are_positive_and_sum_to_one(shape):
    sigma = torch.tensor([0.1, 1.0, 2.0, 8.0])
    flat = torch.full((4, 3, *shape), 0.7)
    assert worst(gaussian_blur(flat, sigma, 8.0), flat) < 1e-6
    points = torch.eye(math.prod(shape)).view(1, -1, *shape)  # one channel per pixel of the source
    weights = gaussian_blur(points.expand(4, -1, -1, -1), sigma, 8.0)
    assert weights.min() >= 0 and weights.amax(dim=(2, 3)).min() > 0
    assert worst(weights.sum(dim=1), torch.ones(())) < 1e-6


def test_a_sample_depends_neither_on_the_others_nor_on_the_largest_sigma():
    images, sigma = as_float(random_images(5)), torch.tensor([0.1, 0.5, 1.0, 1.5, 2.0])
    whole = gaussian_blur(images, sigma, 2.0)
    alone = [gaussian_blur(images[i : i + 1], sigma[i : i + 1], 2.0) for i in range(5)]
    assert worst(torch.cat(alone), whole) < 1e-6
    assert worst(gaussian_blur(images, sigma, 8.0), whole) < 1e-6
    assert worst(gaussian_blur(images.flip(0), sigma.flip(0), 2.0).flip(0), whole) < 1e-6


def test_sigma_and_probability_are_as_asked():
    """Sigma is read off the second moment of a blurred point."""
    count, side = 4000, 17
    point = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    point[:, side // 2, side // 2] = 255
    pipeline = spec(**NOTHING, blur={"probability": 0.3, "sigma": (0.7, 1.5)})
    views = make_views(
        point.expand(count, -1, -1, -1), torch.arange(count), 0, 0, KEY, pipeline
    )  # (B, 3, H, W)
    profile = views[:, 0].sum(dim=1)
    sigma = (profile * (torch.arange(side) - side // 2) ** 2).sum(dim=1).sqrt()
    blurred = sigma > 0
    assert blurred.double().mean().item() == pytest.approx(0.3, abs=0.03)
    drawn = sigma[blurred].double()
    assert 0.699 < drawn.min() < 0.71 and 1.49 < drawn.max() < 1.501
    assert drawn.mean().item() == pytest.approx(1.1, abs=0.03)
    assert drawn.std().item() == pytest.approx(0.8 / math.sqrt(12), rel=0.06)


def test_blur_comes_after_grey_and_before_solarize():
    images, index = random_images(8), torch.arange(8)
    still = {**NOTHING, "grayscale": 1.0, "solarize": 1.0}
    blur = {"probability": 1.0, "sigma": (1.2, 1.2)}
    ours = make_views(images, index, 0, 0, KEY, spec(**still, blur=blur))
    soft = gaussian_blur(luminance(as_float(images)), torch.full((8,), 1.2), 1.2)
    assert worst(ours, solarize(soft).expand_as(ours)) < 1e-6
    # Contrast is clipped, so it does not commute with the blur: jitter comes first.
    strong = {**JITTER, "probability": 1.0, "contrast": 0.9}
    plain = {**NOTHING, "jitter": strong}
    ours = make_views(images, index, 0, 0, KEY, spec(**plain, blur=blur))
    jittered = make_views(images, index, 0, 0, KEY, spec(**plain))
    assert worst(ours, gaussian_blur(jittered, torch.full((8,), 1.2), 1.2)) < 1e-6


def test_a_flip_commutes_with_the_blur():
    images, index = random_images(8), torch.arange(8)
    blur = {**BLUR, "probability": 1.0}
    views, mirrored = (
        make_views(images, index, 0, 0, KEY, spec(flip=flip, blur=blur)) for flip in (0.0, 1.0)
    )
    assert worst(mirrored, views.flip(3)) < 1e-5


def test_views_that_are_not_blurred_keep_their_bits():
    images, index = random_images(64), torch.arange(64)
    plain = make_views(images, index, 1, 0, KEY, spec())
    views = make_views(images, index, 1, 0, KEY, spec(blur=BLUR))
    same = (views == plain).flatten(1).all(dim=1)
    assert 20 < int(same.sum()) < 44
    never = spec(blur={**BLUR, "probability": 0.0})
    assert torch.equal(make_views(images, index, 1, 0, KEY, never), plain)


def test_no_shape_depends_on_what_was_drawn():
    """On the meta device a tensor has no values, so reading one would fail."""
    images, index = random_images().to("meta"), torch.arange(6, device="meta")
    pipeline = spec(interpolation="bicubic", blur=BLUR)
    views = make_views(images, index, 0, 0, KEY, pipeline)
    assert views.shape == (6, 3, 12, 12) and views.device.type == "meta"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blur": {**BLUR, "sigma": [2.0, 0.1]}}, "low <= high.*found 2.0, 0.1"),
        ({"blur": {**BLUR, "sigma": [0.1, 9.0]}}, "<= 8.0 pixels, found 0.1, 9.0"),
        ({"blur": {**BLUR, "sigma": [0.0, 2.0]}}, "greater than 0"),
        ({"blur": {**BLUR, "sigma": [0.1]}}, "sigma"),
        ({"blur": {**BLUR, "probability": 1.5}}, "less than or equal to 1"),
        ({"blur": {"probability": 0.5}}, "sigma"),
        ({"blur": {**BLUR, "radius": 3}}, "radius"),
        ({"interpolation": "lanczos"}, "'bilinear' or 'bicubic'"),
    ],
)
def test_bad_views_are_refused(changes, message):
    with pytest.raises(ValidationError, match=f"(?s){message}"):
        spec(**changes)
