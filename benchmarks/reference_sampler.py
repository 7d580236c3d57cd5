"""The authors' sampler written down plainly: what benchmarks/synthesis.py measures against.

Full precision throughout. At every DDIM step the encoder half runs once on the sample and once on
the noised anchor, the bottlenecks are mixed and the decoder half runs on the sample. Source of the
algorithm: the CLSP authors' ddpm.py (`ddim_interpolation`) and models/unet.py
(`forward_with_anchor`); methods.md 2.1. Nothing here is used by the suite, and nothing of the
suite's sampler is used here.
"""

from collections.abc import Callable

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor
from torch.nn.functional import mse_loss

from clsp.config.denoisers import NoiseSchedule

Draw = Callable[[str, int], Tensor]  # purpose, step -> standard normal, (B, 3, H, W)


def alpha_bars(schedule: NoiseSchedule) -> Tensor:
    """Cumulative products of 1 - beta, float64 (T,)."""
    betas = torch.linspace(
        schedule.beta_start, schedule.beta_end, schedule.train_timesteps, dtype=torch.float64
    )
    return torch.cumprod(1 - betas, dim=0)


def bottleneck(
    unet: UNet2DModel, x: Tensor, times: Tensor
) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """Encoder half of the network: the bottleneck, the skips, and the embedded time."""
    emb = unet.time_embedding(unet.time_proj(times))
    h = unet.conv_in(x)
    skips: tuple[Tensor, ...] = (h,)
    for block in unet.down_blocks:
        h, made = block(hidden_states=h, temb=emb)
        skips += tuple(made)
    return unet.mid_block(h, emb), skips, emb


def noise_of(unet: UNet2DModel, h: Tensor, skips: tuple[Tensor, ...], emb: Tensor) -> Tensor:
    """Decoder half of the network: the predicted noise."""
    for block in unet.up_blocks:
        count = len(block.resnets)
        h = block(h, skips[-count:], emb)
        skips = skips[:-count]
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(h)))


@torch.no_grad()
def interpolate(
    unet: UNet2DModel,
    schedule: NoiseSchedule,
    anchors: Tensor,
    weight: float,
    steps: int,
    eta: float,
    draw: Draw,
) -> Tensor:
    """One candidate for each anchor.

    Args:
        unet: In eval mode.
        schedule: The noise schedule it was trained for.
        anchors: (B, 3, H, W) in [-1, 1].
        weight: Share of the sample's own bottleneck, w.
        steps: DDIM steps, a divisor of the schedule's training timesteps.
        eta: Of DDIM.
        draw: Gives the noise; purposes are "start", "anchor noise" and "eta noise".

    Returns:
        Grey levels, uint8 (B, H, W, 3), rounded to the nearest (D02).
    """
    bars = alpha_bars(schedule).to(anchors.device)
    stride = schedule.train_timesteps // steps
    x = draw("start", 0)
    for step in range(steps):
        now = schedule.train_timesteps - 1 - step * stride
        after = now - stride
        times = torch.full((len(x),), now, device=x.device)
        noise = draw("anchor noise", step)
        noised = bars[now].sqrt().float() * anchors + (1 - bars[now]).sqrt().float() * noise
        h, skips, emb = bottleneck(unet, x, times)
        h_anchor, _, _ = bottleneck(unet, noised, times)
        epsilon = noise_of(unet, weight * h + (1 - weight) * h_anchor, skips, emb)
        x0 = (x - (1 - bars[now]).sqrt().float() * epsilon) / bars[now].sqrt().float()
        if after < 0:
            x = x0
            break
        sigma = eta * ((1 - bars[now] / bars[after]) * (1 - bars[after]) / (1 - bars[now])).sqrt()
        direction = (1 - bars[after] - sigma**2).sqrt().float() * epsilon
        x = bars[after].sqrt().float() * x0 + direction + sigma.float() * draw("eta noise", step)
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def train_step(
    unet: UNet2DModel,
    average: UNet2DModel,
    optimizer: torch.optim.Optimizer,
    schedule: NoiseSchedule,
    clean: Tensor,
    decay: float,
    clip: float,
) -> float:
    """One plain training step of the denoiser in full precision (authors' train_diffusion.py).

    Args:
        unet: In train mode.
        average: Its moving average.
        optimizer: Over the parameters of `unet`.
        schedule: The noise schedule.
        clean: (B, 3, H, W) in [-1, 1].
        decay: Of the moving average.
        clip: Largest norm of the gradient.

    Returns:
        The loss.
    """
    bars = alpha_bars(schedule).to(clean.device)
    times = torch.randint(schedule.train_timesteps, (len(clean),), device=clean.device)
    noise = torch.randn_like(clean)
    share = bars[times].view(-1, 1, 1, 1)
    noisy = share.sqrt().float() * clean + (1 - share).sqrt().float() * noise
    loss = mse_loss(unet(noisy, times, return_dict=False)[0], noise)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(unet.parameters(), clip)
    optimizer.step()
    with torch.no_grad():
        for name, value in unet.state_dict().items():
            target = average.state_dict()[name]
            target.copy_(target * decay + value * (1 - decay))
    return loss.item()
