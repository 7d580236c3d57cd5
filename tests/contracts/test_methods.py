"""What every registered method must do, whatever it is."""

from typing import get_args

import numpy as np
import pytest
import torch
from pairing import write_pairs
from pretraining import NOTHING, make_prepared, make_spec, take_step, write_bank

from clsp.config.schema import METHODS, POSITIVES
from clsp.data.prepared import Prepared
from clsp.models.ema import Teacher
from clsp.pretrain.contract import Batch
from clsp.pretrain.feed import load_batch
from clsp.pretrain.loop import objective
from clsp.pretrain.losses.alignment import alignment
from clsp.pretrain.optim import set_learning_rates
from clsp.pretrain.queue import Queue
from clsp.pretrain.resume import snapshot
from clsp.pretrain.setup import build_method, set_up
from clsp.runtime.registry import load, names, settings_class

CPU = torch.device("cpu")


def forwards(method):
    """Every value of the method's option `forward`."""
    return get_args(settings_class(METHODS, method).model_fields["forward"].annotation)


CASES = [
    (method, positives, forward)
    for method in names(METHODS)
    for positives in ("none", "augmentation")
    for forward in forwards(method)
]
every_case = pytest.mark.parametrize(("method", "positives", "forward"), CASES)
every_method = pytest.mark.parametrize("method", names(METHODS))


# A network of width 2 explodes at rates that suit real ones.
GENTLE = {"learning_rate": 0.02}


def spec_of(method, positives="augmentation", forward=None, recipe=None, **changes):
    """A small run of one case."""
    options = {"forward": forward} if forward else {}
    return make_spec(method, positives, {**GENTLE, **(recipe or {})}, options, **changes)


def ready(method, positives="augmentation", forward=None, prepared=None, **changes):
    """The set-up of a small run."""
    spec = spec_of(method, positives, forward, **changes)
    return set_up(spec, prepared or make_prepared(), NOTHING, CPU)


def run_steps(setup, first, last):
    """Train steps first..last-1 on fixed batches; returns the logged scalars."""
    logged = []
    for step in range(first, last):
        index = torch.arange(8) + step % 5
        set_learning_rates(setup.optimizer, setup.spec.recipe, step, setup.per_epoch)
        taken = take_step(setup, index, step)
        scalars = {name: float(value.detach()) for name, value in taken.scalars.items()}
        logged.append({**taken.known, **scalars})
    return logged


def assert_same(left, right):
    """Two states agree bit for bit, key by key."""
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert different == []


def optimizer_state(setup):
    """Momentum buffers by parameter number."""
    state = setup.optimizer.state_dict()["state"]
    return {f"{k}.{n}": v for k, s in state.items() for n, v in s.items() if v is not None}


def forward_once(setup):
    """The first step's forward pass."""
    if hasattr(setup.method, "before_step"):
        setup.method.before_step(setup.moment(0))
    return setup.method.step(load_batch(setup, torch.arange(8), 0))


@every_case
def test_loss_is_finite_and_its_gradient_reaches_everything_trained(method, positives, forward):
    setup = ready(method, positives, forward)
    done = forward_once(setup)
    assert (done.z_positive is None) == (positives == "none")
    assert done.z_anchor.ndim == 2 and len(done.z_anchor) == 8
    parts = objective(done, setup.spec.alignment_weight)
    assert torch.isfinite(parts["loss"])
    parts["loss"].backward()
    for name, parameter in setup.method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0 or name.endswith("bias"), name
        else:
            assert parameter.grad is None, name


@every_case
def test_terms_and_weighted_alignment_sum_to_the_loss(method, positives, forward):
    setup = ready(method, positives, forward)
    done = forward_once(setup)
    parts = objective(done, 0.7)
    expected = sum(term.item() for term in done.terms.values())
    if positives != "none":
        expected += 0.7 * alignment(done.z_anchor, done.z_positive).item()
    assert parts["loss"].item() == pytest.approx(expected, abs=1e-9)
    assert ("alignment" in parts) == (positives != "none")


@every_case
def test_a_step_moves_the_encoder_and_its_statistics(method, positives, forward):
    setup = ready(method, positives, forward)
    before = snapshot(setup.method)
    run_steps(setup, 0, 1)
    after = snapshot(setup.method)
    trained = {n for n, p in setup.method.named_parameters() if p.requires_grad}
    convolutions = [n for n in trained if n.startswith("encoder.") and before[n].ndim == 4]
    assert len(convolutions) == 20
    assert all(not torch.equal(before[n], after[n]) for n in convolutions)
    assert not torch.equal(before["encoder.bn1.running_mean"], after["encoder.bn1.running_mean"])


@every_method
def test_the_alignment_reaches_the_sides_that_the_method_documents(method):
    setup = ready(method)
    done = forward_once(setup)
    assert done.z_anchor.requires_grad
    aligned = load(METHODS, method, "method").Method.ALIGNED
    assert done.z_positive.requires_grad == ("gradient on both sides" in aligned)  # D22
    alignment(done.z_anchor, done.z_positive).backward()
    assert setup.method.encoder.conv1.weight.grad.abs().sum() > 0


@every_method
def test_only_view_one_is_aligned(method):
    setup = ready(method)
    setup.method.eval()  # no coupling through batch statistics
    batch = load_batch(setup, torch.arange(8), 0)
    other = load_batch(setup, torch.arange(8) + 3, 1).views[1]
    state = snapshot(setup.method)
    first = setup.method.step(batch)
    setup.method.load_state_dict(state)
    changed = Batch([batch.views[0], other], batch.positive, batch.index, batch.labels)
    second = setup.method.step(changed)
    assert torch.allclose(first.z_anchor, second.z_anchor, atol=1e-6)
    assert torch.allclose(first.z_positive, second.z_positive, atol=1e-6)


@every_method
def test_the_positive_changes_no_term_of_the_method(method):
    """What CLSP adds is the alignment; batch statistics aside, the method stays what it is."""
    setup = ready(method)
    setup.method.eval()
    batch = load_batch(setup, torch.arange(8), 0)
    state = snapshot(setup.method)
    first = setup.method.step(batch)
    with_positive = snapshot(setup.method)
    setup.method.load_state_dict(state)
    second = setup.method.step(Batch(batch.views, None, batch.index, batch.labels))
    for name, term in first.terms.items():
        assert term.item() == pytest.approx(second.terms[name].item(), abs=1e-5), name
    without = snapshot(setup.method)
    queued = [n for n in without if n.startswith("queue.")]
    assert all(torch.allclose(with_positive[n], without[n], atol=1e-6) for n in queued)


@every_case
def test_resumed_run_equals_the_straight_run(method, positives, forward):
    straight = ready(method, positives, forward)
    logged = run_steps(straight, 0, 6)
    first = ready(method, positives, forward)
    early = run_steps(first, 0, 3)
    second = ready(method, positives, forward)
    second.method.load_state_dict(snapshot(first.method))
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    torch.manual_seed(99)
    assert early + run_steps(second, 3, 6) == logged
    assert_same(snapshot(second.method), snapshot(straight.method))
    assert_same(optimizer_state(second), optimizer_state(straight))


# Records that are written anew in every step, or read by the log alone.
BOOKKEEPING = {"teacher.tau", "teacher.updates", "queue.anchors"}


@every_method
def test_every_part_of_the_state_matters(method):
    """Leaving out any buffer or parameter group changes the outcome, so the test above sees it."""
    gentle = {"learning_rate": 0.005}  # a state put together from two runs diverges easily
    first = ready(method, recipe=gentle)
    run_steps(first, 0, 3)
    state, fresh = snapshot(first.method), ready(method, recipe=gentle).method.state_dict()
    groups = {".".join(name.split(".")[:2]) if name.split(".")[0] in ("teacher", "queue")
              else name.split(".")[0] for name in state}  # fmt: skip
    results = {}
    for left_out in [None, *groups]:
        setup = ready(method, recipe=gentle)
        kept = {
            k: fresh[k] if left_out is not None and f"{k}.".startswith(f"{left_out}.") else v
            for k, v in state.items()
        }
        setup.method.load_state_dict(kept)
        setup.optimizer.load_state_dict(first.optimizer.state_dict())
        run_steps(setup, 3, 5)
        results[left_out] = snapshot(setup.method)
    whole = results.pop(None)
    for left_out, result in results.items():
        changed = [k for k in whole if not torch.equal(whole[k], result[k])]
        kinds = {k for k in changed if k not in BOOKKEEPING}
        assert kinds or left_out in BOOKKEEPING, left_out


@every_method
def test_permuted_labels_change_nothing_for_label_free_methods(method):
    plain = make_prepared()
    permuted = make_prepared(labels=plain.labels[::-1].copy())
    assert not np.array_equal(plain.labels, permuted.labels)
    one, two = ready(method, prepared=plain), ready(method, prepared=permuted)
    run_steps(one, 0, 2)
    run_steps(two, 0, 2)
    if settings_class(METHODS, method).uses_labels:
        weights = [snapshot(setup.method)["encoder.conv1.weight"] for setup in (one, two)]
        assert not torch.equal(*weights)
        assert load_batch(one, torch.arange(8), 0).labels is not None
    else:
        assert_same(snapshot(one.method), snapshot(two.method))
        assert one.anchors.labels is None and load_batch(one, torch.arange(8), 0).labels is None


@every_method
def test_seed_decides_the_weights_and_global_streams_do_not(method):
    torch.manual_seed(1)
    first = snapshot(build_method(spec_of(method), 3))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert_same(first, snapshot(build_method(spec_of(method), 3)))
    assert torch.equal(before, torch.get_rng_state())
    other = snapshot(build_method(spec_of(method, seed=1), 3))
    assert not torch.equal(first["encoder.conv1.weight"], other["encoder.conv1.weight"])


@every_method
def test_a_step_neither_reads_nor_moves_the_global_stream(method):
    one, two = ready(method), ready(method)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = run_steps(one, 0, 2)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert run_steps(two, 0, 2) == first


WITH_TEACHER = [m for m in names(METHODS) if "momentum_start" in settings_class(METHODS, m).model_fields]  # fmt: skip
WITH_QUEUE = [m for m in names(METHODS) if {"queue", "stored"} & settings_class(METHODS, m).model_fields.keys()]  # fmt: skip


def test_the_registry_has_teachers_and_queues():
    assert {"all4one", "byol", "dino", "moco", "ressl"} <= set(WITH_TEACHER)
    assert {"all4one", "moco", "nnclr", "ressl", "swav"} <= set(WITH_QUEUE)


@pytest.mark.parametrize("method", WITH_TEACHER)
def test_teacher_follows_its_formula_and_is_never_optimised(method):
    setup = ready(method)
    teacher = setup.method.teacher
    assert isinstance(teacher, Teacher)
    optimised = {id(p) for group in setup.optimizer.param_groups for p in group["params"]}
    assert not optimised & {id(p) for p in teacher.parameters()}
    assert optimised == {id(p) for p in setup.method.parameters() if p.requires_grad}
    run_steps(setup, 0, 2)
    before = [p.clone() for p in teacher.network.parameters()]
    buffers = {n: b.clone() for n, b in teacher.network.named_buffers()}
    tau = setup.method.before_step(setup.moment(2))["momentum"]
    assert 0.9 <= tau <= 0.99 and float(teacher.tau) == tau
    online = list(setup.method.online().parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, online, strict=True))
    for old, new, now in zip(before, online, teacher.network.parameters(), strict=True):
        assert torch.allclose(now, tau * old + (1 - tau) * new, atol=1e-6)
    for name, buffer in teacher.network.named_buffers():
        assert torch.equal(buffer, buffers[name]), name
    assert setup.method.counters() == {"ema_updates": 3}


@pytest.mark.parametrize("method", WITH_TEACHER)
def test_teacher_is_unmoved_by_backward_and_by_the_optimizer(method):
    setup = ready(method)
    setup.method.before_step(setup.moment(0))
    before = [p.clone() for p in setup.method.teacher.network.parameters()]
    done = setup.method.step(load_batch(setup, torch.arange(8), 0))
    objective(done, 0.5)["loss"].backward()
    setup.optimizer.step()
    after = setup.method.teacher.network.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("method", WITH_QUEUE)
def test_queue_advances_by_the_batch_and_wraps(method):
    setup = ready(method)
    queue = setup.method.queue
    assert isinstance(queue, Queue)
    size = len(queue.anchors)
    assert torch.all(queue.anchors == -1)
    assert torch.allclose(queue.rows.norm(dim=2), torch.ones(queue.rows.shape[:2]), atol=1e-5)
    for step in range(size // 8 + 1):
        before = queue.rows.clone()
        run_steps(setup, step, step + 1)
        slots = torch.arange(step * 8, step * 8 + 8) % size
        others = torch.tensor([k for k in range(size) if k not in set(slots.tolist())])
        assert int(queue.pointer) == (step + 1) * 8 % size
        assert torch.equal(queue.rows[:, others], before[:, others])
        assert not torch.equal(queue.rows[:, slots], before[:, slots])
        assert torch.equal(queue.anchors[slots], torch.arange(8) + step % 5)
    assert torch.allclose(queue.rows.norm(dim=2), torch.ones(queue.rows.shape[:2]), atol=1e-5)


LOWEST = 0.04  # the lowest temperature of any shipped recipe: ReSSL's key_temperature


@every_method
def test_bfloat16_stays_finite_at_the_lowest_temperature(method):
    fields = settings_class(METHODS, method).model_fields
    cold = {name: LOWEST for name in fields if name.endswith("temperature")}
    if "key_temperature" in cold:
        cold["temperature"] = 2 * LOWEST  # the key's has to be the sharper one
    setup = set_up(make_spec(method, recipe=GENTLE, options=cold), make_prepared(), NOTHING, CPU)
    for step in range(3):
        if hasattr(setup.method, "before_step"):
            setup.method.before_step(setup.moment(step))
        batch = load_batch(setup, torch.arange(8) + step, 0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            done = setup.method.step(batch)
            parts = objective(done, 0.5)
        assert all(torch.isfinite(part) for part in parts.values()), parts
        setup.optimizer.zero_grad()
        parts["loss"].backward()
        grads = [p.grad for p in setup.method.parameters() if p.grad is not None]
        assert all(torch.isfinite(grad).all() for grad in grads)
        setup.optimizer.step()
    assert all(torch.isfinite(p).all() for p in setup.method.parameters())


@every_method
def test_lars_and_per_step_rates_train_every_method_too(method):
    recipe = {
        "optimizer": "lars", "lars": {"trust": 0.02, "clip": True}, "weight_decay_on": "weights",
        "learning_rate_scaling": "batch_256", "schedule": "step",
    }  # fmt: skip
    setup = ready(method, recipe=recipe)
    before = snapshot(setup.method)
    run_steps(setup, 0, 3)
    after = snapshot(setup.method)
    assert not torch.equal(before["encoder.conv1.weight"], after["encoder.conv1.weight"])
    assert all(torch.isfinite(value).all() for value in after.values())


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """A dataset with group ids, and its bank and pairs."""
    plain = make_prepared()
    prepared = Prepared(plain.images, plain.labels, {**plain.card, "groups": [0, 1] * 10})
    folder = tmp_path_factory.mktemp("sources")
    bank = write_bank(folder / "toy.mix", prepared)
    return prepared, {"bank": bank, "pairs": write_pairs(folder / "toy.pairs", prepared, [(0, 3)])}


@every_method
@pytest.mark.parametrize("source", names(POSITIVES))
def test_every_source_goes_with_every_method(grouped, method, source):
    prepared, made = grouped
    reads = settings_class(POSITIVES, source).reads
    given = {kind: [artefact] if kind == reads else [] for kind, artefact in made.items()}
    setup = set_up(make_spec(method, source, GENTLE), prepared, given, CPU)
    logged = run_steps(setup, 0, 2)
    assert all(np.isfinite(list(values.values())).all() for values in logged)
    assert ("alignment" in logged[0]) == (source != "none")
