"""The paper's generator: the sample's bottleneck is mixed with that of the noised anchor."""

from typing import Literal

import torch
from torch import Tensor

from clsp.config.strict import Fraction, PositiveInt, Strict
from clsp.diffusion.pixels import to_uint8
from clsp.diffusion.sampling import build_sampler, constant_times, sample
from clsp.models.denoiser import Denoiser, decode, encode
from clsp.runtime.rng import key_of, normal


class Config(Strict):
    """Settings of the sampler; the authors' values are w 0.1, 100 steps, eta 0.1, truncate."""

    interpolation_weight: Fraction  # w of the sample's own bottleneck; 1 is unconditional
    steps: PositiveInt  # DDIM steps; must divide the denoiser's train_timesteps
    eta: Fraction  # 0 deterministic, 1 as noisy as ancestral sampling
    rounding: Literal["nearest", "truncate"]  # D02
    batch_size: PositiveInt  # images drawn at a time; changes none beyond float rounding


@torch.no_grad()
def generate(
    denoiser: Denoiser,
    anchors: Tensor,
    rows: Tensor,
    candidates: Tensor,
    config: Config,
    seed: int,
) -> Tensor:
    """Draw one candidate for each given pair of anchor and candidate number.

    At every DDIM step the anchor is noised with fresh noise to the sample's time t. Both go through
    the encoder half; the bottleneck becomes w*h + (1-w)*h_anchor; the sample alone is decoded, with
    its own skips. Source: the authors' models/unet.py, `forward_with_anchor`, and ddpm.py,
    `ddim_interpolation`; methods.md 2.1. All noise is keyed by (seed, purpose; anchor, candidate,
    step), so that batches, shards and restarts never change an image (D01); steps and eta are
    honoured (D03).

    Args:
        denoiser: With its EMA weights.
        anchors: Anchor images in [-1, 1], (B, 3, H, W).
        rows: The anchors' rows in the training split, int64 (B,).
        candidates: Candidate numbers in [0, K), int64 (B,).
        config: Settings.
        seed: The bank's seed.

    Returns:
        uint8 (B, H, W, 3).

    Raises:
        ConfigError: If steps does not divide the denoiser's train_timesteps.
    """
    unet, own = denoiser.unet, config.interpolation_weight
    scheduler = build_sampler(denoiser.schedule, config.steps)
    count = anchors[0].numel()

    def draw(purpose: str, step: int) -> Tensor:
        key = key_of(seed, purpose)
        return normal(key, rows, candidates, step, count=count).view_as(anchors)

    def predict(x: Tensor, time: int, step: int) -> Tensor:
        times = constant_times(x, time)
        if own == 1:  # nothing of the anchor is used
            return decode(unet, *encode(unet, x, times))
        noised = scheduler.add_noise(anchors, draw("anchor noise", step), times)
        h, skips, emb = encode(unet, torch.cat([x, noised]), torch.cat([times, times]))
        mixed = own * h[: len(x)] + (1 - own) * h[len(x) :]
        return decode(unet, mixed, [skip[: len(x)] for skip in skips], emb[: len(x)])

    x0 = sample(
        scheduler, draw("start", 0), predict, lambda step: draw("eta noise", step), config.eta
    )
    return to_uint8(x0, config.rounding)
