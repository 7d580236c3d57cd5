"""What every generator promises, whatever it draws."""

import numpy as np
import pytest
import torch
from diffusing import BANK, Factory, bank_spec, write_denoiser

from clsp.config.schema import GENERATORS
from clsp.models.denoiser import Denoiser, load_denoiser
from clsp.runtime.registry import load, names, settings_class

OPTIONS = {  # options of each generator, and another value for each that changes images
    "interpolate": {
        "interpolation_weight": (0.1, 0.9),
        "steps": (4, 5),
        "eta": (0.5, 0.0),
        "rounding": ("nearest", "truncate"),
    }
}
GENERATOR = pytest.mark.parametrize("name", names(GENERATORS))
COMMON = {key: BANK[key] for key in ("denoiser", "dataset", "candidates", "batch_size", "seed")}


def spec_of(name, **changed):
    options = {key: values[0] for key, values in OPTIONS[name].items()}
    return bank_spec(**{**COMMON, "generator": name, **options, **changed})


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    artefact = write_denoiser(tmp_path_factory.mktemp("denoiser"))
    return load_denoiser(artefact, torch.device("cpu"))


@pytest.fixture
def factory(tmp_path) -> Factory:
    return Factory(tmp_path)


def draw(denoiser, spec, rows, candidates):
    generator = torch.Generator().manual_seed(5)
    anchors = torch.rand(10, 3, 8, 8, generator=generator) * 2 - 1
    module = load(GENERATORS, spec.generator, "generator")
    return module.generate(denoiser, anchors[rows], rows, candidates, spec.settings(), spec.seed)


def nearly_equal(first, second):
    """Equal up to what float rounding may do to grey levels (audit.md A11)."""
    difference = np.abs(np.asarray(first, dtype=int) - np.asarray(second, dtype=int))
    return difference.max() <= 1 and (difference > 0).mean() <= 0.001


@GENERATOR
def test_options_of_this_file_are_those_of_the_generator(name):
    assert set(OPTIONS[name]) | {"batch_size"} == set(settings_class(GENERATORS, name).model_fields)
    assert load(GENERATORS, name, "generator").Config.__name__ == "Config"


@GENERATOR
def test_images_are_uint8_of_the_anchors_shape(denoiser, name):
    images = draw(denoiser, spec_of(name), torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))
    assert images.dtype == torch.uint8
    assert images.shape == (3, 8, 8, 3)
    assert len({image.numpy().tobytes() for image in images}) == 3


@GENERATOR
def test_image_depends_on_its_own_pair_only_and_on_no_global_state(denoiser, name):
    spec = spec_of(name)
    torch.manual_seed(1)
    together = draw(denoiser, spec, torch.tensor([4, 2, 4]), torch.tensor([0, 1, 1]))
    state = torch.get_rng_state()
    torch.manual_seed(2)
    alone = draw(denoiser, spec, torch.tensor([4]), torch.tensor([1]))
    assert nearly_equal(together[2:], alone)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


@GENERATOR
def test_every_option_and_the_seed_change_the_images(denoiser, name):
    pairs = torch.tensor([0, 1, 2]), torch.tensor([0, 0, 1])
    before = draw(denoiser, spec_of(name), *pairs)
    changes = {key: values[1] for key, values in OPTIONS[name].items()} | {"seed": 1}
    for key, value in changes.items():
        after = draw(denoiser, spec_of(name, **{key: value}), *pairs)
        assert not torch.equal(before, after), key


@GENERATOR
def test_one_shard_equals_four(factory, name):
    spec = spec_of(name)
    one, four = factory.images(spec, 1, "one"), factory.images(spec, 4, "four")
    assert one.shape == (9, 2, 8, 8, 3)
    assert nearly_equal(one, four)


@GENERATOR
def test_batch_size_changes_nothing(factory, name):
    small = factory.images(spec_of(name, batch_size=2), 1, "small")
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
    assert len(calls) == 3 + 2  # 18 images in batches of 5: two were done, two are left
    assert np.array_equal(resumed, whole)


@GENERATOR
def test_reads_no_labels(factory, name):
    spec = spec_of(name)
    before = factory.images(spec, 1, "before")
    labels = np.load(factory.dataset.path("labels.npy"))
    np.save(factory.dataset.path("labels.npy"), labels[::-1].copy())
    assert np.array_equal(before, factory.images(spec, 1, "after"))
