"""Sampling: one loop over DDIM, ancestral DDPM or DPM-Solver++, with the noise passed in."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor

from clsp.config.denoisers import NoiseSchedule
from clsp.config.sampling import Scheduler
from clsp.runtime.errors import ConfigError

Predict = Callable[[Tensor, int, int], Tensor]  # (x_t, time, step) -> epsilon
Noise = Callable[[int], Tensor]  # step -> standard normal of x's shape


class Sampler(Protocol):
    """One run from noise to images; solvers of higher order remember, so each batch takes its own.

    Attributes:
        timesteps: int64 (steps,), falling.
        alphas_cumprod: float32 (T,).
    """

    timesteps: Tensor
    alphas_cumprod: Tensor

    def advance(self, epsilon: Tensor, step: int, x: Tensor, noise: Noise, eta: float) -> Tensor:
        """What x is at the next time, from the epsilon that is predicted for x at this one."""


def _common(schedule: NoiseSchedule) -> dict[str, Any]:
    """What all of diffusers' schedulers are told, each value stated."""
    return {
        "num_train_timesteps": schedule.train_timesteps,
        "beta_start": schedule.beta_start,
        "beta_end": schedule.beta_end,
        "beta_schedule": "linear",
        "trained_betas": None,
        "prediction_type": "epsilon",
        "thresholding": False,
        "dynamic_thresholding_ratio": 0.995,  # of thresholding, which is off
        "sample_max_value": 1.0,  # the same
        "timestep_spacing": "trailing",
        "steps_offset": 0,
        "rescale_betas_zero_snr": False,
    }


class Ddim(DDIMScheduler):
    """The authors' sampler (ddpm.py, `ddim` and `ddim_interpolation`; arXiv:2010.02502, Eq. 12)."""

    def advance(self, epsilon: Tensor, step: int, x: Tensor, noise: Noise, eta: float) -> Tensor:
        """See `Sampler`. The last step returns the predicted x0, so it takes no noise."""
        eta = 0.0 if step == len(self.timesteps) - 1 else eta
        drawn = noise(step) if eta > 0 else None
        time = int(self.timesteps[step])
        return self.step(epsilon, time, x, eta=eta, variance_noise=drawn, return_dict=False)[0]


class Ancestral(DDPMScheduler):
    """DDPM with variance beta, "fixed large" (ddpm.py, `p_mean_variance`; arXiv:2006.11239).

    The update is written out because diffusers' own takes a generator, not the noise. The authors'
    exception for the first time, where beta is replaced by the posterior variance of the second,
    never matters: that step adds no noise. With fewer steps than training times, beta is that of
    the stride.
    """

    def advance(self, epsilon: Tensor, step: int, x: Tensor, noise: Noise, eta: float) -> Tensor:
        """See `Sampler`. The last step returns the predicted x0, so it takes no noise."""
        last = step == len(self.timesteps) - 1
        now = self.alphas_cumprod[self.timesteps[step]]
        after = self.one if last else self.alphas_cumprod[self.timesteps[step + 1]]
        beta = 1 - now / after
        x0 = (x - (1 - now).sqrt() * epsilon) / now.sqrt()
        if last:
            return x0
        mean = after.sqrt() * beta / (1 - now) * x0
        mean = mean + (now / after).sqrt() * (1 - after) / (1 - now) * x
        return mean + beta.sqrt() * noise(step)


class FastSolver(DPMSolverMultistepScheduler):
    """Second-order DPM-Solver++ of diffusers (arXiv:2211.01095); deterministic."""

    def advance(self, epsilon: Tensor, step: int, x: Tensor, noise: Noise, eta: float) -> Tensor:
        """See `Sampler`. Steps have to come in order."""
        return self.step(epsilon, self.timesteps[step], x, return_dict=False)[0]


def _fast_solver(schedule: NoiseSchedule, steps: int) -> FastSolver:
    total = schedule.train_timesteps
    if steps > total:
        raise ConfigError(
            f"steps must not exceed the denoiser's train_timesteps {total}, found {steps}"
        )
    solver = FastSolver(
        **_common(schedule),
        solver_order=2,
        algorithm_type="dpmsolver++",
        solver_type="midpoint",
        lower_order_final=True,  # stabler below 15 steps
        euler_at_final=False,
        use_karras_sigmas=False,
        use_exponential_sigmas=False,
        use_beta_sigmas=False,
        use_lu_lambdas=False,
        use_flow_sigmas=False,
        flow_shift=1.0,  # of flow matching, which this is not
        final_sigmas_type="zero",  # ends at x0
        lambda_min_clipped=-float("inf"),
        variance_type=None,
        use_dynamic_shifting=False,
        time_shift_type="exponential",  # of dynamic shifting, which is off
    )
    # Trailing times in whole numbers: diffusers' own count in floats can give one time too many.
    times = [(2 * total * (steps - i) + steps) // (2 * steps) - 1 for i in range(steps)]
    solver.set_timesteps(timesteps=times)
    solver.set_begin_index(0)
    return solver


def build_sampler(schedule: NoiseSchedule, steps: int, scheduler: Scheduler = "ddim") -> Sampler:
    """A sampler on the authors' grid: with T = 1000 and 100 steps the times 999, 989, ..., 9.

    Source: ddpm.py of the authors; style.md section 6. Predicted x0 is not clipped on the way, and
    the step below time 0 returns it.

    Args:
        schedule: The denoiser's.
        steps: Steps, a divisor of schedule.train_timesteps; for dpm_solver any number up to it.
        scheduler: "ddim", "ddpm" or "dpm_solver".

    Raises:
        ConfigError: If the steps do not divide the training timesteps, or exceed them.
    """
    if scheduler == "dpm_solver":
        return _fast_solver(schedule, steps)
    schedule.check_steps(steps)
    common = {**_common(schedule), "clip_sample": False, "clip_sample_range": 1.0}
    if scheduler == "ddim":
        sampler: Ddim | Ancestral = Ddim(**common, set_alpha_to_one=True)
    else:
        sampler = Ancestral(**common, variance_type="fixed_large")
    sampler.set_timesteps(steps)
    return sampler


def sample(sampler: Sampler, start: Tensor, predict: Predict, noise: Noise, eta: float) -> Tensor:
    """Run from pure noise to an image.

    Args:
        sampler: From `build_sampler`, not used before.
        start: x_T, standard normal, (B, 3, H, W).
        predict: The denoiser: x_t, its time and the number of the step -> epsilon like x_t.
        noise: The noise added at a step, standard normal; asked for only where some is added.
        eta: Of DDIM: 0 deterministic, 1 as noisy as ancestral sampling. Others have theirs fixed.

    Returns:
        x0 as predicted at the last step, not clipped, (B, 3, H, W).
    """
    x = start
    for step, time in enumerate(sampler.timesteps.tolist()):
        x = sampler.advance(predict(x, time, step), step, x, noise, eta)
    return x


def add_noise(sampler: Sampler, images: Tensor, noise: Tensor, time: int) -> Tensor:
    """Images at a diffusion time, q(x_t | x_0): like `images`, which are in [-1, 1]."""
    kept = sampler.alphas_cumprod[time]
    return kept.sqrt() * images + (1 - kept).sqrt() * noise


def constant_times(like: Tensor, time: int) -> Tensor:
    """The same diffusion time for every image of a batch, int64 (B,)."""
    return torch.full((len(like),), time, dtype=torch.int64, device=like.device)
