"""The CLSP authors' unconditional U-Net, converted name by name into a diffusers UNet2DModel.

Their network (models/unet.py at 91c8f9e; methods.md 2.1) and ours compute the same. What differs is
names, the 1x1 convolutions that stand for the linear layers of attention, and the time embedding:
theirs is a frozen table of interleaved sines and cosines, ours computes sines before cosines, so
that the columns of the layer behind it are permuted. A projector that their training never used is
left out.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor

from clsp.models.denoiser import network_config
from clsp.runtime.errors import DataError
from clsp.runtime.foreign import compare_names

TABLE = "time_embedding.timembedding.0.weight"
COLUMNS = "time_embedding.timembedding.1.weight"
UNUSED = "encoder.projector."
GROUPS = 32  # of every GroupNorm of theirs; no file shows it
# Of the table. Its angles go up to T, and float32 ends at seven digits; and the authors average it
# along with the weights, whose rounding takes it up to 2e-4 off (outputs: below 1e-5, relative).
TOLERANCE = 1e-3
PLAIN = {  # ours -> theirs, outside of blocks
    "conv_in": "encoder.head",
    "conv_norm_out": "decoder.tail.0",
    "conv_out": "decoder.tail.2",
    "time_embedding.linear_1": "time_embedding.timembedding.1",
    "time_embedding.linear_2": "time_embedding.timembedding.3",
}
RESIDUAL = {
    "norm1": "block1.0",
    "conv1": "block1.2",
    "time_emb_proj": "temb_proj.1",
    "norm2": "block2.0",
    "conv2": "block2.3",
    "conv_shortcut": "shortcut",
}
ATTENTION = {
    "group_norm": "group_norm",
    "to_q": "proj_q",
    "to_k": "proj_k",
    "to_v": "proj_v",
    "to_out.0": "proj",
}


@dataclass(frozen=True)
class Layout:
    """What the names and shapes of a file say of its network.

    Attributes:
        channels: Width per level.
        attention: Self-attention per level.
        layers: Residual blocks per level.
        timesteps: Rows of the time table, T.
    """

    channels: tuple[int, ...]
    attention: tuple[bool, ...]
    layers: int
    timesteps: int

    def config(self, size: int) -> dict[str, Any]:
        """Arguments of UNet2DModel for images of a side in pixels; no dropout, training is over."""
        shape = (self.channels, self.attention, self.layers, GROUPS)
        return network_config(*shape, dropout=0.0, size=size, timesteps=self.timesteps)


def _shape(path: Path, tensors: dict[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in tensors:
        raise DataError(f"{path}: is not the CLSP authors' U-Net: it lacks {name}")
    shape = tuple(tensors[name].shape)
    if len(shape) != dimensions:
        raise DataError(f"{path}: {name} has shape {shape}, expected {dimensions} dimensions")
    return shape


def _levels(path: Path, tensors: dict[str, Tensor]) -> Iterator[list[int]]:
    """Numbers of the residual blocks on the way down, level by level."""
    pattern = re.compile(r"encoder\.downblocks\.(\d{1,4})\.(main|block1)\.")
    kinds = {int(found[1]): found[2] for name in tensors if (found := pattern.match(name))}
    if not kinds or sorted(kinds) != list(range(len(kinds))):
        raise DataError(
            f"{path}: is not the CLSP authors' U-Net: encoder.downblocks has the numbers "
            f"{sorted(kinds)}, expected 0, 1, 2, ..."
        )
    level: list[int] = []
    for number in range(len(kinds)):
        if kinds[number] == "main":
            yield level
            level = []
        else:
            level.append(number)
    yield level


def read_layout(path: Path, tensors: dict[str, Tensor]) -> Layout:
    """Infer the network from names and shapes.

    Args:
        path: To blame.
        tensors: By the authors' names.

    Raises:
        DataError: If no network of theirs that UNet2DModel can be has these.
    """
    steps, base = _shape(path, tensors, TABLE, 2)
    if steps == 0:
        raise DataError(f"{path}: {TABLE} has no rows, expected one per timestep")
    levels = list(_levels(path, tensors))
    counts = {len(level) for level in levels}
    if len(counts) != 1 or 0 in counts:
        found = ", ".join(str(len(level)) for level in levels)
        raise DataError(f"{path}: has {found} residual blocks per level, expected equally many")
    first = [f"encoder.downblocks.{level[0]}" for level in levels]
    channels = tuple(_shape(path, tensors, f"{n}.block1.2.weight", 4)[0] for n in first)
    attention = tuple(f"{n}.attn.proj_q.weight" in tensors for n in first)
    if wrong := [width for width in (base, *channels) if width == 0 or width % GROUPS]:
        raise DataError(f"{path}: has the width {wrong[0]}, expected multiples of {GROUPS}")
    if channels[0] != base:
        raise DataError(
            f"{path}: its first level is {channels[0]} wide and its first layer {base}; diffusers' "
            "UNet2DModel needs them equal (a first multiplier of 1)"
        )
    return Layout(channels, attention, counts.pop(), steps)


def _block(ours: str, number: int, theirs: str, attended: bool) -> dict[str, str]:
    """Layers of one residual block and of the attention behind it: ours -> theirs."""
    names = {f"{ours}.resnets.{number}.{a}": f"{theirs}.{b}" for a, b in RESIDUAL.items()}
    if attended:
        prefix = f"{ours}.attentions.{number}"
        names |= {f"{prefix}.{a}": f"{theirs}.attn.{b}" for a, b in ATTENTION.items()}
    return names


def layer_names(layout: Layout) -> dict[str, str]:
    """Every layer: ours -> theirs; shortcuts also where a block has none."""
    names, levels = dict(PLAIN), len(layout.channels)
    names |= _block("mid_block", 0, "encoder.middleblocks.0", attended=True)
    names |= _block("mid_block", 1, "encoder.middleblocks.1", attended=False)
    down = up = 0
    for level in range(levels):
        for layer in range(layout.layers):
            theirs = f"encoder.downblocks.{down}"
            names |= _block(f"down_blocks.{level}", layer, theirs, layout.attention[level])
            down += 1
        if level < levels - 1:
            names[f"down_blocks.{level}.downsamplers.0.conv"] = f"encoder.downblocks.{down}.main"
            down += 1
        for layer in range(layout.layers + 1):
            theirs, attended = f"decoder.upblocks.{up}", layout.attention[levels - 1 - level]
            names |= _block(f"up_blocks.{level}", layer, theirs, attended)
            up += 1
        if level < levels - 1:
            names[f"up_blocks.{level}.upsamplers.0.conv"] = f"decoder.upblocks.{up}.main"
            up += 1
    return names


def time_table(steps: int, width: int) -> Tensor:
    """Their frozen table, float32 (T, width): sines in even columns, cosines in odd ones."""
    rates = torch.exp(torch.arange(0, width, 2) / width * -math.log(10000))
    angles = torch.arange(steps).float()[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def _check_table(path: Path, table: Tensor) -> None:
    gap = (table.float() - time_table(*table.shape)).abs().max().item()
    if not gap <= TOLERANCE:
        raise DataError(
            f"{path}: {TABLE} differs by up to {gap:.3g} from the sines and cosines that it should "
            "hold, so that it is another network"
        )


def _sines_first(weight: Tensor) -> Tensor:
    """Columns for interleaved inputs -> columns for all sines, then all cosines."""
    return torch.cat([weight[:, 0::2], weight[:, 1::2]], dim=1)


def convert_unet(
    path: Path, tensors: dict[str, Tensor], size: int
) -> tuple[UNet2DModel, Layout, list[str]]:
    """The authors' network as a UNet2DModel with the same outputs.

    Args:
        path: To blame.
        tensors: A state dict of theirs, without the prefix of DataParallel.
        size: Side of the images, pixels; the network itself takes any.

    Returns:
        The network in eval mode, its layout, and the names that were left out.

    Raises:
        DataError: If a tensor is missing, left over or of another shape, or the time table is not
            the one of the formula.
    """
    layout = read_layout(path, tensors)
    dropped = [name for name in sorted(tensors) if name.startswith(UNUSED) or name == TABLE]
    with torch.device("meta"):  # no memory before the file is known to have as many weights
        skeleton = UNet2DModel(**layout.config(size))
    layers, ours = layer_names(layout), skeleton.state_dict()
    source = {}  # of every tensor of ours
    for name in ours:
        layer, _, kind = name.rpartition(".")
        source[name] = f"{layers[layer]}.{kind}"
    kept = {name: tensor for name, tensor in tensors.items() if name not in dropped}
    expected = {}
    for name, theirs in source.items():
        tensor = ours[name]
        square = tensor.ndim == 2 and ".attn.proj" in theirs  # a 1x1 convolution there
        expected[theirs] = tensor[:, :, None, None] if square else tensor
    compare_names(path, kept, expected, "the CLSP authors' U-Net")
    _check_table(path, tensors[TABLE])
    state = {
        name: kept[theirs].float().reshape(ours[name].shape) for name, theirs in source.items()
    }
    state["time_embedding.linear_1.weight"] = _sines_first(kept[COLUMNS].float())
    unet = UNet2DModel(**layout.config(size))
    unet.load_state_dict(state)
    return unet.eval(), layout, dropped
