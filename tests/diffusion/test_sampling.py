"""The samplers against hand-written float64 updates, diffusers' own and a problem that is solved."""

from itertools import pairwise

import pytest
import torch
from diffusers.schedulers import scheduling_ddpm
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusing import denoiser_spec

from clsp.diffusion.pixels import to_signed, to_uint8
from clsp.diffusion.sampling import Sampler, add_noise, build_sampler, sample
from clsp.runtime.errors import ConfigError

PAPER = denoiser_spec(train_timesteps=1000)


def alphas_of(schedule) -> torch.Tensor:
    """float64 cumulative products of 1 - beta."""
    betas = torch.linspace(
        schedule.beta_start, schedule.beta_end, schedule.train_timesteps, dtype=torch.float64
    )
    return torch.cumprod(1 - betas, 0)


def grid_of(steps: int, total: int) -> list[int]:
    """The authors' times, and -1 at the end."""
    times = torch.linspace(-1, total - 1, steps + 1, dtype=torch.float64).round().long().tolist()
    return times[::-1]


def naive_ddim(steps: int, eta: float, start, predict, noise, spec) -> torch.Tensor:
    """The authors' ddpm.py in float64: times from linspace(-1, T - 1), the last pair gives x0."""
    alphas, x = alphas_of(spec), start.double()
    for step, (now, after) in enumerate(pairwise(grid_of(steps, spec.train_timesteps))):
        epsilon = predict(x, now, step)
        x0 = (x - (1 - alphas[now]).sqrt() * epsilon) / alphas[now].sqrt()
        if after < 0:
            return x0
        ratio = alphas[now] / alphas[after]
        sigma = eta * ((1 - ratio) * (1 - alphas[after]) / (1 - alphas[now])).sqrt()
        x = alphas[after].sqrt() * x0 + (1 - alphas[after] - sigma**2).sqrt() * epsilon
        x = x + sigma * noise(step).double()
    raise AssertionError("the grid must end at -1")


def naive_ddpm(start, predict, noise, spec) -> torch.Tensor:
    """The authors' ancestral sampler in float64, with its mean in terms of epsilon."""
    alphas, total, x = alphas_of(spec), spec.train_timesteps, start.double()
    betas = torch.linspace(spec.beta_start, spec.beta_end, total, dtype=torch.float64)
    for step, now in enumerate(reversed(range(total))):
        scale = (1 / (1 - betas[now])).sqrt()
        epsilon = predict(x, now, step)
        x = scale * x - scale * betas[now] / (1 - alphas[now]).sqrt() * epsilon
        if now:
            x = x + betas[now].sqrt() * noise(step).double()
    return x


def start_of(seed: int = 0, shape=(2, 3, 4, 4)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def keyed(step: int) -> torch.Tensor:
    return start_of(step + 1)


def wavy(x, time, step):
    """A prediction that depends on all it is given."""
    return x * (0.97 + 0.02 * time / 1000) + 0.01 * torch.sin(3 * x)


def test_times_are_the_authors():
    for scheduler in ("ddim", "ddpm", "dpm_solver"):
        times = build_sampler(PAPER, 100, scheduler).timesteps.tolist()
        assert times == list(range(999, 0, -10))
        assert times[:2] == [999, 989] and times[-1] == 9


@pytest.mark.parametrize("steps", [1, 10, 100, 1000])
@pytest.mark.parametrize("eta", [0.0, 0.1, 1.0])
def test_loop_equals_the_authors_update(steps, eta):
    start = start_of()
    found = sample(build_sampler(PAPER, steps), start, wavy, keyed, eta)
    expected = naive_ddim(steps, eta, start, wavy, keyed, PAPER)
    torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("eta", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("step", [0, 50, 98])
def test_one_update_is_the_hand_computation(step, eta):
    sampler, x, epsilon = build_sampler(PAPER, 100), start_of(1).double(), start_of(2).double()
    alphas = sampler.alphas_cumprod.double()
    now, after = alphas[999 - 10 * step], alphas[989 - 10 * step]
    x0 = (x - (1 - now).sqrt() * epsilon) / now.sqrt()
    sigma = eta * ((1 - now / after) * (1 - after) / (1 - now)).sqrt()
    expected = after.sqrt() * x0 + (1 - after - sigma**2).sqrt() * epsilon + sigma * keyed(step)
    assert x0.abs().max() > 1  # not clipped inside
    found = sampler.advance(epsilon, step, x, lambda s: keyed(s).double(), eta)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm"])
def test_the_last_step_returns_x0_unclipped_and_asks_for_no_noise(scheduler):
    sampler, x, epsilon = build_sampler(PAPER, 100, scheduler), 3 * start_of(1), start_of(2)

    def none(step):
        raise AssertionError("no noise at the last step")

    found = sampler.advance(epsilon, 99, x, none, 1.0)
    kept = sampler.alphas_cumprod[9]
    torch.testing.assert_close(found, (x - (1 - kept).sqrt() * epsilon) / kept.sqrt())
    assert found.abs().max() > 1
    assert to_uint8(found, "nearest").max() == 255  # clipped at the end


def test_without_eta_no_noise_is_drawn():
    asked = []
    sample(build_sampler(PAPER, 10), start_of(), wavy, lambda step: asked.append(step), 0.0)
    assert asked == []


def test_ancestral_sampling_equals_the_authors():
    spec = denoiser_spec(train_timesteps=100, beta_end=0.1)
    found = sample(build_sampler(spec, 100, "ddpm"), start_of(), wavy, keyed, 1.0)
    expected = naive_ddpm(start_of(), wavy, keyed, spec)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [100, 20])
def test_ancestral_sampling_equals_diffusers_own(steps, monkeypatch):
    spec = denoiser_spec(train_timesteps=100, beta_end=0.1)
    theirs = DDPMScheduler(
        num_train_timesteps=100, beta_start=spec.beta_start, beta_end=0.1, clip_sample=False,
        variance_type="fixed_large", timestep_spacing="trailing",
    )  # fmt: skip
    theirs.set_timesteps(steps)
    ours, x, mine = build_sampler(spec, steps, "ddpm"), start_of(), start_of()
    assert ours.timesteps.tolist() == theirs.timesteps.tolist()
    last = steps - 1 if steps < 100 else steps  # with a stride theirs ends with noise
    for step, time in enumerate(theirs.timesteps.tolist()[:last]):
        monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *a, s=step, **k: keyed(s))
        x = theirs.step(wavy(x, time, step), time, x).prev_sample
        mine = ours.advance(wavy(mine, time, step), step, mine, keyed, 1.0)
        torch.testing.assert_close(mine, x, rtol=1e-4, atol=1e-5)


def gaussian(sampler: Sampler, mean: float, deviation: float):
    """The exact epsilon for images whose pixels are independently N(mean, deviation^2)."""

    def predict(x, time, step):
        kept = sampler.alphas_cumprod[time].double()
        spread = kept * deviation**2 + 1 - kept
        return (1 - kept).sqrt() * (x.double() - kept.sqrt() * mean) / spread

    return predict


def solved(start, mean: float, deviation: float, sampler: Sampler):
    """Where the probability flow takes x_T for such images: the same quantile of x_0's law."""
    kept = sampler.alphas_cumprod[-1].double()
    return (
        mean
        + deviation
        * (start.double() - kept.sqrt() * mean)
        / (kept * deviation**2 + 1 - kept).sqrt()
    )


def error_of(scheduler: str, steps: int) -> float:
    sampler, start = build_sampler(PAPER, steps, scheduler), start_of()
    predict = gaussian(sampler, 0.3, 0.5)
    found = sample(sampler, start, lambda *a: predict(*a).float(), keyed, 0.0)
    return float((found - solved(start, 0.3, 0.5, sampler)).abs().max())


def test_fast_solver_reaches_the_exact_solution_sooner_than_ddim():
    """Both converge to the same limit; the second-order solver with a fraction of the steps."""
    assert error_of("ddim", 1000) < 0.01
    assert error_of("dpm_solver", 1000) < 0.001
    assert error_of("dpm_solver", 50) < error_of("ddim", 1000)
    assert error_of("dpm_solver", 20) < error_of("ddim", 50)


@pytest.mark.parametrize("steps", [1, 2, 7, 15, 300, 333, 999])
def test_fast_solver_takes_any_number_of_steps(steps):
    times = build_sampler(PAPER, steps, "dpm_solver").timesteps.tolist()
    assert len(times) == steps
    assert times[0] == 999 and times[-1] >= 0
    assert all(now > after for now, after in pairwise(times))


def test_fast_solver_starts_afresh_with_each_batch():
    first = sample(build_sampler(PAPER, 5, "dpm_solver"), start_of(), wavy, keyed, 0.0)
    again = sample(build_sampler(PAPER, 5, "dpm_solver"), start_of(), wavy, keyed, 0.0)
    assert torch.equal(first, again)


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "dpm_solver"])
def test_perfect_denoiser_returns_its_image_whatever_the_noise(scheduler):
    image = torch.linspace(-1, 1, 48).view(1, 3, 4, 4)
    for eta in (0.0, 1.0):
        sampler = build_sampler(PAPER, 50, scheduler)

        def predict(x, time, step, alphas=sampler.alphas_cumprod):
            return (x - alphas[time].sqrt() * image) / (1 - alphas[time]).sqrt()

        found = sample(sampler, start_of(0, (1, 3, 4, 4)), predict, lambda s: keyed(s)[:1], eta)
        torch.testing.assert_close(found, image, rtol=0, atol=1e-3)


def test_noised_images_follow_the_forward_process():
    sampler, images, noise = build_sampler(PAPER, 10), start_of(1), start_of(2)
    times = torch.tensor([499, 499])
    expected = sampler.add_noise(images, noise, times)
    torch.testing.assert_close(add_noise(sampler, images, noise, 499), expected)


def test_steps_must_fit_the_training_times():
    for scheduler, steps in (("ddim", 30), ("ddim", 2000), ("ddpm", 30), ("dpm_solver", 1001)):
        with pytest.raises(ConfigError, match=rf"train_timesteps 1000, found {steps}"):
            build_sampler(PAPER, steps, scheduler)


def test_pixels_survive_the_round_trip_and_rounding_differs():
    images = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 16, 16, 3)
    assert torch.equal(to_uint8(to_signed(images), "nearest"), images)
    between = torch.full((1, 3, 1, 1), 100.7 / 127.5 - 1)
    assert to_uint8(between, "nearest").unique().tolist() == [101]
    assert to_uint8(between, "truncate").unique().tolist() == [100]
    assert to_uint8(torch.tensor([[-9.0, 0.0, 9.0]]).view(1, 3, 1, 1), "truncate").tolist() == [
        [[[0, 127, 255]]]
    ]
