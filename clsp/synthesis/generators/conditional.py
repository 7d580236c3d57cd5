"""Images of the anchor's class, from a class-conditional denoiser with guidance. Uses labels."""

from typing import ClassVar

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor

from clsp.config.denoisers import AnyDenoiserSpec
from clsp.config.sampling import PlainSamplerSettings
from clsp.config.strict import NonNegativeFloat
from clsp.diffusion.sampling import Sampler
from clsp.models.denoiser import NO_LABEL
from clsp.runtime.errors import ConfigError
from clsp.synthesis.contract import Request
from clsp.synthesis.drawing import draw
from clsp.synthesis.network import Network, plain


class Config(PlainSamplerSettings):
    """Settings; the authors' are guidance 1.8 and, by their slip, `quirk: plain_ddim` (D03)."""

    uses_labels: ClassVar[bool] = True

    guidance: NonNegativeFloat  # g of (1 + g) e_class - g e_null (arXiv:2207.12598); 0: none

    def check_denoiser(self, denoiser: AnyDenoiserSpec) -> None:
        """Refuse a denoiser that knows no classes, or that the steps do not fit.

        Raises:
            ConfigError: If the steps do not fit.
            ValueError: If it was trained without labels.
        """
        super().check_denoiser(denoiser)
        if not denoiser.uses_labels:
            raise ValueError(
                "generator conditional needs a class-conditional denoiser: one with label_drop"
            )


def guided(
    unet: UNet2DModel, x: Tensor, time: Tensor, labels: Tensor, *, guidance: float
) -> Tensor:
    """Epsilon with classifier-free guidance: with and without the label in one pass.

    Args:
        unet: A class-conditional network.
        x: (B, 3, H, W).
        time: int64 (1,).
        labels: class + 1, int64 (B,).
        guidance: g; at 0 the pass without the label is left out.
    """
    if guidance == 0:
        return plain(unet, x, time, labels)
    none = torch.full_like(labels, NO_LABEL)
    both = plain(unet, torch.cat([x, x]), time, torch.cat([labels, none])).float()
    with_label, without = both.chunk(2)
    return (1 + guidance) * with_label - guidance * without


def generate(network: Network, request: Request, config: Config) -> Tensor:
    """Draw one image of the anchor's class for each pair; the anchor's image is not used.

    Source: the authors' ddpm.py, `ddim` and `ddpm` with labels, and
    generate_synthetic_dataset_conditional.py; class c is label c + 1.

    Returns:
        uint8 (B, H, W, 3).

    Raises:
        ConfigError: If the steps do not fit the denoiser, or it knows no classes.
    """
    if network.classes is None or request.labels is None:
        raise ConfigError(
            "generator conditional needs a class-conditional denoiser and the anchors' labels; "
            f"found {network.classes} classes and labels {request.labels}"
        )
    labels = request.labels[request.which] + 1

    def predict(sampler: Sampler, x: Tensor, time: int, step: int) -> Tensor:
        return network.run(guided, x, request.time(time), labels, guidance=config.guidance)

    return draw(network, request, config, predict)
