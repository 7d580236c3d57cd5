"""What the switches of the mode `fast` change, and that nothing waits within an epoch."""

import dataclasses

import pytest
import torch
from pretraining import NOTHING, make_prepared, make_spec, take_step, write_dataset
from torch import nn
from waiting import Waits

from clsp.config.execution import EXACT, MODES
from clsp.config.schema import METHODS
from clsp.data import blur, resample, views
from clsp.pretrain import journal as journal_module
from clsp.pretrain import loop
from clsp.pretrain import resume as resume_module
from clsp.pretrain import setup as built
from clsp.pretrain.compiled import compile_networks
from clsp.pretrain.feed import load_batch
from clsp.pretrain.journal import Journal
from clsp.pretrain.loop import Course, forward
from clsp.pretrain.resume import Position, Resume, snapshot
from clsp.pretrain.run import pretrain_encoder
from clsp.pretrain.setup import set_up
from clsp.pretrain.watch import Watch
from clsp.runtime.checkpoint import load_state, load_tensors
from clsp.runtime.errors import DivergedError
from clsp.runtime.history import StepLog, read_history
from clsp.runtime.registry import names
from clsp.runtime.stopping import Stop

CPU = torch.device("cpu")
GENTLE = {"learning_rate": 0.02}
every_method = pytest.mark.parametrize("method", names(METHODS))


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    monkeypatch.setenv("CLSP_DEVICE", "cpu")
    monkeypatch.setenv("CLSP_PROGRESS", "plain")


class Small(nn.Module):
    """An encoder that is traced in no time; the real one is captured once, with SimCLR."""

    def __init__(self, _spec):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.features = 6

    def forward(self, images):
        """(B, 3, H, W) -> (B, 6)."""
        return self.bn1(self.conv1(images)).relu().mean(dim=(2, 3))


def ready(method="simclr", options=None, recipe=None, **changes):
    """The set-up of a small run; keyword arguments are switches."""
    spec = make_spec(method, options=options, recipe={**GENTLE, **(recipe or {})})
    spec = spec.model_copy(update={"execution": EXACT.model_copy(update=changes)})
    return set_up(spec, make_prepared(), NOTHING, CPU)


def gradients(setup):
    """Loss parts and all gradients of the first step."""
    if hasattr(setup.method, "before_step"):
        setup.method.before_step(setup.moment(0))
    done, parts = forward(setup, load_batch(setup, torch.arange(8), 0))
    parts["loss"].backward()
    grads = [p.grad.flatten() for p in setup.method.parameters() if p.grad is not None]
    return done, parts, torch.cat(grads)


@every_method
def test_bf16_networks_have_float32_losses_close_to_the_full_ones(method):
    _, full, exact = gradients(ready(method))
    done, half, rough = gradients(ready(method, precision="bf16"))
    assert done.z_anchor.dtype == torch.bfloat16
    assert {term.dtype for term in done.terms.values()} == {torch.float32}
    assert half.keys() == full.keys()
    for name in full:  # width 2 and 8 bits; another neighbour may be the nearest
        assert half[name].item() == pytest.approx(full[name].item(), rel=0.03, abs=0.3), name
    assert len(rough) == len(exact) and torch.isfinite(rough).all()
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    assert torch.nn.functional.cosine_similarity(rough, exact, dim=0) > 0.1


@pytest.fixture(scope="module")
def graphs():
    """A backend that runs the graphs it is given as they are, and counts them."""
    torch._dynamo.reset()
    made = []

    def counting(graph, _example):
        made.append(graph)
        return graph.forward

    yield counting, made
    torch._dynamo.reset()


@every_method
def test_whole_networks_and_losses_are_captured_and_never_again(graphs, monkeypatch, method):
    """What a compiler is given computes the same, and no unit falls into pieces."""
    backend, made = graphs
    if method != "simclr":
        monkeypatch.setattr(built, "Encoder", Small)
    plain, compiled = ready(method), ready(method)
    compile_networks(compiled.method, backend)
    compiled = dataclasses.replace(compiled, compiler=backend)
    assert snapshot(compiled.method).keys() == snapshot(plain.method).keys()
    counts = []
    for step in range(5):
        index = torch.arange(8) + step
        batch = load_batch(plain, index, step // 2)
        one, two = (loop.train_step(setup, batch, step) for setup in (plain, compiled))
        counts.append(len(made))
        assert two.scalars["loss"].item() == pytest.approx(one.scalars["loss"].item(), rel=1e-5)
    left, right = snapshot(plain.method), snapshot(compiled.method)
    assert all(torch.allclose(left[name], right[name], atol=1e-5) for name in left)
    begun = 2 if method == "swav" else 0  # in epoch 1 past embeddings begin to take part
    assert counts[begun] == counts[-1]
    assert not torch._dynamo.utils.counters["graph_break"]


def test_a_temperature_that_rises_compiles_nothing_anew(graphs):
    backend, made = graphs
    options = {"teacher_warmup_epochs": 3, "teacher_temperature_start": 0.02}
    setup = ready("dino", options)
    setup = dataclasses.replace(setup, compiler=backend)
    seen = []
    for step in range(6):
        told = take_step(setup, torch.arange(8) + step, step).known["teacher_temperature"]
        seen.append((told, len(made)))
    assert len({told for told, _ in seen}) == 3
    assert len({count for _, count in seen[1:]}) == 1


@pytest.mark.parametrize("optimizer", [
    {}, {"optimizer": "lars", "lars": {"trust": 0.02, "clip": True}, "weight_decay_on": "weights"},
])  # fmt: skip
def test_the_fused_optimizer_equals_the_plain_one(optimizer):
    plain, fused = (ready("dino", recipe=optimizer, fused=on) for on in (False, True))
    draw = torch.Generator().manual_seed(0)
    for step in range(4):
        for number, (a, b) in enumerate(
            zip(plain.method.parameters(), fused.method.parameters(), strict=True)
        ):
            late = number % 5 == 0 and step == 0  # as of prototypes that are frozen at first
            if a.requires_grad and not late:
                # Laid out as their parameters: autograd promises that, and the kernel counts on it.
                a.grad = torch.empty_like(a).copy_(torch.randn(a.shape, generator=draw))
                b.grad = a.grad.clone()
        plain.optimizer.step()
        fused.optimizer.step()
    left, right = plain.method.state_dict(), fused.method.state_dict()
    assert all(torch.allclose(left[name], right[name], rtol=1e-6, atol=1e-7) for name in left)


def under_way(setup, folder):
    """A course at its start, and its step log."""
    written = StepLog(folder / "history.jsonl")
    labels = torch.zeros(len(setup.anchors), dtype=torch.int64)
    watch = Watch(setup.method, labels, setup.spec.recipe.epochs)
    resume = Resume(folder / "scratch", "x", setup.method, setup.optimizer)
    return Course(setup, watch, Position(), Journal(written), resume)


@every_method
def test_nothing_waits_for_the_device_within_an_epoch(tmp_path, monkeypatch, method):
    """The way of a GPU, taken on the CPU: batches, steps, watching and learning rates."""
    for module in (blur, resample, views):
        monkeypatch.setattr(module, "in_blocks", lambda images: False)
    prepared = make_prepared(count=40)
    spec = make_spec(method, recipe=GENTLE)
    setup = dataclasses.replace(set_up(spec, prepared, NOTHING, CPU), checks_each_step=False)
    course, feed = under_way(setup, tmp_path), loop.Feed(setup)
    stop = Stop(None)
    for step in range(6):  # the first of epoch 1, after which state is saved, and one more
        course.advance(feed.batch(step))
        course.keep(stop)
    with Waits() as waits:
        for step in (6, 7, 8):
            taken = course.advance(feed.batch(step))
            course.keep(stop)
            course.shown(taken, None)
    course.resume.close()
    assert waits.found == []
    with Waits() as waits:
        bool(taken.scalars["loss"] > 0)
    assert waits.found  # so it does notice


def diverge(monkeypatch, number):
    """Let the loss of one step be NaN, as a GPU would find out later."""
    real, seen = loop.objective, []

    def spoilt(step, weight):
        parts = real(step, weight)
        seen.append(1)
        return {**parts, "loss": parts["loss"] * torch.nan} if len(seen) == number + 1 else parts

    monkeypatch.setattr(loop, "objective", spoilt)


def test_a_gpu_finds_a_broken_step_at_the_next_reading_and_keeps_the_last_good_state(
    tmp_path, monkeypatch
):
    setup = dataclasses.replace(set_up(make_spec(), make_prepared(count=40), NOTHING, CPU))
    setup = dataclasses.replace(setup, checks_each_step=False)
    monkeypatch.setattr(journal_module, "READ_EVERY", 4)
    course = under_way(setup, tmp_path)
    diverge(monkeypatch, 6)
    with pytest.raises(DivergedError, match=r"step 6 \(epoch 1\): not finite.*loss nan") as caught:
        course.train()
    assert "after step 8, when that was read; the last good state, after step 5, is kept in" in str(
        caught.value
    )
    state = load_state(tmp_path / "scratch")
    assert state["step"] == 5 and state["log_bytes"] > 0
    assert all(torch.isfinite(t).all() for t in state["method"].values())
    assert [r["step"] for r in read_history(tmp_path / "history.jsonl")] == list(range(6))


def test_state_that_is_due_after_a_broken_step_is_not_saved(tmp_path, monkeypatch):
    setup = set_up(make_spec(), make_prepared(count=40), NOTHING, CPU)
    course = under_way(dataclasses.replace(setup, checks_each_step=False), tmp_path)
    monkeypatch.setattr(resume_module, "SAVE_EVERY", 0.0)
    diverge(monkeypatch, 3)
    with pytest.raises(DivergedError, match=r"step 3 .*after step 3, .*last good state, after st"):
        course.train()
    assert load_state(tmp_path / "scratch")["step"] == 3


class Killed(Exception):
    """Stands for the end of the process."""


def outputs(folder, scratch):
    """Paths of the stage's outputs below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = ("encoder", "start", "middle", "final")
    paths = {name: folder / f"{name}.safetensors" for name in kinds}
    return {**paths, "history": folder / "history.jsonl", "scratch": scratch}


def test_a_fast_run_resumes_with_equal_bits_on_a_cpu(tmp_path, monkeypatch):
    """bf16, fused, and captured by the compiler; on a GPU its kernels need not repeat their bits."""
    monkeypatch.setattr(built, "COMPILER", "eager")
    monkeypatch.setattr(built, "Encoder", Small)
    monkeypatch.setattr(resume_module, "SAVE_EVERY", 0.0)
    dataset = write_dataset(tmp_path / "toy")
    spec = make_spec("moco", recipe=GENTLE, execution=MODES["fast"].canonical())
    straight = outputs(tmp_path / "straight", tmp_path / "scratch-a")
    expected = pretrain_encoder(spec, dataset, [], [], **straight)
    assert expected.facts["execution"] == MODES["fast"].canonical()
    real = loop.train_step

    def dying(setup, batch, number):
        if number == 3:
            raise Killed
        return real(setup, batch, number)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "train_step", dying)
        pretrain_encoder(spec, dataset, [], [], **outputs(tmp_path / "dead", tmp_path / "scratch"))
    torch._dynamo.reset()  # a new process knows nothing of what was compiled
    resumed = outputs(tmp_path / "resumed", tmp_path / "scratch")
    assert pretrain_encoder(spec, dataset, [], [], **resumed) == expected
    left, right = (load_tensors(paths["final"])[0] for paths in (straight, resumed))
    assert [name for name in left if not torch.equal(left[name], right[name])] == []
    assert read_history(straight["history"]) == read_history(resumed["history"])
    exact = outputs(tmp_path / "exact", tmp_path / "scratch-b")
    pretrain_encoder(make_spec("moco", recipe=GENTLE), dataset, [], [], **exact)
    one, other = (read_history(paths["history"])[0]["loss"] for paths in (straight, exact))
    assert one != other and one == pytest.approx(other, rel=0.05)
