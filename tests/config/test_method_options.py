"""Options of methods that cannot work are refused by name while params.yaml is read."""

import pytest
from pretraining import ROOT

from clsp.config.load import load_params, read_yaml
from clsp.config.schema import METHODS
from clsp.runtime.errors import ConfigError
from clsp.runtime.registry import names, settings_class

CASES = [
    ("moco", {"queue": 1001}, r"methods\.moco: queue 1001 is not a multiple of batch_size 64"),
    ("nnclr", {"queue": 100}, r"methods\.nnclr: queue 100 is not a multiple of batch_size 64"),
    ("ressl", {"queue": 65}, r"methods\.ressl: queue 65 is not a multiple"),
    ("all4one", {"queue": 98340}, r"methods\.all4one: queue 98340 is not a multiple"),
    ("swav", {"stored": 100}, r"methods\.swav: stored 100 is not a multiple of batch_size 64"),
    (
        "swav",
        {"prototypes": 3000, "stored": 640},
        r"methods\.swav: prototypes 3000 are more than the batch_size 64 \+ stored 640",
    ),
    ("swav", {"epsilon": 0.01}, r"epsilon.*greater than or equal to 0\.02, found 0\.01"),
    (
        "swav",
        {"frozen_prototype_epochs": 20},
        r"methods\.swav: frozen_prototype_epochs 20 must be below epochs 20 \(recipes\.demo",
    ),
    (
        "swav",
        {"stored": 64, "stored_from_epoch": 50},
        r"methods\.swav: stored_from_epoch 50 must be below epochs 20",
    ),
    ("dino", {"frozen_prototype_epochs": 99}, r"frozen_prototype_epochs 99 must be below epochs"),
    ("dino", {"teacher_warmup_epochs": 21}, r"teacher_warmup_epochs 21 exceed epochs 20"),
    (
        "ressl",
        {"key_temperature": 0.1},
        r"key_temperature must be below temperature 0\.1, found 0\.1",
    ),
    ("simclr", {"temperature": 0}, r"methods\.simclr.*temperature.*greater than 0, found 0"),
    ("simclr", {"temperature": -0.2}, r"methods\.simclr.*temperature.*greater than 0"),
    ("ressl", {"key_temperature": 11}, r"key_temperature.*less than or equal to 10, found 11"),
    ("dino", {"teacher_temperature": 0}, r"methods\.dino.*teacher_temperature.*greater than 0"),
    ("byol", {"momentum_start": 1.0}, r"methods\.byol.*momentum_start.*less than 1, found 1\.0"),
    ("byol", {"momentum_end": 1.5}, r"methods\.byol.*momentum_end.*less than or equal to 1"),
    (
        "moco",
        {"momentum_start": 0.999, "momentum_end": 0.99},
        r"momentum_start must not exceed momentum_end, found 0\.999 and 0\.99",
    ),
    ("all4one", {"projection": 62}, r"projection 62 is not a multiple of heads"),
    ("all4one", {"neighbours": 600}, r"neighbours 600 are more than the queue 512"),
    ("bsim", {"mixing": "cutout"}, r"mixing.*'cutmix' or 'mixup'"),
    ("supcon", {"form": "inside"}, r"form.*'mean_outside_log' or 'sum_inside_log'"),
    (
        "simclr",
        {"queue": 512},
        r'"queue" is an option of all4one, moco, nnclr, ressl, not of method simclr',
    ),
    ("byol", {"temperature": 0.2}, r'"temperature" is an option of .*simclr.*, not of method byol'),
    (
        "simsiam",
        {"momentum_start": 0.9},
        r'"momentum_start" is an option of .*byol.*not of method simsiam',
    ),
]


@pytest.mark.parametrize(("method", "changes", "message"), CASES)
def test_options_that_cannot_work_are_refused(method, changes, message):
    data = read_yaml(ROOT / "params.yaml")
    data["methods"][method].update(changes)
    data["runs"] = {"one": {**data["runs"]["simclr"], "method": [method], "positives": ["none"]}}
    data["comparison"]["labels"] = "marked"
    with pytest.raises(ConfigError, match=message):
        load_params(data)


@pytest.mark.parametrize("method", ["swav", "dino"])
def test_more_prototypes_than_images_are_refused(method):
    entry = load_params(read_yaml(ROOT / "params.yaml")).methods[method].settings()
    entry.check_images(entry.prototypes)
    with pytest.raises(ValueError, match=rf"prototypes {entry.prototypes} are more than the 7 images"):  # fmt: skip
        entry.check_images(7)


def test_only_supcon_and_supervised_use_labels():
    using = {name for name in names(METHODS) if settings_class(METHODS, name).uses_labels}
    assert using == {"supcon", "supervised"}


def test_the_demo_has_an_entry_for_every_method():
    entries = load_params(read_yaml(ROOT / "params.yaml")).methods.values()
    assert {entry.method for entry in entries} == set(names(METHODS))


def test_a_method_that_no_run_uses_does_not_block_another_batch_size():
    data = read_yaml(ROOT / "params.yaml")
    del data["runs"]["moco"]
    data["recipes"]["demo-lars"]["batch_size"] = 48  # no multiple for any queue of the file
    load_params(data)
    data["runs"]["simclr"]["method"] = ["nnclr"]
    with pytest.raises(ConfigError, match=r"methods\.nnclr: queue 512.*\(recipes\.demo-lars\)"):
        load_params(data)
