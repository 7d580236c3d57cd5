"""DDIM sampling: one loop over a diffusers scheduler, with the noise passed in."""

from collections.abc import Callable

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from clsp.config.denoisers import NoiseSchedule

Predict = Callable[[Tensor, int, int], Tensor]  # (x_t, time, step) -> epsilon
Noise = Callable[[int], Tensor]  # step -> standard normal of x's shape


def build_sampler(schedule: NoiseSchedule, steps: int) -> DDIMScheduler:
    """The authors' DDIM grid: with T = 1000 and 100 steps the times 999, 989, ..., 9, then x0.

    Source: ddpm.py of the authors, `ddim_interpolation`; style.md section 6. Predicted x0 is not
    clipped on the way, and the step below time 0 returns it.

    Args:
        schedule: The denoiser's.
        steps: DDIM steps, a divisor of schedule.train_timesteps.

    Raises:
        ConfigError: If the steps do not divide the training timesteps.
    """
    schedule.check_steps(steps)
    scheduler = DDIMScheduler(
        num_train_timesteps=schedule.train_timesteps,
        beta_start=schedule.beta_start,
        beta_end=schedule.beta_end,
        beta_schedule="linear",
        trained_betas=None,
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
        prediction_type="epsilon",
        thresholding=False,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=False,
    )
    scheduler.set_timesteps(steps)
    return scheduler


def sample(
    scheduler: DDIMScheduler, start: Tensor, predict: Predict, noise: Noise, eta: float
) -> Tensor:
    """Run DDIM from pure noise to an image (arXiv:2010.02502, Eq. 12 and 16).

    Args:
        scheduler: From `build_sampler`.
        start: x_T, standard normal, (B, 3, H, W).
        predict: The denoiser: x_t, its time and the number of the step -> epsilon like x_t.
        noise: The noise added at a step, standard normal; not asked for where eta is 0.
        eta: 0 deterministic, 1 as noisy as ancestral sampling.

    Returns:
        x0 as predicted at the last step, not clipped, (B, 3, H, W).
    """
    x = start
    for step, time in enumerate(scheduler.timesteps.tolist()):
        drawn = noise(step) if eta > 0 else None
        x = scheduler.step(
            predict(x, time, step), time, x, eta=eta, variance_noise=drawn, return_dict=False
        )[0]
    return x


def constant_times(like: Tensor, time: int) -> Tensor:
    """The same diffusion time for every image of a batch, int64 (B,)."""
    return torch.full((len(like),), time, dtype=torch.int64, device=like.device)
