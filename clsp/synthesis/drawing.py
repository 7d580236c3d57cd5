"""From a batch of pairs to stored images, with any way of predicting the noise."""

from collections.abc import Callable

from torch import Tensor

from clsp.config.sampling import SamplerSettings
from clsp.diffusion.pixels import to_uint8
from clsp.diffusion.sampling import Sampler, build_sampler, sample
from clsp.synthesis.contract import Request
from clsp.synthesis.network import Network, plain

Predict = Callable[[Sampler, Tensor, int, int], Tensor]  # (sampler, x_t, time, step) -> epsilon


def draw(network: Network, request: Request, config: SamplerSettings, predict: Predict) -> Tensor:
    """Sample one image for each pair.

    Args:
        network: Gives the noise schedule.
        request: The pairs.
        config: Scheduler, steps, eta and rounding.
        predict: Epsilon like x_t (B, 3, H, W).

    Returns:
        uint8 (B, H, W, 3).

    Raises:
        ConfigError: If the steps do not fit the noise schedule.
    """
    solver = config.solver()
    sampler = build_sampler(network.schedule, solver.steps, solver.scheduler)
    x0 = sample(
        sampler,
        request.noise("start", 0),
        lambda x, time, step: predict(sampler, x, time, step),
        lambda step: request.noise("eta noise", step),
        solver.eta,
    )
    return to_uint8(x0, config.rounding)


def draw_alone(network: Network, request: Request, config: SamplerSettings) -> Tensor:
    """As `draw`, from the denoiser alone: neither anchors' images nor labels are used."""

    def predict(sampler: Sampler, x: Tensor, time: int, step: int) -> Tensor:
        return network.run(plain, x, request.time(time), None)

    return draw(network, request, config, predict)
