"""The denoiser: a diffusers UNet2DModel that can be cut in two behind any block (D10)."""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel  # diffusers as a whole loads seconds slower
from torch import Tensor, nn

from clsp.config.denoisers import DenoiserSpec, ImportedDenoiserSpec, NoiseSchedule
from clsp.config.sampling import MIDDLE, block_names
from clsp.config.strict import parse
from clsp.runtime.canonical import read_json
from clsp.runtime.checkpoint import load_tensors, tensors_sha256
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import Artefact
from clsp.runtime.rng import torch_stream

WEIGHTS = "diffusion_pytorch_model.safetensors"  # diffusers' name
SPECS = {"train-denoiser": DenoiserSpec, "import-denoiser": ImportedDenoiserSpec}  # by stage
NO_LABEL = 0  # of a class-conditional denoiser; class c is label c + 1, as the authors number them

logging.getLogger("diffusers").setLevel(logging.ERROR)  # it recommends packages we do without


def network_config(
    channels: tuple[int, ...],
    attention: tuple[bool, ...],
    layers: int,
    groups: int,
    dropout: float,
    size: int,
    timesteps: int,
    classes: int | None = None,
) -> dict[str, Any]:
    """Arguments of UNet2DModel for the CLSP authors' network (models/unet.py), each one stated.

    One attention head, 3x3 stride-2 convolutions down, nearest x2 and 3x3 up. Their interleaved
    sine table is here a concatenated one, a permutation of the inputs of a learned layer.

    Args:
        channels: Width per level.
        attention: Self-attention per level.
        layers: Residual blocks per level on the way down; one more on the way up.
        groups: Of group norm.
        dropout: In [0, 1].
        size: Side of the square image, pixels.
        timesteps: Training timesteps T.
        classes: For a class-conditional network, how many there are: an embedding of the label is
            added to that of the time.
    """
    kinds = ["AttnDownBlock2D" if attended else "DownBlock2D" for attended in attention]
    return {
        "sample_size": size,
        "in_channels": 3,
        "out_channels": 3,
        "center_input_sample": False,
        "time_embedding_type": "positional",
        "time_embedding_dim": 4 * channels[0],
        "freq_shift": 0,
        "flip_sin_to_cos": False,
        "down_block_types": tuple(kinds),
        "mid_block_type": "UNetMidBlock2D",
        "up_block_types": tuple(kind.replace("Down", "Up") for kind in reversed(kinds)),
        "block_out_channels": channels,
        "layers_per_block": layers,
        "mid_block_scale_factor": 1,
        "downsample_padding": 1,
        "downsample_type": "conv",
        "upsample_type": "conv",
        "dropout": dropout,
        "act_fn": "silu",
        "attention_head_dim": None,  # one head as wide as its level, as the authors
        "norm_num_groups": groups,
        "attn_norm_num_groups": groups,
        "norm_eps": 1e-5,
        "resnet_time_scale_shift": "default",
        "add_attention": True,
        "class_embed_type": None,  # with num_class_embeds, an embedding per label
        "num_class_embeds": None if classes is None else classes + 1,
        "num_train_timesteps": timesteps,
    }


def build_denoiser(spec: DenoiserSpec, size: int, classes: int | None = None) -> UNet2DModel:
    """A freshly initialised epsilon network; same spec and size, same weights.

    With channels (128, 256, 256, 256) and attention on the second level only this is the authors'
    network (methods.md 2.1; models/unet.py), without the projector that they never use.

    Args:
        spec: Widths, attention, groups, dropout, seed.
        size: Side of the square image, pixels.
        classes: For a class-conditional network, how many there are.

    Raises:
        ConfigError: If the size cannot be halved once per level.
    """
    spec.check_size(size)
    config = network_config(
        spec.channels,
        spec.attention,
        spec.layers_per_block,
        spec.norm_groups,
        spec.dropout,
        size,
        spec.train_timesteps,
        classes,
    )
    unet = UNet2DModel(**config)
    _initialise(unet, torch_stream(spec.seed, "denoiser weights"))
    return unet


def _initialise(unet: UNet2DModel, generator: torch.Generator) -> None:
    """Xavier-uniform weights and zero biases; gain 1e-5 where a residual branch or the net ends.

    An embedding per label (D30) starts small beside that of the time, as DiT's does
    (arXiv:2212.09748): normal with deviation 0.02.
    """
    for name, module in unet.named_modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02, generator=generator)
        if isinstance(module, nn.Conv2d | nn.Linear):
            gain = 1e-5 if name.endswith((".conv2", "conv_out")) else 1.0
            nn.init.xavier_uniform_(module.weight, gain, generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _embed(unet: UNet2DModel, times: Tensor, labels: Tensor | None, dtype: torch.dtype) -> Tensor:
    """What every block is told: the time, and the label where the network takes one; (B, E)."""
    emb = unet.time_embedding(unet.time_proj(times).to(dtype))
    if unet.class_embedding is None:
        return emb
    return emb + unet.class_embedding(
        torch.full_like(times, NO_LABEL) if labels is None else labels
    )


def _through(
    unet: UNet2DModel, names: tuple[str, ...], h: Tensor, skips: list[Tensor], emb: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Pass h through blocks: down blocks add skips, up blocks take as many."""
    left = list(skips)
    for name in names:
        way, _, number = name.partition(".")
        if way == "down":
            h, made = unet.down_blocks[int(number)](hidden_states=h, temb=emb)
            left += made
        elif way == "up":
            block = unet.up_blocks[int(number)]
            count = len(block.resnets)
            taken, left = left[-count:], left[:-count]
            h = block(h, tuple(taken), emb)
        else:
            h = unet.mid_block(h, emb)
    return h, left


def _cut(unet: UNet2DModel, block: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the blocks up to and with one, and of those behind it."""
    names = block_names(len(unet.down_blocks))
    if block not in names:
        raise ConfigError(f'the denoiser has no block "{block}"; it has {", ".join(names)}')
    behind = names.index(block) + 1
    return names[:behind], names[behind:]


def encode(
    unet: UNet2DModel,
    images: Tensor,
    times: Tensor,
    labels: Tensor | None = None,
    until: str = MIDDLE,
) -> tuple[Tensor, list[Tensor], Tensor]:
    """First part of the network: embeddings, input layer and the blocks up to `until`.

    Args:
        unet: From `build_denoiser`.
        images: Noisy images, (B, 3, H, W), signal in [-1, 1].
        times: Diffusion step of each image, (B,), int64 in [0, T).
        labels: Of a class-conditional network: class + 1, or 0 for none, int64 (B,). None: all 0.
        until: Name of the last block: "down.0", ..., "mid", "up.0", ...; the middle block's output
            is the bottleneck.

    Returns:
        Output h of that block (B, C', H', W'), the skips made and not yet used in the order made,
        and the embedding (B, E). Behind "down.i" the last skip is h itself.

    Raises:
        ConfigError: If there is no such block.
    """
    first, _ = _cut(unet, until)
    emb = _embed(unet, times, labels, images.dtype)
    h = unet.conv_in(images)
    h, skips = _through(unet, first, h, [h], emb)
    return h, skips, emb


def decode(
    unet: UNet2DModel, h: Tensor, skips: list[Tensor], emb: Tensor, after: str = MIDDLE
) -> Tensor:
    """Second part of the network: the blocks behind `after` and the output layer.

    Args:
        unet: From `build_denoiser`.
        h: What takes the place of that block's output.
        skips: As `encode` returns them with the same block; left as they are.
        emb: From `encode`.
        after: Name of a block.

    Returns:
        Predicted noise epsilon, (B, 3, H, W).

    Raises:
        ConfigError: If there is no such block.
    """
    _, last = _cut(unet, after)
    h, _ = _through(unet, last, h, skips, emb)
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(h)))


@dataclass(frozen=True)
class Denoiser:
    """A trained denoiser, frozen, with its EMA weights.

    Attributes:
        unet: In eval mode, without gradients.
        schedule: The noise schedule that it was trained for, and so the sampler's.
        size: Side of the images it was trained on, pixels.
        classes: Of a class-conditional denoiser; None for one that never saw a label.
        sha256: Digest of its tensors, equal to the manifest's.
    """

    unet: UNet2DModel
    schedule: NoiseSchedule
    size: int
    classes: int | None
    sha256: str


def load_denoiser(artefact: Artefact, device: torch.device) -> Denoiser:
    """The weights that are sampled from: the EMA of a trained denoiser, all of an imported one.

    Raises:
        DataError: If the artefact is no denoiser, or its tensors do not fit its configuration.
    """
    if artefact.stage not in SPECS:
        raise DataError(
            f"{artefact.manifest}: made by {artefact.stage}, expected {' or '.join(SPECS)}"
        )
    schedule = parse(SPECS[artefact.stage], artefact.spec, str(artefact.manifest))
    config = read_json(artefact.path("unet/config.json"))
    path = artefact.path(f"unet/{WEIGHTS}")
    tensors, _ = load_tensors(path)
    unet = UNet2DModel.from_config(config)
    try:
        unet.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise DataError(f"{path}: does not fit its own configuration: {error}") from error
    unet.eval().requires_grad_(False).to(device)
    labels = unet.config.num_class_embeds
    classes = None if labels is None else labels - 1
    return Denoiser(unet, schedule, unet.config.sample_size, classes, tensors_sha256(tensors))
