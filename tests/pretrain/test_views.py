"""Views: every operation against torchvision, and the distributions of their parameters."""

import math
from collections import Counter
from functools import partial
from itertools import permutations

import numpy as np
import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as F
from PIL import ImageOps
from scipy.stats import chi2_contingency, chisquare, ks_2samp, kstest

from clsp.config.recipe import JitterSpec
from clsp.data import blocks, blur, resample, views
from clsp.data.colour import BRIGHTNESS, CONTRAST, SATURATION, blend, luminance, shift_hue, solarize
from clsp.data.resample import Boxes, crop_and_resize
from clsp.data.views import Jitter, apply_jitter, draw_boxes, draw_jitter, make_views
from clsp.runtime.rng import key_of, uniform
from tests.support.viewing import (
    BLUR,
    JITTER,
    KEY,
    LEVEL,
    NOTHING,
    as_float,
    as_pil,
    from_pil,
    random_images,
    spec,
    worst,
)

PIPELINES = [{}, {"interpolation": "bicubic", "blur": BLUR}]  # the authors', solo-learn's

BLENDS = [
    (BRIGHTNESS, F.adjust_brightness), (CONTRAST, F.adjust_contrast), (SATURATION, F.adjust_saturation)
]  # fmt: skip


@pytest.mark.parametrize(("kind", "reference"), BLENDS)
@pytest.mark.parametrize("factor", [0.6, 1.0, 1.4])
def test_blends_equal_torchvision(kind, reference, factor):
    images = random_images()
    ours = blend(as_float(images), torch.full((6,), kind), torch.full((6,), factor))
    assert worst(ours, reference(as_float(images), factor)) < 1e-6
    # PIL rounds the grey it blends with before it truncates the result.
    bound = LEVEL * (1 + 0.6 * abs(1 - factor))
    assert worst(ours, from_pil([reference(as_pil(i), factor) for i in images])) <= bound


@pytest.mark.parametrize("shift", [-0.5, -0.1, 0.0, 0.07, 0.5])
def test_hue_equals_torchvision_tensors(shift):
    images = random_images()
    images[0] = images[0, :, :, :1]  # greys have no hue
    ours = shift_hue(as_float(images), torch.full((6,), shift))
    assert worst(ours, F.adjust_hue(as_float(images), shift)) < 1e-5
    eight_bit = F.adjust_hue(images.permute(0, 3, 1, 2), shift) / 255
    assert worst(ours, eight_bit) <= LEVEL


def test_grey_and_solarize_equal_pil():
    images = random_images()
    grey = from_pil([F.rgb_to_grayscale(as_pil(i), 3) for i in images])
    assert worst(luminance(as_float(images)).expand_as(grey), grey) <= LEVEL
    inverted = from_pil([ImageOps.solarize(as_pil(i)) for i in images])
    assert worst(solarize(as_float(images)), inverted) < 1e-6


BOXES = [(0, 0, 12, 12), (2, 3, 7, 5), (0, 11, 12, 1), (5, 0, 1, 12), (3, 3, 3, 9), (1, 2, 11, 10)]


@pytest.mark.parametrize("mirrored", [False, True])
def test_crops_equal_torchvision(mirrored):
    images = random_images()
    boxes = Boxes(*torch.tensor(BOXES).T)
    ours = crop_and_resize(
        as_float(images), boxes, torch.full((6,), mirrored), interpolation="bilinear"
    )
    finish = F.hflip if mirrored else lambda image: image
    floats = [finish(F.resized_crop(x, *b, [12, 12])) for x, b in zip(as_float(images), BOXES)]  # noqa: B905
    assert worst(ours, torch.stack(floats)) < 1e-5
    pil = [finish(F.resized_crop(as_pil(i), *b, [12, 12])) for i, b in zip(images, BOXES)]  # noqa: B905
    assert worst(ours, from_pil(pil)) <= LEVEL


def test_bicubic_crops_equal_torchvision():
    """To rounding on tensors.

    On PIL images to 1.25 levels, half of one per pass, the first stretched by the kernel's negative
    weights. Exception: PIL also clips between its passes, so images that overshoot may differ more.
    """
    images = torch.cat([random_images(), random_images(6, seed=1) // 2 + 64])
    boxes = Boxes(*torch.tensor(2 * BOXES).T)
    ours = crop_and_resize(as_float(images), boxes, interpolation="bicubic")
    bicubic = partial(F.resized_crop, size=[12, 12], interpolation=T.InterpolationMode.BICUBIC)
    pairs = zip(as_float(images), 2 * BOXES, strict=True)
    floats = torch.stack([bicubic(x, *b, antialias=True) for x, b in pairs])
    assert floats.min() < 0 and floats.max() > 1  # the clamp is tested too
    assert worst(ours, floats.clamp(0, 1)) < 1e-6
    pil = from_pil([bicubic(as_pil(i), *b) for i, b in zip(images, 2 * BOXES, strict=True)])
    assert worst(ours[6:], pil[6:]) <= 1.25 * LEVEL
    assert worst(ours[:6], pil[:6]) <= 25 * LEVEL


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(5, 5), (9, 7), (12, 12), (30, 30), (3, 40)])
def test_crops_of_any_size_equal_torchvision(interpolation, size):
    """Smaller outputs with antialiasing, larger ones without; smooth images, for PIL's clipping."""
    images = random_images() // 4 + 96
    ours = crop_and_resize(
        as_float(images), Boxes(*torch.tensor(BOXES).T), interpolation=interpolation, size=size
    )
    assert ours.shape == (6, 3, *size)
    resized = partial(
        F.resized_crop, size=list(size), interpolation=T.InterpolationMode(interpolation)
    )
    pairs = zip(as_float(images), BOXES, strict=True)
    floats = torch.stack([resized(x, *box, antialias=True) for x, box in pairs])
    assert worst(ours, floats) < 1e-5
    pil = from_pil([resized(as_pil(i), *box) for i, box in zip(images, BOXES, strict=True)])
    assert worst(ours, pil) <= 1.5 * LEVEL


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_mirrored_crops_of_another_size(interpolation):
    crop = partial(crop_and_resize, interpolation=interpolation, size=(7, 5))
    images, boxes = as_float(random_images()), Boxes(*torch.tensor(BOXES).T)
    mirrored = crop(images, boxes, torch.ones(6, dtype=torch.bool))
    assert worst(mirrored, crop(images, boxes).flip(3)) < 1e-6


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_whole_crop_is_the_image_and_a_mirrored_crop_its_mirror(interpolation):
    images, crop = as_float(random_images()), partial(crop_and_resize, interpolation=interpolation)
    assert torch.equal(crop(images, Boxes(*torch.tensor([(0, 0, 12, 12)] * 6).T)), images)
    boxes = Boxes(*torch.tensor(BOXES).T)
    mirrored = torch.arange(6) % 2 == 0
    expected = torch.where(
        mirrored[:, None, None, None], crop(images, boxes).flip(3), crop(images, boxes)
    )
    assert worst(crop(images, boxes, mirrored), expected) < 1e-6


NAMES = {BRIGHTNESS: F.adjust_brightness, CONTRAST: F.adjust_contrast, SATURATION: F.adjust_saturation}  # fmt: skip


def jitter_of(order, strengths, count):
    """The same jitter for all samples; 3 stands for hue, the last of the strengths."""
    kinds = [step for step in order if step < 3]
    factors = torch.tensor([strengths[kind] for kind in kinds])
    return Jitter(
        torch.tensor(kinds).expand(count, 3),
        factors.expand(count, 3),
        torch.full((count,), strengths[3]),
        torch.full((count,), order.index(3)),
    )


@pytest.mark.parametrize("strengths", [(1.3, 0.7, 1.2, 0.07), (0.3, 1.7, 0.4, -0.2)])
def test_all_24_orders_equal_torchvision(strengths):
    """To rounding on floats, whichever way they are computed.

    Exceptions, because every step of torchvision on 8 bits truncates and the next one stretches
    what that left: 8 grey levels on uint8 tensors. PIL also keeps hue in 8 bits: 24 levels, 3.5 on
    average.
    """
    images = random_images(8, side=16)
    mean = 0.0
    for order in permutations(range(4)):
        steps = [(NAMES.get(kind, F.adjust_hue), strengths[kind]) for kind in order]
        floats, eight = as_float(images), images.permute(0, 3, 1, 2)
        pictures = [as_pil(image) for image in images]
        for operation, strength in steps:
            floats, eight = operation(floats, strength), operation(eight, strength)
            pictures = [operation(picture, strength) for picture in pictures]
        jitter = jitter_of(order, strengths, len(images))
        for ours in (
            apply_jitter(as_float(images), jitter),
            views._jitter_at_once(as_float(images), jitter),
        ):
            assert worst(ours, floats) < 1e-5
            assert worst(ours, eight / 255) <= 8 * LEVEL
            assert worst(ours, from_pil(pictures)) <= 24 * LEVEL
        mean = max(mean, (ours - from_pil(pictures)).abs().mean().item())
    assert mean < 3.5 / 255


@pytest.mark.parametrize("shift", [-0.5, 0.1, 0.2])
def test_hue_of_pil_is_as_far_from_torchvisions_tensors_as_from_ours(shift):
    images = random_images(12, side=16)
    ours = shift_hue(as_float(images), torch.full((12,), shift))
    pil = from_pil([F.adjust_hue(as_pil(image), shift) for image in images])
    tensors = F.adjust_hue(images.permute(0, 3, 1, 2), shift) / 255
    assert worst(ours, pil) <= worst(tensors, pil) + LEVEL
    assert worst(ours, pil) <= 16 * LEVEL and (ours - pil).abs().mean() < 2 / 255


@pytest.mark.parametrize("changes", PIPELINES)
def test_a_cpu_s_way_and_a_gpu_s_way_agree(changes, monkeypatch):
    """In blocks with the samples that need an operation, or all at once with shapes that stay."""
    images, index, pipeline = random_images(200), torch.arange(200), spec(**changes)
    ours = make_views(images, index, 1, 0, KEY, pipeline)
    for module in (blur, resample, views):
        monkeypatch.setattr(module, "in_blocks", lambda images: False)
    assert worst(ours, make_views(images, index, 1, 0, KEY, pipeline)) < 5e-6


def test_neither_blocks_nor_threads_change_a_view(monkeypatch):
    for count, numbers in ((5, 1 << 30), (700, 432), (1, 1), (0, 10)):
        covered = [n for block in blocks.blocks(count, numbers) for n in range(count)[block]]
        assert covered == list(range(count))
    images, index, pipeline = random_images(50), torch.arange(50), spec(**PIPELINES[1])
    whole = make_views(images, index, 0, 0, KEY, pipeline)
    monkeypatch.setattr(blocks, "CACHED", 1000)  # two images a block
    assert worst(make_views(images, index, 0, 0, KEY, pipeline), whole) < 1e-6
    alone = make_views(images, index, 0, 0, KEY, pipeline)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(make_views(images, index, 0, 0, KEY, pipeline), alone)
        with torch.inference_mode():
            assert torch.equal(make_views(images, index, 0, 0, KEY, pipeline), alone)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_captured_views_equal_eager_ones():
    """All of it in one graph; what kernels a compiler makes of it, benchmarks/augmentation.py."""
    images, pipeline = random_images(32), spec(**PIPELINES[1])
    u = views.draw(torch.arange(32), 0, 0, KEY)
    eager = views.recolour(views.crop(images, u, pipeline, None), u, pipeline)
    made = views.operations("aot_eager")
    captured = made.recolour(made.crop(images, u, pipeline, None), u, pipeline)
    assert worst(captured, eager) < 5e-6


def test_compiled_colours_equal_eager_ones():
    def colours(images, kind, factor, shift):
        return solarize(shift_hue(blend(images, kind, factor), shift))

    given = as_float(random_images()), torch.arange(6) % 3, torch.full((6,), 1.3), torch.ones(6) / 9
    assert worst(torch.compile(colours, dynamic=False)(*given), colours(*given)) < 5e-6


def test_jitter_runs_in_the_drawn_order():
    images = as_float(random_images())
    draw = draw_jitter(
        uniform(KEY, torch.arange(6), count=6), JitterSpec(**{**JITTER, "probability": 1})
    )
    ours = apply_jitter(images, draw)
    names = {
        BRIGHTNESS: F.adjust_brightness,
        CONTRAST: F.adjust_contrast,
        SATURATION: F.adjust_saturation,
    }
    for i in range(6):
        steps = [
            (names[int(k)], float(f)) for k, f in zip(draw.kinds[i], draw.factors[i], strict=True)
        ]
        steps.insert(int(draw.place[i]), (F.adjust_hue, float(draw.hue[i])))
        expected = images[i]
        for operation, strength in steps:
            expected = operation(expected, strength)
        assert worst(ours[i], expected) < 1e-5


def test_boxes_have_torchvisions_distribution():
    count, pipeline = 20_000, spec()
    u = uniform(KEY, torch.arange(count), count=22)
    ours = draw_boxes(u, (32, 32), pipeline)
    torch.manual_seed(0)
    image = torch.zeros(3, 32, 32)
    theirs = torch.tensor([
        T.RandomResizedCrop.get_params(image, list(pipeline.crop_scale), list(pipeline.crop_ratio))
        for _ in range(3000)
    ]).double()  # fmt: skip
    fields = (ours.top, ours.left, ours.height, ours.width)
    for place, field in enumerate(fields):
        error = theirs[:, place].std() / math.sqrt(3000)
        assert abs(field.double().mean() - theirs[:, place].mean()) < 4 * error
        assert field.double().std() == pytest.approx(theirs[:, place].std().item(), rel=0.05)
    assert int((ours.top + ours.height).max()) <= 32 and int((ours.left + ours.width).max()) <= 32
    assert int(ours.height.min()) >= 1 and int(ours.top.min()) == 0


@pytest.mark.parametrize(
    ("size", "ratio", "expected"),
    [((8, 8), (0.75, 1.33), (0, 0, 8, 8)), ((8, 8), (2.0, 3.0), (2, 0, 4, 8)),
     ((8, 8), (0.2, 0.5), (0, 2, 8, 4)), ((4, 16), (0.5, 1.0), (0, 6, 4, 4))],
)  # fmt: skip
def test_crop_falls_back_to_the_centre(size, ratio, expected):
    u = torch.full((1, 22), 0.999)  # ten times the largest area with the largest ratio
    u[:, 1:20:2] = 0.5 if ratio[0] > 1 or ratio[1] < 1 else 0.999
    boxes = draw_boxes(u, size, spec(crop_scale=(1.0, 1.0), crop_ratio=ratio))
    drawn = tuple(int(f) for f in (boxes.top, boxes.left, boxes.height, boxes.width))
    assert drawn == expected
    image = torch.zeros(3, *size)
    torch.manual_seed(0)
    reference = T.RandomResizedCrop.get_params(image, [4.0, 4.0], list(ratio))  # never fits
    assert drawn == tuple(reference)


def test_images_of_many_sizes_have_the_boxes_of_each_size():
    u, pipeline = uniform(KEY, torch.arange(300), count=22), spec(crop_ratio=(0.5, 0.9))
    sizes = torch.tensor([(8, 8), (4, 16), (375, 500), (20, 9), (1, 7)]).repeat(60, 1)
    together = draw_boxes(u, (sizes[:, 0], sizes[:, 1]), pipeline)
    for number, (height, width) in enumerate(sizes[:5].tolist()):
        alone = draw_boxes(u, (height, width), pipeline)
        for name in ("top", "left", "height", "width"):
            ours, theirs = getattr(together, name), getattr(alone, name)
            assert torch.equal(ours[number::5], theirs[number::5])
    assert bool((together.top + together.height <= sizes[:, 0]).all())
    assert bool((together.left + together.width <= sizes[:, 1]).all())
    assert int(together.top.min()) >= 0 and int(together.height.min()) >= 1


def test_jitter_draws_all_orders_and_the_right_ranges():
    u = uniform(KEY, torch.arange(24_000), count=6)
    draw = draw_jitter(u, JitterSpec(**JITTER))
    applied = draw.hue != 0
    assert applied.double().mean().item() == pytest.approx(0.8, abs=0.02)
    assert torch.all(draw.factors[~applied] == 1)
    assert 0.6 <= draw.factors.min() < 0.62 and 1.38 < draw.factors.max() < 1.4001
    assert draw.hue.abs().max() <= 0.1 and draw.hue.abs().max() > 0.099
    orders = torch.cat([draw.kinds, draw.place[:, None]], dim=1)
    seen, counts = torch.unique(orders, dim=0, return_counts=True)
    assert len(seen) == 24 and counts.min() > 850 and counts.max() < 1150
    assert {tuple(row[:3].tolist()) for row in seen} == set(permutations(range(3)))


def same_distribution(ours, theirs):
    """Two samples may come from one distribution: the smallest p of several tests, by chance."""
    assert ks_2samp(np.asarray(ours), np.asarray(theirs)).pvalue > 0.001


@pytest.mark.parametrize(
    ("size", "changes"),
    [((32, 32), {}), ((20, 60), {"crop_scale": (0.2, 1.0), "crop_ratio": (0.5, 1.5)})],
)
def test_boxes_and_their_shapes_are_drawn_as_torchvision_draws_them(size, changes):
    pipeline = spec(**changes)
    ours = draw_boxes(uniform(KEY, torch.arange(20_000), count=22), size, pipeline)
    scale, ratio = list(pipeline.crop_scale), list(pipeline.crop_ratio)
    image = torch.zeros(3, *size)
    torch.manual_seed(0)
    drawn = [T.RandomResizedCrop.get_params(image, scale, ratio) for _ in range(4000)]
    top, left, height, width = torch.tensor(drawn).T
    same_distribution(ours.top, top)
    same_distribution(ours.left, left)
    same_distribution(ours.height * ours.width, height * width)
    same_distribution(ours.width / ours.height, width / height)
    # Where a box lies, given its size.
    same_distribution(ours.top / (size[0] - ours.height + 1), top / (size[0] - height + 1))


def test_jitter_is_drawn_as_torchvision_draws_it():
    strengths = {**JITTER, "brightness": 1.2, "probability": 1.0}  # above 1: factors from 0
    draw = draw_jitter(uniform(KEY, torch.arange(24_000), count=6), JitterSpec(**strengths))
    jitter = T.ColorJitter(1.2, 0.4, 0.4, 0.1)
    ranges = jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue
    torch.manual_seed(0)
    drawn = [T.ColorJitter.get_params(*ranges) for _ in range(6000)]
    for kind in (BRIGHTNESS, CONTRAST, SATURATION):
        same_distribution(draw.factors[draw.kinds == kind], [each[1 + kind] for each in drawn])
    same_distribution(draw.hue, [each[4] for each in drawn])
    orders = Counter(
        (*kinds[:place], 3, *kinds[place:])
        for kinds, place in zip(draw.kinds.tolist(), draw.place.tolist(), strict=True)
    )
    theirs = Counter(tuple(each[0].tolist()) for each in drawn)
    every = list(permutations(range(4)))
    assert chisquare([orders[order] for order in every]).pvalue > 0.001
    table = [[counts[order] for order in every] for counts in (orders, theirs)]
    assert chi2_contingency(table).pvalue > 0.001


def test_parameters_of_a_view_do_not_depend_on_each_other():
    """Nor one view's on another's: no two of the numbers drawn go together."""
    drawn = [views.draw(torch.arange(20_000), 0, view, KEY) for view in (0, 1)]
    together = np.corrcoef(torch.cat(drawn, dim=1).numpy().T)
    np.fill_diagonal(together, 0)
    assert abs(together).max() < 5 / math.sqrt(20_000)
    for column in drawn[0].T:
        assert kstest(column.numpy(), "uniform").pvalue > 1e-4


def test_sigma_is_drawn_uniformly():
    u = views.draw(torch.arange(20_000), 0, 0, KEY)
    sigma = blur.draw_sigma(u[:, views.SIGMA], spec(blur=BLUR).blur)
    torch.manual_seed(0)
    same_distribution(sigma, torch.empty(4000).uniform_(*BLUR["sigma"]))


def test_probabilities_are_met():
    images = random_images(1).repeat(4000, 1, 1, 1)
    index = torch.arange(4000)
    original = as_float(images[:1])
    for name, probability in (("flip", 0.5), ("grayscale", 0.2), ("solarize", 0.3)):
        views = make_views(images, index, 0, 0, KEY, spec(**{**NOTHING, name: probability}))
        changed = (views - original).abs().amax(dim=(1, 2, 3)) > 1e-3
        assert changed.double().mean().item() == pytest.approx(probability, abs=0.03)


@pytest.mark.parametrize("changes", PIPELINES)
def test_a_view_depends_on_its_key_alone(changes):
    images, index = random_images(8), torch.tensor([5, 9, 2, 7, 1, 0, 3, 4])
    pipeline = spec(**changes)
    whole = make_views(images, index, 3, 1, KEY, pipeline)
    half = make_views(images[4:], index[4:], 3, 1, KEY, pipeline)
    assert worst(whole[4:], half) < 1e-5
    stacked = make_views(
        images.repeat(2, 1, 1, 1),
        index.repeat(2),
        3,
        torch.tensor([0] * 8 + [1] * 8),
        KEY,
        pipeline,
    )
    assert worst(stacked[8:], whole) < 1e-5
    for epoch, view, key in ((4, 1, KEY), (3, 2, KEY), (3, 1, key_of(1, "view"))):
        assert worst(make_views(images, index, epoch, view, key, pipeline), whole) > 0.1


def test_views_may_have_another_size_than_the_images():
    images, index = random_images(4, side=12), torch.arange(4)
    same = make_views(images, index, 0, 0, KEY, spec())
    assert torch.equal(make_views(images, index, 0, 0, KEY, spec(), 12), same)
    small = make_views(images, index, 0, 0, KEY, spec(), 6)
    assert small.shape == (4, 3, 6, 6) and worst(small.mean((2, 3)), same.mean((2, 3))) < 0.1


def test_the_authors_pipeline_keeps_its_numbers():
    """Random numbers and arithmetic of a pipeline without blur, written out as they always were."""
    images, index = random_images(64), torch.arange(64)
    u = uniform(KEY, index, 2, 1, count=31)
    boxes, target = draw_boxes(u[:, :22], (12, 12), spec()), torch.arange(12.0)

    def hat(start, length, mirrored):
        place = (target + 0.5) * (length[:, None] / 12) - 0.5
        place = place.clamp(min=0).minimum(length[:, None] - 1.0) + start[:, None]
        place = torch.where(mirrored[:, None], place.flip(1), place)
        return (1 - (place[:, :, None] - target).abs()).clamp(min=0)[:, None]

    rows = hat(boxes.top, boxes.height, torch.zeros(64, dtype=torch.bool))
    pixels = rows @ as_float(images) @ hat(boxes.left, boxes.width, u[:, 28] < 0.5).mT
    pixels = apply_jitter(pixels, draw_jitter(u[:, 22:28], spec().jitter))
    grey, inverted = (chosen.view(-1, 1, 1, 1) < 0.2 for chosen in (u[:, 29], u[:, 30]))
    pixels = torch.where(grey, luminance(pixels), pixels)
    pixels = torch.where(inverted, solarize(pixels), pixels).clamp(0, 1)
    assert worst(make_views(images, index, 2, 1, KEY, spec()), pixels) < 5e-6


def test_global_random_streams_play_no_part():
    images, index = random_images(4), torch.arange(4)
    first = make_views(images, index, 0, 0, KEY, spec())
    torch.manual_seed(1)
    np.random.seed(1)
    state = torch.get_rng_state()
    assert torch.equal(make_views(images, index, 0, 0, KEY, spec()), first)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("changes", PIPELINES)
def test_views_are_floats_between_zero_and_one(changes):
    views = make_views(random_images(64), torch.arange(64), 0, 0, KEY, spec(**changes))
    assert views.dtype == torch.float32 and views.shape == (64, 3, 12, 12)
    assert views.min() >= 0 and views.max() <= 1 and torch.isfinite(views).all()


def test_the_whole_pipeline_has_torchvisions_statistics():
    """Mean, spread and edge energy over many views of one image, ours against the authors'."""
    side = 16
    ramp = torch.linspace(0, 255, side)
    image = torch.stack(
        [ramp.expand(side, side), ramp.expand(side, side).T, 255 - ramp.expand(side, side)], -1
    )
    image = image.to(torch.uint8)
    compose = T.Compose([
        T.RandomResizedCrop(side, scale=(0.08, 1.0)),
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        T.RandomHorizontalFlip(), T.RandomGrayscale(p=0.2), T.RandomSolarize(128, p=0.2), T.ToTensor(),
    ])  # fmt: skip
    torch.manual_seed(0)
    theirs = torch.stack([compose(as_pil(image)) for _ in range(400)])
    ours = make_views(image.repeat(2000, 1, 1, 1), torch.arange(2000), 0, 0, KEY, spec())
    for measure in (
        lambda x: x.mean(dim=(2, 3)),
        lambda x: x.std(dim=(2, 3)),
        lambda x: x.diff(dim=3).abs().mean(dim=(2, 3)),
    ):
        a, b = measure(ours), measure(theirs)
        error = b.std(dim=0) / math.sqrt(400) + a.std(dim=0) / math.sqrt(2000)
        assert torch.all((a.mean(dim=0) - b.mean(dim=0)).abs() < 4 * error)
