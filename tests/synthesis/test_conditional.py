"""The class-conditional generator, and class-conditional denoisers under the other generators."""

import numpy as np
import pytest
import torch
from diffusing import BANK, Factory, bank_spec, request_of, write_denoiser

from clsp.config.schema import BankSpec
from clsp.diffusion.pixels import to_uint8
from clsp.diffusion.sampling import build_sampler
from clsp.models.denoiser import load_denoiser
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.rng import key_of, normal
from clsp.synthesis.generators import conditional, interpolate
from clsp.synthesis.network import Network

ROWS, CANDIDATES = torch.tensor([3, 3, 7]), torch.tensor([0, 1, 0])
LABELS = torch.tensor([2, 2, 0])


def spec_of(**changed) -> BankSpec:
    options = {k: v for k, v in BANK.items() if k != "interpolation_weight"}
    given = {**options, "generator": "conditional", "guidance": 1.8, "eta": 0.0, **changed}
    return BankSpec.model_validate(given)


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory):
    artefact = write_denoiser(tmp_path_factory.mktemp("conditional"), label_drop=0.1)
    return load_denoiser(artefact, torch.device("cpu"))


def drawn(denoiser, labels=LABELS, **changed):
    settings = spec_of(**changed).settings()
    images = torch.zeros(3, 3, 8, 8)
    request = request_of(images, ROWS, CANDIDATES, 0, labels)
    return conditional.generate(Network(denoiser, settings), request, settings)


@pytest.mark.parametrize("guidance", [0.0, 1.8])
def test_equals_guidance_written_out(denoiser, guidance):
    sampler = build_sampler(denoiser.schedule, 4)
    x = normal(key_of(0, "start"), ROWS, CANDIDATES, 0, count=192).view(3, 3, 8, 8)
    with torch.no_grad():
        for time in sampler.timesteps.tolist():
            times = torch.full((3,), time)
            with_label = denoiser.unet(x, times, class_labels=LABELS + 1).sample
            without = denoiser.unet(x, times, class_labels=torch.zeros_like(LABELS)).sample
            epsilon = (1 + guidance) * with_label - guidance * without
            x = sampler.step(epsilon, time, x, eta=0.0).prev_sample
    found, expected = drawn(denoiser, guidance=guidance), to_uint8(x, "nearest")
    assert (found.int() - expected.int()).abs().max() <= 1
    assert (found != expected).float().mean() < 0.01


def test_labels_decide_the_image_and_anchors_do_not(denoiser):
    assert not torch.equal(drawn(denoiser), drawn(denoiser, labels=torch.tensor([1, 1, 1])))


def test_without_guidance_the_network_runs_once(denoiser):
    sizes = []
    hook = denoiser.unet.conv_in.register_forward_hook(lambda m, a, out: sizes.append(len(out)))
    drawn(denoiser, guidance=0.0)
    drawn(denoiser, guidance=1.0)
    hook.remove()
    assert sizes == [3] * 4 + [6] * 4


def test_the_authors_slip_is_a_named_choice_and_recorded(tmp_path):
    """Their plain ddim takes 100 steps and eta 1.0 whatever is asked (D03)."""
    factory = Factory(tmp_path, anchors=2, label_drop=0.1)
    slip = spec_of(quirk="plain_ddim", candidates=1)
    facts = factory.shard(slip, "1-of-1", "slip").predicate["facts"]["sampler"]
    assert (facts["steps"], facts["eta"], facts["quirk"]) == (100, 1.0, "plain_ddim")
    meant = spec_of(steps=100, eta=1.0, candidates=1)
    assert np.array_equal(factory.images(slip, 1, "a"), factory.images(meant, 1, "b"))
    facts = factory.shard(spec_of(), "1-of-1", "ours").predicate["facts"]["sampler"]
    assert (facts["steps"], facts["eta"], "quirk" in facts) == (4, 0.0, False)
    with pytest.raises(ValueError, match="quirk plain_ddim needs scheduler ddim"):
        spec_of(quirk="plain_ddim", scheduler="dpm_solver")


def test_a_conditional_denoiser_is_given_no_label_by_other_generators(denoiser):
    settings = bank_spec(interpolation_weight=1.0, eta=0.0).settings()
    request = request_of(torch.zeros(3, 3, 8, 8), ROWS, CANDIDATES)
    found = interpolate.generate(Network(denoiser, settings), request, settings)
    sampler = build_sampler(denoiser.schedule, 4)
    x = request.noise("start", 0)
    with torch.no_grad():
        for time in sampler.timesteps.tolist():
            zeros = torch.zeros(3, dtype=torch.int64)
            epsilon = denoiser.unet(x, torch.full((3,), time), class_labels=zeros).sample
            x = sampler.step(epsilon, time, x, eta=0.0).prev_sample
    assert torch.equal(found, to_uint8(x, "nearest"))


def test_a_bank_of_a_conditional_denoiser_counts_as_made_with_labels(tmp_path):
    factory = Factory(tmp_path, label_drop=0.1)
    shard = factory.shard(bank_spec(), "1-of-1")
    assert shard.predicate["facts"]["label_conditioned"] is True
    assert factory.gather(bank_spec(), [shard])[0].predicate["facts"]["label_conditioned"] is True


def test_a_denoiser_without_classes_is_refused(tmp_path):
    factory = Factory(tmp_path)
    with pytest.raises(DataError, match="the denoiser has none, dataset tiny has 3 classes"):
        factory.shard(spec_of(), "1-of-1")
    settings = spec_of().settings()
    plain = load_denoiser(factory.denoiser, torch.device("cpu"))
    request = request_of(torch.zeros(3, 3, 8, 8), ROWS, CANDIDATES, 0, LABELS)
    with pytest.raises(ConfigError, match="needs a class-conditional denoiser"):
        conditional.generate(Network(plain, settings), request, settings)


def test_anchors_without_a_label_are_refused(tmp_path):
    factory = Factory(tmp_path, label_drop=0.1)
    path = factory.dataset.path("labels.npy")
    labels = np.load(path)
    labels[4] = -1
    np.save(path, labels)
    with pytest.raises(DataError, match="1 of the 9 training images of dataset tiny have none"):
        factory.shard(spec_of(), "1-of-1")
