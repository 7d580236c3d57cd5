"""Batches: the same interface over pixels and files, positives of any size, batches made ahead."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as F
from pairing import write_pairs
from pretraining import NOTHING, RECIPE, make_prepared, make_spec, write_bank, write_encoded
from torch.utils._python_dispatch import TorchDispatchMode

from clsp.config.schema import POSITIVES
from clsp.data import stores, streaming
from clsp.data.catalog import UNLABELLED
from clsp.data.prepared import Prepared, open_prepared
from clsp.data.views import CROP, FLIP, draw, draw_boxes, make_views, recolour
from clsp.models.encoder import normalise
from clsp.pretrain.anchors import load_anchors
from clsp.pretrain.feed import Feed, load_batch
from clsp.pretrain.setup import set_up
from clsp.runtime.errors import DataError
from clsp.runtime.registry import names

CPU = torch.device("cpu")
VIEWS = RECIPE["views"]
INDEX = torch.tensor([4, 0, 9, 13, 4, 2, 19, 7])
SECOND = {"second_view": {**VIEWS, "interpolation": "bicubic", "solarize": 0.9}}
both_recipes = pytest.mark.parametrize("recipe", [{}, SECOND])


@pytest.fixture
def encoded(tmp_path):
    return open_prepared(write_encoded(tmp_path / "toy"))


def given_for(positives, prepared, tmp_path, **changes):
    """The artefacts that a source reads."""
    given = dict(NOTHING)
    if positives == "bank":
        given["bank"] = [write_bank(tmp_path / "toy.mix", prepared, **changes)]
    if positives == "semantic_pairs":
        given["pairs"] = [write_pairs(tmp_path / "toy.near", prepared, [(0, 4), (0, 9), (2, 19)])]
    return given


def ready(prepared, positives="augmentation", given=NOTHING, method="simclr", **changes):
    pairs = {"pairs": "toy.near"} if positives == "semantic_pairs" else {}
    return set_up(make_spec(method, positives, **pairs, **changes), prepared, given, CPU)


def expected_view(setup, pictures, epoch, number, spec):
    """One view of PIL images by torchvision's crop, then our colours."""
    u = draw(INDEX, epoch, number, setup.view_key)
    crops = []
    for row, picture in enumerate(pictures):
        box = draw_boxes(u[row : row + 1, CROP], picture.size[::-1], spec)
        place = [int(side) for side in (box.top, box.left, box.height, box.width)]
        crop = F.resized_crop(picture, *place, [8, 8], T.InterpolationMode(spec.interpolation))
        crop = F.hflip(crop) if u[row, FLIP] < spec.flip else crop
        crops.append(F.pil_to_tensor(crop) / 255)
    return normalise(recolour(torch.stack(crops), u, spec), setup.statistics)


@both_recipes
def test_views_of_files_are_cut_from_all_of_their_pixels(encoded, recipe):
    setup = ready(encoded, "same_class", recipe=recipe)
    batch = load_batch(setup, INDEX, 3)
    images, first = encoded.split("train").images, setup.spec.recipe.views
    pictures = [images.picture(int(row)) for row in INDEX]
    partners = setup.source.batch(INDEX, 3).rows
    second = setup.spec.recipe.second_view or first
    for view, number, spec in ((batch.views[0], 0, first), (batch.views[1], 1, second)):
        torch.testing.assert_close(view, expected_view(setup, pictures, 3, number, spec))
    shown = [images.picture(int(row)) for row in partners]
    torch.testing.assert_close(batch.positive, expected_view(setup, shown, 3, 2, first))


@pytest.mark.parametrize("positives", names(POSITIVES))
def test_every_source_goes_with_files(encoded, tmp_path, positives):
    grouped = Prepared(encoded.images, encoded.labels, {**encoded.card, "groups": [0, 1] * 10})
    setup = ready(grouped, positives, given_for(positives, grouped, tmp_path))
    batch = load_batch(setup, INDEX, 0)
    assert [view.shape for view in batch.views] == [(8, 3, 8, 8)] * 2
    assert (batch.positive is None) == (positives == "none")
    if batch.positive is not None:
        assert batch.positive.shape == (8, 3, 8, 8) and torch.isfinite(batch.positive).all()
        assert not torch.equal(batch.positive, batch.views[0])


@both_recipes
@pytest.mark.parametrize("positives", ["none", "augmentation", "bank"])
def test_views_of_arrays_are_those_of_one_stacked_batch(tmp_path, positives, recipe):
    """The numbers of every run so far: all views of a pipeline in one call."""
    prepared = make_prepared()
    setup = ready(prepared, positives, given_for(positives, prepared, tmp_path), recipe=recipe)
    anchors = torch.from_numpy(prepared.images)[INDEX]
    positive = setup.source.batch(INDEX, 1)
    third = [] if positive is None else [anchors if positive.images is None else positive.images]
    first, second = setup.spec.recipe.views, setup.spec.recipe.second_view
    shown, numbers = (
        [anchors, *([] if second else [anchors]), *third],
        [0, *([] if second else [1])],
    )
    numbers += [2] * len(third)
    view = torch.tensor(numbers).repeat_interleave(len(INDEX))
    key, index = setup.view_key, INDEX.repeat(len(numbers))
    stacked = make_views(torch.cat(shown), index, 1, view, key, first).chunk(len(numbers))
    views = dict(zip(numbers, stacked, strict=True))
    if second:
        views[1] = make_views(anchors, INDEX, 1, 1, key, second)
    batch = load_batch(setup, INDEX, 1)
    made = [*batch.views, *([] if batch.positive is None else [batch.positive])]
    for number, view in enumerate(made):
        assert torch.equal(view, normalise(views[number], setup.statistics))


@pytest.mark.parametrize("side", [4, 8, 21])
@pytest.mark.parametrize("storage", ["arrays", "encoded"])
def test_candidates_of_another_size_become_views_of_the_datasets(encoded, tmp_path, storage, side):
    prepared = encoded if storage == "encoded" else make_prepared()
    setup = ready(prepared, "bank", given_for("bank", prepared, tmp_path, side=side))
    batch, spec = load_batch(setup, INDEX, 2), setup.spec.recipe.views
    candidates = setup.source.batch(INDEX, 2).images
    assert candidates.shape == (8, side, side, 3)
    expected = make_views(candidates, INDEX, 2, 2, setup.view_key, spec, 8)
    off = (batch.positive - normalise(expected, setup.statistics)).abs()
    level = 1 / 255 / min(setup.statistics.std)  # beside decoded files, crops have 8 bits
    assert off.max() <= (3 * level if storage == "encoded" else 1e-5)
    assert off.mean() <= (level / 2 if storage == "encoded" else 1e-6)
    alone = load_batch(ready(prepared, "none"), INDEX, 2)
    torch.testing.assert_close(batch.views[0], alone.views[0])


def collect(setup, first=0):
    feed = Feed(setup)
    return [feed.batch(step) for step in range(first, setup.steps)]


def assert_equal_batches(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert torch.equal(one.index, other.index) and torch.equal(one.positive, other.positive)
        assert all(torch.equal(a, b) for a, b in zip(one.views, other.views, strict=True))


def test_batches_made_ahead_are_the_same(encoded, monkeypatch):
    setup = ready(encoded)
    ahead = collect(setup)
    assert len(ahead) == setup.steps == 6
    monkeypatch.setattr(stores.Files, "ahead", False)
    assert_equal_batches(ahead, collect(setup))
    assert_equal_batches(ahead[3:], collect(setup, 3))
    for step, batch in enumerate(ahead):
        direct = load_batch(setup, batch.index, step // setup.per_epoch)
        assert torch.equal(direct.views[1], batch.views[1])


def test_one_batch_is_begun_ahead_and_no_more(encoded, monkeypatch):
    setup, begun = ready(encoded), []
    real = stores.Files.begin
    monkeypatch.setattr(stores.Files, "begin", lambda self, r: begun.append(1) or real(self, r))
    feed = Feed(setup)
    counts = []
    for step in range(setup.steps):
        feed.batch(step)
        counts.append(len(begun))
    assert counts == [2, 3, 4, 5, 6, 6]


def test_each_epoch_shows_every_image_at_most_once(encoded):
    setup = ready(encoded)
    batches = collect(setup)
    for epoch in range(3):
        shown = torch.cat([b.index for b in batches[2 * epoch : 2 * epoch + 2]])
        assert len(shown.unique()) == 16


def test_a_damaged_image_stops_the_run_with_its_name(encoded, monkeypatch):
    setup = ready(encoded)
    content = encoded.images.file.content
    monkeypatch.setattr(encoded.images.file, "content", lambda row: content(row)[:20])
    with pytest.raises(DataError, match=r"images\.arrow: image \d+: not a readable image"):
        Feed(setup).batch(0)


@both_recipes
@pytest.mark.parametrize("positives", names(POSITIVES))
def test_pixels_that_are_streamed_are_those_on_the_device(tmp_path, monkeypatch, positives, recipe):
    made = make_prepared()
    prepared = Prepared(made.images, made.labels, {**made.card, "groups": [0, 1] * 10})
    given = given_for(positives, prepared, tmp_path)
    setup = ready(prepared, positives, given, recipe=recipe)
    assert isinstance(setup.anchors.store, stores.Resident)
    monkeypatch.setattr(streaming, "RESIDENT_BYTES", prepared.split("train").images.nbytes - 1)
    streamed = ready(prepared, positives, given, recipe=recipe)
    assert isinstance(streamed.anchors.store, stores.Streamed)
    for one, other in zip(collect(setup), collect(streamed), strict=True):
        assert torch.equal(one.index, other.index)
        shown = zip([*one.views, one.positive], [*other.views, other.positive], strict=True)
        assert all(a is b or torch.equal(a, b) for a, b in shown)


class Watched:
    """Stands for an array, and remembers what was read of it and by which thread."""

    def __init__(self, images):
        self.images, self.shape, self.nbytes, self.read = images, images.shape, 1 << 60, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, place):
        if isinstance(place, slice):
            return Watched(self.images[place])
        self.read.append((place, threading.current_thread().name))
        return self.images[place]


def test_each_image_of_a_batch_is_read_once_in_order_one_batch_ahead():
    made = make_prepared()
    split, store = make_prepared().split("train"), None
    setup = ready(made, "same_class")
    watched = Watched(split.images)
    store = stores.open_store(watched, CPU)
    feed = Feed(replace(setup, anchors=replace(setup.anchors, store=store)))
    for step in range(setup.steps):
        batch = feed.batch(step)
        streaming._reader().submit(int).result()  # all that was begun is done
        assert len(watched.read) == min(step + 2, setup.steps)
        rows, thread = watched.read[step]
        partners = setup.source.batch(batch.index, step // setup.per_epoch).rows
        assert rows.tolist() == sorted({*batch.index.tolist(), *partners.tolist()})
        assert thread.startswith("read")


def test_candidates_that_stay_on_disk_are_read_one_batch_ahead(tmp_path):
    prepared = make_prepared()
    setup = ready(prepared, "bank", given_for("bank", prepared, tmp_path))
    watched = setup.source.mapped = Watched(setup.source.mapped)
    feed = Feed(setup)
    for step in range(setup.steps):
        batch = feed.batch(step)
        streaming._reader().submit(int).result()
        assert len(watched.read) == min(step + 2, setup.steps)
        (rows, candidates), thread = watched.read[step]
        assert rows.tolist() == batch.index.tolist() and thread.startswith("read")
        chosen = setup.source.choose(batch.index, step // setup.per_epoch)
        assert candidates.tolist() == chosen.tolist()


def test_a_file_that_cannot_be_read_stops_the_run(tmp_path):
    class Broken(Watched):
        def __getitem__(self, place):
            raise OSError("input/output error")

    setup = ready(make_prepared())
    store = stores.open_store(Broken(make_prepared().images), CPU)
    feed = Feed(replace(setup, anchors=replace(setup.anchors, store=store)))
    with pytest.raises(OSError, match="input/output error"):
        feed.batch(0)


class Copies(TorchDispatchMode):
    """Remembers what is copied from the CPU to a device."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        if operation is torch.ops.aten._to_copy.default and args[0].device.type != made.device.type:
            self.shapes.append(tuple(args[0].shape))
        return made


def test_no_step_reads_from_the_device_or_copies_to_it():
    """On the meta device a tensor has no values, so reading one would fail."""
    views = {**VIEWS, "interpolation": "bicubic", "blur": {"probability": 0.5, "sigma": [0.1, 2.0]}}
    spec, prepared = make_spec(recipe={"views": views}), make_prepared()
    feed = Feed(set_up(spec, prepared, NOTHING, torch.device("meta")))
    with Copies() as copied:
        assert feed.batch(0).views[0].shape == (8, 3, 8, 8)
    assert copied.shapes[0] == (20,)  # the order of the epoch
    with Copies() as copied:
        assert feed.batch(1).positive.shape == (8, 3, 8, 8)
    assert set(copied.shapes) == {(2, 3)}  # mean and deviation, from pinned memory


def test_labels_are_needed_only_where_they_are_used():
    labels = np.arange(24) % 3
    labels[3:20] = UNLABELLED
    prepared = make_prepared(labels=labels)
    assert load_batch(ready(prepared), INDEX, 0).labels is None
    message = "17 of the 20 training images of this dataset of kind toy have no label"
    with pytest.raises(DataError, match=message):
        ready(prepared, "same_class")
    with pytest.raises(DataError, match=message):
        ready(prepared, "none", method="supcon")


def test_a_multilabel_dataset_is_not_trained_on():
    prepared = make_prepared()
    several = Prepared(prepared.images, np.eye(3, dtype=np.uint8)[prepared.labels], prepared.card)
    with pytest.raises(DataError, match="kind toy is multi-label"):
        load_anchors(several, CPU)
