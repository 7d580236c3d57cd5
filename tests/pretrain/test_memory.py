"""Memory of a training step: the forecast against what really happens, and refusal by it."""

import copy
import re

import pytest
import torch
import yaml
from pretraining import NOTHING, ROOT, make_prepared, make_spec
from torch import Tensor
from torch.utils._pytree import tree_leaves

from clsp.__main__ import main
from clsp.config.recipe import ViewSpec
from clsp.data.views import make_views
from clsp.pretrain import room
from clsp.pretrain.feed import load_batch
from clsp.pretrain.loop import train_step
from clsp.pretrain.memory import VIEW_COPIES, Alive, forecast, rehearse
from clsp.pretrain.room import fitting, largest, memory_facts
from clsp.pretrain.setup import build_method, set_up
from clsp.runtime.errors import ClspError, ConfigError

CPU = torch.device("cpu")
BF16 = {"precision": "bf16", "compile": False, "fused": False, "deterministic": True, "views": "device"}  # fmt: skip
WIDE = {"architecture": "resnet18", "stem": "small", "width": 8}


def ready(spec):
    """A run that has taken a step, so that its optimizer has state, and what it holds."""
    setup = set_up(spec, make_prepared(side=16), NOTHING, CPU)
    batch = load_batch(setup, torch.arange(spec.recipe.batch_size), 0)
    train_step(setup, batch, 0)
    setup.optimizer.zero_grad(set_to_none=True)
    states = tree_leaves(list(setup.optimizer.state.values()))
    kept = [value for value in states if isinstance(value, Tensor)]
    return setup, batch, [*setup.method.parameters(), *setup.method.buffers()], kept


@pytest.mark.parametrize("execution", [None, BF16], ids=["full", "bf16"])
@pytest.mark.parametrize("method", ["simclr", "moco", "supcon", "swav", "byol"])
def test_the_forecast_is_what_a_real_step_takes(method, execution):
    spec = make_spec(method, encoder=WIDE, execution=execution)
    setup, batch, held, kept = ready(spec)
    views = [view for view in [*batch.views, batch.positive] if view is not None]
    with Alive([*held, *kept]) as alive:
        alive.note(views)
        train_step(setup, batch, 1)
    found = rehearse(build_method(spec, 3).train(), spec, spec.recipe.batch_size, 16)
    assert found.step == pytest.approx(alive.peak, rel=0.03)
    # SwAV's prototypes are frozen at first, so that they have no momentum yet.
    assert found.optimizer == pytest.approx(sum(tensor.nbytes for tensor in kept), rel=0.001)
    assert found.weights == sum(tensor.nbytes for tensor in held)


def test_bf16_needs_less_for_what_backward_waits_for():
    full, half = (
        forecast(make_spec(encoder=WIDE, execution=e), 3, 64, 16, "cuda") for e in (None, BF16)
    )
    assert half.step < 0.7 * full.step and half.weights == full.weights


def test_a_rehearsal_changes_nothing():
    spec = make_spec("all4one")
    method = build_method(spec, 3).train()
    before, state = copy.deepcopy(method.state_dict()), torch.get_rng_state()
    rehearse(method, spec, 8, 8)
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_lars_and_its_copies_are_part_of_the_forecast():
    lars = {"optimizer": "lars", "lars": {"trust": 0.02, "clip": True}}
    sgd, other = (forecast(make_spec(recipe=r), 3, 8, 8, "cpu") for r in (None, lars))
    assert other.step >= sgd.step and other.optimizer == sgd.optimizer


def test_making_views_takes_no_more_than_its_share():
    spec = ViewSpec.model_validate({
        "crop_scale": [0.2, 1.0], "crop_ratio": [0.75, 1.333], "interpolation": "bicubic",
        "flip": 0.5, "grayscale": 0.2, "solarize": 0.2, "blur": {"probability": 0.5, "sigma": [0.1, 2.0]},
        "jitter": {"probability": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    })  # fmt: skip
    images = torch.randint(0, 256, (96, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator())
    with Alive() as alive:
        views = make_views(images, torch.arange(96), 0, 0, 1, spec)
    assert views.nbytes < alive.peak <= VIEW_COPIES * views.nbytes


def test_the_largest_batch_is_found_to_the_image():
    assert largest(lambda n: 1000 + 7 * n, 8001, 4096) == 1000
    assert largest(lambda n: 1000 + 7 * n + n * n // 50, 8001, 4096) == 442
    assert largest(lambda n: 1000 + 7 * n, 1000, 4096) == 0


def room_for(spec, batch, monkeypatch):
    """Pretend that exactly a step of `batch` anchors fits."""
    monkeypatch.setattr(room, "SMALL", 0)
    there = forecast(spec, 3, batch, 8, "cpu").beyond_weights
    monkeypatch.setattr(room, "free_bytes", lambda device: there)


@pytest.mark.parametrize(("method", "fits", "named"), [("simclr", 13, 13), ("moco", 10, 8)])
def test_a_batch_that_does_not_fit_is_refused_with_the_largest_that_would(
    method, fits, named, monkeypatch
):
    spec = make_spec(method, recipe={"batch_size": 24}, options={"queue": 24} if method == "moco" else {})  # fmt: skip
    setup = set_up(spec, make_prepared(count=30), NOTHING, CPU)
    room_for(spec, fits, monkeypatch)
    wanted = r"recipe.batch_size 24: .* needs .* GiB .* left"
    with pytest.raises(ConfigError, match=wanted) as error, fitting(setup):
        pytest.fail("training began")
    assert int(re.search(r"would fit is (\d+)", str(error.value))[1]) == named


def test_no_batch_fits_into_nothing(monkeypatch):
    setup = set_up(make_spec(), make_prepared(), NOTHING, CPU)
    monkeypatch.setattr(room, "SMALL", 0)
    monkeypatch.setattr(room, "free_bytes", lambda device: 1)
    wanted = "no batch that this method takes would fit"
    with pytest.raises(ConfigError, match=wanted), fitting(setup):
        pytest.fail("training began")


def test_running_out_of_memory_all_the_same_is_explained(monkeypatch):
    spec = make_spec(recipe={"batch_size": 16})
    setup = set_up(spec, make_prepared(), NOTHING, CPU)
    room_for(spec, 20, monkeypatch)
    wanted = r"ran out of memory.*would fit is \d+"
    with pytest.raises(ClspError, match=wanted), fitting(setup):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_an_evidently_small_step_on_a_cpu_is_not_rehearsed(monkeypatch):
    setup = set_up(make_spec(), make_prepared(), NOTHING, CPU)
    monkeypatch.setattr(room, "forecast", lambda *_: pytest.fail("rehearsed"))
    with fitting(setup) as expected:
        assert memory_facts(expected, CPU) == {}


def test_a_manifest_says_what_was_foretold(monkeypatch):
    spec = make_spec()
    setup = set_up(spec, make_prepared(), NOTHING, CPU)
    monkeypatch.setattr(room, "SMALL", 0)
    with fitting(setup) as expected:
        total = forecast(spec, 3, spec.recipe.batch_size, 8, "cpu").total
        assert memory_facts(expected, CPU) == {"predicted": total}


def test_what_is_free_here_is_known():
    assert 2**20 < room.free_bytes(CPU) < 2**50


def test_the_command_lists_every_configuration(tmp_path, capsys):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["runs"] = {"one": {**params["runs"]["simclr"], "positives": ["none"]}}
    del params["quality"]
    params |= {"tables": ["main"], "figures": ["curves"]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    assert main(["memory", "--configfile", str(tmp_path / "params.yaml")]) == 0
    heads, *rows = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert heads.split()[2:8] == ["method", "positives", "precision", "batch", "GiB", "pixels"]
    assert [row.split()[2:6] for row in rows] == [
        ["simclr", "none", "full", "64"],
        ["simclr", "none", "bf16", "64"],
    ]
    for row in rows:
        most = [int(cell) for cell in row.split()[8:]]
        assert most == sorted(most) and most[0] > 64
