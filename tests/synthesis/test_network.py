"""The denoiser as generators run it: precision, layout and compilation leave the rest alone."""

import numpy as np
import pytest
import torch
from diffusing import Factory, bank_spec, request_of, write_denoiser

from clsp.models.denoiser import load_denoiser
from clsp.runtime.checkpoint import tensors_sha256
from clsp.synthesis.generators import interpolate
from clsp.synthesis.network import Network, images_at_once, plain


@pytest.fixture
def denoiser(tmp_path):
    return load_denoiser(write_denoiser(tmp_path / "denoiser"), torch.device("cpu"))


def run(network):
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return network.run(plain, x, torch.tensor([50]), None)


def test_weights_keep_their_names_and_values(denoiser):
    for options in ({}, {"precision": "bf16"}, {"compile": True}):
        Network(denoiser, bank_spec(**options).settings())
        assert tensors_sha256(denoiser.unet.state_dict()) == denoiser.sha256
    assert denoiser.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def test_bf16_is_of_the_network_alone(denoiser):
    seen = []
    hook = denoiser.unet.conv_out.register_forward_hook(lambda m, a, out: seen.append(out.dtype))
    full = run(Network(denoiser, bank_spec().settings()))
    half = run(Network(denoiser, bank_spec(precision="bf16").settings()))
    hook.remove()
    assert seen == [torch.float32, torch.bfloat16]
    assert full.dtype == half.dtype == torch.float32
    assert not torch.equal(full, half)
    torch.testing.assert_close(half, full, rtol=0, atol=0.05 * float(full.abs().max()))


def test_a_pass_is_prepared_once_for_all_steps_and_batches(denoiser, monkeypatch):
    """What torch.compile is given, without the minute that it takes."""
    compiled = []

    def compile_(function, **options):
        compiled.append(options)
        return function

    monkeypatch.setattr(torch, "compile", compile_)
    spec = bank_spec(compile=True)
    network = Network(denoiser, spec.settings())
    rows, candidates = torch.tensor([0, 1]), torch.tensor([0, 0])
    request = request_of(torch.zeros(2, 3, 8, 8), rows, candidates)
    first = interpolate.generate(network, request, spec.settings())
    assert torch.equal(first, interpolate.generate(network, request, spec.settings()))
    assert compiled == [{"mode": "default", "dynamic": False, "fullgraph": True}]
    assert torch.equal(
        first,
        interpolate.generate(
            Network(denoiser, bank_spec().settings()), request, bank_spec().settings()
        ),
    )


@pytest.mark.slow
def test_a_compiled_shard_has_the_same_images_and_is_compiled_once(tmp_path):
    """The compiler itself, on the CPU: one graph for all steps and batches, also the last."""
    factory = Factory(tmp_path, anchors=5)  # 10 images in batches of 4, the last filled up
    settings = {"share_anchor_noise": True, "batch_size": 4}
    expected = factory.images(bank_spec(**settings), 1, "plain")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    found = factory.images(bank_spec(compile=True, **settings), 1, "compiled")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    gap = np.abs(found.astype(int) - expected.astype(int))
    assert gap.max() <= 1 and (gap > 0).mean() <= 0.001


def test_results_of_compiled_passes_are_copies(denoiser, monkeypatch):
    buffer = torch.zeros(2, 3, 8, 8)
    monkeypatch.setattr(torch, "compile", lambda function, **options: lambda *tensors: buffer)
    assert (
        run(Network(denoiser, bank_spec(compile=True).settings())).data_ptr() != buffer.data_ptr()
    )


@pytest.mark.parametrize(
    ("batch_size", "side", "expected"), [(1000, 32, 16), (10, 32, 10), (256, 8, 256), (9, 512, 1)]
)
def test_a_cpu_draws_no_more_at_once_than_its_caches_hold(batch_size, side, expected):
    settings = bank_spec(batch_size=batch_size).settings()
    assert images_at_once(settings, side, torch.device("cpu")) == expected
    assert images_at_once(settings, side, torch.device("cuda")) == batch_size
