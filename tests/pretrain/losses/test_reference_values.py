"""Every loss against the numeric checks of methods.md section 8, in both precisions."""

import pytest
import torch
from numeric import LABELS, N1, N2, Z1, Z2, Z3, Q, T

from clsp.pretrain.losses.alignment import alignment, byol, negative_cosine
from clsp.pretrain.losses.clustering import dino, relational, sinkhorn, swav
from clsp.pretrain.losses.contrastive import (
    cross_contrast,
    info_nce,
    nt_xent,
    supcon,
    supcon_inside,
)
from clsp.pretrain.losses.redundancy import (
    barlow_twins,
    covariance,
    feature_contrast,
    invariance,
    variance,
)
from clsp.pretrain.queue import Queue

NEAREST = [6, 6, 4, 3]


def _swav(n1, n2, q):
    scores = [n1 @ q.T, n2 @ q.T]
    return swav(scores, [sinkhorn(s, 0.05, 3) for s in scores], 0.1)


def _dino(n1, n2, q):
    """Cross pairs of the reference: student [P1; P2], teacher [P2; P1], so equal views meet."""
    p1, p2 = n1 @ q.T, n2 @ q.T
    return dino([p1, p2], [p2, p1], torch.zeros(8, dtype=q.dtype), 0.1, 0.07)


# name -> (the loss of z1, z2, z3, n1, n2, Q in one precision, the value in float64)
CASES = {
    "SimCLR": (lambda z1, z2, z3, n1, n2, q: nt_xent(z1, z2, T), 2.739787308817),
    "SupCon, outside": (lambda z1, z2, z3, n1, n2, q: supcon(z1, z2, LABELS, T), 3.195450796407),
    "SupCon, inside": (
        lambda z1, z2, z3, n1, n2, q: supcon_inside(z1, z2, LABELS, T),
        2.499494863137,
    ),
    "alignment": (lambda z1, z2, z3, n1, n2, q: alignment(z1, z3), 1.881524133752),
    "MoCo": (lambda z1, z2, z3, n1, n2, q: info_nce(n1, n2, q, T), 2.719494963807),
    "NNCLR": (lambda z1, z2, z3, n1, n2, q: cross_contrast(q[NEAREST], z2, T), 1.446133702179),
    "BYOL, one direction": (lambda z1, z2, z3, n1, n2, q: alignment(z1, z2), 1.845783791615),
    "SimSiam, one direction": (
        lambda z1, z2, z3, n1, n2, q: negative_cosine(z1, z2),
        -0.077108104193,
    ),
    "Barlow": (lambda z1, z2, z3, n1, n2, q: barlow_twins(z1, z2, 0.0051, 1.0), 7.898307523482),
    "VICReg": (
        lambda z1, z2, z3, n1, n2, q: (
            25 * invariance(z1, z2) + 25 * variance(z1, z2) + covariance(z1, z2)
        ),
        39.068731058518,
    ),
    "VICReg, its authors' units": (
        lambda z1, z2, z3, n1, n2, q: (
            25 * invariance(z1, z2) + 12.5 * variance(z1, z2) + covariance(z1, z2)
        ),
        31.660468819339,
    ),
    "VICReg invariance": (lambda z1, z2, z3, n1, n2, q: invariance(z1, z2), 0.912786212829),
    "VICReg variance": (lambda z1, z2, z3, n1, n2, q: variance(z1, z2), 0.592660979134),
    "VICReg covariance": (lambda z1, z2, z3, n1, n2, q: covariance(z1, z2), 1.432551259437),
    "SwAV": (lambda z1, z2, z3, n1, n2, q: _swav(n1, n2, q), 4.368597868308),
    "ReSSL": (lambda z1, z2, z3, n1, n2, q: relational(n1, n2, q, 0.1, 0.04), 3.215218376922),
    "DINO": (lambda z1, z2, z3, n1, n2, q: _dino(n1, n2, q), 0.625606966191),
    "All4One feature term": (
        lambda z1, z2, z3, n1, n2, q: feature_contrast(n1, n2, z2, z1),
        3.170746674574,
    ),
}
TENSORS = (Z1, Z2, Z3, N1, N2, Q)


@pytest.mark.parametrize("name", CASES)
def test_loss_equals_the_reference_value_in_double_precision(name):
    loss, expected = CASES[name]
    assert loss(*TENSORS).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_loss_equals_the_reference_value_in_single_precision(name):
    loss, expected = CASES[name]
    found = loss(*(tensor.float() for tensor in TENSORS))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_byol_is_the_sum_of_both_directions():
    assert byol(Z1, Z3, Z1, Z2).item() == pytest.approx(
        1.845783791615 + alignment(Z3, Z1).item(), rel=1e-6
    )


def test_sinkhorn_equals_the_reference_row():
    row = [0.003114, 0, 0, 0, 0, 0.009329, 0.407717, 0.579841]
    assert sinkhorn(N1 @ Q.T, 0.05, 3)[0].tolist() == pytest.approx(row, abs=1e-6)


def test_the_queue_finds_the_reference_neighbours():
    queue = Queue(1, 8, 6, seed=0).double()
    queue.push(Q[None], torch.arange(8))
    rows, anchors = queue.nearest(Z1)
    assert anchors.squeeze(1).tolist() == NEAREST
    assert torch.allclose(rows[:, 0], Q[NEAREST])


def test_parts_of_the_feature_term_equal_the_reference():
    """L_f = 10 (on + off) / 2 with on = .003425827743 and off = .630723507172."""
    expected = 5 * (0.003425827743 + 0.630723507172)
    assert feature_contrast(N1, N2, Z2, Z1).item() == pytest.approx(expected, rel=1e-6)
