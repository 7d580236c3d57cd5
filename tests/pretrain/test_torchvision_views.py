"""The plain pipeline: torchvision's own classes, keyed, in worker processes or in this one."""

import numpy as np
import pytest
import torch
import torchvision.transforms as T
from pairing import write_pairs
from pretraining import (
    NOTHING,
    RECIPE,
    make_prepared,
    make_spec,
    write_bank,
    write_dataset,
    write_encoded,
)
from viewing import BLUR, JITTER, spec
from viewing import NOTHING as STILL

from clsp.config.execution import EXACT
from clsp.config.schema import POSITIVES
from clsp.data import decoders
from clsp.data.prepared import Prepared, open_prepared
from clsp.data.torchvision_views import Blur, Sample, TorchvisionViews, build_transform
from clsp.data.views import make_views
from clsp.models.encoder import FILE, normalise
from clsp.pretrain import loop
from clsp.pretrain.feed import Feed
from clsp.pretrain.run import pretrain_encoder
from clsp.pretrain.setup import set_up
from clsp.runtime.errors import DataError
from clsp.runtime.registry import names

CPU = torch.device("cpu")
PLAIN = EXACT.model_copy(update={"views": "torchvision"})
SECOND = {"second_view": {**RECIPE["views"], "interpolation": "bicubic", "blur": BLUR}}


@pytest.fixture
def encoded(tmp_path):
    return open_prepared(write_encoded(tmp_path / "toy"))


def ready(prepared, positives="augmentation", given=NOTHING, **changes):
    pairs = {"pairs": "toy.near"} if positives == "semantic_pairs" else {}
    made = make_spec("simclr", positives, execution=PLAIN, **pairs, **changes)
    return set_up(made, prepared, given, CPU)


def collect(setup, workers, first=0):
    feed = Feed(setup, workers)
    return [feed.batch(step) for step in range(first, setup.steps)]


def assert_equal_batches(left, right):
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        assert torch.equal(one.index, other.index)
        shown = zip([*one.views, one.positive], [*other.views, other.positive], strict=True)
        assert all(torch.equal(a, b) for a, b in shown)


@pytest.mark.parametrize("storage", ["arrays", "encoded"])
def test_workers_and_resume_change_nothing(storage, encoded):
    prepared = make_prepared() if storage == "arrays" else encoded
    setup = ready(prepared, "same_class", recipe=SECOND)
    alone = collect(setup, 0)
    assert len(alone) == setup.steps == 6
    assert_equal_batches(alone, collect(setup, 2))
    assert_equal_batches(alone[3:], collect(setup, 1, 3))


def test_a_view_depends_on_seed_epoch_image_and_view_alone():
    prepared = make_prepared()
    whole = collect(ready(prepared), 0)
    small = collect(ready(prepared, recipe={"batch_size": 4}), 0)
    assert torch.equal(whole[0].views[1], torch.cat([small[0].views[1], small[1].views[1]]))
    other = collect(ready(prepared, seed=1), 0)
    both = {int(n): view for n, view in zip(other[0].index, other[0].views[0], strict=True)}
    for number, view in zip(whole[0].index, whole[0].views[0], strict=True):
        assert int(number) not in both or not torch.equal(both[int(number)], view)
    assert not torch.equal(whole[0].views[0], whole[0].views[1])
    assert not torch.equal(whole[0].views[0], whole[0].positive)


@pytest.mark.parametrize("positives", names(POSITIVES))
def test_every_source_is_shown(tmp_path, positives):
    made = make_prepared()
    prepared = Prepared(made.images, made.labels, {**made.card, "groups": [0, 1] * 10})
    given = dict(NOTHING)
    if positives == "bank":
        given["bank"] = [write_bank(tmp_path / "toy.mix", prepared, side=11)]
    if positives == "semantic_pairs":
        given["pairs"] = [write_pairs(tmp_path / "toy.near", prepared, [(0, 4), (2, 19)])]
    whole = {**RECIPE["views"], **{k: STILL[k] for k in ("flip", "grayscale", "solarize")}}
    whole |= {"crop_scale": [1.0, 1.0], "crop_ratio": [1.0, 1.0], "jitter": STILL["jitter"]}
    setup = ready(prepared, positives, given, recipe={"views": whole})
    batch = Feed(setup, 0).batch(0)
    pixels = torch.from_numpy(prepared.images)
    assert torch.equal(batch.views[0], normalise(pixels[batch.index], setup.statistics))
    shown = setup.source.batch(batch.index, 0)
    if shown is None:
        assert batch.positive is None
    elif shown.rows is not None:
        assert torch.equal(batch.positive, normalise(pixels[shown.rows], setup.statistics))
    else:
        assert batch.positive.shape == (8, 3, 8, 8)
        still = make_views(shown.images, batch.index, 0, 2, 0, setup.spec.recipe.views, 8)
        level = 1 / 255 / min(setup.statistics.std)
        assert (batch.positive - normalise(still, setup.statistics)).abs().max() < 1.5 * level


def test_global_streams_play_no_part_and_are_left_alone():
    setup = ready(make_prepared())
    first = Feed(setup, 0).batch(0).views[0]
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state()
    assert torch.equal(Feed(setup, 0).batch(0).views[0], first)
    assert torch.equal(Feed(setup, 1).batch(0).views[0], first)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_stops_the_run_with_its_name_alone(encoded, monkeypatch, workers):
    setup = ready(encoded)
    content = encoded.images.file.content
    monkeypatch.setattr(encoded.images.file, "content", lambda row: content(row)[:20])
    with pytest.raises(DataError, match=r"^.*images\.arrow: image \d+: not a readable image"):
        Feed(setup, workers).batch(0)


def test_the_processes_are_as_many_as_decode(monkeypatch):
    monkeypatch.setenv(decoders.VARIABLE, "3")
    assert Feed(ready(make_prepared()))._workers._processes == 3


def test_the_classes_are_torchvisions():
    every = build_transform(spec(interpolation="bicubic", blur=BLUR), 12).transforms
    kinds = [T.RandomResizedCrop, T.RandomApply, T.RandomHorizontalFlip, T.RandomGrayscale]
    kinds += [T.RandomApply, T.RandomSolarize, T.ToTensor]
    assert [type(step) for step in every] == kinds
    crop, jitter, blur = every[0], every[1].transforms[0], every[4]
    assert crop.scale == (0.08, 1.0) and crop.interpolation is T.InterpolationMode.BICUBIC
    assert jitter.brightness == pytest.approx((0.6, 1.4)) and jitter.hue == (-0.1, 0.1)
    assert every[1].p == JITTER["probability"] and every[5].threshold == 128
    assert isinstance(blur.transforms[0], Blur) and blur.p == BLUR["probability"]
    plain = build_transform(spec(solarize=0.0), 12).transforms
    assert not any(isinstance(step, T.RandomSolarize) for step in plain) and len(plain) == 5


def test_both_pipelines_have_the_same_statistics():
    """Mean, spread and edges of many views of one image, with everything switched on."""
    side, count = 12, 600
    ramp = np.linspace(0, 255, side)[None].repeat(side, 0)
    image = np.stack([ramp, ramp.T, 255 - ramp], axis=-1).astype(np.uint8)[None]
    pipeline = spec(interpolation="bicubic", blur=BLUR)
    plain = TorchvisionViews(image.repeat(count, 0), pipeline, pipeline, side, seed=0)
    theirs = torch.stack([plain[Sample(number, 0)][0] for number in range(count)])
    shown = torch.from_numpy(image).expand(4 * count, -1, -1, -1)
    ours = make_views(shown, torch.arange(4 * count), 0, 0, 7, pipeline)
    for measure in (
        lambda x: x.mean(dim=(2, 3)),
        lambda x: x.std(dim=(2, 3)),
        lambda x: x.diff(dim=3).abs().mean(dim=(2, 3)),
    ):
        a, b = measure(ours), measure(theirs)
        error = (a.var(dim=0) / len(a) + b.var(dim=0) / len(b)).sqrt()
        assert torch.all((a.mean(dim=0) - b.mean(dim=0)).abs() < 4 * error)


def train(dataset, folder):
    """The whole stage; gives the digest of what it trained, of its start, and its losses."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    paths = {n: folder / f"checkpoints/{n}.safetensors" for n in ("start", "middle", "final")}
    paths |= {"encoder": folder / FILE, "history": folder / "history.jsonl"}
    spec = make_spec("simclr", "same_class", execution=PLAIN)
    done = pretrain_encoder(spec, dataset, [], [], scratch=folder / "scratch", **paths)
    return done.facts["final_sha256"], done.facts["init_sha256"], done.metrics["pretrain/loss"]


@pytest.mark.parametrize("write", [write_dataset, write_encoded])
def test_a_run_trains_repeats_and_resumes(tmp_path, monkeypatch, write):
    monkeypatch.setenv("CLSP_DEVICE", "cpu")
    monkeypatch.setenv(decoders.VARIABLE, "1")
    dataset = write(tmp_path / "toy")
    final, start, loss = train(dataset, tmp_path / "whole")
    assert final != start and np.isfinite(loss)

    class Interrupted(Feed):
        def batch(self, step):
            if step == 3:
                raise KeyboardInterrupt
            return super().batch(step)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop, "Feed", Interrupted)
        train(dataset, tmp_path / "resumed")
    assert any((tmp_path / "resumed" / "scratch").iterdir())
    assert train(dataset, tmp_path / "resumed") == (final, start, loss)
