"""What every generator promises, whatever it draws."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusing import BANK, Factory, request_of, write_denoiser

from clsp.config.sampling import SamplerSettings
from clsp.config.schema import GENERATORS, BankSpec
from clsp.models.denoiser import Denoiser, load_denoiser
from clsp.runtime.errors import DataError
from clsp.runtime.registry import load, names, settings_class
from clsp.synthesis.network import Network

SAMPLER = {  # options of every generator, and another value for each that changes images
    "steps": (4, 5),
    "eta": (0.5, 0.0),
    "rounding": ("nearest", "truncate"),
    "scheduler": ("ddim", "ddpm"),
    "precision": ("full", "bf16"),
}
UNCHANGING = {"batch_size", "compile"}  # but for rounding
OPTIONS = {
    "interpolate": {
        **SAMPLER,
        "interpolation_weight": (0.1, 0.9),
        "mix_at": ("mid", "down.0"),
        "share_anchor_noise": (False, True),
    },
    "unconditional": {**SAMPLER, "quirk": (None, "plain_ddim")},
    "conditional": {**SAMPLER, "quirk": (None, "plain_ddim"), "guidance": (1.8, 0.0)},
}
GENERATOR = pytest.mark.parametrize("name", names(GENERATORS))
COMMON = {key: BANK[key] for key in ("denoiser", "dataset", "candidates", "batch_size", "seed")}


def uses_labels(name) -> bool:
    return settings_class(GENERATORS, name).uses_labels


def spec_of(name, **changed) -> BankSpec:
    options = {key: values[0] for key, values in OPTIONS[name].items()}
    given = {**COMMON, "generator": name, **options, **changed}
    return BankSpec.model_validate({k: v for k, v in given.items() if v is not None})


def denoiser_options(name):
    return {"label_drop": 0.1} if uses_labels(name) else {}


@pytest.fixture(scope="module")
def denoisers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Denoiser]:
    found = {}
    for name in names(GENERATORS):
        folder = tmp_path_factory.mktemp(name)
        artefact = write_denoiser(folder, **denoiser_options(name))
        found[name] = load_denoiser(artefact, torch.device("cpu"))
    return found


@pytest.fixture
def factory(tmp_path, name) -> Factory:
    return Factory(tmp_path, **denoiser_options(name))


def draw(denoisers, spec, rows, candidates, classes=(0, 1, 2, 0, 1, 2, 0, 1, 2, 0)):
    generator = torch.Generator().manual_seed(5)
    anchors = torch.rand(10, 3, 8, 8, generator=generator) * 2 - 1
    labels = torch.tensor(classes)[rows] if uses_labels(spec.generator) else None
    module, settings = load(GENERATORS, spec.generator, "generator"), spec.settings()
    request = request_of(anchors[rows], rows, candidates, spec.seed, labels)
    return module.generate(Network(denoisers[spec.generator], settings), request, settings)


def nearly_equal(first, second):
    """Equal up to what float rounding may do to grey levels (audit.md A11)."""
    difference = np.abs(np.asarray(first, dtype=int) - np.asarray(second, dtype=int))
    return difference.max() <= 1 and (difference > 0).mean() <= 0.001


@GENERATOR
def test_options_of_this_file_are_those_of_the_generator(name):
    fields = settings_class(GENERATORS, name).model_fields
    assert set(OPTIONS[name]) | UNCHANGING == set(fields)
    config = load(GENERATORS, name, "generator").Config
    assert config.__name__ == "Config" and issubclass(config, SamplerSettings)


@GENERATOR
def test_images_are_uint8_of_the_anchors_shape(denoisers, name):
    images = draw(denoisers, spec_of(name), torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))
    assert images.dtype == torch.uint8
    assert images.shape == (3, 8, 8, 3)
    assert len({image.numpy().tobytes() for image in images}) == 3


@GENERATOR
def test_image_depends_on_its_own_pair_only_and_on_no_global_state(denoisers, name):
    spec = spec_of(name)
    torch.manual_seed(1)
    together = draw(denoisers, spec, torch.tensor([4, 2, 4]), torch.tensor([0, 1, 1]))
    state = torch.get_rng_state()
    torch.manual_seed(2)
    alone = draw(denoisers, spec, torch.tensor([4]), torch.tensor([1]))
    assert nearly_equal(together[2:], alone)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


@GENERATOR
def test_every_option_and_the_seed_change_the_images(denoisers, name):
    pairs = torch.tensor([0, 1, 2]), torch.tensor([0, 0, 1])
    before = draw(denoisers, spec_of(name), *pairs)
    changes = {key: values[1] for key, values in OPTIONS[name].items()} | {"seed": 1}
    for key, value in changes.items():
        more = {"eta": 1.0} if key == "scheduler" else {}
        after = draw(denoisers, spec_of(name, **{key: value}, **more), *pairs)
        assert not torch.equal(before, after), key


@GENERATOR
@pytest.mark.parametrize(
    "solver", [{"scheduler": "ddpm", "eta": 1.0}, {"scheduler": "dpm_solver", "eta": 0.0}]
)
def test_every_scheduler_draws_the_same_in_any_batch(denoisers, name, solver):
    spec = spec_of(name, **solver)
    together = draw(denoisers, spec, torch.tensor([4, 2, 4]), torch.tensor([0, 1, 1]))
    alone = draw(denoisers, spec, torch.tensor([4]), torch.tensor([1]))
    assert nearly_equal(together[2:], alone)
    assert len({image.numpy().tobytes() for image in together}) == 3


@GENERATOR
def test_one_shard_equals_four(factory, name):
    spec = spec_of(name)
    one, four = factory.images(spec, 1, "one"), factory.images(spec, 4, "four")
    assert one.shape == (9, 2, 8, 8, 3)
    assert nearly_equal(one, four)


@GENERATOR
def test_one_shard_equals_four_bit_for_bit_with_equal_batches(tmp_path, name):
    factory = Factory(tmp_path, anchors=8, **denoiser_options(name))
    spec = spec_of(name, batch_size=4)  # two anchors a batch, two batches a shard or eight
    assert np.array_equal(factory.images(spec, 1, "one"), factory.images(spec, 4, "four"))


@GENERATOR
def test_batch_size_changes_nothing(factory, name):
    small = factory.images(spec_of(name, batch_size=1), 1, "small")
    large = factory.images(spec_of(name, batch_size=64), 1, "large")
    assert nearly_equal(small, large)


@GENERATOR
def test_more_candidates_keep_the_first(factory, name):
    few = factory.images(spec_of(name, candidates=1), 1, "few")
    many = factory.images(spec_of(name, candidates=3), 1, "many")
    assert nearly_equal(few, many[:, :1])


@GENERATOR
def test_killed_and_resumed_equals_uninterrupted(factory, name, monkeypatch):
    spec = spec_of(name)
    whole = factory.images(spec, 1, "whole")
    module = load(GENERATORS, name, "generator")
    generate, calls = module.generate, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return generate(*arguments)

    monkeypatch.setattr(module, "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        factory.shard(spec, "1-of-1", "resumed")
    assert not (factory.root / "resumed" / "1-of-1.npy").exists()
    resumed = factory.images(spec, 1, "resumed")
    assert len(calls) == 3 + 3  # 18 images in batches of 4: two were done, three are left
    assert np.array_equal(resumed, whole)


@GENERATOR
def test_labels_are_read_only_where_the_generator_declares_them(factory, name):
    spec = spec_of(name)
    before = factory.images(spec, 1, "before")
    path = factory.dataset.path("labels.npy")
    np.save(path, (np.load(path) + 1) % 3)
    after = factory.images(spec, 1, "after")
    assert np.array_equal(before, after) == (not uses_labels(name))
    path.unlink()
    if uses_labels(name):
        with pytest.raises(DataError, match=r"labels\.npy"):
            factory.images(spec, 1, "without")
    else:
        assert np.array_equal(before, factory.images(spec, 1, "without"))


@GENERATOR
def test_manifests_say_whether_labels_were_used(factory, name):
    spec = spec_of(name)
    shard = factory.shard(spec, "1-of-1")
    assert shard.predicate["facts"]["label_conditioned"] is uses_labels(name)
    bank, _ = factory.gather(spec, [shard])
    assert bank.predicate["facts"]["label_conditioned"] is uses_labels(name)


@GENERATOR
def test_every_option_is_documented(name):
    page = (Path(__file__).parents[2] / "docs/synthesis.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    listed = {
        option
        for row in rows
        if len(row) == 5 and ("all" in row[2] or f"`{name}`" in row[2])
        for option in re.findall(r"`(\w+)`", row[1])
    }
    assert set(settings_class(GENERATORS, name).model_fields) <= listed
    row = next(row for row in rows if row[1].strip().startswith(f"`{name}`"))
    assert ("(labels)" in row[1]) == uses_labels(name)
