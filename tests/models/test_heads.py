"""Projection heads, predictors and prototypes."""

import pytest
import torch
from torch import nn

from clsp.models.heads import DinoHead, Prototypes, build_mlp, build_projection_head


def test_paper_sizes_have_the_published_parameter_counts():
    for features, count in ((512, 3_150_080), (2048, 9_441_536)):  # methods.md 2.1
        head = build_projection_head(features, 4096, 256)
        assert sum(p.numel() for p in head.parameters()) == count


def test_head_maps_features_to_projections_without_batch_norm():
    head = build_projection_head(8, 16, 4)
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    assert head(x).shape == (5, 4)
    assert torch.allclose(head(x)[:1], head(x[:1]), atol=1e-6)  # rows do not interact


def kinds(module):
    """Class names of the layers."""
    return [type(layer).__name__ for layer in module]


def test_nnclr_projector_ends_in_affine_batch_norm():
    projector = build_mlp([512, 2048, 2048, 256], last_norm="affine")
    block = ["Linear", "BatchNorm1d", "ReLU"]
    assert kinds(projector) == [*block, *block, "Linear", "BatchNorm1d"]
    assert projector[-1].affine and all(layer.bias is not None for layer in projector[::3])


def test_simsiam_projector_has_no_hidden_bias_and_a_plain_last_norm():
    projector = build_mlp([512, 2048, 2048, 2048], bias=False, last_norm="plain")
    assert projector[0].bias is None and projector[3].bias is None
    assert projector[6].bias is not None and not projector[6].bias.requires_grad
    assert not projector[7].affine


def test_byol_and_barlow_heads_have_no_last_norm():
    assert kinds(build_mlp([512, 4096, 256])) == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert kinds(build_mlp([512, 2048, 2048, 2048]))[-1] == "Linear"
    predictor = build_mlp([2048, 512, 2048], bias=False)
    assert predictor[0].bias is None and predictor[3].bias is not None


def test_prototypes_give_cosines_whatever_the_scale():
    prototypes = Prototypes(5, 3)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    scores = prototypes(x)
    assert scores.shape == (4, 5) and scores.abs().max() <= 1 + 1e-6
    assert torch.allclose(scores, prototypes(7 * x), atol=1e-6)
    with torch.no_grad():
        prototypes.directions.mul_(3)
    assert torch.allclose(scores, prototypes(x), atol=1e-6)  # g is 1: length has no effect
    expected = nn.functional.cosine_similarity(x[:, None], prototypes.directions[None], dim=2)
    assert torch.allclose(scores, expected, atol=1e-6)


def test_dino_head_has_gelu_and_a_narrow_normal_start():
    head = DinoHead(512, 2048, 256, 4096, 0.02)
    assert kinds(head.bottleneck) == ["Linear", "GELU", "Linear", "GELU", "Linear"]
    for layer in head.bottleneck[::2]:
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert torch.all(layer.bias == 0)
    embeddings, logits = head(torch.randn(2, 512))
    assert embeddings.shape == (2, 256) and logits.shape == (2, 4096)
