"""Schedules of a denoiser's training: noise over diffusion time, the learning rate over steps."""

import json

import diffusers
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from clsp.config.denoisers import DenoiserSpec, NoiseSchedule


def build_schedule(spec: NoiseSchedule) -> DDPMScheduler:
    """The forward process q(x_t | x_0): T steps, beta linear from beta_start to beta_end (D13)."""
    return DDPMScheduler(
        num_train_timesteps=spec.train_timesteps,
        beta_start=spec.beta_start,
        beta_end=spec.beta_end,
        beta_schedule="linear",
        variance_type="fixed_large",  # the authors' ancestral sampler (ddpm.py, p_mean_variance)
        clip_sample=False,
        prediction_type="epsilon",
        timestep_spacing="trailing",
    )


def learning_rate(spec: DenoiserSpec, step: int) -> float:
    """Rate used at a 0-based step: linear from 0 over warmup_steps, then constant.

    Source: train_diffusion.py of the authors, `warmup_lr`; their first step has rate 0 too.
    """
    if spec.warmup_steps == 0:
        return spec.learning_rate
    return spec.learning_rate * min(step, spec.warmup_steps) / spec.warmup_steps


def pipeline_index() -> str:
    """What DDPMPipeline.from_pretrained reads first."""
    entries = {
        "_class_name": "DDPMPipeline",
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    return json.dumps(entries, indent=2, sort_keys=True) + "\n"
