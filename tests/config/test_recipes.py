"""The shipped recipes say what was published: tables 3.1, 3.2 and 3.5 of methods.md, typed again."""

import re
from pathlib import Path

import pytest

from clsp.config.grid import expand_runs
from clsp.config.load import load_params, resolve_base
from clsp.config.schema import METHODS
from clsp.runtime.registry import names

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "configs/recipes").glob("*.yaml"))

# Of a view: crop, then jitter (brightness, contrast, saturation, hue), p(blur) and p(solarize).
SYM = ((0.08, 1.0), (0.8, 0.8, 0.8, 0.2), 0.5, 0.0)
SYM_WEAK = ((0.08, 1.0), (0.4, 0.4, 0.4, 0.1), 0.5, 0.0)
MILD = (0.4, 0.4, 0.2, 0.1)
ASYM = (((0.08, 1.0), MILD, 0.0, 0.0), ((0.08, 1.0), MILD, 0.0, 0.2))
ASYM_100 = (((0.08, 1.0), MILD, 1.0, 0.0), ((0.08, 1.0), MILD, 0.1, 0.2))
STRONG = ((0.08, 1.0), MILD, 0.5, 0.0)
WEAK = ((0.08, 1.0), None, 0.0, 0.0)

# method: optimizer, rate, decay, views, hidden, projection, predictor, other options
CIFAR = {
    "simclr": ("lars", 0.4, 1e-4, (SYM, None), 2048, 256, None, {"temperature": 0.2}),
    "moco": (
        "sgd", 0.3, 1e-4, (SYM_WEAK, None), 2048, 256, None,
        {"temperature": 0.2, "queue": 32768, "momentum_start": 0.99, "momentum_end": 0.999},
    ),
    "nnclr": (
        "lars", 0.4, 1e-5, ASYM, 2048, 256, 4096, {"temperature": 0.2, "queue": 65536},
    ),
    "all4one": (
        "lars", 1.0, 1e-5, ASYM, 2048, 256, 4096,
        {
            "temperature": 0.2, "centroid_temperature": 0.1, "queue": 98304, "neighbours": 5,
            "momentum_start": 0.99, "momentum_end": 1.0, "transformer_learning_rate": 0.1,
            "layers": 3, "heads": 8, "feed_forward": 512, "dropout": 0.1,
        },
    ),
    "byol": (
        "lars", 1.0, 1e-5, ASYM, 4096, 256, 4096, {"momentum_start": 0.99, "momentum_end": 1.0},
    ),
    "simsiam": ("sgd", 0.5, 1e-5, (SYM_WEAK, None), 2048, 2048, 512, {}),
    "barlow_twins": (
        "lars", 0.3, 1e-4, ASYM, 2048, 2048, None, {"scale": 0.1, "off_diagonal_weight": 0.0051},
    ),
    "vicreg": (
        "lars", 0.3, 1e-4, (((0.2, 1.0), MILD, 0.0, 0.1), None), 2048, 2048, None,
        {"invariance_weight": 25, "variance_weight": 25, "covariance_weight": 1},
    ),
    "swav": (
        "lars", 0.6, 1e-6, (SYM, None), 2048, 128, None,
        {
            "temperature": 0.1, "prototypes": 3000, "stored": 3840, "stored_from_epoch": 50,
            "frozen_prototype_epochs": 2, "epsilon": 0.05, "iterations": 3,
        },
    ),
    "dino": (
        "lars", 0.3, 1e-6, ASYM, 2048, 256, None,
        {
            "prototypes": 4096, "momentum_start": 0.9995, "momentum_end": 1.0,
            "student_temperature": 0.1, "teacher_temperature": 0.07, "teacher_warmup_epochs": 0,
            "centre_momentum": 0.9, "frozen_prototype_epochs": 1,
        },
    ),
    "ressl": (
        "sgd", 0.05, 1e-4, (STRONG, WEAK), 4096, 256, None,
        {
            "temperature": 0.1, "key_temperature": 0.04, "queue": 65536,
            "momentum_start": 0.99, "momentum_end": 1.0,
        },
    ),
    "supcon": (
        "sgd", 0.4, 1e-5, (SYM, None), 2048, 256, None,
        {"temperature": 0.2, "form": "sum_inside_log"},
    ),
}  # fmt: skip

# Only what differs from CIFAR: optimizer, rate, decay, views, and changed options.
IMAGENET_100 = {
    "simclr": ("lars", 0.3, 1e-4, (SYM, None), {"hidden": 4096, "projection": 512}),
    "moco": ("sgd", 0.3, 1e-4, (SYM_WEAK, None), {"queue": 65536}),
    "nnclr": ("lars", 0.4, 1e-5, ASYM_100, {}),
    "all4one": ("lars", 1.0, 1e-5, ASYM_100, {"queue": 98304}),
    "byol": ("lars", 0.5, 1e-6, ASYM_100, {"predictor_hidden": 8192}),
    "simsiam": ("sgd", 0.5, 1e-5, ASYM_100, {}),
    "barlow_twins": ("lars", 0.3, 1e-4, ASYM_100, {}),
    "vicreg": ("lars", 0.3, 1e-4, (((0.2, 1.0), MILD, 0.5, 0.1), None), {}),
    "swav": ("lars", 0.6, 1e-6, (SYM, None), {}),
    "dino": (
        "lars", 0.3, 1e-6, ASYM_100,
        {"teacher_temperature_start": 0.04, "teacher_warmup_epochs": 50},
    ),
    "ressl": ("sgd", 0.3, 1e-4, (STRONG, WEAK), {}),
    "supcon": ("sgd", 0.5, 1e-5, (SYM, None), {"projection": 512}),
}  # fmt: skip

# The CLSP authors: batch, rate, jitter, solarize, lambda, other options.
CLSP = {
    "simclr": (1024, 0.5, (0.4, 0.4, 0.4, 0.1), 0.0, 1.0, {}),
    "moco": (
        512, 0.3, (0.4, 0.4, 0.2, 0.1), 0.2, 0.5,
        {"queue": 32768, "momentum_start": 0.99, "momentum_end": 0.999},
    ),
    "supcon": (1024, 0.5, (0.4, 0.4, 0.4, 0.1), 0.0, 1.0, {"form": "mean_outside_log"}),
}  # fmt: skip


def _load(name):
    """A recipe file laid over the demo, whose grids, datasets and encoders it needs."""
    extends = [str(ROOT / "params.yaml"), str(ROOT / f"configs/recipes/{name}.yaml")]
    return load_params({"extends": extends}, name)


def _entry(params, key):
    entry = params.methods[key]
    return entry, params.recipes[entry.recipe]


def _shown(view):
    """A view in the form of the tables above; its fixed parts are checked on the way."""
    if view is None:
        return None
    assert (view.flip, view.interpolation) == (0.5, "bicubic")
    jitter = view.jitter
    strengths = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    if jitter.probability == 0:
        assert view.grayscale == 0
    else:
        assert (jitter.probability, view.grayscale) == (0.8, 0.2)
    if view.blur is not None:
        assert view.blur.sigma == (0.1, 2.0)
    blur = view.blur.probability if view.blur else 0.0
    return view.crop_scale, strengths if jitter.probability else None, blur, view.solarize


def _check_solo_recipe(recipe, optimizer, rate, decay, views, epochs):
    assert (recipe.family, recipe.epochs, recipe.batch_size) == ("solo-learn", epochs, 256)
    assert (recipe.optimizer, recipe.learning_rate) == (optimizer, rate)
    assert (recipe.weight_decay, recipe.momentum) == (decay, 0.9)
    assert recipe.learning_rate_scaling == "batch_256"
    if optimizer == "lars":
        assert (recipe.lars.trust, recipe.lars.clip) == (0.02, True)
        assert recipe.weight_decay_on == "weights"
    else:
        assert (recipe.lars, recipe.weight_decay_on) == (None, "all")
    schedule = (recipe.schedule, recipe.warmup_epochs, recipe.warmup_start)
    assert schedule == ("step", 10, 3e-5)
    assert (_shown(recipe.views), _shown(recipe.second_view)) == views


@pytest.mark.parametrize("method", CIFAR)
def test_solo_learn_on_cifar(method):
    optimizer, rate, decay, views, hidden, projection, predictor, others = CIFAR[method]
    entry, recipe = _entry(_load("solo_cifar"), f"solo-{method}")
    _check_solo_recipe(recipe, optimizer, rate, decay, views, 1000)
    spreads = {name: constants.std for name, constants in recipe.normalisation.items()}
    assert spreads == {"cifar10": (0.2470, 0.2435, 0.2616), "cifar100": (0.2673, 0.2564, 0.2762)}
    assert (entry.method, entry.options["forward"]) == (method, "separate")
    assert (entry.options["hidden"], entry.options["projection"]) == (hidden, projection)
    assert entry.options.get("predictor_hidden") == predictor
    assert {key: entry.options[key] for key in others} == others


@pytest.mark.parametrize("method", IMAGENET_100)
def test_solo_learn_on_imagenet_100(method):
    optimizer, rate, decay, views, changed = IMAGENET_100[method]
    entry, recipe = _entry(_load("solo_imagenet100"), f"in100-{method}")
    _check_solo_recipe(recipe, optimizer, rate, decay, views, 400)
    (constants,) = recipe.normalisation.values()
    assert (constants.mean, constants.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    _, _, _, _, hidden, projection, predictor, others = CIFAR[method]
    expected = {"hidden": hidden, "projection": projection, **others, **changed}
    assert {key: entry.options[key] for key in expected} == expected
    assert entry.options.get("predictor_hidden") == changed.get("predictor_hidden", predictor)


def _check_clsp(entry, recipe, batch, rate, jitter, solarize):
    assert (recipe.family, recipe.epochs, recipe.batch_size) == ("clsp", 1000, batch)
    assert (recipe.optimizer, recipe.lars, recipe.learning_rate) == ("sgd", None, rate)
    assert (recipe.learning_rate_scaling, recipe.momentum) == ("none", 0.9)
    assert (recipe.weight_decay, recipe.weight_decay_on) == (1e-4, "all")
    schedule = (recipe.schedule, recipe.warmup_epochs, recipe.warmup_start)
    assert schedule == ("epoch", 10, 0.001)
    view, drawn = recipe.views, recipe.views.jitter
    assert (view.crop_scale, view.interpolation, view.flip) == ((0.08, 1.0), "bilinear", 0.5)
    assert (drawn.brightness, drawn.contrast, drawn.saturation, drawn.hue) == jitter
    assert (drawn.probability, view.grayscale, view.solarize) == (0.8, 0.2, solarize)
    assert (view.blur, recipe.second_view) == (None, None)
    shared = {"temperature": 0.2, "hidden": 4096, "projection": 256, "forward": "four_gpu"}
    assert {key: entry.options[key] for key in shared} == shared


@pytest.mark.parametrize("method", CLSP)
def test_the_clsp_authors_on_cifar(method):
    batch, rate, jitter, solarize, weight, others = CLSP[method]
    entry, recipe = _entry(_load("clsp_cifar"), method)
    _check_clsp(entry, recipe, batch, rate, jitter, solarize)
    assert entry.alignment_weight == weight
    assert {key: entry.options[key] for key in others} == others


def test_the_clsp_authors_on_stl_10():
    entry, recipe = _entry(_load("clsp_stl10"), "stl10-simclr")
    batch, rate, jitter, solarize, _, _ = CLSP["simclr"]
    _check_clsp(entry, recipe, batch, rate, jitter, solarize)
    assert recipe.normalisation["stl10"].std == (0.247, 0.243, 0.261)


def _configured(name):
    path = str(ROOT / f"configs/{name}.yaml")
    return load_params({"extends": path}, name)


def test_every_run_on_cifar_10_sees_the_constants_of_its_family():
    std = {"clsp": (0.2023, 0.1994, 0.2010), "solo-learn": (0.2470, 0.2435, 0.2616)}
    of_cifar_100 = (0.2673, 0.2564, 0.2762)
    seen = set()
    for name in ("cifar", "solo_cifar", "comparison_cifar"):
        for run in expand_runs(_configured(name)).values():
            family = run.spec.recipe.family
            expected = std[family] if run.spec.dataset == "cifar10" else of_cifar_100
            assert run.spec.normalisation.std == expected, run.slug
            seen.add((name, family))
    assert len(seen) == 4


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_file_holds_recipes_and_methods_only_and_all_are_valid(path):
    own = resolve_base({"extends": str(path)}, path.name)
    assert set(own) == {"recipes", "methods"}
    params = _load(path.stem)
    assert {entry["recipe"] for entry in own["methods"].values()} == set(own["recipes"])
    assert own["methods"].keys() <= params.methods.keys()


def test_files_of_both_families_can_be_extended_together():
    read = [resolve_base({"extends": str(path)}, path.name) for path in RECIPES]
    for section in ("recipes", "methods"):
        keys = [key for each in read for key in each[section]]
        assert len(set(keys)) == len(keys)
    cifar = [each["methods"] for each in read if "simclr" in each["methods"]] + [
        each["methods"] for each in read if "solo-simclr" in each["methods"]
    ]
    labels = [entry["label"] for methods in cifar for entry in methods.values()]
    assert len(cifar) == 2
    assert len(set(labels)) == len(labels)


def test_the_demo_has_an_entry_for_every_method():
    params = load_params({"extends": str(ROOT / "params.yaml")}, "demo")
    assert {entry.method for entry in params.methods.values()} == set(names(METHODS))


SOURCE = re.compile(r"#.*(\[ours\]|\[inferred\]|(CLSP|solo-learn) \S+|arXiv)")
VALUE = re.compile(r"^\s*[\w<.-]+:\s+(?!&\w+\s*(#|$)|\*\w+|#)\S")
NAMING = re.compile(r"^\s*(label|recipe|method):")


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_value_of_a_recipe_file_has_its_source_beside_it(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    values = [line for line in lines if VALUE.match(line) and not NAMING.match(line)]
    assert len(values) > 15
    assert [line for line in values if not SOURCE.search(line)] == []
