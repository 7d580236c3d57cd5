"""The network: its split, its size, its reproducible start."""

import pytest
import torch
from diffusing import denoiser_spec

from clsp.config.denoisers import DenoiserSpec
from clsp.models.denoiser import build_denoiser, decode, encode
from clsp.runtime.checkpoint import tensors_sha256
from clsp.runtime.errors import ConfigError

PAPER = {
    "channels": [128, 256, 256, 256],
    "attention": [False, True, False, False],
    "layers_per_block": 2,
    "norm_groups": 32,
}


def randomised(spec: DenoiserSpec, size: int) -> torch.nn.Module:
    unet = build_denoiser(spec, size).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in unet.parameters():
        parameter.data.normal_(0, 0.2, generator=generator)
    return unet


@pytest.mark.parametrize(
    "shape",
    [
        {"channels": [8], "attention": [True]},
        {"channels": [8, 16], "attention": [False, True]},
        {"channels": [8, 8, 16], "attention": [True, False, False], "layers_per_block": 2},
    ],
)
def test_encode_then_decode_is_the_forward_pass(shape):
    unet = randomised(denoiser_spec(**shape), 8)
    images, times = torch.randn(3, 3, 8, 8), torch.tensor([0, 50, 99])
    with torch.no_grad():
        whole = unet(images, times).sample
        halves = decode(unet, *encode(unet, images, times))
    assert whole.std() > 0.1
    torch.testing.assert_close(halves, whole, rtol=0, atol=1e-6)


def test_decode_leaves_the_skips_alone():
    unet = randomised(denoiser_spec(), 8)
    with torch.no_grad():
        parts = encode(unet, torch.randn(1, 3, 8, 8), torch.tensor([5]))
        torch.testing.assert_close(decode(unet, *parts), decode(unet, *parts), rtol=0, atol=0)


def test_paper_configuration_is_the_authors_network():
    """methods.md 2.1: 36,401,923 less the unused projector and the frozen time table."""
    with torch.device("meta"):
        unet = build_denoiser(denoiser_spec(**PAPER), 32)
        h, skips, _ = encode(unet, torch.empty(1, 3, 32, 32), torch.zeros(1, dtype=torch.int64))
    assert sum(p.numel() for p in unet.parameters()) == 36_401_923 - 527_616 - 128_000
    assert h.shape == (1, 256, 4, 4)
    assert len(skips) == 12


def test_weights_depend_on_the_seed_and_not_on_global_state():
    torch.manual_seed(1)
    first = tensors_sha256(build_denoiser(denoiser_spec(), 8).state_dict())
    torch.manual_seed(2)
    assert tensors_sha256(build_denoiser(denoiser_spec(), 8).state_dict()) == first
    assert tensors_sha256(build_denoiser(denoiser_spec(seed=1), 8).state_dict()) != first


def test_residual_branches_and_the_output_start_near_zero():
    unet = build_denoiser(denoiser_spec(), 8)
    for name, tensor in unet.state_dict().items():
        if name.endswith((".conv2.weight", "conv_out.weight")):
            assert 0 < tensor.abs().max() < 1e-4, name
        elif name.endswith("weight") and tensor.ndim > 1:
            assert tensor.abs().max() > 1e-2, name


def test_size_that_cannot_be_halved_is_refused():
    spec = denoiser_spec(channels=[8, 8, 8], attention=[False, False, False])
    with pytest.raises(ConfigError, match=r"3 levels .* multiple of 4.* size 6"):
        build_denoiser(spec, 6)
