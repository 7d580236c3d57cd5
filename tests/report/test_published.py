"""Published numbers: found by table rows, equal to the reference, and printed with the difference."""

import pandas as pd
import pytest
from results_tree import REPO, tiny_params

from clsp.config.labels import MARK
from clsp.config.schema import EncoderSpec
from clsp.report.cells import aggregate
from clsp.report.page import read_deviations
from clsp.report.published import Published, PublishedNumbers
from clsp.runtime.errors import ConfigError

FILE = REPO / "reports/spec/published.yaml"


def encoder(**changes: object) -> EncoderSpec:
    return EncoderSpec(**{"architecture": "resnet18", "stem": "small", "width": 64, **changes})


@pytest.mark.parametrize(
    ("dataset", "architecture", "label", "protocol", "value"),
    [
        ("cifar10", "resnet18", "CLSP-SimCLR", "offline_linear", 94.45),
        ("cifar10", "resnet18", "SimCLR-aug", "offline_linear", 91.88),
        ("cifar10", "resnet18", "MoCo v2+-aug", "offline_linear", 93.16),
        ("cifar10", "resnet50", "CLSP-MoCo v2+", "knn_best_over_k", 95.33),
        ("cifar100", "resnet18", "SimCLR", "offline_linear", 68.1),
        ("cifar100", "resnet50", "MoCo v2+", "knn_best_over_k", 72.25),
    ],
)
def test_rows_find_their_number(
    dataset: str, architecture: str, label: str, protocol: str, value: float
) -> None:
    spec = encoder(architecture=architecture)
    found = PublishedNumbers.read(FILE).find(dataset, spec, label, protocol)
    assert found is not None
    assert (found.value, found.protocol, found.epochs) == (value, protocol, 1000)
    assert "91c8f9e" in found.source


def test_the_mark_of_labels_is_no_part_of_a_published_name() -> None:
    numbers = PublishedNumbers.read(FILE)
    found = numbers.find("cifar10", encoder(), f"SupCon{MARK}", "offline_linear")
    assert found is not None and found.value == 94.61
    assert numbers.find("cifar10", encoder(), "SupCon, λ = 1", "offline_linear") is None


def test_other_encoders_and_datasets_find_none() -> None:
    numbers = PublishedNumbers.read(FILE)
    assert numbers.find("cifar10", encoder(width=16), "SimCLR", "offline_linear") is None
    assert numbers.find("cifar10-mini", encoder(), "SimCLR", "offline_linear") is None


def test_difference_is_ours_minus_theirs() -> None:
    seeds = pd.DataFrame(
        {
            "run": ["a", "b"],
            "dataset": "cifar10",
            "encoder": "r18",
            "label": "SimCLR",
            "task": "cifar10",
            "protocol": "linear",
            "variant": "",
            "metric": "top1",
            "value": [90.0, 92.0],
            "total": "10000",
            "status": "done",
        }
    )
    published = Published(91.45, "offline_linear", 1000, "README")
    cell = aggregate(seeds, "linear", published=published)
    assert (cell.mean, cell.difference) == (91.0, -0.45)
    assert cell.published_text == "91.45 (−0.45)"
    assert cell.image_error == pytest.approx(100 * (0.91 * 0.09 / 10000) ** 0.5)  # not of 20000
    seeds["status"] = "missing"
    cell = aggregate(seeds, "linear", published=published)
    assert (cell.text, cell.published_text) == ("— (0 of 2)", "91.45 (—)")


def test_malformed_file_is_refused(tmp_path) -> None:
    path = tmp_path / "published.yaml"
    path.write_text("results: [{dataset: x}]\n")
    with pytest.raises(ConfigError, match="expected sources, protocols and results"):
        PublishedNumbers.read(path)


def test_deviations_are_complete_and_unique(tmp_path) -> None:
    entries = read_deviations(REPO / "reports/spec/deviations.yaml")
    assert [entry["id"] for entry in entries] == sorted(entry["id"] for entry in entries)
    path = tmp_path / "deviations.yaml"
    path.write_text("deviations: [{id: D01, title: a, authors: b, ours: c}]\n")
    with pytest.raises(ConfigError, match="lacks why"):
        read_deviations(path)


def test_labels_of_the_paper_s_methods_are_published() -> None:
    """The names that params.yaml prints are those under which numbers are looked up."""
    from clsp.config.grid import expand_runs
    from clsp.config.load import load_params, read_yaml

    shipped = load_params(read_yaml(REPO / "params.yaml"))
    numbers = PublishedNumbers.read(FILE)
    labels = {run.label for run in expand_runs(shipped).values()}
    compared = ("SimCLR", "SimCLR-aug", "CLSP-SimCLR", "MoCo v2+", "CLSP-MoCo v2+")
    for label in compared:
        assert label in labels
        assert numbers.find("cifar10", encoder(), label, "offline_linear") is not None, label
    assert tiny_params().methods["simclr"].label == "SimCLR"
