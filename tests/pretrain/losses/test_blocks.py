"""Losses whose logits are held a block at a time: same values, same gradients, bounded memory."""

import pytest
import torch
import torch.nn.functional as F

from clsp.pretrain.losses import blocks
from clsp.pretrain.losses.clustering import relational
from clsp.pretrain.losses.contrastive import (
    cross_contrast,
    info_nce,
    mixture_contrast,
    nt_xent,
    supcon,
    supcon_inside,
)
from clsp.pretrain.losses.precision import compiled_losses
from clsp.pretrain.memory import Alive

COUNT, T = 13, 0.2
LABELS = torch.arange(COUNT) % 4
PARTNER = torch.arange(COUNT).roll(3)
SHARE = torch.linspace(0, 1, COUNT)


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)  # fmt: skip


PAST = F.normalize(drawn(29, 6, seed=9), dim=1)
LOSSES = {
    "nt_xent": lambda a, b: nt_xent(a, b, T),
    "info_nce": lambda a, b: info_nce(a, b, PAST.to(a.dtype), T),
    "cross_contrast": lambda a, b: cross_contrast(a, b, T),
    "mixture_contrast": lambda a, b: mixture_contrast(a, b, PARTNER, SHARE.to(a.dtype), T),
    "supcon": lambda a, b: supcon(a, b, LABELS, T),
    "supcon_inside": lambda a, b: supcon_inside(a, b, LABELS, T),
    "relational": lambda a, b: relational(
        F.normalize(a, dim=1), F.normalize(b, dim=1), PAST.to(a.dtype), T, 0.1
    ),
}


@pytest.fixture
def small_blocks(monkeypatch):
    """Every loss in blocks of a few rows, the last one smaller."""
    monkeypatch.setattr(blocks, "WHOLE", 0)
    monkeypatch.setattr(blocks, "BLOCK", 4 * 2 * COUNT)


def value_and_gradients(loss, dtype):
    a, b = (drawn(COUNT, 6, seed=s, dtype=dtype).requires_grad_() for s in (1, 2))
    found = loss(a, b)
    found.backward()
    return [found.detach(), a.grad, torch.zeros_like(b) if b.grad is None else b.grad]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("dtype", "apart"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_blocks_change_neither_value_nor_gradients(name, dtype, apart, small_blocks, monkeypatch):
    parts = value_and_gradients(LOSSES[name], dtype)
    monkeypatch.setattr(blocks, "WHOLE", 2**25)
    for part, whole in zip(parts, value_and_gradients(LOSSES[name], dtype), strict=True):
        assert torch.allclose(part, whole, rtol=apart, atol=apart)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_of_blocks_are_those_of_finite_differences(name, small_blocks):
    loss, b = LOSSES[name], drawn(COUNT, 6, seed=2)
    assert torch.autograd.gradcheck(lambda a: loss(a, b), (drawn(COUNT, 6).requires_grad_(),))


def test_a_loss_that_fits_is_computed_as_ever_to_the_bit():
    a, b = (drawn(COUNT, 6, seed=s, dtype=torch.float32).requires_grad_() for s in (1, 2))
    z = F.normalize(torch.cat([a, b]), dim=1)
    logits = (z @ z.T / T).fill_diagonal_(-torch.inf)
    plain = F.cross_entropy(logits, torch.arange(2 * COUNT).roll(COUNT))
    found = nt_xent(a, b, T)
    wanted, given = (torch.autograd.grad(loss, (a, b)) for loss in (plain, found))
    assert torch.equal(found, plain)
    assert all(torch.equal(w, g) for w, g in zip(wanted, given, strict=True))


def test_blocks_under_autocast_are_float32(small_blocks):
    a, b = (drawn(COUNT, 6, seed=s, dtype=torch.bfloat16) for s in (1, 2))
    with torch.autocast("cpu", torch.bfloat16):
        found = nt_xent(a.requires_grad_(), b, T)
    found.backward()
    assert found.dtype == torch.float32 and a.grad.dtype == torch.bfloat16
    assert found.item() == pytest.approx(nt_xent(a.float(), b.float(), T).item(), rel=1e-6)


def test_blocks_inside_a_compiled_loss(small_blocks):
    compiled = torch.compile(nt_xent, backend="eager", dynamic=False)
    a, b = (drawn(COUNT, 6, seed=s).requires_grad_() for s in (1, 2))
    (found,) = torch.autograd.grad(compiled(a, b, T), a)
    (wanted,) = torch.autograd.grad(nt_xent(a, b, T), a)
    assert torch.allclose(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["nt_xent", "relational"])  # the latter is made of another loss
def test_blocks_of_a_run_that_compiles_have_the_gradients_of_one_that_does_not(name, small_blocks):
    loss, b = LOSSES[name], drawn(COUNT, 6, seed=2)
    one, other = (drawn(COUNT, 6, seed=1).requires_grad_() for _ in range(2))
    with compiled_losses("aot_eager"):
        found = loss(one, b)
    found.backward()
    loss(other, b).backward()
    assert torch.allclose(one.grad, other.grad, rtol=1e-12, atol=1e-12)


def peak(count, loss):
    a, b = (drawn(count, 8, seed=s, dtype=torch.float32).requires_grad_() for s in (1, 2))
    with Alive([a, b]) as alive:
        loss(a, b).backward()
    return alive.peak


@pytest.mark.parametrize("name", ["nt_xent", "cross_contrast", "supcon"])
def test_memory_of_blocks_grows_with_the_batch_and_not_with_its_square(name, monkeypatch):
    loss = {**LOSSES, "supcon": lambda a, b: supcon(a, b, torch.arange(len(a)) % 4, T)}[name]
    whole = peak(512, loss)
    monkeypatch.setattr(blocks, "WHOLE", 0)
    monkeypatch.setattr(blocks, "BLOCK", 8192)
    small, large = peak(256, loss), peak(512, loss)
    assert large < whole / 4
    assert large < 2.2 * small
