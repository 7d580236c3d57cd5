"""Imported denoisers: folders of diffusers, and what of them would be sampled wrongly."""

import json

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler
from diffusers.models.unets.unet_2d import UNet2DModel
from theirs import save_safe, save_torch, their_unet

from clsp.config.denoisers import ImportedDenoiserSpec
from clsp.config.foreign import denoiser_files
from clsp.diffusion.imported import import_denoiser
from clsp.models.denoiser import decode, encode, load_denoiser
from clsp.runtime.checkpoint import load_tensors
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import write_manifest

CPU = torch.device("cpu")
SCHEDULE = {"train_timesteps": 50, "beta_start": 0.0001, "beta_end": 0.02}
OUTPUTS = ("model_index", "unet", "scheduler")


def foreign_unet(**changes) -> UNet2DModel:
    """Like google/ddpm-cifar10-32, but narrow."""
    config = {
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "attention_head_dim": None,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_eps": 1e-6,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DModel(**config | changes).eval()


def save_folder(folder, unet, pipeline=False, scheduler=None, safe=True):
    """As diffusers saves a pipeline, or a model with its scheduler beside it."""
    unet.save_pretrained(folder / "unet" if pipeline else folder, safe_serialization=safe)
    scheduler = scheduler or DDPMScheduler(num_train_timesteps=50)
    scheduler.save_pretrained(folder / "scheduler" if pipeline else folder)
    if pipeline:
        (folder / "model_index.json").write_text("{}")
    return folder


@pytest.fixture
def imported(tmp_path, make_dataset):
    """imported(path, format) -> artefact as the job writes it."""
    dataset = make_dataset()

    def make(path, format="diffusers", **changes):
        fields = {**SCHEDULE, "dataset": "digits", "format": format, "path": str(path)}
        spec = ImportedDenoiserSpec(**{**fields, **changes})
        home = tmp_path / "denoisers" / "theirs"
        home.mkdir(parents=True)
        names = {n: home / (n + ".json" if n == "model_index" else n) for n in OUTPUTS}
        files = [type(tmp_path)(each) for each in denoiser_files(spec)]
        outcome = import_denoiser(spec, files, dataset, **names)
        predicate = {
            "step": "import-denoiser",
            "externalParameters": {"spec": spec.canonical(), "arguments": {}},
            "metrics": {},
            "facts": outcome.facts,
        }
        outputs = {path.name: path for path in names.values()}
        return write_manifest(home / "manifest.json", outputs, [], predicate)

    return make


@pytest.mark.parametrize("pipeline", [False, True])
@torch.inference_mode()
def test_a_folder_of_diffusers_gives_its_own_outputs(tmp_path, imported, pipeline):
    theirs = foreign_unet()
    made = imported(save_folder(tmp_path / "folder", theirs, pipeline))
    ours = load_denoiser(made, CPU)
    images, times = torch.randn(2, 3, 8, 8), torch.tensor([0, 49])
    expected = theirs(images, times).sample
    assert torch.equal(ours.unet(images, times).sample, expected)
    halves = decode(ours.unet, *encode(ours.unet, images, times))
    assert torch.allclose(halves, expected, rtol=1e-6, atol=1e-7)
    assert (ours.size, ours.classes, ours.schedule.beta_end) == (8, None, 0.02)
    facts = made.predicate["facts"]
    assert facts["tensors_sha256"] == {"imported": ours.sha256}
    assert facts["architecture"] == {"channels": [32, 64], "attention": [False, True], "layers": 1}
    loaded = DDPMPipeline.from_pretrained(made.folder)
    assert torch.equal(loaded.unet(images, times).sample, expected)
    assert loaded.scheduler.config.num_train_timesteps == 50
    assert loaded.scheduler.config.variance_type == "fixed_large"


@torch.inference_mode()
def test_a_bin_file_with_old_names_of_attention(tmp_path, imported):
    """As google/ddpm-cifar10-32 was published."""
    theirs = foreign_unet()
    folder = save_folder(tmp_path / "folder", theirs)
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, tensor in theirs.state_dict().items():
        for ours, before in old.items():
            name = name.replace(f".{ours}.", f".{before}.") if "attentions" in name else name
        renamed[name] = tensor
    save_torch(renamed, folder / "diffusion_pytorch_model.bin")
    ours = load_denoiser(imported(folder), CPU)
    images, times = torch.randn(2, 3, 8, 8), torch.tensor([3, 30])
    assert torch.equal(ours.unet(images, times).sample, theirs(images, times).sample)


@torch.inference_mode()
def test_the_authors_checkpoint_of_data_parallel(tmp_path, imported):
    theirs = their_unet(50, 32, (1, 2), (1,), 1)
    path = tmp_path / "uncondition_diffusion.pt"
    save_safe({f"module.{n}": t for n, t in theirs.state_dict().items()}, path)
    made = imported(path, "clsp")
    images, times = torch.randn(2, 3, 8, 8), torch.tensor([0, 49])
    found = load_denoiser(made, CPU).unet(images, times).sample
    expected = theirs(images, times)
    assert ((found - expected).abs().max() / expected.abs().max()) < 1e-5
    facts = made.predicate["facts"]
    assert facts["architecture"]["channels"] == [32, 64]
    assert len(facts["dropped"]) == 10
    assert not (made.folder / "raw").exists()


def test_timesteps_of_the_authors_checkpoint_must_be_the_specs(tmp_path, imported):
    save_safe(dict(their_unet(20).state_dict()), tmp_path / "u.pt")
    with pytest.raises(DataError, match="made for 20 timesteps, but params"):
        imported(tmp_path / "u.pt", "clsp")


CONFIGS = {
    "center_input_sample is True, expected False": {"center_input_sample": True},
    "time_embedding_type is 'fourier'": {"time_embedding_type": "fourier"},
    "num_class_embeds is 10, expected None": {"num_class_embeds": 10},
    "class_embed_type is 'timestep'": {"class_embed_type": "timestep"},
    "mid_block_type is None": {"mid_block_type": None},
    "down_block_types has 'SkipDownBlock2D'": {
        "down_block_types": ["SkipDownBlock2D", "AttnDownBlock2D"]
    },
    "up_block_types has 'SkipUpBlock2D'": {"up_block_types": ["AttnUpBlock2D", "SkipUpBlock2D"]},
    "in_channels is 1, expected 3": {"in_channels": 1},
    "out_channels is 6, expected 3": {"out_channels": 6},
    "sample_size is 32, expected 8": {"sample_size": 32},
    "num_train_timesteps is 1000, expected None or 50": {"num_train_timesteps": 1000},
    "act_fn is 'relu'": {"act_fn": "relu"},
    'unknown key "skip_everything"': {"skip_everything": True},
    "describes UNet2DConditionModel, expected a UNet2DModel": {
        "_class_name": "UNet2DConditionModel"
    },
    "describes no network": {"block_out_channels": [32]},
    r"lacks down_blocks.0.resnets.1": {"layers_per_block": 2},
    "layers_per_block is 1000000000, expected a number up to 64": {"layers_per_block": 10**9},
    "layers_per_block is True": {"layers_per_block": True},
    "down_block_types is no list": {"down_block_types": None},
    "block_out_channels is no list": {"block_out_channels": []},
    "block_out_channels has 1000000,": {"block_out_channels": [32, 10**6]},
    "norm_eps is 'x', expected a number": {"norm_eps": "x"},
    "freq_shift is None": {"freq_shift": None},
    "downsample_padding is True, expected 0 or 1": {"downsample_padding": True},
    r"downsample_type is \[\]": {"downsample_type": []},
    "flip_sin_to_cos is 1, expected true or false": {"flip_sin_to_cos": 1},
}


@pytest.mark.parametrize("message", CONFIGS)
def test_networks_that_would_be_run_otherwise_are_refused(tmp_path, imported, message):
    folder = save_folder(tmp_path / "folder", foreign_unet())
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | CONFIGS[message]))
    with pytest.raises(DataError, match=message):
        imported(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[" * 100_000, "not valid JSON"), (" " * (1 << 20) + "{}", "larger than the 1048576 bytes")],
)
def test_configurations_that_are_no_such_file_are_refused(tmp_path, imported, text, message):
    folder = save_folder(tmp_path / "folder", foreign_unet())
    (folder / "config.json").write_text(text)
    with pytest.raises(DataError, match=rf"config\.json: {message}"):
        imported(folder)


def test_an_attention_layer_by_two_names_is_refused(tmp_path, imported):
    folder = save_folder(tmp_path / "folder", foreign_unet())
    path = folder / "diffusion_pytorch_model.safetensors"
    tensors, _ = load_tensors(path)
    name = "mid_block.attentions.0.to_q.weight"
    save_safe({**tensors, name.replace("to_q", "query"): 2 * tensors[name]}, path)
    with pytest.raises(DataError, match=rf"has {name} twice"):
        imported(folder)


SCHEDULERS = {
    "beta_schedule is 'squaredcos_cap_v2', expected 'linear'": {
        "beta_schedule": "squaredcos_cap_v2"
    },
    "num_train_timesteps is 100, expected 50": {"num_train_timesteps": 100},
    "beta_end is 0.028, expected 0.02": {"beta_end": 0.028},
    "prediction_type is 'v_prediction'": {"prediction_type": "v_prediction"},
    "trained_betas is": {"trained_betas": [0.1] * 50},
    "predicts variances": {"variance_type": "learned_range"},
}


@pytest.mark.parametrize("message", SCHEDULERS)
def test_other_schedules_are_refused(tmp_path, imported, message):
    fields = {"num_train_timesteps": 50} | SCHEDULERS[message]
    folder = save_folder(tmp_path / "folder", foreign_unet(), scheduler=DDPMScheduler(**fields))
    with pytest.raises(DataError, match=message):
        imported(folder)


def test_a_rescaled_schedule_is_refused_and_a_ddim_one_taken(tmp_path, imported):
    zero = DDIMScheduler(num_train_timesteps=50, rescale_betas_zero_snr=True)
    folder = save_folder(tmp_path / "zero", foreign_unet(), scheduler=zero)
    with pytest.raises(DataError, match="rescale_betas_zero_snr is True"):
        imported(folder)
    plain = DDIMScheduler(num_train_timesteps=50)
    other = save_folder(tmp_path / "plain", foreign_unet(), scheduler=plain)
    (tmp_path / "denoisers/theirs").rmdir()
    assert imported(other).predicate["facts"]["halves_differ_by"] < 1e-6


def test_files_of_a_folder_there_or_not(tmp_path):
    spec = ImportedDenoiserSpec(
        **SCHEDULE, dataset="d", format="diffusers", path=str(tmp_path / "x")
    )
    names = ["config.json", "scheduler_config.json", "diffusion_pytorch_model.safetensors"]
    assert denoiser_files(spec) == [str(tmp_path / "x" / name) for name in names]
    save_folder(tmp_path / "x", foreign_unet(), pipeline=True, safe=False)
    found = [name.removeprefix(f"{tmp_path}/x/") for name in denoiser_files(spec)]
    assert found == [
        "unet/config.json",
        "scheduler/scheduler_config.json",
        "unet/diffusion_pytorch_model.bin",
        "model_index.json",
    ]


def test_files_of_another_place_or_too_few_are_refused(tmp_path, make_dataset):
    fields = {**SCHEDULE, "dataset": "digits", "path": str(tmp_path)}
    outputs = {name: tmp_path / name for name in OUTPUTS}
    spec = ImportedDenoiserSpec(**fields, format="diffusers")
    dataset = make_dataset()
    with pytest.raises(ConfigError, match=r"expected config\.json, scheduler_config\.json and one"):
        import_denoiser(spec, [tmp_path / "config.json"], dataset, **outputs)
    with pytest.raises(ConfigError, match="--dataset other: expected digits"):
        import_denoiser(spec, [], make_dataset("other"), **outputs)


def test_stored_weights_are_full_precision(tmp_path, imported):
    folder = save_folder(tmp_path / "folder", foreign_unet().half())
    tensors, _ = load_tensors(imported(folder).folder / "unet/diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
