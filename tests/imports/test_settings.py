"""What params.yaml may say of imports, and the jobs that follow."""

from collections import Counter
from pathlib import Path

import pytest
from results_tree import IMPORTED, PARAMS, tiny_params

from clsp.config.catalog import dataset_info
from clsp.config.foreign import expand_imported
from clsp.config.load import load_params, read_yaml
from clsp.config.plan import (
    denoiser_job,
    encoder_job,
    expected_jobs,
    features_job,
    fine_tune_job,
    probe_job,
    trained,
)
from clsp.runtime.errors import ConfigError

ROOT = Path(__file__).parents[2]
ENTRY = IMPORTED["imported"]["theirs"]


def with_entry(**changes):
    entry = {key: value for key, value in {**ENTRY, **changes}.items() if value is not None}
    return tiny_params(**{**IMPORTED, "imported": {"theirs": entry}})


def test_jobs_of_imports():
    params = tiny_params(**IMPORTED)
    counts = Counter(job.stage for job in expected_jobs(params))
    assert counts["import-denoiser"] == 1 and counts["train-denoiser"] == 0
    assert counts["import-encoder"] == 2
    assert counts["probe-encoder"] == counts["probe-transfer"] == 4 + 2
    assert denoiser_job(params, "digits").stage == "import-denoiser"
    assert trained(params)["denoisers"] == []
    imported = expand_imported(params)
    assert list(imported) == ["theirs", "supcon.labels"]
    assert imported["supcon.labels"].label == "SupCon (theirs) [labels]"
    job = encoder_job(imported["theirs"])
    assert (job.stage, job.name) == ("import-encoder", "theirs")
    assert (job.spec["path"], job.spec["sha256"]) == (ENTRY["path"], ENTRY["sha256"])
    assert features_job(imported["theirs"]).spec["own"] == "digits"


def test_what_is_judged_and_printed_is_no_part_of_the_import():
    def job(**changes):
        return encoder_job(expand_imported(with_entry(**changes))["theirs"]).spec

    assert job() == job(label="Another") == job(linear_learning_rate=10.0)
    assert job() != job(epochs=5) and job() != job(sha256=None)


def test_rate_of_the_probe_and_fine_tuning():
    imported = expand_imported(with_entry(linear_learning_rate=10.0))["theirs"]
    assert probe_job(imported).spec["linear"]["learning_rate"] == 10.0
    assert fine_tune_job(imported) is None  # params.yaml asks for none


def test_normalisation_of_the_entry_comes_before_the_datasets():
    ours = {"mean": [0.1, 0.1, 0.1], "std": [0.2, 0.2, 0.2]}
    theirs = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    digits = {**PARAMS["datasets"]["digits"], "normalisation": ours}
    datasets = {**PARAMS["datasets"], "digits": digits}
    for given, expected in ((None, ours), (theirs, theirs)):
        entry = {**ENTRY, **({"normalisation": given} if given else {})}
        changes = {**IMPORTED, "datasets": datasets, "imported": {"theirs": entry}}
        spec = encoder_job(expand_imported(tiny_params(**changes))["theirs"]).spec
        assert spec["normalisation"] == expected


def test_nothing_changes_without_imports():
    params = tiny_params()
    assert expand_imported(params) == {}
    assert params.canonical() == tiny_params(imported=None).canonical()
    assert expand_imported(tiny_params(imported={})) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "digit"}, r'imported.theirs.dataset: unknown dataset "digit" \(did you mean'),
        ({"encoder": "large"}, 'imported.theirs.encoder: unknown encoder "large"'),
        ({"label": "SimCLR"}, r'tables would print "SimCLR" for this and for digits\.tiny\.simclr'),
        ({"label": "X [labels]"}, r"must not contain \[labels\]"),
        ({"format": "pickle"}, "imported.theirs.format"),
        ({"sha256": "abc"}, "imported.theirs.sha256"),
        ({"path": ""}, "imported.theirs.path"),
        ({"uses_labels": None}, "imported.theirs.uses_labels"),
    ],
)
def test_entries_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        with_entry(**changes)


def test_names_that_would_collide_are_refused():
    slug = "digits.tiny.simclr.none.s0"
    with pytest.raises(ConfigError, match=f"imported.{slug}: a run has the name"):
        tiny_params(**{**IMPORTED, "imported": {slug: ENTRY}})
    methods = {"imported": {**PARAMS["methods"]["simclr"], "method": "simclr", "label": "I"}}
    changes = {**IMPORTED, "methods": {**PARAMS["methods"], **methods}}
    with pytest.raises(ConfigError, match=r"methods\.imported: this name stands for"):
        tiny_params(**changes)
    twice = {"a": ENTRY, "b": ENTRY}
    with pytest.raises(ConfigError, match=r"imported.b.label: .* for a on digits, tiny"):
        tiny_params(**{**IMPORTED, "imported": twice})


def test_labels_are_refused_unless_marked():
    changes = {**IMPORTED, "comparison": {"recipes": "single", "labels": "refused"}}
    with pytest.raises(ConfigError, match=r"imported\.supcon: uses labels"):
        tiny_params(**changes)


def test_multi_label_datasets_cannot_be_trained_on():
    assert dataset_info("voc2007").metric == "map11"
    voc = {"kind": "voc2007", "size": 4, "source": "miniature", "seed": 0}
    datasets = {**PARAMS["datasets"], "voc": voc}
    changes = {**IMPORTED, "datasets": datasets}
    changes["imported"] = {"theirs": {**ENTRY, "dataset": "voc"}}
    with pytest.raises(ConfigError, match=r"imported\.theirs\.dataset: \"voc\".*multi-label"):
        tiny_params(**changes)


def test_a_bank_needs_steps_that_divide_the_timesteps_of_an_import():
    banks = {"digits.mix": {**PARAMS["banks"]["digits.mix"], "steps": 3}}
    with pytest.raises(ConfigError, match=r"banks\.digits\.mix: steps must divide"):
        tiny_params(**{**IMPORTED, "banks": banks})


def test_the_shipped_file_plans_without_its_checkpoints():
    path = ROOT / "configs/imported_cifar.yaml"
    params = load_params(read_yaml(path), str(path))
    imported = expand_imported(params)
    assert len(imported) == len(params.imported or {}) > 0
    assert all(not Path(ROOT, each.spec.path).exists() for each in imported.values())
    stages = {job.stage for job in expected_jobs(params)}
    assert {"import-denoiser", "import-encoder"} <= stages and "train-denoiser" not in stages
