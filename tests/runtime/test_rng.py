import pytest
import torch

from clsp.runtime.rng import integers, key_of, normal, numpy_stream, philox, uniform


def _one(value):
    return torch.tensor([value], dtype=torch.int64)


# Known answers of philox4x32-10 from the authors' Random123 distribution.
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            0xFFFFFFFFFFFFFFFF,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_known_answers(counter, key, expected):
    words = philox(tuple(_one(c) for c in counter), key)
    assert tuple(int(word) for word in words) == expected


def test_a_row_depends_on_its_own_coordinates_only():
    key = key_of(3, "noise")
    whole = normal(key, torch.arange(10), torch.arange(10) % 3, 7, count=13)
    part = normal(key, torch.tensor([8, 2]), torch.tensor([2, 2]), 7, count=13)
    assert torch.equal(whole[[8, 2]], part)
    longer = normal(key, torch.arange(10), torch.arange(10) % 3, 7, count=16)
    assert torch.equal(whole, longer[:, :13])


def test_every_part_of_the_address_matters():
    base = uniform(key_of(0, "a"), torch.tensor([1]), 2, 3, count=4)
    others = [
        uniform(key_of(1, "a"), torch.tensor([1]), 2, 3, count=4),
        uniform(key_of(0, "b"), torch.tensor([1]), 2, 3, count=4),
        uniform(key_of(0, "a"), torch.tensor([2]), 2, 3, count=4),
        uniform(key_of(0, "a"), torch.tensor([1]), 3, 3, count=4),
        uniform(key_of(0, "a"), torch.tensor([1]), 2, 4, count=4),
    ]
    assert all(not torch.equal(base, other) for other in others)
    assert key_of(1, "2") != key_of("1", 2)


def test_moments_and_ranges():
    key = key_of(0, "moments")
    u = uniform(key, torch.arange(500), count=400)
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 0.003
    z = normal(key, torch.arange(500), count=400).double()
    assert torch.isfinite(z).all()
    assert abs(z.mean()) < 0.01
    assert abs(z.std() - 1) < 0.01
    assert abs((z**4).mean() - 3) < 0.1
    k = integers(key, torch.arange(500), high=7, count=40)
    counts = torch.bincount(k.flatten(), minlength=7)
    assert len(counts) == 7
    assert (counts - 20000 / 7).abs().max() < 250


def test_numpy_streams_are_keyed():
    assert numpy_stream(0, "split").integers(1000) == numpy_stream(0, "split").integers(1000)
    draws = {tuple(numpy_stream(0, "split", i).integers(1000, size=4)) for i in range(20)}
    assert len(draws) == 20
