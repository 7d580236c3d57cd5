"""The losses against methods.md section 8, naive rewrites, closed forms and gradient checks."""

import math

import pytest
import torch
import torch.nn.functional as F

from clsp.pretrain.losses import alignment, embedding_spread, info_nce, nt_xent

ROW = torch.arange(4.0, dtype=torch.float64)[:, None]
COLUMN = torch.arange(6.0, dtype=torch.float64)
PAST = torch.arange(8.0, dtype=torch.float64)[:, None]
Z1 = torch.sin(1 + 0.7 * ROW + 1.3 * COLUMN + 0.11 * ROW * COLUMN)
Z2 = torch.cos(0.3 + 0.9 * ROW - 0.5 * COLUMN + 0.07 * ROW * COLUMN)
Z3 = torch.sin(2 - 0.4 * ROW + 0.8 * COLUMN + 0.05 * ROW * COLUMN)
Q = F.normalize(torch.sin(0.2 + 0.37 * PAST * COLUMN + 0.5 * COLUMN - PAST), dim=1)  # (K, D)
T = 0.2


def test_nt_xent_equals_the_reference_value():
    assert nt_xent(Z1, Z2, T).item() == pytest.approx(2.739787308817, abs=1e-9)


def test_alignment_equals_the_reference_value():
    assert alignment(Z1, Z3).item() == pytest.approx(1.881524133752, abs=1e-9)


def test_info_nce_equals_the_reference_value():
    assert info_nce(Z1, Z2, Q.T, T).item() == pytest.approx(2.719494963807, abs=1e-9)


def test_nt_xent_equals_a_naive_rewrite():
    rows = [z / max(z.norm().item(), 1e-12) for z in [*Z1, *Z2]]
    total = 0.0
    for i in range(8):
        partner = (i + 4) % 8
        others = [math.exp(float(rows[i] @ rows[a]) / T) for a in range(8) if a != i]
        total -= math.log(math.exp(float(rows[i] @ rows[partner]) / T) / sum(others))
    assert nt_xent(Z1, Z2, T).item() == pytest.approx(total / 8, abs=1e-12)


def test_info_nce_equals_a_naive_rewrite():
    q, k = F.normalize(Z3, dim=1), F.normalize(Z2, dim=1)
    total = 0.0
    for i in range(4):
        positive = math.exp(float(q[i] @ k[i]) / T)
        negatives = sum(math.exp(float(q[i] @ past) / T) for past in Q)
        total -= math.log(positive / (positive + negatives))
    assert info_nce(Z3, Z2, Q.T, T).item() == pytest.approx(total / 4, abs=1e-12)


@pytest.mark.parametrize("count", [2, 5, 16])
def test_identical_embeddings_give_the_collapse_value(count):
    z = torch.ones(count, 3, dtype=torch.float64)
    assert nt_xent(z, z, T).item() == pytest.approx(math.log(2 * count - 1), abs=1e-12)
    assert embedding_spread(z).item() == 0


def test_alignment_spans_zero_to_four_and_ignores_scale():
    assert alignment(Z1, 3 * Z1).item() == pytest.approx(0, abs=1e-12)
    assert alignment(Z1, -Z1).item() == pytest.approx(4, abs=1e-12)
    assert alignment(2 * Z1, Z3).item() == pytest.approx(alignment(Z1, Z3).item(), abs=1e-12)


def test_both_sides_of_the_alignment_get_gradient():
    z1, z3 = Z1.clone().requires_grad_(), Z3.clone().requires_grad_()
    alignment(z1, z3).backward()
    assert z1.grad.abs().sum() > 0 and z3.grad.abs().sum() > 0
    assert torch.autograd.gradcheck(alignment, (z1, z3))


def test_keys_and_queue_get_no_gradient():
    query, key = Z1.clone().requires_grad_(), Z2.clone().requires_grad_()
    queue = Q.T.clone().requires_grad_()
    info_nce(query, key, queue, T).backward()
    assert query.grad.abs().sum() > 0
    assert key.grad is None and queue.grad is None


def test_gradients_equal_finite_differences():
    z1, z2 = Z1.clone().requires_grad_(), Z2.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, T), (z1, z2))
    assert torch.autograd.gradcheck(lambda a: info_nce(a, Z2, Q.T, T), (z1,))


@pytest.mark.parametrize("loss", [lambda a, b: nt_xent(a, b, T), alignment])
def test_different_shapes_are_refused(loss):
    with pytest.raises(ValueError, match=r"\(4, 6\) and \(3, 6\)"):
        loss(Z1, Z2[:3])


def test_spread_of_random_embeddings_is_near_one_over_root_d():
    z = torch.randn(4096, 64, generator=torch.Generator().manual_seed(0))
    assert embedding_spread(z).item() == pytest.approx(1 / 8, rel=0.02)
