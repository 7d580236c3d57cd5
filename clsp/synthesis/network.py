"""The denoiser as generators run it: channels last, in a bank's precision, perhaps compiled."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor

from clsp.config.sampling import SamplerSettings
from clsp.models.denoiser import Denoiser, decode, encode

MEMORY_FORMAT = "channels_last"  # faster on CPUs too: docs/synthesis.md

# Pixels of all images of a batch on a CPU: activations of larger ones leave its caches, and drawing
# takes up to 1.4 times as long (measured at 32 pixels; benchmarks/results/synthesis_narrow_cpu.md).
CPU_PIXELS = 16 * 32 * 32

Pass = Callable[..., Tensor]  # (unet, tensors..., named settings) -> epsilon


def plain(unet: UNet2DModel, x: Tensor, time: Tensor, labels: Tensor | None) -> Tensor:
    """Epsilon of the network by itself.

    Args:
        unet: The network.
        x: (B, 3, H, W).
        time: int64 (1,).
        labels: As `encode` takes them; None: no label.
    """
    return decode(unet, *encode(unet, x, time.expand(len(x)), labels))


def images_at_once(settings: SamplerSettings, side: int, device: torch.device) -> int:
    """Images of a side in pixels that are drawn together: `batch_size`, on a CPU perhaps fewer."""
    if device.type != "cpu":
        return settings.batch_size
    return min(settings.batch_size, max(1, CPU_PIXELS // side**2))


class Network:
    """A denoiser with the precision and compilation that a bank asks for; kept for a whole shard.

    Attributes:
        schedule: The noise schedule that it was trained for.
        classes: Number of classes of a class-conditional denoiser, or None.
    """

    def __init__(self, denoiser: Denoiser, settings: SamplerSettings) -> None:
        self.schedule, self.classes = denoiser.schedule, denoiser.classes
        self._unet = denoiser.unet.to(memory_format=torch.channels_last)
        self._device = next(self._unet.parameters()).device
        self._bf16 = settings.precision == "bf16"
        self._compile = bool(settings.compile)
        self._passes: dict[tuple[Any, ...], Callable[..., Tensor]] = {}

    def run(self, function: Pass, *tensors: Tensor | None, **settings: Any) -> Tensor:
        """Epsilon in float32 from function(unet, *tensors, **settings), compiled at most once."""
        key = (function, *sorted(settings.items()))
        if key not in self._passes:
            self._passes[key] = self._ready(function, settings)
        autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16)
        with torch.no_grad(), autocast:
            epsilon = self._passes[key](*tensors)
        # A CUDA graph writes every result to the same place, and solvers keep earlier ones.
        return epsilon.to(torch.float32, copy=self._compile)

    def _ready(self, function: Pass, settings: dict[str, Any]) -> Callable[..., Tensor]:
        unet = self._unet

        def bound(*tensors: Tensor | None) -> Tensor:
            return function(unet, *tensors, **settings)

        if not self._compile:
            return bound
        # The whole pass is one graph, so nothing lives on between two of them. On a GPU it is
        # recorded once as a CUDA graph and replayed.
        mode = "reduce-overhead" if self._device.type == "cuda" else "default"
        return torch.compile(bound, mode=mode, dynamic=False, fullgraph=True)
