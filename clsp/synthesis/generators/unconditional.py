"""Samples of the denoiser alone: what interpolation with weight 1 gives, bit for bit."""

from torch import Tensor

from clsp.config.sampling import PlainSamplerSettings
from clsp.synthesis.contract import Request
from clsp.synthesis.drawing import draw_alone
from clsp.synthesis.network import Network


class Config(PlainSamplerSettings):
    """Settings of the sampler, nothing else."""


def generate(network: Network, request: Request, config: Config) -> Tensor:
    """Draw one image for each pair; anchor and candidate number only choose the noise.

    A class-conditional denoiser is given no label.

    Returns:
        uint8 (B, H, W, 3).

    Raises:
        ConfigError: If the steps do not fit the denoiser.
    """
    return draw_alone(network, request, config)
