"""The DDIM loop against a hand-written float64 update with the authors' formulas."""

from itertools import pairwise

import pytest
import torch
from diffusing import denoiser_spec

from clsp.diffusion.pixels import to_signed, to_uint8
from clsp.diffusion.sampling import build_sampler, sample
from clsp.runtime.errors import ConfigError


def naive_ddim(steps: int, eta: float, start, predict, noise, spec) -> torch.Tensor:
    """The authors' ddpm.py in float64: times from linspace(-1, T - 1), the last pair gives x0."""
    total = spec.train_timesteps
    betas = torch.linspace(spec.beta_start, spec.beta_end, total, dtype=torch.float64)
    alphas = torch.cumprod(1 - betas, 0)
    times = torch.linspace(-1, total - 1, steps + 1, dtype=torch.float64).round().long().tolist()
    times.reverse()
    x = start.double()
    for step, (now, after) in enumerate(pairwise(times)):
        epsilon = predict(x, now, step)
        x0 = (x - (1 - alphas[now]).sqrt() * epsilon) / alphas[now].sqrt()
        if after < 0:
            return x0
        ratio = alphas[now] / alphas[after]
        sigma = eta * ((1 - ratio) * (1 - alphas[after]) / (1 - alphas[now])).sqrt()
        x = alphas[after].sqrt() * x0 + (1 - alphas[after] - sigma**2).sqrt() * epsilon
        x = x + sigma * noise(step).double()
    raise AssertionError("the grid must end at -1")


def test_times_are_the_authors():
    times = build_sampler(denoiser_spec(train_timesteps=1000), 100).timesteps.tolist()
    assert times == list(range(999, 0, -10))
    assert times[:2] == [999, 989] and times[-1] == 9


@pytest.mark.parametrize("steps", [1, 10, 100, 1000])
@pytest.mark.parametrize("eta", [0.0, 0.1, 1.0])
def test_loop_equals_the_authors_update(steps, eta):
    spec = denoiser_spec(train_timesteps=1000)
    start = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))

    def noise(step):
        return torch.randn(start.shape, generator=torch.Generator().manual_seed(step + 1))

    def predict(x, time, step):
        return x * (0.97 + 0.02 * time / 1000) + 0.01 * torch.sin(3 * x)

    found = sample(build_sampler(spec, steps), start, predict, noise, eta)
    expected = naive_ddim(steps, eta, start, predict, noise, spec)
    torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=2e-3)


def test_perfect_denoiser_returns_its_image_whatever_the_noise():
    scheduler = build_sampler(denoiser_spec(train_timesteps=1000), 50)
    image = torch.linspace(-1, 1, 48).view(1, 3, 4, 4)

    def predict(x, time, step):
        alpha = scheduler.alphas_cumprod[time]
        return (x - alpha.sqrt() * image) / (1 - alpha).sqrt()

    for eta in (0.0, 1.0):
        found = sample(
            scheduler, torch.randn(1, 3, 4, 4), predict, lambda s: torch.randn(1, 3, 4, 4), eta
        )
        torch.testing.assert_close(found, image, rtol=0, atol=1e-3)


def test_steps_must_divide_the_training_times():
    for steps in (30, 2000):
        with pytest.raises(ConfigError, match=rf"train_timesteps 1000, found {steps}"):
            build_sampler(denoiser_spec(train_timesteps=1000), steps)


def test_pixels_survive_the_round_trip_and_rounding_differs():
    images = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 16, 16, 3)
    assert torch.equal(to_uint8(to_signed(images), "nearest"), images)
    between = torch.full((1, 3, 1, 1), 100.7 / 127.5 - 1)
    assert to_uint8(between, "nearest").unique().tolist() == [101]
    assert to_uint8(between, "truncate").unique().tolist() == [100]
    assert to_uint8(torch.tensor([[-9.0, 0.0, 9.0]]).view(1, 3, 1, 1), "truncate").tolist() == [
        [[[0, 127, 255]]]
    ]
