"""Naive per-pair rewrites, closed forms, ranges, gradients and half precision of every loss."""

import math

import pytest
import torch
import torch.nn.functional as F
from numeric import LABELS, Z1, Z2, Z3, Q, T

from clsp.pretrain.losses.alignment import alignment, byol, negative_cosine
from clsp.pretrain.losses.clustering import dino, relational, sinkhorn, soft_cross_entropy, swav
from clsp.pretrain.losses.contrastive import (
    cross_contrast,
    info_nce,
    mixture_contrast,
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


def drawn(*shape, seed=0):
    """Random double precision input."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


A, B, C = drawn(5, 7), drawn(5, 7, seed=1), drawn(5, 7, seed=2)
PAST = F.normalize(drawn(9, 7, seed=3), dim=1)
CLASSES = torch.tensor([0, 1, 0, 2, 1])


def cosine(a, b):
    """Of two vectors, in plain Python."""
    dot = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    return dot / math.sqrt(sum(x * x for x in a.tolist()) * sum(y * y for y in b.tolist()))


def close(found, expected):
    """Whether a loss has a value to nine digits."""
    return found.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_nt_xent_pair_by_pair():
    rows = [*A, *B]
    total = 0.0
    for i in range(10):
        others = [math.exp(cosine(rows[i], rows[a]) / T) for a in range(10) if a != i]
        total -= math.log(math.exp(cosine(rows[i], rows[(i + 5) % 10]) / T) / sum(others))
    assert close(nt_xent(A, B, T), total / 10)


def test_info_nce_pair_by_pair():
    total = 0.0
    for q, k in zip(A, B, strict=True):
        positive = math.exp(cosine(q, k) / T)
        total -= math.log(positive / (positive + sum(math.exp(cosine(q, p) / T) for p in PAST)))
    assert close(info_nce(A, B, PAST, T), total / 5)


def test_cross_contrast_pair_by_pair():
    total = 0.0
    for i, a in enumerate(A):
        shares = [math.exp(cosine(a, b) / T) for b in B]
        total -= math.log(shares[i] / sum(shares))
    assert close(cross_contrast(A, B, T), total / 5)


def test_mixture_contrast_pair_by_pair():
    partner, share = torch.tensor([1, 2, 3, 4, 0]), torch.tensor([0.1, 0.5, 0.9, 1.0, 0.0])
    total = 0.0
    for i, a in enumerate(A):
        shares = [math.exp(cosine(a, b) / T) for b in B]
        own, other = (-math.log(shares[j] / sum(shares)) for j in (i, int(partner[i])))
        total += share[i].item() * own + (1 - share[i].item()) * other
    assert close(mixture_contrast(A, B, partner, share.double(), T), total / 5)


def test_a_mixture_that_is_all_one_image_is_the_plain_contrast():
    whole = mixture_contrast(A, B, torch.tensor([1, 2, 3, 4, 0]), torch.ones(5).double(), T)
    assert close(whole, cross_contrast(A, B, T).item())


@pytest.mark.parametrize("form", [supcon, supcon_inside])
def test_supcon_pair_by_pair(form):
    rows, labels = [*A, *B], CLASSES.tolist() * 2
    total = 0.0
    for i in range(10):
        shares = {a: math.exp(cosine(rows[i], rows[a]) / T) for a in range(10) if a != i}
        positives = [a for a in shares if labels[a] == labels[i]]
        if form is supcon:
            logs = [math.log(shares[p] / sum(shares.values())) for p in positives]
            total -= sum(logs) / len(logs)
        else:
            total -= math.log(sum(shares[p] for p in positives) / sum(shares.values()))
    assert close(form(A, B, CLASSES, T), total / 10)


@pytest.mark.parametrize("form", [supcon, supcon_inside])
def test_supcon_with_a_class_for_each_image_is_simclr(form):
    assert close(form(A, B, torch.arange(5), T), nt_xent(A, B, T).item())


def test_alignment_byol_and_simsiam_pair_by_pair():
    cosines = [cosine(a, b) for a, b in zip(A, B, strict=True)]
    assert close(alignment(A, B), sum(2 - 2 * c for c in cosines) / 5)
    assert close(negative_cosine(A, B), -sum(cosines) / 5)
    crossed = [cosine(c, a) for c, a in zip(C, A, strict=True)]
    assert close(byol(A, C, A, B), sum(2 - 2 * c for c in cosines + crossed) / 5)


def _columns(z, biased):
    """Columns of (B, D) as lists, centred, with their variance."""
    found = []
    for column in z.T.tolist():
        mean = sum(column) / len(column)
        centred = [x - mean for x in column]
        found.append((centred, sum(x * x for x in centred) / (len(column) - (not biased))))
    return found


def test_barlow_twins_feature_by_feature():
    first, second = _columns(A, True), _columns(B, True)
    total = 0.0
    for i, (x, vx) in enumerate(first):
        for j, (y, vy) in enumerate(second):
            dot = sum(a * b for a, b in zip(x, y, strict=True))
            c = dot / 5 / math.sqrt((vx + 1e-5) * (vy + 1e-5))
            total += (1 - c) ** 2 if i == j else 0.0051 * c * c
    assert close(barlow_twins(A, B, 0.0051, 0.1), 0.1 * total)


def test_vicreg_feature_by_feature():
    assert close(invariance(A, B), sum((x - y) ** 2 for x, y in zip(A.flatten().tolist(), B.flatten().tolist(), strict=True)) / 35)  # fmt: skip
    hinge, squares = 0.0, 0.0
    for z in (A, B):
        columns = _columns(z, False)
        hinge += sum(max(0.0, 1 - math.sqrt(v + 1e-4)) for _, v in columns) / 7
        for i, (x, _) in enumerate(columns):
            for j, (y, _) in enumerate(columns):
                if i != j:
                    squares += (sum(a * b for a, b in zip(x, y, strict=True)) / 4) ** 2 / 7
    assert close(variance(A, B), hinge)
    assert close(covariance(A, B), squares)


def test_feature_contrast_entry_by_entry():
    on = off = 0.0
    for m, z in ((A, C), (B, Z := drawn(5, 7, seed=4))):
        for i in range(7):
            for j in range(7):
                c = cosine(m[:, i], z[:, j])
                on += (c - 1) ** 2 / 7 if i == j else 0
                off += c * c / 42 if i != j else 0
    assert close(feature_contrast(A, B, Z, C), 10 * (math.sqrt(on / 2) + math.sqrt(off / 2)) / 2)


def _softmax(values, temperature):
    powers = [math.exp(v / temperature) for v in values]
    return [p / sum(powers) for p in powers]


def _cross(targets, logits, temperature):
    shares = _softmax(logits, temperature)
    return -sum(t * math.log(s) for t, s in zip(targets, shares, strict=True))


def test_sinkhorn_step_by_step():
    scores = (F.normalize(A, dim=1) @ PAST.T).tolist()
    q = [[math.exp(scores[b][k] / 0.05) for b in range(5)] for k in range(9)]
    total = sum(map(sum, q))
    q = [[x / total for x in row] for row in q]
    for _ in range(3):
        q = [[x / sum(row) / 9 for x in row] for row in q]
        sums = [sum(row[b] for row in q) for b in range(5)]
        q = [[row[b] / sums[b] / 5 for b in range(5)] for row in q]
    expected = [[5 * q[k][b] for k in range(9)] for b in range(5)]
    found = sinkhorn(F.normalize(A, dim=1) @ PAST.T, 0.05, 3)
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(found.sum(dim=1), torch.ones(5, dtype=torch.float64))


def test_swav_dino_and_ressl_row_by_row():
    scores = [F.normalize(z, dim=1) @ PAST.T for z in (A, B)]
    targets = [_softmax(row, 0.3) for row in scores[0].tolist()]
    others = [_softmax(row, 0.3) for row in scores[1].tolist()]
    assigned = [torch.tensor(t, dtype=torch.float64) for t in (targets, others)]
    total = sum(_cross(t, s, 0.1) for t, s in zip(targets, scores[1].tolist(), strict=True))
    total += sum(_cross(t, s, 0.1) for t, s in zip(others, scores[0].tolist(), strict=True))
    assert close(swav(scores, assigned, 0.1), total / 10)
    centre = drawn(9, seed=5)
    total = 0.0
    for teacher, student in ((A, B), (B, A)):
        for t, s in zip(teacher @ PAST.T, student @ PAST.T, strict=True):
            total += _cross(_softmax((t - centre).tolist(), 0.07), s.tolist(), 0.1)
    logits = [A @ PAST.T, B @ PAST.T]
    assert close(dino(logits, logits, centre, 0.1, 0.07), total / 10)
    q, k = F.normalize(A, dim=1), F.normalize(B, dim=1)
    total = sum(
        _cross(_softmax((b @ PAST.T).tolist(), 0.04), (a @ PAST.T).tolist(), 0.1)
        for a, b in zip(q, k, strict=True)
    )
    assert close(relational(q, k, PAST, 0.1, 0.04), total / 5)


@pytest.mark.parametrize("count", [2, 5, 16])
def test_collapse_gives_the_closed_form(count):
    z = torch.ones(count, 3, dtype=torch.float64)
    assert close(nt_xent(z, z, T), math.log(2 * count - 1))
    assert close(cross_contrast(z, z, T), math.log(count))
    assert close(alignment(z, z), 0)
    assert close(negative_cosine(z, z), -1)
    assert close(25 * invariance(z, z) + 25 * variance(z, z) + covariance(z, z), 49.5)
    scores = [torch.zeros(count, 11, dtype=torch.float64)] * 2
    uniform = [sinkhorn(s, 0.05, 3) for s in scores]
    assert close(swav(scores, uniform, 0.1), math.log(11))
    assert close(dino(scores, scores, torch.zeros(11), 0.1, 0.07), math.log(11))


def test_known_collapse_values():
    """What users of the methods see when a run is stuck (methods.md 2.10, 2.11)."""
    flat = torch.zeros(2, 4096, dtype=torch.float64)
    assert dino([flat, flat], [flat, flat], flat[:1], 0.1, 0.07).item() == pytest.approx(8.31777, abs=1e-5)  # fmt: skip
    flat = torch.zeros(2, 3000, dtype=torch.float64)
    assigned = [sinkhorn(flat, 0.05, 3)] * 2
    assert swav([flat, flat], assigned, 0.1).item() == pytest.approx(8.006, abs=1e-3)


def test_barlow_twins_is_zero_for_equal_decorrelated_views():
    z = 1e3 * torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    assert barlow_twins(z, z, 0.0051, 1.0).item() == pytest.approx(0, abs=1e-12)


def test_ranges():
    assert close(byol(A, B, -B, -A), 8)
    assert close(byol(A, B, B, A), 0)
    assert close(alignment(A, -3 * A), 4)
    assert close(negative_cosine(A, -A), 1)
    assert close(alignment(2 * A, B), alignment(A, B).item())


NO_GRADIENT = {
    "MoCo's keys and queue": (lambda x, y, q: info_nce(x, y, q, T), "x"),
    "BYOL's targets": (lambda x, y, q: byol(x, x, y, y), "x"),
    "SimSiam's other view": (lambda x, y, q: negative_cosine(x, y), "x"),
    "All4One's average": (lambda x, y, q: feature_contrast(y, y, x, x), "x"),
    "ReSSL's keys": (lambda x, y, q: relational(x, y, q.detach(), 0.1, 0.04), "x"),
    "DINO's teacher": (lambda x, y, q: dino([x, x], [y, y], torch.zeros(6), 0.1, 0.07), "x"),
    "SwAV's assignments": (
        lambda x, y, q: swav([x, x], [sinkhorn(y, 0.05, 3)] * 2, 0.1),
        "x",
    ),
}


@pytest.mark.parametrize("name", NO_GRADIENT)
def test_what_must_not_receive_gradient(name):
    loss, _ = NO_GRADIENT[name]
    x, y, q = (t.clone().requires_grad_() for t in (Z1, Z2, Q))
    loss(x, y, q).backward()
    assert x.grad.abs().sum() > 0
    assert y.grad is None and q.grad is None


def test_both_sides_of_the_alignment_and_of_nnclr_get_gradient():
    for loss in (alignment, lambda a, b: cross_contrast(a, b, T), lambda a, b: nt_xent(a, b, T)):
        x, y = Z1.clone().requires_grad_(), Z3.clone().requires_grad_()
        loss(x, y).backward()
        assert x.grad.abs().sum() > 0 and y.grad.abs().sum() > 0


def test_gradients_equal_finite_differences():
    x, y = Z1.clone().requires_grad_(), Z2.clone().requires_grad_()
    check = torch.autograd.gradcheck
    assert check(lambda a, b: nt_xent(a, b, T), (x, y))
    assert check(lambda a: info_nce(a, Z2, Q, T), (x,))
    assert check(lambda a, b: cross_contrast(a, b, T), (x, y))
    assert check(lambda a, b: supcon(a, b, LABELS, T), (x, y))
    assert check(lambda a, b: supcon_inside(a, b, LABELS, T), (x, y))
    assert check(alignment, (x, y))
    assert check(lambda a, b: barlow_twins(a, b, 0.0051, 0.1), (x, y))
    assert check(lambda a, b: variance(a, b) + covariance(a, b) + invariance(a, b), (x, y))
    assert check(lambda a, b: feature_contrast(Z1, Z2, a, b), (x, y))
    assert check(lambda a: relational(a, F.normalize(Z2, dim=1), Q, 0.1, 0.04), (x,))
    assert check(lambda a: soft_cross_entropy(a, Z2.softmax(dim=1), 0.1), (x,))


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b: nt_xent(a, b, T),
        lambda a, b: info_nce(a, b, Q, T),
        lambda a, b: cross_contrast(a, b, T),
        lambda a, b: supcon(a, b, LABELS, T),
        lambda a, b: supcon_inside(a, b, LABELS, T),
        alignment,
        negative_cosine,
        lambda a, b: barlow_twins(a, b, 0.0051, 0.1),
        invariance,
        lambda a, b: feature_contrast(a, a, a, b),
    ],
)
def test_different_shapes_are_refused(loss):
    with pytest.raises(ValueError, match=r"\(\d, 6\) and \(\d, 6\)"):
        loss(Z1, Z2[:3])


LOWEST = 0.04  # the lowest temperature of any recipe: ReSSL's key_temperature

HALF = {
    "nt_xent": lambda a, b, q: nt_xent(a, b, LOWEST),
    "info_nce": lambda a, b, q: info_nce(a, b, q, LOWEST),
    "cross_contrast": lambda a, b, q: cross_contrast(a, b, LOWEST),
    "alignment": lambda a, b, q: alignment(a, b),
    "relational": lambda a, b, q: relational(a, b, q, 0.1, LOWEST),
    "dino": lambda a, b, q: dino([a, b], [b, a], torch.zeros(8), 0.1, LOWEST),
    "sinkhorn": lambda a, b, q: sinkhorn(a, 0.05, 3).sum(),
    "barlow": lambda a, b, q: barlow_twins(a, b, 0.0051, 0.1),
    "vicreg": lambda a, b, q: variance(a, b) + covariance(a, b),
    "supcon": lambda a, b, q: supcon(a, b, torch.arange(16) % 3, LOWEST),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", HALF)
def test_half_precision_input_is_raised_and_stays_finite(name, dtype):
    unit = [F.normalize(drawn(n, 8, seed=n), dim=1) for n in (16, 17, 20)]
    a, b, q = unit[0].to(dtype), unit[1][:16].to(dtype), unit[2].to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = HALF[name](a, b, q)
    assert found.dtype == torch.float32 and torch.isfinite(found)
    full = HALF[name](a.float(), b.float(), q.float())
    assert found.item() == pytest.approx(full.item(), rel=1e-5)
