"""Imported encoders: the features of torchvision's own network, and nothing else is taken for one."""

import pytest
import torch
from theirs import save_safe, their_encoder
from torch import nn
from torchvision.models import resnet18

from clsp.config.foreign import ImportedEncoderSpec
from clsp.models.encoder import load_encoder
from clsp.models.features import open_frozen, open_untrained
from clsp.models.imported import import_encoder
from clsp.runtime.canonical import parse_json
from clsp.runtime.checkpoint import load_tensors, tensors_sha256
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import write_manifest

CPU = torch.device("cpu")
THEIRS = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}


@pytest.fixture
def imported(tmp_path, make_dataset):
    """imported(tensors, width=8, ...) -> artefact as the job writes it."""
    dataset = make_dataset()

    def make(tensors, name="theirs", **changes):
        path = tmp_path / f"{name}.safetensors"
        save_safe(tensors, path)
        encoder = {"architecture": "resnet18", "stem": "small", "width": 8}
        encoder |= changes.pop("encoder", {})
        fields = {"dataset": "digits", "format": "clsp", "uses_labels": False, "epochs": 1000}
        spec = ImportedEncoderSpec(path=str(path), encoder=encoder, **{**fields, **changes})
        folder = tmp_path / "imported" / name
        folder.mkdir(parents=True)
        outcome = import_encoder(spec, [path], dataset, folder / "encoder.safetensors")
        predicate = {
            "step": "import-encoder",
            "externalParameters": {"spec": spec.canonical(), "arguments": {}},
            "metrics": {},
            "facts": outcome.facts,
        }
        outputs = {"encoder.safetensors": folder / "encoder.safetensors"}
        return write_manifest(folder / "manifest.json", outputs, [], predicate)

    return make


def features_of_torchvision(state, stem, images):
    network = resnet18()
    if stem != "big":
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    if stem == "small":
        network.maxpool = nn.Identity()
    network.fc = nn.Identity()
    network.load_state_dict({n: t for n, t in state.items() if not n.startswith("fc.")})
    return network.eval()(images)


@pytest.mark.parametrize("stem", ["small", "mid", "big"])
@torch.inference_mode()
def test_features_are_torchvisions(imported, stem):
    state = their_encoder(stem=stem, hidden=None if stem == "big" else 32)
    made = imported(state, encoder={"stem": stem, "width": 64})
    encoder, _ = load_encoder(made, CPU)
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(encoder(images), features_of_torchvision(state, stem, images))
    dropped = made.predicate["facts"]["dropped"]
    assert dropped == sorted(name for name in state if name.startswith("fc."))


def test_what_is_written_is_what_judging_reads(imported):
    parallel = {f"module.{name}": t for name, t in their_encoder(width=8).items()}
    made = imported(parallel, normalisation=THEIRS)
    frozen = open_frozen(made, "theirs", CPU)
    assert (frozen.epoch, frozen.run, frozen.statistics.mean) == (1000, "theirs", THEIRS["mean"])
    tensors, metadata = load_tensors(made.path("encoder.safetensors"))
    facts = made.predicate["facts"]
    assert facts["tensors_sha256"] == tensors_sha256(tensors)
    assert parse_json(metadata["encoder"])["width"] == 8
    assert (facts["label_free"], facts["uses_labels"]) == (True, False)
    assert facts["source"]["path"].endswith("theirs.safetensors")
    with pytest.raises(ConfigError, match='holds run "theirs", but the spec judges "other"'):
        open_frozen(made, "other", CPU)
    with pytest.raises(ConfigError, match="expected a run of pretrain-encoder, found one of imp"):
        open_untrained(made, CPU)


def test_the_card_gives_statistics_where_the_spec_has_none(imported):
    made = imported(their_encoder(width=8), epochs=None, uses_labels=True)
    frozen = open_frozen(made, "theirs", CPU)
    assert (frozen.epoch, frozen.statistics.std) == (None, (0.2, 0.2, 0.2))
    assert made.predicate["facts"]["label_free"] is False


def test_files_without_counts_and_in_half_precision(imported):
    state = {n: t for n, t in their_encoder(width=8).items() if "num_batches" not in n}
    half = {name: tensor.half() for name, tensor in state.items()}
    encoder, _ = load_encoder(imported(half), CPU)
    assert encoder.conv1.weight.dtype == torch.float32
    assert torch.equal(encoder.conv1.weight, half["conv1.weight"].float())
    assert encoder.bn1.num_batches_tracked == 0


def changed(**tensors):
    state = their_encoder(width=8) | {n.replace("__", "."): t for n, t in tensors.items()}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


REFUSED = {
    "lacks layer4.1.bn2.weight": (changed(layer4__1__bn2__weight=None), {}),
    "has besides queue": (changed(queue=torch.ones(3)), {}),
    r"conv1.weight \(8, 3, 3, 3\) instead of \(8, 3, 7, 7\)": (
        changed(),
        {"encoder": {"stem": "big"}},
    ),
    r"and 96 more": (changed(), {"encoder": {"width": 16}}),
    "a resnet50 of width 8 with the stem small: it lacks": (
        changed(),
        {"encoder": {"architecture": "resnet50"}},
    ),
    "has besides fc.0.bias, fc.0.weight": (changed(), {"format": "torchvision"}),
    '"bn1.running_var" holds a negative variance': (changed(bn1__running_var=-torch.ones(8)), {}),
    r"another kind in bn1.weight \(torch.int64\)": (
        changed(bn1__weight=torch.ones(8, dtype=torch.int64)),
        {},
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_other_networks_are_refused_by_name(imported, message):
    tensors, changes = REFUSED[message]
    with pytest.raises(DataError, match=message):
        imported(tensors, **changes)


def test_the_spec_names_its_file(imported, tmp_path, make_dataset):
    made = imported(their_encoder(width=8))
    spec = ImportedEncoderSpec.model_validate(made.spec)
    dataset = make_dataset("other")
    with pytest.raises(ConfigError, match=r"expected .*theirs\.safetensors"):
        import_encoder(spec, [tmp_path / "else"], dataset, tmp_path / "out")
    with pytest.raises(ConfigError, match="--dataset other: expected digits"):
        import_encoder(spec, [tmp_path / "theirs.safetensors"], dataset, tmp_path / "out")
