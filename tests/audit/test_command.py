"""The command's other faces: lists, explanations, and requests that make no sense."""

from pathlib import Path

import pytest
from results_tree import tiny_params

from clsp.audit.run import load_checks, main
from clsp.runtime.canonical import canonical_json
from clsp.runtime.errors import ConfigError, DataError


def test_list_names_every_check(capsys: pytest.CaptureFixture) -> None:
    assert main(["--list-checks"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == sorted(load_checks())


def test_explain(capsys: pytest.CaptureFixture) -> None:
    assert main(["--explain", "a19"]) == 0
    assert "logits" in capsys.readouterr().out


def test_unknown_check_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"A99.*known: A01"):
        main(["--explain", "A99"])


def test_missing_results_folder(tmp_path: Path) -> None:
    spec = canonical_json(tiny_params().canonical())
    with pytest.raises(DataError, match="no such folder"):
        main(["--spec", spec, "--results", str(tmp_path / "none"), "--reports", str(tmp_path)])


def test_malformed_spec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--spec: not valid JSON"):
        main(["--spec", "{", "--results", str(tmp_path), "--reports", str(tmp_path)])


def test_missing_params_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        main(["--params", str(tmp_path / "none.yaml")])
