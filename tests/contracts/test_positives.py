"""What every registered positive source must do."""

import dataclasses

import numpy as np
import pytest
import torch
from pairing import write_pairs
from pretraining import make_prepared, make_spec, write_bank

from clsp.config.schema import POSITIVES
from clsp.pretrain.anchors import load_anchors
from clsp.pretrain.setup import build_source
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.registry import load, names, settings_class

CPU = torch.device("cpu")
ANCHORS = 20
PAIRS = [(0, 4), (0, 9), (3, 4), (18, 19)]
GROUPS = [n // 3 if n < 18 else -1 for n in range(ANCHORS)]  # the last two are in no group
every_source = pytest.mark.parametrize("name", names(POSITIVES))
readers = pytest.mark.parametrize(
    "name", [name for name in names(POSITIVES) if settings_class(POSITIVES, name).reads]
)


@pytest.fixture
def prepared():
    """20 anchors of 3 classes, most of them in groups of 3."""
    made = make_prepared(ANCHORS)
    return dataclasses.replace(made, card={**made.card, "groups": GROUPS})


@pytest.fixture
def artefacts(tmp_path, prepared):
    """A bank of 3 candidates and pairs, by the kind that `reads` names."""
    return {
        "bank": write_bank(tmp_path / "toy.mix", prepared),
        "pairs": write_pairs(tmp_path / "toy.near", prepared, PAIRS),
    }


def anchors_for(name, prepared):
    config = settings_class(POSITIVES, name)
    return load_anchors(prepared, CPU, labels=config.uses_labels, groups=config.uses_groups)


@pytest.fixture
def open_source(prepared, artefacts):
    """Opens a source by name, with options."""

    def opened(name, seed=0, **options):
        config = settings_class(POSITIVES, name).model_validate(options)
        return load(POSITIVES, name, "source").Source(
            config, anchors_for(name, prepared), artefacts.get(config.reads), seed
        )

    return opened


def told(positive):
    """What a source gave: numbers of training images, or images."""
    assert (positive.rows is None) != (positive.images is None)
    return positive.images if positive.rows is None else positive.rows


@every_source
def test_a_positive_is_a_training_image_or_another_image(open_source, name):
    positive = open_source(name).batch(torch.tensor([3, 0, 19]), 0)
    if name == "none":
        assert positive is None
        return
    shown = told(positive)
    if positive.rows is not None:
        assert shown.shape == (3,) and shown.dtype == torch.int64
        assert int(shown.min()) >= 0 and int(shown.max()) < ANCHORS
    else:
        assert shown.shape == (3, 8, 8, 3) and shown.dtype == torch.uint8


@every_source
def test_a_positive_depends_on_seed_anchor_and_epoch_alone(open_source, name):
    source, index = open_source(name), torch.arange(ANCHORS)
    if source.batch(index, 4) is None:
        return
    whole = told(source.batch(index, 4))
    order = torch.randperm(ANCHORS, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(5)
    assert torch.equal(told(source.batch(order, 4)), whole[order])
    assert torch.equal(told(source.batch(index[7:8], 4)), whole[7:8])
    assert torch.equal(told(open_source(name).batch(index, 4)), whole)


def drawn_rows(source, epochs=40):
    """Which training images a source gave each anchor over some epochs: a set per anchor."""
    seen = [set() for _ in range(ANCHORS)]
    for epoch in range(epochs):
        for anchor, row in enumerate(source.batch(torch.arange(ANCHORS), epoch).rows.tolist()):
            seen[anchor].add(row)
    return seen


def test_same_class_gives_every_other_image_of_the_class(open_source, prepared):
    labels = prepared.split("train").labels
    for anchor, rows in enumerate(drawn_rows(open_source("same_class"), 80)):
        assert rows == set(np.flatnonzero(labels == labels[anchor])) - {anchor}


def test_group_gives_every_other_image_of_the_group_or_the_anchor(open_source):
    for anchor, rows in enumerate(drawn_rows(open_source("group"))):
        others = {n for n in range(18) if n // 3 == anchor // 3} - {anchor}
        assert rows == (others if anchor < 18 else {anchor})


def test_semantic_pairs_give_every_partner_or_the_anchor(open_source):
    for anchor, rows in enumerate(drawn_rows(open_source("semantic_pairs"))):
        partners = {n for pair in PAIRS if anchor in pair for n in pair} - {anchor}
        assert rows == (partners or {anchor})


def test_another_seed_draws_other_partners(open_source):
    index = torch.arange(ANCHORS)
    for name in ("same_class", "group"):
        one, two = open_source(name), open_source(name, seed=1)
        ours, theirs = ([s.batch(index, e).rows for e in range(5)] for s in (one, two))
        assert any(not torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert any(not torch.equal(ours[0], later) for later in ours[1:])


def test_bank_gives_candidates_of_its_anchor_and_uses_all(open_source):
    source, index = open_source("bank"), torch.arange(ANCHORS)
    seen = set()
    for epoch in range(30):
        chosen = source.choose(index, epoch)
        batch = source.batch(index, epoch).images.numpy()
        assert np.array_equal(batch, source.mapped[np.arange(ANCHORS), chosen.numpy()])
        seen |= set(zip(index.tolist(), chosen.tolist(), strict=True))
    assert len(seen) == 60  # every candidate of every anchor
    assert not torch.equal(source.choose(index, 0), source.choose(index, 1))
    assert not torch.equal(source.choose(index, 0), open_source("bank", seed=1).choose(index, 0))


def test_candidates_are_drawn_uniformly(open_source):
    source = open_source("bank")
    drawn = torch.cat([source.choose(torch.arange(ANCHORS), epoch) for epoch in range(300)])
    shares = torch.bincount(drawn, minlength=3) / len(drawn)
    assert torch.all((shares - 1 / 3).abs() < 0.03)


@pytest.mark.parametrize("used", [1, 2])
def test_a_bank_gives_its_first_candidates_only(open_source, used):
    source = open_source("bank", candidates=used)
    drawn = torch.cat([source.choose(torch.arange(ANCHORS), epoch) for epoch in range(30)])
    assert drawn.unique().tolist() == list(range(used))


def test_more_candidates_than_the_bank_holds_are_refused(open_source):
    with pytest.raises(ConfigError, match=r"candidates 4 exceed the 3 of bank toy\.mix"):
        open_source("bank", candidates=4)


def test_augmentation_gives_the_anchor_itself(open_source):
    source = open_source("augmentation")
    assert source.batch(torch.tensor([2, 5]), 9).rows.tolist() == [2, 5]


@every_source
def test_an_artefact_is_demanded_or_refused(prepared, artefacts, name):
    reads = settings_class(POSITIVES, name).reads
    for kind in artefacts:
        given = {each: [artefacts[each]] if each == reads else [] for each in artefacts}
        given[kind] = [] if kind == reads else [artefacts[kind]]
        wanted = "1, found none" if kind == reads else "none, found 1"
        with pytest.raises(ConfigError, match=f"--{kind}: positives {name} take {wanted}"):
            build_source(make_spec(positives=name), anchors_for(name, prepared), given)


@readers
def test_an_artefact_of_another_dataset_is_refused(artefacts, name):
    other = make_prepared(ANCHORS, seed=1)
    module = load(POSITIVES, name, "source")
    artefact = artefacts[module.Config.reads]
    with pytest.raises(DataError, match=r"belongs? to another dataset: .* images_sha256"):
        module.Source(module.Config(), anchors_for(name, other), artefact, 0)


@readers
def test_an_artefact_of_another_kind_is_refused(artefacts, prepared, name):
    module = load(POSITIVES, name, "source")
    wrong = artefacts["pairs" if module.Config.reads == "bank" else "bank"]
    with pytest.raises(DataError, match=r"expected (gather-bank|mine-pairs)"):
        module.Source(module.Config(), anchors_for(name, prepared), wrong, 0)


def test_pairs_of_another_split_are_refused(tmp_path, prepared):
    pairs = write_pairs(tmp_path / "test.near", prepared, PAIRS, split="test")
    module = load(POSITIVES, "semantic_pairs", "source")
    message = r"pairs test\.near belong to another split: their split is test, the run's is train"
    with pytest.raises(DataError, match=message):
        module.Source(module.Config(), anchors_for("semantic_pairs", prepared), pairs, 0)


@pytest.mark.parametrize("pair", [(4, 0), (5, 5), (-1, 3), (3, ANCHORS)])
def test_pairs_of_images_that_do_not_exist_are_refused(tmp_path, prepared, pair):
    pairs = write_pairs(tmp_path / "toy.bad", prepared, [(0, 1), pair])
    module = load(POSITIVES, "semantic_pairs", "source")
    with pytest.raises(DataError, match=r"pairs\.npy: row 1 pairs .* 0 <= left < right < 20"):
        module.Source(module.Config(), anchors_for("semantic_pairs", prepared), pairs, 0)


def test_group_ids_that_are_not_there_are_refused():
    with pytest.raises(DataError, match="dataset of kind toy has no group ids"):
        anchors_for("group", make_prepared(ANCHORS))


def test_only_the_oracle_is_told_labels():
    users = {name: settings_class(POSITIVES, name).uses_labels for name in names(POSITIVES)}
    assert [name for name, labels in users.items() if labels] == ["same_class"]


@readers
def test_the_same_images_at_another_size_belong(artefacts, prepared, name):
    """What was drawn or mined at one size is told by the images before they were resized."""
    card = {**prepared.card, "size": 16, "images_sha256": "0" * 64}
    module, labels = load(POSITIVES, name, "source"), prepared.labels
    larger = dataclasses.replace(
        prepared, images=prepared.images.repeat(2, 1).repeat(2, 2), card=card
    )
    given = artefacts[module.Config.reads]
    module.Source(module.Config(), anchors_for(name, larger), given, 0)
    other = dataclasses.replace(larger, card={**card, "source_sha256": "f" * 64})
    with pytest.raises(DataError, match=r"belongs? to another dataset: .* source_sha256"):
        module.Source(module.Config(), anchors_for(name, other), given, 0)
    card["splits"] = {**card["splits"], "train": [0, ANCHORS - 1]}
    fewer = dataclasses.replace(larger, card={**card, "groups": GROUPS[:-1]}, labels=labels)
    with pytest.raises(DataError, match=r"belongs? to another dataset: .* anchors is 20"):
        module.Source(module.Config(), anchors_for(name, fewer), given, 0)
