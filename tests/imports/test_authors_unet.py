"""The authors' U-Net, converted: equal outputs, and nothing but their network is taken for it."""

from pathlib import Path

import pytest
import torch
from theirs import their_unet

from clsp.models import authors_unet
from clsp.models.authors_unet import convert_unet, layer_names, read_layout, time_table
from clsp.models.denoiser import decode, encode
from clsp.runtime.errors import DataError

FILE = Path("their.pt")
TABLE = "time_embedding.timembedding.0.weight"
SHAPES = [  # T, base width, multipliers, levels with attention, blocks
    (50, 32, (1, 2), (1,), 1),
    (20, 64, (1, 2, 2), (0, 2), 2),
    (50, 32, (1, 1, 3), (), 3),
    (10, 96, (1,), (0,), 1),
    (30, 32, (1, 3, 2, 1), (1, 2, 3), 1),
    (1000, 32, (1, 2, 2, 2), (1,), 2),  # the authors' but for the width
]


def relative(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@torch.inference_mode()
def test_outputs_are_theirs_with_and_without_an_anchor(shape):
    steps, base, multipliers, attended, layers = shape
    theirs = their_unet(*shape)
    ours, layout, dropped = convert_unet(FILE, dict(theirs.state_dict()), size=16)
    assert layout.channels == tuple(base * factor for factor in multipliers)
    assert layout.attention == tuple(level in attended for level in range(len(multipliers)))
    assert (layout.layers, layout.timesteps) == (layers, steps)
    assert set(dropped) == {n for n in theirs.state_dict() if "projector" in n} | {TABLE}
    generator = torch.Generator().manual_seed(1)
    images, anchors = torch.randn((2, 3, 3, 16, 16), generator=generator)
    times = torch.tensor([0, steps // 2, steps - 1])
    expected = theirs(images, times)
    assert relative(ours(images, times, return_dict=False)[0], expected) < 1e-5
    h, skips, emb = encode(ours, images, times)
    assert relative(decode(ours, h, skips, emb), expected) < 1e-5
    of_anchor, _, _ = encode(ours, anchors, times)
    mixed = decode(ours, 0.1 * h + 0.9 * of_anchor, skips, emb)
    expected = theirs.mixed(images, anchors, times, 0.1)
    assert relative(mixed, expected) < 1e-5


def test_a_table_that_was_averaged_with_the_weights_is_taken():
    """The authors' EMA covers the frozen table too; rounding takes it off by up to 2e-4."""
    theirs = their_unet(1000, 32, (1, 2), (1,), 1)
    table = theirs.state_dict()[TABLE]
    first = table.clone()
    for _ in range(3000):  # by then it moves no more
        table.copy_(table * 0.9999 + first * (1 - 0.9999))
    assert 1e-4 < (table - first).abs().max() < 2e-4
    ours, _, _ = convert_unet(FILE, dict(theirs.state_dict()), size=8)
    images, times = torch.randn(4, 3, 8, 8), torch.tensor([9, 333, 989, 999])
    with torch.inference_mode():
        found = ours(images, times, return_dict=False)[0]
        assert relative(found, theirs(images, times)) < 1e-5


@torch.inference_mode()
def test_the_order_of_sines_and_cosines_matters(monkeypatch):
    theirs = their_unet()
    images, times = torch.ones(1, 3, 8, 8), torch.tensor([17])
    monkeypatch.setattr(authors_unet, "_sines_first", lambda weight: weight)
    ours, _, _ = convert_unet(FILE, dict(theirs.state_dict()), size=8)
    assert relative(ours(images, times, return_dict=False)[0], theirs(images, times)) > 1e-3


def test_every_layer_has_a_source_of_its_own():
    layout = read_layout(FILE, dict(their_unet(30, 32, (1, 2, 2), (1,), 2).state_dict()))
    named = layer_names(layout)
    assert len(set(named.values())) == len(named)


def test_table_against_a_hand_computation():
    table = time_table(3, 4)
    expected = [0.0, 1.0, 0.0, 1.0], [0.84147098, 0.54030231, 0.00999983, 0.99995000]
    assert torch.allclose(table[:2], torch.tensor(expected))


def edited(change):
    tensors = dict(their_unet().state_dict())
    change(tensors)
    return tensors


HEAD = "encoder.head.weight"
BLOCK = "encoder.downblocks.0.block1.2.weight"
BROKEN = {
    "lacks decoder.tail.2.bias": lambda t: t.pop("decoder.tail.2.bias"),
    "has besides extra.weight": lambda t: t.update({"extra.weight": torch.ones(1)}),
    "has besides encoder.downblocks.0.attn.proj_q.bias": lambda t: t.update(
        {"encoder.downblocks.0.attn.proj_q.bias": torch.ones(32)}
    ),
    r"encoder.head.weight \(32, 4, 3, 3\) instead of \(32, 3, 3, 3\)": lambda t: t.update(
        {HEAD: torch.ones(32, 4, 3, 3)}
    ),
    r"another kind in encoder.head.bias \(torch.int64\)": lambda t: t.update(
        {"encoder.head.bias": torch.ones(32, dtype=torch.int64)}
    ),
    "lacks time_embedding.timembedding.0.weight": lambda t: t.pop(TABLE),
    "expected 2 dimensions": lambda t: t.update({TABLE: torch.ones(4)}),
    "differs by up to .* from the sines and cosines": lambda t: t.update({TABLE: t[TABLE] + 0.01}),
    "expected 0, 1, 2": lambda t: [t.pop(n) for n in list(t) if "downblocks.1." in n],
    "width 48, expected multiples of 32": lambda t: t.update({BLOCK: torch.ones(48, 32, 3, 3)}),
    "first level is 64 wide and its first layer 32": lambda t: t.update(
        {BLOCK: torch.ones(64, 32, 3, 3)}
    ),
}


def wide(tensors, width=320_000):
    """A small file that claims a network of terabytes."""
    tensors[TABLE] = torch.zeros(1, width)
    for name in tensors:
        if name.endswith("block1.2.weight"):
            tensors[name] = torch.zeros(width, 1, 1, 1)


BROKEN |= {
    r"\(32, 3, 3, 3\) instead of \(320000, 3, 3, 3\)": wide,
    "has no rows, expected one per timestep": lambda t: t.update({TABLE: torch.zeros(0, 32)}),
}


@pytest.mark.parametrize("message", BROKEN)
def test_other_networks_are_refused_by_name(message):
    with pytest.raises(DataError, match=message) as caught:
        convert_unet(FILE, edited(BROKEN[message]), size=8)
    assert str(caught.value).startswith(str(FILE))


def test_an_interrupted_order_of_the_table_is_refused():
    """Sines before cosines, as other codes have them: the same numbers, another network."""
    halves = lambda t: t.update({TABLE: torch.cat([t[TABLE][:, ::2], t[TABLE][:, 1::2]], 1)})  # noqa: E731
    with pytest.raises(DataError, match="it is another network"):
        convert_unet(FILE, edited(halves), size=8)


def test_levels_of_unequal_depth_are_refused():
    tensors = dict(their_unet(30, 32, (1, 2), (), 2).state_dict())
    for name in [n for n in tensors if n.startswith("encoder.downblocks.4.")]:
        del tensors[name]
    with pytest.raises(DataError, match="has 2, 1 residual blocks per level, expected equally"):
        convert_unet(FILE, tensors, size=8)
