"""What single methods do beyond the contract: neighbours, assignments, centres, mixtures."""

import math

import pytest
import torch
import torch.nn.functional as F
from pretraining import NOTHING, make_prepared, make_spec, take_step
from torch import nn

from clsp.pretrain.feed import load_batch
from clsp.pretrain.losses.alignment import alignment
from clsp.pretrain.losses.clustering import relational, sinkhorn
from clsp.pretrain.losses.contrastive import cross_contrast
from clsp.pretrain.methods.all4one import positions
from clsp.pretrain.setup import set_up

CPU = torch.device("cpu")


def ready(method, positives="none", **changes):
    """The set-up of a small run."""
    return set_up(make_spec(method, positives, **changes), make_prepared(), NOTHING, CPU)


def first_batch(setup):
    """Eight anchors."""
    return load_batch(setup, torch.arange(8), 0)


def fill(setup, steps=3):
    """Fill the queue, so that neighbours are images."""
    for step in range(steps):
        take_step(setup, torch.arange(8) + step, step)


def test_nnclr_searches_for_the_projection_and_predicts_from_the_other_view():
    setup = ready("nnclr")
    fill(setup)
    method, batch = setup.method, first_batch(setup)
    z = [nn.Sequential(method.encoder, method.projector)(view) for view in batch.views]
    p = [method.predictor(each) for each in z]
    rows = method.queue.rows[0]
    near = [(F.normalize(each, dim=1) @ rows.T).argmax(dim=1) for each in z]
    t = method.config.temperature
    expected = (cross_contrast(rows[near[0]], p[1], t) + cross_contrast(rows[near[1]], p[0], t)) / 2
    anchors = method.queue.anchors.clone()
    pointer = int(method.queue.pointer)
    done = method.step(batch)
    assert done.terms["info_nce"].item() == pytest.approx(expected.item(), abs=1e-5)
    assert torch.equal(done.neighbours, torch.stack([anchors[near[0]], anchors[near[1]]], dim=1))
    stored = method.queue.rows[0, pointer : pointer + 8]  # only view 1 is stored, after the loss
    assert torch.allclose(stored, F.normalize(z[0], dim=1), atol=1e-5)


def test_nnclr_projector_learns_through_predictions_alone(monkeypatch):
    setup = ready("nnclr")
    fill(setup)
    detached = setup.method.predictor.forward
    monkeypatch.setattr(
        setup.method.predictor, "forward", lambda z: detached(z.detach()), raising=False
    )
    setup.optimizer.zero_grad(set_to_none=True)
    setup.method.step(first_batch(setup)).terms["info_nce"].backward()
    assert all(p.grad is None for p in setup.method.projector.parameters())
    assert all(p.grad is None for p in setup.method.encoder.parameters())
    assert setup.method.predictor[0].weight.grad.abs().sum() > 0


def test_all4one_encodes_positions_as_its_authors_do():
    """sin(d w) for even neighbours, cos(d w) for odd ones, w = 10000^(-2m/6) (methods.md 2.5)."""
    found = positions(5, 256)
    assert found.shape == (5, 256)
    for n in range(5):
        rate = 10000 ** (-2 * (n // 2) / 6)
        for d in (0, 1, 100, 255):
            expected = math.sin(d * rate) if n % 2 == 0 else math.cos(d * rate)
            assert found[n, d].item() == pytest.approx(expected, abs=1e-4)


def test_all4one_queue_holds_the_average_of_view_one_and_gets_no_gradient():
    setup = ready("all4one")
    method, batch = setup.method, first_batch(setup)
    method.before_step(setup.moment(0))
    m = F.normalize(method.teacher(batch.views[0]), dim=1)
    done = method.step(batch)
    assert torch.allclose(method.queue.rows[0, :8], m, atol=1e-5)
    sum(done.terms.values()).backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(p.grad.abs().sum() > 0 for n, p in method.transformer.named_parameters() if n.endswith("weight"))  # fmt: skip


def test_all4one_transformer_has_its_own_rate_and_keyed_dropout():
    setup = ready("all4one")
    rates = {group["peak"] for group in setup.optimizer.param_groups}
    options = setup.spec.method_options
    own = options["transformer_learning_rate"]
    assert rates == {0.1, own}
    scaled = {"learning_rate_scaling": "batch_256", "learning_rate": 3.2}  # 8 images: 0.1
    again = ready("all4one", recipe=scaled)
    assert {group["peak"] for group in again.optimizer.param_groups} == {0.1, own}
    assert options["dropout"] > 0
    batch = first_batch(setup)
    state = {k: v.clone() for k, v in setup.method.state_dict().items()}
    losses = []
    for step in (0, 0, 1):
        setup.method.load_state_dict(state)
        setup.method.moment = step
        torch.manual_seed(step + 5)
        losses.append(setup.method.step(batch).terms["centroid"].item())
    assert losses[0] == losses[1] != losses[2]


def test_simsiam_predictor_keeps_its_rate():
    setup = ready("simsiam")
    constant = [g for g in setup.optimizer.param_groups if g["constant"]]
    held = {id(p) for group in constant for p in group["params"]}
    assert held == {id(p) for p in setup.method.predictor.parameters()}


def test_byol_aligns_its_prediction_with_the_averages_positive():
    setup = ready("byol", "augmentation")
    method, batch = setup.method, first_batch(setup)
    done = method.step(batch)
    target = method.teacher(batch.positive)
    assert torch.allclose(done.z_positive, target, atol=1e-5)
    parts = done.terms["regression"].item()
    assert 0 <= parts <= 8 and 0 <= alignment(done.z_anchor, done.z_positive).item() <= 4


def test_swav_stored_embeddings_take_part_from_their_epoch_on():
    setup = ready("swav")
    method = setup.method
    fill(setup, 2)
    scores = method.prototypes(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))
    config = method.config
    alone = sinkhorn(scores, config.epsilon, config.iterations)
    past = method.prototypes(method.queue.rows[1])
    together = sinkhorn(torch.cat([scores, past]), config.epsilon, config.iterations)[:8]
    method.epoch = config.stored_from_epoch - 1
    assert torch.allclose(method._assign(1, scores), alone)
    method.epoch = config.stored_from_epoch
    assert torch.allclose(method._assign(1, scores), together)
    assert not torch.allclose(alone, together)


@pytest.mark.parametrize(("method", "layer"), [("swav", "prototypes"), ("dino", "head.prototypes")])
def test_prototypes_are_frozen_in_their_first_epochs_and_learn_later(method, layer):
    setup = ready(method)
    name = f"{layer}.directions"
    frozen = setup.method.get_parameter(name).clone()
    fill(setup, 2)  # epoch 0
    assert torch.equal(setup.method.get_parameter(name), frozen)
    take_step(setup, torch.arange(8), 2)  # epoch 1
    assert not torch.equal(setup.method.get_parameter(name), frozen)


def test_dino_moves_its_centre_after_the_loss_and_warms_its_teacher():
    setup = ready("dino", options={
        "teacher_temperature_start": 0.04, "teacher_temperature": 0.08, "teacher_warmup_epochs": 3,
        "centre_momentum": 0.9,
    })  # fmt: skip
    method, batch = setup.method, first_batch(setup)
    assert [method.teacher_temperature() for method.epoch in (0, 1, 2, 3, 9)] == pytest.approx(
        [0.04, 0.06, 0.08, 0.08, 0.08]
    )
    logits = torch.cat([method.teacher(view)[1] for view in batch.views])
    method.step(batch)
    assert torch.allclose(method.centre, 0.1 * logits.mean(dim=0, keepdim=True), atol=1e-6)
    assert method.before_step(setup.moment(1)).keys() == {"momentum", "teacher_temperature"}


def test_ressl_compares_the_strong_view_with_the_weak_ones_relations():
    setup = ready("ressl")
    method, batch = setup.method, first_batch(setup)
    past = method.queue.past()[0]
    q = F.normalize(method.online()(batch.views[0]), dim=1)
    k = F.normalize(method.teacher(batch.views[1]), dim=1)
    config = method.config
    expected = relational(q, k, past, config.temperature, config.key_temperature)
    done = method.step(batch)
    assert done.terms["relation"].item() == pytest.approx(expected.item(), abs=1e-5)
    assert torch.allclose(method.queue.rows[0, :8], k, atol=1e-5)


def test_ressl_shows_the_weak_view_to_the_statistics_alone():
    setup = ready("ressl", "augmentation")
    setup.optimizer.zero_grad(set_to_none=True)
    norm = setup.method.encoder.bn1
    before = int(norm.num_batches_tracked)
    setup.method.step(first_batch(setup))
    assert int(norm.num_batches_tracked) == before + 2  # strong and weak; not the positive


@pytest.mark.parametrize("method", ["byol", "simsiam", "nnclr", "all4one"])
def test_the_projection_is_watched_where_the_prediction_is_aligned(method):
    setup = ready(method, "augmentation")
    batch = first_batch(setup)
    done = setup.method.step(batch)
    network = nn.Sequential(setup.method.encoder, setup.method.projector)
    assert torch.allclose(done.watched, network(batch.views[0]), atol=1e-4)
    assert not torch.allclose(done.watched, done.z_anchor, atol=1e-2)


@pytest.mark.parametrize("mixing", ["cutmix", "mixup"])
def test_bsim_shows_every_image_by_its_share(mixing):
    setup = ready("bsim", options={"mixing": mixing, "beta": 1.0})
    levels = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 16, 16)
    for step in range(20):
        setup.method.moment = step
        mixed, partner, share = setup.method.mix(levels)
        assert torch.all(partner != torch.arange(8)) and sorted(partner.tolist()) == list(range(8))
        assert torch.all((share >= 0) & (share <= 1))
        expected = share * torch.arange(8.0) + (1 - share) * partner.float()
        assert torch.allclose(mixed.mean(dim=(1, 2, 3)), expected, atol=1e-4)
        if mixing == "cutmix":
            own = (mixed == levels).all(dim=1).float().mean(dim=(1, 2))
            assert torch.allclose(own, share, atol=1e-6)


def test_bsim_mixes_by_seed_and_step_alone():
    setup, again = ready("bsim"), ready("bsim")
    images = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    first = setup.method.mix(images)[0]
    torch.manual_seed(2)
    assert torch.equal(again.method.mix(images)[0], first)
    again.method.moment = 1
    assert not torch.equal(again.method.mix(images)[0], first)
    other = ready("bsim", seed=1)
    assert not torch.equal(other.method.mix(images)[0], first)


def test_bsim_without_mixtures_is_simclr():
    plain, mixed = ready("simclr"), ready("bsim", options={"mixture_weight": 0.0, "forward": "separate"})  # fmt: skip
    plain.method.config = plain.method.config.model_copy(update={"forward": "separate"})
    batch = first_batch(plain)
    terms = mixed.method.step(batch).terms
    expected = plain.method.step(batch).terms["info_nce"]
    assert terms["mixture"].item() == 0
    assert terms["info_nce"].item() == pytest.approx(expected.item(), abs=1e-5)


def test_supervised_classifies_both_views():
    setup = ready("supervised")
    method, batch = setup.method, first_batch(setup)
    method.config = method.config.model_copy(update={"forward": "separate"})
    assert method.classifier.out_features == 3
    losses = [F.cross_entropy(method.classifier(method.encoder(v)), batch.labels) for v in batch.views]  # fmt: skip
    found = method.step(batch).terms["cross_entropy"].item()
    assert found == pytest.approx(sum(losses).item() / 2, abs=1e-5)
