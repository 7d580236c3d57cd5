"""The projection head."""

import torch

from clsp.models.heads import build_projection_head


def test_paper_sizes_have_the_published_parameter_counts():
    for features, count in ((512, 3_150_080), (2048, 9_441_536)):  # methods.md 2.1
        head = build_projection_head(features, 4096, 256)
        assert sum(p.numel() for p in head.parameters()) == count


def test_head_maps_features_to_projections_without_batch_norm():
    head = build_projection_head(8, 16, 4)
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    assert head(x).shape == (5, 4)
    assert torch.allclose(head(x)[:1], head(x[:1]), atol=1e-6)  # rows do not interact
