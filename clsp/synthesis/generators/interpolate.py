"""The paper's generator: the sample's bottleneck is mixed with that of the noised anchor."""

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor

from clsp.config.denoisers import AnyDenoiserSpec
from clsp.config.sampling import MIDDLE, Block, SamplerSettings, block_names
from clsp.config.strict import Fraction
from clsp.diffusion.sampling import Sampler, add_noise
from clsp.models.denoiser import decode, encode
from clsp.synthesis.contract import Request
from clsp.synthesis.drawing import draw, draw_alone
from clsp.synthesis.network import Network


class Config(SamplerSettings):
    """Settings; the authors' values are w 0.1, 100 steps, eta 0.1, truncate."""

    interpolation_weight: Fraction  # w of the sample's own features; 1 is unconditional
    mix_at: Block | None = (
        None  # block whose output is mixed: down.0, ..., mid, up.0, ...; None: mid
    )
    # True: all candidates of an anchor see the same noised anchor at a step, so that its features
    # are computed once (D29). None: each sees its own, as the authors'.
    share_anchor_noise: bool | None = None

    def check_denoiser(self, denoiser: AnyDenoiserSpec) -> None:
        """Refuse a denoiser without the block that is mixed, or that the steps do not fit.

        Raises:
            ConfigError: If the steps do not fit.
            ValueError: Naming the block and those that exist.
        """
        super().check_denoiser(denoiser)
        channels = getattr(denoiser, "channels", None)  # of an imported one they are not known yet
        if self.mix_at and channels and self.mix_at not in block_names(len(channels)):
            known = ", ".join(block_names(len(channels)))
            raise ValueError(f'mix_at: the denoiser has no block "{self.mix_at}"; it has {known}')


def mixed(
    unet: UNet2DModel,
    x: Tensor,
    anchors: Tensor,
    which: Tensor | None,
    time: Tensor,
    *,
    weight: float,
    block: str,
) -> Tensor:
    """Epsilon of samples whose features behind a block are mixed with those of noised anchors.

    Both pass the network up to that block, the anchor not further; w * h + (1 - w) * h_anchor goes
    on. All skips are the sample's: those made up to the block are unmixed, also the one that is the
    mixed block's own output; those that later down blocks make come from the mixed features.

    Args:
        unet: The network; a class-conditional one is given no label.
        x: Samples (B, 3, H, W).
        anchors: Noised anchors (A, 3, H, W).
        which: Each sample's anchor, int64 (B,); None: one each, in order.
        time: int64 (1,).
        weight: w, below 1.
        block: Name of the block.

    Returns:
        (B, 3, H, W).
    """
    last_down = f"down.{len(unet.down_blocks) - 1}"
    if weight == 0 and not block.startswith("down"):  # the sample is needed for its skips only
        _, skips, emb = encode(unet, x, time.expand(len(x)), until=last_down)
        h, left, _ = encode(unet, anchors, time.expand(len(anchors)), until=block)
        h, skips = h if which is None else h[which], skips[: len(left)]
    else:
        both = torch.cat([x, anchors])
        h, made, emb = encode(unet, both, time.expand(len(both)), until=block)
        own, others = h[: len(x)], h[len(x) :]
        others = others if which is None else others[which]
        h = weight * own + (1 - weight) * others
        skips, emb = [skip[: len(x)] for skip in made], emb[: len(x)]
    return decode(unet, h, skips, emb, after=block)


def generate(network: Network, request: Request, config: Config) -> Tensor:
    """Draw one candidate for each pair.

    At every step the anchor is noised with fresh noise to the sample's time t. Both go through the
    encoder half; the bottleneck becomes w*h + (1-w)*h_anchor; the sample alone is decoded, with its
    own skips. Source: the authors' models/unet.py, `forward_with_anchor`, and ddpm.py,
    `ddim_interpolation`; methods.md 2.1. All noise is keyed by (seed, purpose; anchor, candidate,
    step), so that batches, shards and restarts never change an image (D01); steps and eta are
    honoured (D03).

    Args:
        network: The denoiser.
        request: The pairs.
        config: Settings.

    Returns:
        uint8 (B, H, W, 3).

    Raises:
        ConfigError: If the steps do not fit the denoiser, or it has no such block.
    """
    if config.interpolation_weight == 1:  # nothing of the anchor is used
        return draw_alone(network, request, config)
    settings = {"weight": config.interpolation_weight, "block": config.mix_at or MIDDLE}
    shared = bool(config.share_anchor_noise)
    images, which = request.images, request.which
    if not shared:
        images, which = images[which], None

    def predict(sampler: Sampler, x: Tensor, time: int, step: int) -> Tensor:
        if shared:
            noise = request.anchor_noise("shared anchor noise", step)  # D29
        else:
            noise = request.noise("anchor noise", step)
        noised = add_noise(sampler, images, noise, time)
        return network.run(mixed, x, noised, which, request.time(time), **settings)

    return draw(network, request, config, predict)
