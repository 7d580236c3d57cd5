"""Weights load into torchvision and timm as cards say, and give the same features bit by bit."""

import pytest
import torch
from exporting import inside, lived
from safetensors.torch import load_file, save_file
from torchvision.models import ResNet

from clsp.config.recipe import Normalisation
from clsp.config.schema import EncoderSpec
from clsp.export.encoder import check_weights, config_json, is_torchvision, loading_code
from clsp.models.encoder import Encoder, normalise, save_encoder
from clsp.runtime.errors import DataError

STATISTICS = Normalisation(mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616))
KINDS = [
    ("resnet18", "small", 8),
    ("resnet18", "small", 64),
    ("resnet18", "small_padding_2", 64),
    ("resnet18", "mid", 64),
    ("resnet18", "big", 64),
    ("resnet18", "big", 96),
    ("resnet50", "small", 16),
    ("resnet50", "mid", 4),
]


def _exported(folder, architecture, stem, width):
    spec = EncoderSpec(architecture=architecture, stem=stem, width=width)
    torch.manual_seed(0)
    encoder = lived(Encoder(spec), 1)
    save_encoder(folder / "model.safetensors", encoder, spec, STATISTICS)
    return spec, encoder


def _images(side):
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (3, side, side, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("architecture", "stem", "width"), KINDS)
def test_torchvision_loads_the_weights_as_the_card_says(tmp_path, architecture, stem, width):
    spec, encoder = _exported(tmp_path, architecture, stem, width)
    code = loading_code(spec, STATISTICS, 32)
    assert "strict=True" in code
    names = {}
    with inside(tmp_path):
        exec(compile(code, "card", "exec"), names)
    assert names["features"].shape == (1, encoder.features)

    images = _images(32)
    with torch.no_grad():
        ours = encoder(normalise(images, STATISTICS))
        pixels = images.permute(0, 3, 1, 2).to(torch.float32) / 255
        theirs = names["encoder"]((pixels - names["mean"]) / names["std"])
    assert torch.isfinite(ours).all()
    assert torch.equal(ours, theirs)
    assert isinstance(names["encoder"], ResNet)


@pytest.mark.parametrize("stem", ["small", "big"])
def test_timm_loads_the_weights_under_the_same_names(tmp_path, stem):
    timm = pytest.importorskip("timm")
    spec, encoder = _exported(tmp_path, "resnet18", stem, 64)
    if is_torchvision(spec):
        (tmp_path / "config.json").write_text(config_json(spec, STATISTICS, 32, {}))
        model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
        assert tuple(model.pretrained_cfg["mean"]) == STATISTICS.mean
    else:
        model = timm.create_model("resnet18", num_classes=0)
        model.conv1 = torch.nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
        model.maxpool = torch.nn.Identity()
        model.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    pixels = normalise(_images(32), STATISTICS)
    with torch.no_grad():
        assert torch.equal(encoder(pixels), model.eval()(pixels))


def test_all_numbers_are_counted(tmp_path):
    spec, encoder = _exported(tmp_path, "resnet18", "small", 8)
    count = sum(tensor.numel() for tensor in encoder.state_dict().values())
    assert check_weights(tmp_path / "model.safetensors", spec) == count


def _with_classifier(tensors):
    tensors["fc.weight"] = torch.zeros(2, 64)


def _of_another_stem(tensors):
    tensors["conv1.weight"] = torch.zeros(8, 3, 7, 7)


@pytest.mark.parametrize(
    ("damage", "said"),
    [(_with_classifier, "fc.weight: not a name"), (_of_another_stem, r"expected \[8, 3, 3, 3\]")],
)
def test_weights_of_another_shape_are_refused(tmp_path, damage, said):
    spec, encoder = _exported(tmp_path, "resnet18", "small", 8)
    tensors = dict(encoder.state_dict())
    damage(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=said):
        check_weights(tmp_path / "model.safetensors", spec)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"not tensors")
    spec = EncoderSpec(architecture="resnet18", stem="small", width=8)
    with pytest.raises(DataError, match="not a readable checkpoint"):
        check_weights(tmp_path / "model.safetensors", spec)
