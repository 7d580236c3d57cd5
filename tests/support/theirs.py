"""Networks as the CLSP authors name them, written from the description in methods.md 2.1 and names.

They stand for downloaded checkpoints: what is imported is compared with what these compute.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50


class _Lookup(nn.Module):
    """Time t -> [sin(t r0), cos(t r0), sin(t r1), ...], kept as a frozen weight."""

    def __init__(self, steps: int, width: int) -> None:
        super().__init__()
        rows = torch.empty(steps, width)
        for pair in range(width // 2):
            angle = torch.arange(steps) * math.exp(-math.log(10000.0) * 2 * pair / width)
            rows[:, 2 * pair], rows[:, 2 * pair + 1] = angle.sin(), angle.cos()
        self.weight = nn.Parameter(rows, requires_grad=False)

    def forward(self, times: Tensor) -> Tensor:
        return self.weight[times]


class _Time(nn.Module):
    def __init__(self, steps: int, width: int) -> None:
        super().__init__()
        wide = 4 * width
        parts = [_Lookup(steps, width), nn.Linear(width, wide), nn.SiLU(), nn.Linear(wide, wide)]
        self.timembedding = nn.Sequential(*parts)


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(32, width)
        for name in ("proj_q", "proj_k", "proj_v", "proj"):
            self.add_module(name, nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.group_norm(x)
        query, key, value = (p(normed).flatten(2) for p in (self.proj_q, self.proj_k, self.proj_v))
        scores = torch.einsum("bcq,bck->bqk", query, key) / math.sqrt(x.shape[1])
        mixed = torch.einsum("bqk,bck->bcq", scores.softmax(dim=2), value)
        return x + self.proj(mixed.view_as(x))


class _Residual(nn.Module):
    def __init__(self, into: int, out: int, time: int, attended: bool) -> None:
        super().__init__()
        self.block1 = nn.Sequential(
            nn.GroupNorm(32, into), nn.SiLU(), nn.Conv2d(into, out, 3, padding=1)
        )
        self.temb_proj = nn.Sequential(nn.SiLU(), nn.Linear(time, out))
        self.block2 = nn.Sequential(
            nn.GroupNorm(32, out), nn.SiLU(), nn.Dropout(0.1), nn.Conv2d(out, out, 3, padding=1)
        )
        self.shortcut = nn.Conv2d(into, out, 1) if into != out else nn.Identity()
        self.attn = _Attention(out) if attended else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        inner = self.block1(x) + self.temb_proj(time)[..., None, None]
        return self.attn(self.shortcut(x) + self.block2(inner))


class _Resize(nn.Module):
    def __init__(self, width: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.main = nn.Conv2d(width, width, 3, stride=1 if up else 2, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.main(F.interpolate(x, scale_factor=2.0) if self.up else x)


class _Down(nn.Module):
    def __init__(
        self, base: int, widths: Sequence[int], attended: Sequence[bool], layers: int
    ) -> None:
        super().__init__()
        time, now = 4 * base, base
        self.head = nn.Conv2d(3, base, 3, padding=1)
        self.skips, blocks = [base], []
        for level, width in enumerate(widths):
            for _ in range(layers):
                blocks.append(_Residual(now, width, time, attended[level]))
                now = width
                self.skips.append(now)
            if level + 1 < len(widths):
                blocks.append(_Resize(now, up=False))
                self.skips.append(now)
        self.downblocks = nn.ModuleList(blocks)
        self.middleblocks = nn.ModuleList(
            [_Residual(now, now, time, True), _Residual(now, now, time, False)]
        )
        self.projector = nn.Sequential(
            nn.Linear(now, 4 * now), nn.BatchNorm1d(4 * now), nn.ReLU(), nn.Linear(4 * now, 256)
        )


class _Up(nn.Module):
    def __init__(
        self, down: _Down, base: int, widths: Sequence[int], attended: Sequence[bool], layers: int
    ) -> None:
        super().__init__()
        left, now, blocks = list(down.skips), widths[-1], []
        for level in reversed(range(len(widths))):
            for _ in range(layers + 1):
                blocks.append(_Residual(now + left.pop(), widths[level], 4 * base, attended[level]))
                now = widths[level]
            if level:
                blocks.append(_Resize(now, up=True))
        self.upblocks = nn.ModuleList(blocks)
        self.tail = nn.Sequential(nn.GroupNorm(32, now), nn.SiLU(), nn.Conv2d(now, 3, 3, padding=1))


class TheirUNet(nn.Module):
    """The authors' unconditional denoiser.

    Args:
        steps: T.
        base: Width of the first layer.
        multipliers: Width of each level in units of `base`.
        attended: Levels with self-attention.
        layers: Residual blocks per level.
    """

    def __init__(
        self,
        steps: int,
        base: int,
        multipliers: Sequence[int],
        attended: Sequence[int],
        layers: int,
    ) -> None:
        super().__init__()
        widths = [base * factor for factor in multipliers]
        marks = [level in attended for level in range(len(widths))]
        self.time_embedding = _Time(steps, base)
        self.encoder = _Down(base, widths, marks, layers)
        self.decoder = _Up(self.encoder, base, widths, marks, layers)

    def bottleneck(self, images: Tensor, times: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """h, skips and time embedding."""
        time = self.time_embedding.timembedding(times)
        h = self.encoder.head(images)
        skips = [h]
        for block in self.encoder.downblocks:
            h = block(h, time)
            skips.append(h)
        for block in self.encoder.middleblocks:
            h = block(h, time)
        return h, skips, time

    def finish(self, h: Tensor, skips: list[Tensor], time: Tensor) -> Tensor:
        """Predicted noise."""
        left = list(skips)
        for block in self.decoder.upblocks:
            h = block(torch.cat([h, left.pop()], 1) if isinstance(block, _Residual) else h, time)
        return self.decoder.tail(h)

    def forward(self, images: Tensor, times: Tensor) -> Tensor:
        return self.finish(*self.bottleneck(images, times))

    def mixed(self, images: Tensor, anchors: Tensor, times: Tensor, weight: float) -> Tensor:
        """Predicted noise with the bottleneck mixed with that of the anchors."""
        h, skips, time = self.bottleneck(images, times)
        return self.finish(torch.lerp(self.bottleneck(anchors, times)[0], h, weight), skips, time)


def their_unet(
    steps: int = 50,
    base: int = 32,
    multipliers: Sequence[int] = (1, 2),
    attended: Sequence[int] = (1,),
    layers: int = 1,
    seed: int = 0,
) -> TheirUNet:
    """A network whose weights all matter: none is near zero, as trained ones are not."""
    generator = torch.Generator().manual_seed(seed)
    network = TheirUNet(steps, base, multipliers, attended, layers).eval()
    for weight in network.parameters():
        if weight.requires_grad:
            fan = weight[0].numel() if weight.ndim > 1 else 16
            drawn = torch.randn(weight.shape, generator=generator) / math.sqrt(fan)
            weight.data.copy_(drawn + (1.0 if weight.ndim == 1 else 0.0))
    return network


def their_encoder(
    architecture: str = "resnet18",
    stem: str = "small",
    width: int = 64,
    hidden: int | None = 32,
    seed: int = 0,
) -> dict[str, Tensor]:
    """State dict of torchvision's ResNet with the authors' stem and head, of any first width.

    Args:
        architecture: "resnet18" or "resnet50".
        stem: "small", "mid" or "big".
        width: Channels of the first stage.
        hidden: Of the head; None for a linear one.
        seed: Of the weights and of the statistics of batch norm.
    """
    build: Any = {"resnet18": resnet18, "resnet50": resnet50}[architecture]
    network = build()
    if stem != "big":
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    features = network.fc.in_features * width // 64
    parts = [nn.Linear(features, hidden or 1), nn.ReLU(), nn.Linear(hidden or 1, 8)]
    network.fc = nn.Linear(features, 10) if hidden is None else nn.Sequential(*parts)
    generator, state = torch.Generator().manual_seed(seed), {}
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
            continue
        shape = [
            side * width // 64 if side >= 64 and not name.startswith("fc.") else side
            for side in tensor.shape
        ]
        drawn = torch.randn(shape, generator=generator) / math.sqrt(max(1, tensor[0].numel()))
        state[name] = drawn.abs() + 0.5 if tensor.ndim == 1 else drawn
    return state


def save_torch(tensors: dict[str, Any], path: Any) -> None:
    """As the authors save it."""
    torch.save(tensors, path)


def save_safe(tensors: dict[str, Tensor], path: Any) -> None:
    """The same as safetensors."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
