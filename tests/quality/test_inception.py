"""FID's network comes from a local file or not at all, and no other network is called FID."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from measuring import quality_spec
from torch_fidelity import feature_extractor_inceptionv3 as published

from clsp.config.quality import InceptionSpec
from clsp.evaluate import quality_numbers
from clsp.models.inception import InceptionSource
from clsp.runtime.errors import ConfigError, DataError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network must never be downloaded")

    monkeypatch.setattr(published, "load_state_dict_from_url", refuse)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """The package's class with random weights."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(published, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(published.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        return published.FeatureExtractorInceptionV3("inception", ["2048"])


@pytest.fixture(scope="module")
def weights(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(dict(network.state_dict()), path)
    return path


def test_features_are_those_of_the_package(network, weights: Path) -> None:
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    source = InceptionSource(weights, digest, CPU)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    with torch.no_grad():
        (expected,) = network(torch.from_numpy(images).permute(0, 3, 1, 2))
    np.testing.assert_array_equal(source.describe(images), expected.numpy())
    assert (source.sha256, source.reference, source.width(images)) == (digest, False, 2048)


def test_the_format_in_which_the_weights_were_published_is_read_without_unpickling(
    network: torch.nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "inception.pth"
    torch.save(dict(network.state_dict()), path, _use_new_zipfile_serialization=False)
    source = InceptionSource(path, None, CPU)
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    images = np.full((1, 8, 8, 3), 128, np.uint8)
    with torch.no_grad():
        (expected,) = network(torch.from_numpy(images).permute(0, 3, 1, 2))
    np.testing.assert_array_equal(source.describe(images), expected.numpy())


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


def test_a_hostile_file_in_that_format_runs_nothing(tmp_path: Path) -> None:
    path, made = tmp_path / "inception.pth", tmp_path / "made"
    torch.save({"a": Hostile(made)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(DataError, match=r"inception\.pth"):
        InceptionSource(path, None, CPU)
    assert not made.exists()


def test_a_missing_file_is_an_error_and_no_other_network(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.pth: cannot be read"):
        InceptionSource(tmp_path / "absent.pth", None, CPU)


def test_another_file_than_the_pinned_one(weights: Path) -> None:
    with pytest.raises(DataError, match=r"sha256 .* expected 00000"):
        InceptionSource(weights, "0" * 64, CPU)


def test_weights_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"conv.weight": torch.zeros(3)}, path)
    with pytest.raises(DataError, match="does not fit the Inception-v3 of FID"):
        InceptionSource(path, None, CPU)


def test_the_number_is_called_fid(
    weights: Path, make_dataset, make_bank, make_run, measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(  # 2048 features: the real one takes half a minute here
        quality_numbers, "frechet_distance", lambda a, b: seen.append((a.count, b.count)) or 12.5
    )
    dataset = make_dataset(splits={"train": 6, "val": 0, "test": 3})
    changes = {"encoder": None, "inception": InceptionSpec(path=str(weights))}
    spec = quality_spec(**changes, anchors=3, candidates=(1,), label_agreement=None)
    bank = make_bank(dataset)
    found = measure(spec, bank, dataset, [])
    assert found.numbers(1)["fid"] == 12.5 and seen == [(3, 6)]
    assert "frechet_distance" not in found.numbers(1)
    network = found.outcome.facts["network"]
    assert (network["name"], network["reference_weights"]) == ("inception-v3", False)
    assert network["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert found.document["quality"][0]["singular"] is True
    with pytest.raises(ConfigError, match="inception-v3 needs 0 encoders, found 1"):
        measure(spec, bank, dataset, [make_run()])
