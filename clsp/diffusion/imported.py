"""Stage import-denoiser: a denoiser that was trained elsewhere, as one of the suite's own."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor

from clsp.config.denoisers import ImportedDenoiserSpec
from clsp.config.foreign import WEIGHTS
from clsp.data.prepared import open_prepared
from clsp.diffusion.schedule import build_schedule, pipeline_index
from clsp.models.authors_unet import convert_unet
from clsp.models.denoiser import decode, encode
from clsp.runtime.canonical import read_json
from clsp.runtime.checkpoint import tensors_sha256
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.foreign import Foreign, compare_names, load_foreign, without_prefix
from clsp.runtime.rng import torch_stream
from clsp.runtime.stage import Files, Input, Outcome, Output

CONFIG, SCHEDULER = "config.json", "scheduler_config.json"
NOTES = ("_class_name", "_diffusers_version", "_name_or_path")
FIXED: dict[str, tuple[Any, ...]] = {  # what the two halves of clsp/models/denoiser.py can be
    "in_channels": (3,),
    "out_channels": (3,),
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D",),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "act_fn": ("silu", "swish"),
    "downsample_padding": (0, 1),
    "downsample_type": ("conv", "resnet"),
    "upsample_type": ("conv", "resnet"),
}
NUMBERS: dict[str, tuple[float, bool, bool]] = {  # largest, may be a fraction, may be absent
    "time_embedding_dim": (10_000, False, True),
    "freq_shift": (1, False, False),
    "layers_per_block": (64, False, False),
    "mid_block_scale_factor": (100, True, False),
    "dropout": (1, True, False),
    "attention_head_dim": (10_000, False, True),
    "norm_num_groups": (10_000, False, False),
    "attn_norm_num_groups": (10_000, False, True),
    "norm_eps": (1, True, False),
}
FLAGS = ("flip_sin_to_cos", "add_attention")
WIDEST, MOST_LEVELS = 10_000, 16
LARGEST_CONFIG = 1 << 20  # bytes
ODD = (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, AttributeError)
BLOCKS = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D"),
}
SCHEDULE: dict[str, Any] = {  # of schedulers, with what diffusers takes where a key is absent
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
}
LEARNT_VARIANCE = ("learned", "learned_range")
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
ALIKE = 1e-5  # relative; both halves of the network and the whole of it run the same layers


def _check_config(path: Path, config: Any, size: int, steps: int) -> dict[str, Any]:
    """The arguments of UNet2DModel in a config.json.

    Raises:
        DataError: Naming the first key whose value is not supported, and those that are.
    """
    signature = inspect.signature(UNet2DModel.__init__).parameters
    known = {name: p.default for name, p in signature.items() if name != "self"}
    if not isinstance(config, dict) or config.get("_class_name") != "UNet2DModel":
        found = config.get("_class_name") if isinstance(config, dict) else type(config).__name__
        raise DataError(f"{path}: describes {found}, expected a UNet2DModel")
    if strange := [name for name in config if name not in known and name not in NOTES]:
        raise DataError(f'{path}: has the unknown key "{strange[0]}", so that its effect is too')
    full = known | {name: value for name, value in config.items() if name in known}
    allowed = FIXED | {"sample_size": (size,), "num_train_timesteps": (None, steps)}
    for name, values in allowed.items():
        if full[name] not in values or isinstance(full[name], bool) != isinstance(values[0], bool):
            expected = " or ".join(map(repr, values))
            raise DataError(f"{path}: {name} is {full[name]!r}, expected {expected}")
    _check_numbers(path, full)
    _check_levels(path, full)
    return full


def _check_numbers(path: Path, config: dict[str, Any]) -> None:
    """Refuse what is no number or flag of a network, and numbers that would take for ever."""
    for name, (largest, fraction, optional) in NUMBERS.items():
        value = config[name]
        if value is None and optional:
            continue
        kinds = (int, float) if fraction else (int,)
        if type(value) not in kinds or not 0 <= value <= largest:
            raise DataError(f"{path}: {name} is {value!r}, expected a number up to {largest}")
    for name in FLAGS:
        if not isinstance(config[name], bool):
            raise DataError(f"{path}: {name} is {config[name]!r}, expected true or false")


def _check_levels(path: Path, config: dict[str, Any]) -> None:
    """Refuse lists that do not describe the levels of a network."""
    for name in (*BLOCKS, "block_out_channels"):
        value = config[name]
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= MOST_LEVELS:
            raise DataError(f"{path}: {name} is no list of 1 to {MOST_LEVELS} levels")
    for name, kinds in BLOCKS.items():
        if wrong := [kind for kind in config[name] if kind not in kinds]:
            raise DataError(f"{path}: {name} has {wrong[0]!r}, expected {' or '.join(kinds)}")
    for width in config["block_out_channels"]:
        if type(width) is not int or not 1 <= width <= WIDEST:
            raise DataError(
                f"{path}: block_out_channels has {width!r}, expected widths up to {WIDEST}"
            )


def _read_config(path: Path) -> Any:
    """A small JSON file."""
    if path.stat().st_size > LARGEST_CONFIG:
        raise DataError(f"{path}: larger than the {LARGEST_CONFIG} bytes of a configuration")
    return read_json(path)


def _check_schedule(path: Path, found: Any, spec: ImportedDenoiserSpec) -> None:
    """Refuse a scheduler that adds noise otherwise than the spec says."""
    if not isinstance(found, dict):
        raise DataError(f"{path}: describes no scheduler")
    usual = {"num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02}
    wanted = {
        "num_train_timesteps": spec.train_timesteps,
        "beta_start": spec.beta_start,
        "beta_end": spec.beta_end,
    }
    for name, expected in (wanted | SCHEDULE).items():
        value = found.get(name, (usual | SCHEDULE)[name])
        near = (
            isinstance(expected, float)
            and isinstance(value, int | float)
            and abs(value - expected) <= 1e-9 * expected
        )
        if value != expected and not near:
            raise DataError(
                f"{path}: {name} is {value!r}, expected {expected!r}, as params.yaml says of this "
                "denoiser" + ("" if name in wanted else " (other kinds are not supported)")
            )
    if found.get("variance_type") in LEARNT_VARIANCE:
        raise DataError(f"{path}: the network predicts variances, which samplers here do not use")


def _new_names(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of attention layers as diffusers has had them since 0.15."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        parts = name.split(".")
        if len(parts) > 2 and "attentions" in parts and parts[-2] in OLD_ATTENTION:
            parts[-2] = OLD_ATTENTION[parts[-2]]
        if ".".join(parts) in renamed:
            raise DataError(f"{path}: has {'.'.join(parts)} twice, by its old and its new name")
        renamed[".".join(parts)] = tensor
    return renamed


def _from_diffusers(
    spec: ImportedDenoiserSpec, foreign: list[Path], size: int
) -> tuple[UNet2DModel, Foreign, list[str]]:
    """The network of a model folder, its weights as read, and the names left out: none."""
    given = {path.name: path for path in foreign}
    weights = [given[name] for name in WEIGHTS if name in given]
    if len(weights) != 1 or CONFIG not in given or SCHEDULER not in given:
        raise ConfigError(
            f"--foreign: expected {CONFIG}, {SCHEDULER} and one of {' or '.join(WEIGHTS)}, found "
            f"{', '.join(given)}"
        )
    path = given[CONFIG]
    config = _check_config(path, _read_config(path), size, spec.train_timesteps)
    _check_schedule(given[SCHEDULER], _read_config(given[SCHEDULER]), spec)
    read = load_foreign(weights[0], spec.sha256)
    try:
        with torch.device("meta"):  # no memory before the file is known to have as many weights
            skeleton = UNet2DModel(**config)
    except ODD as error:
        raise DataError(f"{path}: describes no network ({error})") from error
    tensors = _new_names(read.path, read.tensors)
    compare_names(weights[0], tensors, skeleton.state_dict(), f"the network of {path}")
    unet = UNet2DModel(**config)
    unet.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return unet.eval(), read, []


def _from_authors(
    spec: ImportedDenoiserSpec, foreign: list[Path], size: int
) -> tuple[UNet2DModel, Foreign, list[str]]:
    """The network of the authors' checkpoint, what was read, and the names left out."""
    if [str(path) for path in foreign] != [spec.path]:
        raise ConfigError(f"--foreign {' '.join(map(str, foreign))}: expected {spec.path}")
    read = load_foreign(foreign[0], spec.sha256)
    tensors = without_prefix(read.path, read.tensors)
    unet, layout, dropped = convert_unet(read.path, tensors, size)
    if layout.timesteps != spec.train_timesteps:
        raise DataError(
            f"{read.path}: made for {layout.timesteps} timesteps, but params.yaml says "
            f"{spec.train_timesteps}"
        )
    return unet, read, dropped


def _check_halves(unet: UNet2DModel, path: Path, size: int, steps: int) -> float:
    """Greatest relative difference between the network's own forward and its two halves."""
    generator = torch_stream(0, "imported denoiser")
    images = torch.randn((2, 3, size, size), generator=generator)
    times = torch.tensor([0, steps - 1])
    with torch.inference_mode():
        try:
            whole = unet(images, times, return_dict=False)[0]
        except ODD as error:
            raise DataError(f"{path}: does not take images of {size} pixels ({error})") from error
        halves = decode(unet, *encode(unet, images, times))
    if not torch.isfinite(whole).all():
        raise DataError(f"{path}: the network gives NaN or infinity")
    gap = ((whole - halves).abs().max() / whole.abs().max().clamp_min(1e-12)).item()
    if gap > ALIKE:
        raise DataError(f"{path}: cut in two, the network gives other outputs (by {gap:.2g})")
    return gap


def import_denoiser(
    spec: ImportedDenoiserSpec,
    foreign: Files,
    dataset: Input,
    model_index: Output,
    unet: Output,
    scheduler: Output,
) -> Outcome:
    """Read a denoiser from foreign files; nothing of it is trained here.

    Args:
        spec: What the files are said to hold.
        foreign: Format diffusers: config.json, scheduler_config.json, the weights and, where there
            is one, model_index.json. Format clsp: the checkpoint.
        dataset: That it was trained on, which gives the size of its images.
        model_index: As train-denoiser writes it: the folder loads with DDPMPipeline.
        unet: The network, in full precision, as safetensors.
        scheduler: The spec's noise schedule.

    Raises:
        ConfigError: If files or dataset are not the spec's.
        DataError: If a file is none that is read, or holds a network that is not supported.
    """
    if dataset.folder.name != spec.dataset:
        raise ConfigError(f"--dataset {dataset.folder.name}: expected {spec.dataset}")
    size = open_prepared(dataset).split("train").images.shape[1]
    build = _from_diffusers if spec.format == "diffusers" else _from_authors
    network, read, dropped = build(spec, foreign, size)
    gap = _check_halves(network, read.path, size, spec.train_timesteps)
    model_index.write_text(pipeline_index(), encoding="utf-8")
    network.save_pretrained(unet)
    build_schedule(spec).save_pretrained(scheduler)
    facts = {
        "source": read.facts(),
        "format": spec.format,
        "architecture": {
            "channels": list(network.config.block_out_channels),
            "attention": [kind.startswith("Attn") for kind in network.config.down_block_types],
            "layers": network.config.layers_per_block,
        },
        "dropped": dropped,
        "sampled_weights": "imported",
        "tensors_sha256": {"imported": tensors_sha256(network.state_dict())},
        "label_conditioned": False,
        "halves_differ_by": gap,
    }
    counters = {"parameters": sum(p.numel() for p in network.parameters())}
    return Outcome({}, counters, facts)
