"""Shards, gathering and opening a bank: coverage, checks, facts and refusals."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusing import Factory, bank_spec, write_artefact, write_dataset, write_denoiser
from encoding import as_encoded

from clsp.data.bank import open_bank
from clsp.data.prepared import open_prepared
from clsp.models.denoiser import load_denoiser
from clsp.runtime.errors import ConfigError, DataError
from clsp.synthesis.gather import distance, other_anchors
from clsp.synthesis.shard import anchors_of, generate_shard


@pytest.fixture
def factory(tmp_path) -> Factory:
    return Factory(tmp_path)


def shards_of(factory, count=3, **changed):
    spec = bank_spec(**changed)
    return spec, [factory.shard(spec, f"{i}-of-{count}") for i in range(1, count + 1)]


def forge(factory, spec, shard, change):
    """Edit the images of a finished shard and write a manifest that agrees with them."""
    path = shard.folder / next(iter(shard.subjects))
    images = np.load(path)
    change(images)
    np.save(path, images)
    name = shard.predicate["externalParameters"]["arguments"]["shard"]
    facts = shard.predicate["facts"]
    return write_artefact(
        shard.folder, "generate-shard", spec.canonical(), [path.name], facts, shard=name
    )


@pytest.mark.parametrize("anchors", [1, 9, 10, 1347])
def test_shards_cover_every_anchor_once(anchors):
    for count in {1, min(4, anchors), anchors}:
        ranges = [anchors_of(f"{i}-of-{count}", anchors) for i in range(1, count + 1)]
        covered = [a for start, stop in ranges for a in range(start, stop)]
        assert covered == list(range(anchors))
        sizes = [stop - start for start, stop in ranges]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["0-of-2", "3-of-2", "2", "a-of-b", "1-of-2.npy", "-1-of-2"])
def test_malformed_shard_is_refused(text):
    with pytest.raises(ConfigError, match="expected I-of-N"):
        anchors_of(text, 10)


def test_more_shards_than_anchors_are_refused():
    with pytest.raises(ConfigError, match="more shards than the 3 anchors"):
        anchors_of("1-of-4", 3)


def test_shard_records_what_made_it(factory):
    spec = bank_spec()
    facts = factory.shard(spec, "2-of-2").predicate["facts"]
    denoiser = load_denoiser(factory.denoiser, torch.device("cpu"))
    assert facts["anchors"] == [4, 9]
    assert facts["candidates"] == 2
    assert facts["denoiser"] == {"tensors_sha256": denoiser.sha256, "weights": "ema"}
    assert facts["sampler"] == {
        "generator": "interpolate",
        **spec.options,
        "scheduler": "ddim",
        "precision": "full",
        "compile": False,
        "memory_format": "channels_last",
    }
    assert facts["label_conditioned"] is False
    assert facts["device"] == "cpu"


def test_bank_records_devices_and_sampler_of_its_shards(factory):
    spec, shards = shards_of(factory)
    facts = factory.gather(spec, shards)[0].predicate["facts"]
    assert facts["devices"] == ["cpu"]
    assert facts["sampler"] == shards[0].predicate["facts"]["sampler"]
    other = {**shards[1].predicate["facts"], "sampler": {"generator": "interpolate"}}
    forged = write_artefact(
        shards[1].folder, "generate-shard", spec.canonical(), ["2-of-3.npy"], other, shard="2-of-3"
    )
    with pytest.raises(DataError, match=r"2-of-3.manifest.json: its sampler is"):
        factory.gather(spec, [shards[0], forged, shards[2]])


def test_denoiser_of_another_size_is_refused(factory, tmp_path):
    small = write_denoiser(tmp_path / "small", size=4)
    with pytest.raises(DataError, match="makes 4x4 images, but dataset tiny has 8x8"):
        generate_shard(
            bank_spec(), "1-of-1", small, factory.dataset, tmp_path / "x.npy", tmp_path / "s"
        )


def test_denoiser_must_be_one(factory, tmp_path):
    with pytest.raises(DataError, match="made by prepare-dataset, expected train-denoiser"):
        generate_shard(
            bank_spec(), "1-of-1", factory.dataset, factory.dataset, tmp_path / "x.npy", tmp_path
        )


def test_bank_joins_the_shards_in_order(factory):
    spec, shards = shards_of(factory)
    artefact, outcome = factory.gather(spec, shards[::-1])
    bank = open_bank(artefact)
    expected = np.concatenate([np.load(s.folder / next(iter(s.subjects))) for s in shards])
    assert bank.images.shape == (9, 2, 8, 8, 3)
    assert np.array_equal(bank.images, expected)
    assert outcome.counters == {"anchors": 9, "images": 18}
    bank.check_belongs(open_prepared(factory.dataset))


def test_index_names_every_image(factory):
    spec, shards = shards_of(factory)
    bank = open_bank(factory.gather(spec, shards)[0])
    pairs = [(int(e["anchor"]), int(e["candidate"])) for e in bank.index]
    assert pairs == [(a, c) for a in range(9) for c in range(2)]
    for entry in bank.index:
        image = bank.images[entry["anchor"], entry["candidate"]]
        shard = np.load(shards[entry["shard"] - 1].folder / f"{entry['shard']}-of-3.npy")
        assert np.array_equal(shard[entry["row"], entry["candidate"]], image)
        digest = hashlib.sha256(image.tobytes()).digest()
        assert int(entry["sha64"]) == int.from_bytes(digest[:8], "big")


def test_likeness_is_the_mean_squared_difference(factory):
    spec, shards = shards_of(factory)
    artefact, outcome = factory.gather(spec, shards)
    images = open_bank(artefact).images.astype(float) / 255
    anchors = open_prepared(factory.dataset).split("train").images.astype(float) / 255
    others = other_anchors(spec.seed, 9)
    assert (others != np.arange(9)).all() and set(others) <= set(range(9))
    for name, compared in (("own", anchors), ("random", anchors[others])):
        expected = ((images - compared[:, None]) ** 2).mean()
        assert outcome.metrics[f"bank/{name}_mse"] == pytest.approx(expected, rel=1e-5)
    same = anchors[:, None] * 255
    assert distance(same.astype(np.uint8), (anchors * 255).astype(np.uint8)) == 0


def test_incomplete_shards_are_refused(factory):
    spec, shards = shards_of(factory)
    with pytest.raises(DataError, match="missing 2-of-3; given twice none"):
        factory.gather(spec, [shards[0], shards[2]])
    with pytest.raises(DataError, match="missing 3-of-3; given twice 1-of-3"):
        factory.gather(spec, [shards[0], shards[0], shards[1]])
    with pytest.raises(DataError, match="none given"):
        factory.gather(spec, [])


def test_shards_of_another_split_are_refused(factory):
    spec, shards = shards_of(factory)
    halves = [factory.shard(spec, f"{i}-of-2") for i in (1, 2)]
    with pytest.raises(DataError, match="missing 2-of-2"):
        factory.gather(spec, [halves[0], *shards[1:]])
    with pytest.raises(DataError, match="its number of shards is 3, expected 2"):
        factory.gather(spec, [*halves, shards[2]])


def test_shards_of_another_spec_are_refused(factory):
    _, shards = shards_of(factory)
    with pytest.raises(DataError, match="its spec is"):
        factory.gather(bank_spec(seed=1), shards)


def test_shards_of_another_denoiser_are_refused(factory):
    spec, shards = shards_of(factory)
    facts = {**shards[1].predicate["facts"], "denoiser": {"tensors_sha256": "0" * 64}}
    forged = write_artefact(
        shards[1].folder, "generate-shard", spec.canonical(), ["2-of-3.npy"], facts, shard="2-of-3"
    )
    with pytest.raises(DataError, match=r"2-of-3.manifest.json: its denoiser is"):
        factory.gather(spec, [shards[0], forged, shards[2]])


def test_shards_of_other_candidates_are_refused(factory):
    """One candidate more or less in every shard, whatever their manifests say."""
    spec, shards = shards_of(factory)
    forged = []
    for shard in shards:
        path = shard.folder / next(iter(shard.subjects))
        np.save(path, np.load(path)[:, :1])
        facts = {**shard.predicate["facts"], "candidates": 1}
        name = shard.predicate["externalParameters"]["arguments"]["shard"]
        forged.append(
            write_artefact(
                shard.folder, "generate-shard", spec.canonical(), [path.name], facts, shard=name
            )
        )
    with pytest.raises(DataError, match="its number of candidates is 1, expected 2"):
        factory.gather(spec, forged)


def test_shards_of_another_dataset_are_refused(factory, tmp_path):
    spec, shards = shards_of(factory)
    factory.dataset = write_dataset(tmp_path / "other", seed=1)
    with pytest.raises(DataError, match="its dataset is"):
        factory.gather(spec, shards)


@pytest.mark.parametrize("colour", [0, (10, 200, 30)])
def test_missed_image_is_refused(factory, colour):
    def blank(images):
        images[1, 1] = colour

    spec, shards = shards_of(factory)
    forged = forge(factory, spec, shards[1], blank)
    with pytest.raises(DataError, match="candidate 1 of anchor 4 is of one colour"):
        factory.gather(spec, [shards[0], forged, shards[2]])


def test_copied_anchor_is_refused(factory):
    anchors = open_prepared(factory.dataset).split("train").images

    def copy(images):
        images[2, 0] = anchors[8]

    spec, shards = shards_of(factory)
    forged = forge(factory, spec, shards[2], copy)
    with pytest.raises(DataError, match="candidate 0 of anchor 8 is a copy of its anchor"):
        factory.gather(spec, [shards[0], shards[1], forged])


def test_repeated_candidate_is_refused(factory):
    def repeat(images):
        images[0, 1] = images[0, 0]

    spec, shards = shards_of(factory)
    forged = forge(factory, spec, shards[0], repeat)
    with pytest.raises(DataError, match="candidate 1 of anchor 0 is a copy of another candidate"):
        factory.gather(spec, [forged, *shards[1:]])


def test_truncated_shard_is_refused(factory):
    spec, shards = shards_of(factory)
    path = shards[0].folder / "1-of-3.npy"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"1-of-3.npy: not a readable array"):
        factory.gather(spec, shards)


@pytest.mark.parametrize("other", [{"seed": 1}, {"anchors": 12}, {"size": 16}])
def test_bank_of_another_dataset_is_refused(factory, tmp_path, other):
    bank = open_bank(factory.gather(*shards_of(factory))[0])
    prepared = open_prepared(write_dataset(tmp_path / "other", **other))
    with pytest.raises(DataError, match="bank bank belongs to another dataset"):
        bank.check_belongs(prepared)


def test_a_bank_of_encoded_anchors_is_that_of_their_pixels(factory):
    spec, shards = shards_of(factory)
    whole = open_bank(factory.gather(spec, shards)[0]).images.copy()
    factory.dataset = as_encoded(factory.dataset, factory.root / "encoded")
    encoded = [factory.shard(spec, f"{i}-of-3", "encoded-shards") for i in (1, 2, 3)]
    artefact, _ = factory.gather(spec, encoded)
    assert np.array_equal(open_bank(artefact).images, whole)
    open_bank(artefact).check_belongs(open_prepared(factory.dataset))


def test_a_bank_belongs_to_its_images_at_another_size(factory):
    bank = open_bank(factory.gather(*shards_of(factory))[0])
    prepared = open_prepared(factory.dataset)
    card = {**prepared.card, "size": 16, "images_sha256": "0" * 64}
    bank.check_belongs(
        replace(prepared, images=prepared.images.repeat(2, 1).repeat(2, 2), card=card)
    )
    with pytest.raises(DataError, match="its source_sha256 is"):
        bank.check_belongs(replace(prepared, card={**card, "source_sha256": "0" * 64}))
    with pytest.raises(DataError, match="its images_sha256 is"):  # of one size there is no doubt
        bank.check_belongs(replace(prepared, card={**card, "size": 8}))
    lacking = {key: value for key, value in card.items() if key != "source_sha256"}
    with pytest.raises(DataError, match="card lacks 'source_sha256'; prepare the dataset again"):
        bank.check_belongs(replace(prepared, card=lacking))


def test_bank_knows_its_dataset(factory):
    artefact, _ = factory.gather(*shards_of(factory))
    facts = artefact.predicate["facts"]
    card = open_prepared(factory.dataset).card
    assert facts["dataset"]["spec"] == factory.dataset.spec
    assert facts["dataset"]["images_sha256"] == card["images_sha256"]
    assert facts["dataset"]["labels_sha256"] == card["labels_sha256"]
    assert facts["label_conditioned"] is False


def test_only_banks_open_as_banks(factory):
    with pytest.raises(DataError, match="made by prepare-dataset, expected gather-bank"):
        open_bank(factory.dataset)
