"""Every mistake in params.yaml is refused with its place, what was found and what would do."""

import copy
from pathlib import Path

import pytest

from clsp.config.grid import expand_runs
from clsp.config.load import load_params, read_yaml
from clsp.config.schema import POSITIVES, Params
from clsp.runtime.errors import ConfigError
from clsp.runtime.registry import names, settings_class

ROOT = Path(__file__).parents[2]
SHIPPED = [ROOT / "params.yaml", *sorted((ROOT / "configs").glob("*.yaml"))]


@pytest.fixture
def data():
    return read_yaml(ROOT / "params.yaml")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_shipped_files_are_valid(path):
    params = load_params(read_yaml(path), path.name)
    again = load_params(params.canonical(), "round trip")
    assert again == params


def _set(data, path, value):
    *parents, last = path.split("/")
    for key in parents:
        data = data[key]
    data[last] = value


CASES = [
    (
        "methods/simclr/temprature",
        0.1,
        r'methods\.simclr.*unknown key "temprature" \(did you mean "temperature"\?\)',
    ),
    ("evalutation", {}, r'unknown key "evalutation" \(did you mean "evaluation"\?\)'),
    (
        "recipes/demo/views/solarise",
        0.2,
        r'recipes\.demo\.views: unknown key "solarise" \(did you mean "solarize"\?\)',
    ),
    ("methods/simclr/temperature", 0, r"methods\.simclr.*temperature.*greater than 0.*found 0"),
    (
        "banks/digits.mix/interpolation_weight",
        1.1,
        r"interpolation_weight.*less than or equal to 1.*1\.1",
    ),
    ("banks/digits.mix/candidates", 0, r"candidates.*greater than or equal to 1.*found 0"),
    ("recipes/demo/warmup_epochs", 10_000, r"warmup_epochs must be below epochs"),
    (
        "methods/simclr2",
        {"label": "x", "recipe": "demo", "alignment_weight": 1},
        r'unknown method "simclr2" \(did you mean "simclr"\?\); known: .*moco',
    ),
    ("datasets/digits/kind", "digit", r'unknown kind "digit" \(did you mean "digits"\?\)'),
    ("positives/synthetic/source", "bnak", r'unknown source "bnak" \(did you mean "bank"\?\)'),
    ("banks/digits.mix/generator", "extrapolate", r'unknown generator "extrapolate"'),
    (
        "banks/digits.mix/denoiser",
        "cifar",
        r'banks\.digits\.mix\.denoiser: unknown denoiser "cifar"',
    ),
    (
        "runs/simclr/dataset",
        ["digitss"],
        r'runs\.simclr\.dataset: unknown dataset "digitss" \(did you mean "digits"\?\)',
    ),
    ("runs/simclr/method", ["byoll"], r'runs\.simclr\.method: unknown method "byoll"'),
    (
        "runs/simclr/positives",
        ["synthetik"],
        r'unknown positives "synthetik" \(did you mean "synthetic"\?\)',
    ),
    (
        "positives/synthetic/bank",
        "{dataset}.mixx",
        r'unknown bank "digits\.mixx" \(did you mean "digits\.mix"\?\)',
    ),
    (
        "methods/simclr/recipe",
        "dmeo",
        r'methods\.simclr\.recipe: unknown recipe "dmeo" \(did you mean "demo"\?\)',
    ),
    ("tables", ["mian"], r'tables: unknown table "mian" \(did you mean "main"\?\)'),
    ("device", "gpu", r"device: .*'auto', 'cpu' or 'cuda'.*found 'gpu'"),
    ("denoisers/digits/attention", [False], r"attention has 1 levels, channels has 2"),
    ("denoisers/digits/norm_groups", 7, r"multiple of norm_groups 7"),
    ("profile", "../up", r"profile: .*pattern.*found '\.\./up'"),
    ("runs", {}, r"runs: no grid is given"),
    (
        "evaluation/transfer/datasets",
        ["dtdmini"],
        r'unknown dataset "dtdmini" \(did you mean "dtd-mini"\?\)',
    ),
    (
        "positives/augmentation/label",
        "{methd}-aug",
        r"positives\.augmentation\.label: the only placeholder here is \{method\}, not \{methd\}",
    ),
    ("positives/augmentation/label", "{method", r"augmentation\.label: not a valid pattern"),
    ("positives/augmentation/label", "{method.label}", r"not \{method\.label\}"),
    ("positives/augmentation/label", "{method!r}", r"not \{method!r\}"),
    ("positives/synthetic/bank", "{data}.mix", r"synthetic\.bank: .*\{dataset\}, not \{data\}"),
    ("positives/synthetic/bank", "", r"positives\.synthetic\.bank"),
    ("datasets/digits/kind", 5, r'datasets\.digits: unknown kind "5"'),
    ("datasets/digits/kind", None, r'datasets\.digits: unknown kind "None"'),
    ("datasets/digits/kind", ["digits"], r"datasets\.digits: unknown kind"),
    ("datasets/digits/options", 5, r"datasets\.digits: options must be a mapping, found 5"),
    ("methods", {5: {"label": "x"}}, r'methods\.5: unknown method "5"'),
    (
        "positives/synthetic",
        {"source": "bank", "label": "x-{method}"},
        r'positives\.synthetic\.bank: source "bank" needs the name of a bank',
    ),
    (
        "positives/none/bank",
        "digits.mix",
        r'positives\.none\.bank: source "none" reads no bank, found "digits\.mix"',
    ),
    ("denoisers/digits/beta_end", 2.0, r"denoisers\.digits\.beta_end: .*less than 1, found 2"),
    ("denoisers/digits/ema_decay", 1.0, r"denoisers\.digits\.ema_decay: .*less than 1"),
    ("evaluation/transfer/logistic/low", float("nan"), r"logistic\.low: .*finite"),
    ("evaluation/transfer/logistic/low", 9, r"low must not exceed high, found 9\.0 and 5\.0"),
    (
        "evaluation/transfer/datasets",
        ["dtd-mini", "dtd-mini"],
        r'evaluation\.transfer\.datasets: "dtd-mini" is given twice',
    ),
    ("runs/simclr/seed", [0, 1, 0], r'runs\.simclr\.seed: "0" is given twice'),
    ("runs/simclr/method", ["simclr", "simclr"], r'runs\.simclr\.method: "simclr" is given twice'),
    ("tables", ["main", "main"], r'tables: "main" is given twice'),
    (
        "overrides",
        [{"dataset": "digts", "alignment_weight": 1}],
        r'overrides\.0\.dataset: unknown dataset "digts" \(did you mean "digits"\?\)',
    ),
    (
        "overrides",
        [{"method": "simclrr", "alignment_weight": 1}],
        r'overrides\.0\.method: unknown method "simclrr" \(did you mean "simclr"\?\)',
    ),
    ("overrides", [{"dataset": "digits"}], r"overrides\.0: changes no run"),
    (
        "overrides",
        [{"method": "simclr", "alignment_weight": 0.2}],
        r"overrides\.0: changes no run",  # what the method says already
    ),
    (
        "overrides",
        [{"positives": "none", "alignment_weight": 3}],
        r"overrides\.0: changes no run",
    ),
    (
        "overrides",
        [{"method": "moco", "positives": "augmentation", "alignment_weight": 3}],
        r"overrides\.0: matches no run",
    ),
    (
        "overrides",
        [{"alignment_weight": 3}, {"alignment_weight": 4}],
        r"overrides\.0: changes no run",  # the second one takes it all back
    ),
    (
        "positives/augmentation/label",
        "{method}",
        r'tables would print "SimCLR" for method simclr with positives none and for method simclr '
        "with positives augmentation",
    ),
    ("methods/moco/label", "SimCLR", r'tables would print "SimCLR" for method simclr'),
    (
        "positives/synthetic/candidates",
        5,
        r"positives\.synthetic\.candidates: 5 exceeds the 4 candidates of bank digits\.mix",
    ),
    (
        "positives/none/pairs",
        "digits.pairs",
        r'positives\.none\.pairs: source "none" reads no pairs, found "digits\.pairs"',
    ),
    ("recipes/demo/optimizer", "lars", r"recipes\.demo: optimizer lars and a section lars belong"),
    ("comparison/labels", "yes", r"comparison\.labels: .*'refused' or 'marked'.*found 'yes'"),
    ("comparison", {"labels": "marked"}, r"comparison\.recipes: Field required"),
    (
        "methods/simclr/label",
        "SimCLR [labels]",
        r'methods\.simclr\.label: "\[labels\]" is added by the suite',
    ),
]


@pytest.mark.parametrize(
    ("path", "value", "message"), CASES, ids=[f"{c[0]}={c[1]}"[:60] for c in CASES]
)
def test_a_mistake_is_named_with_its_place_and_the_remedy(data, path, value, message):
    _set(data, path, value)
    with pytest.raises(ConfigError, match=message):
        expand_runs(load_params(data))


def test_a_bank_of_another_dataset_is_refused(data):
    data["datasets"]["twin"] = dict(data["datasets"]["digits"], seed=1)
    data["banks"]["digits.mix"]["dataset"] = "twin"
    message = 'bank "digits.mix" belongs to dataset "twin", but the runs train on "digits"'
    with pytest.raises(ConfigError, match=message):
        load_params(data)


def _renamed(data, section, axis, old, new):
    data[section][new] = data[section].pop(old)
    for grid in data["runs"].values():
        grid[axis] = [new if name == old else name for name in grid[axis]]


def test_two_runs_never_share_a_folder(data):
    data["methods"]["simclr"]["method"] = "simclr"
    data["methods"]["x.simclr"] = dict(data["methods"]["simclr"], label="Other")
    data["encoders"]["tiny.x"] = data["encoders"]["tiny"]
    data["runs"]["dotted"] = dict(data["runs"]["simclr"], method=["x.simclr"])
    load_params(data)
    data["runs"]["too"] = dict(data["runs"]["simclr"], encoder=["tiny.x"])
    with pytest.raises(ConfigError, match=r'share the folder "digits\.tiny\.x\.simclr\.none\.s0"'):
        load_params(data)


def test_names_may_be_long_and_slugs_have_an_end(data):
    data["quality"] = None  # it names a run of the encoder that is renamed
    _renamed(data, "encoders", "encoder", "tiny", "e" * 60)
    _renamed(data, "positives", "positives", "augmentation", "p" * 60)
    data["positives"]["p" * 60]["source"] = "augmentation"
    params = load_params(data)
    assert any(len(slug) > 120 for slug in expand_runs(params))
    for name in ("simclr", "moco"):
        data["methods"][name]["method"] = name
        _renamed(data, "methods", "method", name, name[0] * 60)
    data["datasets"]["d" * 60] = data["datasets"]["digits"]
    data["runs"] = {"long": dict(data["runs"]["simclr"], dataset=["d" * 60])}
    data["runs"]["long"]["positives"] = ["p" * 60]
    with pytest.raises(ConfigError, match="at most 200 characters"):
        load_params(data)


@pytest.mark.parametrize("name", names(POSITIVES))
def test_every_source_says_what_it_reads_and_uses(name):
    settings = settings_class(POSITIVES, name)
    assert settings.reads in (None, "bank", "pairs")
    assert {settings.uses_labels, settings.uses_groups} <= {True, False}


def test_a_missing_key_is_named(data):
    del data["recipes"]["demo"]["momentum"]
    with pytest.raises(ConfigError, match=r"recipes\.demo\.momentum: Field required"):
        load_params(data)


def test_several_mistakes_come_in_one_message(data):
    _set(data, "methods/simclr/temperature", -1)
    _set(data, "recipes/demo/epochs", 0)
    with pytest.raises(ConfigError) as caught:
        load_params(data)
    assert "temperature" in str(caught.value)
    assert "recipes.demo.epochs" in str(caught.value)


def test_no_field_but_absent_ones_has_a_default():
    """No scientific value hides in code: defaults are None, meaning "feature absent"."""
    seen, queue = set(), [Params]
    while queue:
        model = queue.pop()
        seen.add(model)
        for field in model.model_fields.values():
            assert field.is_required() or field.default is None, f"{model.__name__}"
            queue += [kind for kind in _models_in(field.annotation) if kind not in seen]
    assert len(seen) > 10


def _models_in(annotation):
    from typing import get_args

    from clsp.config.strict import Strict

    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: 1\nb: 2\na: 3\n", 'line 1 gives the key "a" twice'), ("a: [1,\n", "not valid YAML")],
)
def test_broken_yaml_is_refused(tmp_path, text, message):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_yaml(path)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "p.yaml").write_bytes(b"profile: \xff\n")
    with pytest.raises(ConfigError, match=r"p\.yaml: not UTF-8 text"):
        read_yaml(tmp_path / "p.yaml")


def test_merge_keys_may_be_overridden(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n")
    assert read_yaml(path)["b"] == {"x": 1, "y": 3}


def test_validation_leaves_the_input_alone(data):
    before = copy.deepcopy(data)
    load_params(data)
    assert data == before


def test_a_file_can_extend_another(tmp_path):
    base = ROOT / "params.yaml"
    changed = {
        "extends": str(base),
        "profile": "mine",
        "recipes": {"demo": {"epochs": 7}},
        "figures": ["curves"],
    }
    params = load_params(changed)
    assert (params.profile, params.recipes["demo"].epochs) == ("mine", 7)
    assert params.figures == ("curves",)
    original = load_params(read_yaml(base))
    assert params.recipes["demo"].batch_size == original.recipes["demo"].batch_size
    assert params.banks == original.banks


def test_files_that_extend_each_other_are_refused(tmp_path):
    (tmp_path / "a.yaml").write_text(f"extends: {tmp_path}/b.yaml\n")
    (tmp_path / "b.yaml").write_text(f"extends: {tmp_path}/a.yaml\n")
    with pytest.raises(ConfigError, match="circle"):
        load_params({"extends": f"{tmp_path}/a.yaml"})
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        load_params({"extends": "absent.yaml"})
