"""Nearest features: equal to sorting the whole matrix of cosines, whatever the blocks."""

import numpy as np
import pytest
import torch

from clsp.models import nearest
from clsp.models.nearest import highest, neighbours, unit

CPU = torch.device("cpu")


def draw(count: int, width: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def naive(cosines: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Largest first; of equal ones the lowest row, which a stable sort keeps first."""
    rows = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(cosines, rows, 1), rows


def test_of_equal_values_the_lower_columns_win_and_come_first() -> None:
    values = torch.tensor([[1.0, 3.0, 2.0, 3.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    for count, expected in ((3, [[1, 3, 2], [0, 1, 2]]), (4, [[1, 3, 2, 4], [0, 1, 2, 3]])):
        found, columns = highest(values, count)
        assert columns.tolist() == expected
        assert torch.equal(found, values.gather(1, columns))
    assert highest(values, 6)[1].tolist() == [[1, 3, 2, 4, 5, 0], [0, 1, 2, 3, 4, 5]]


def test_many_ties_are_settled_as_a_stable_sort_settles_them() -> None:
    values = np.random.default_rng(0).integers(0, 5, (50, 300)).astype(np.float32)
    for count in (1, 17, 299, 300):
        found, columns = highest(torch.from_numpy(values), count)
        expected = naive(values, count)
        np.testing.assert_array_equal(found.numpy(), expected[0])
        np.testing.assert_array_equal(columns.numpy(), expected[1])


@pytest.mark.parametrize("held", [64, 200, 1000])
@pytest.mark.parametrize("count", [1, 70])
def test_blocks_give_the_bits_of_the_plain_product(
    monkeypatch: pytest.MonkeyPatch, held: int, count: int
) -> None:
    # 16 signs have length 4, so that cosines are exact in any order of adding; nearly all tie.
    bank, queries = np.sign(draw(1000, 16)), np.sign(draw(150, 16, seed=1))
    whole = (unit(torch.from_numpy(queries)) @ unit(torch.from_numpy(bank)).T).numpy()
    monkeypatch.setattr(nearest, "NUMBERS", held * 16)
    monkeypatch.setattr(nearest, "COSINES", 64 * held)
    cosines, rows = neighbours(bank, queries, count, CPU)
    expected = naive(whole, count)
    np.testing.assert_array_equal(cosines, expected[0])
    np.testing.assert_array_equal(rows, expected[1])
    assert (cosines.dtype, rows.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_change_cosines_by_rounding_only(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    bank, queries = draw(500), draw(150, seed=1)
    whole = neighbours(bank, queries, 10, CPU, dtype=dtype)
    monkeypatch.setattr(nearest, "NUMBERS", 70 * 24)
    blocks = neighbours(bank, queries, 10, CPU, dtype=dtype)
    np.testing.assert_array_equal(whole[1], blocks[1])
    np.testing.assert_allclose(whole[0], blocks[0], atol=1e-6)


def test_a_count_above_the_block_takes_from_several(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, queries = draw(30), draw(5, seed=1)
    monkeypatch.setattr(nearest, "NUMBERS", 7 * 24)
    cosines, rows = neighbours(bank, queries, 30, CPU)
    assert (np.sort(rows, 1) == np.arange(30)).all()
    assert (np.diff(cosines, axis=1) <= 0).all()


def test_the_bank_is_read_once_and_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    class Watched:
        """Features that tell which of them were asked for."""

        def __init__(self, features: np.ndarray) -> None:
            self.features, self.shape, self.asked = features, features.shape, []

        def __len__(self) -> int:
            return len(self.features)

        def __getitem__(self, key: slice) -> np.ndarray:
            block = self.features[key]
            self.asked.append(len(block))
            return block

    bank, queries = Watched(draw(100)), draw(130, seed=1)
    monkeypatch.setattr(nearest, "NUMBERS", 40 * 24)
    found = neighbours(bank, queries, 3, CPU)
    assert bank.asked == [40, 40, 20]
    expected = neighbours(draw(100), queries, 3, CPU)
    np.testing.assert_array_equal(found[1], expected[1])


def test_excluded_rows_are_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    features = draw(50)
    monkeypatch.setattr(nearest, "NUMBERS", 20 * 24)
    for dtype in (torch.float32, torch.float64):
        own = np.arange(50)
        _, rows = neighbours(features, features, 49, CPU, dtype=dtype, excluded=own)
        assert [sorted({*row}) for row in rows.tolist()] == [
            sorted(set(range(50)) - {i}) for i in range(50)
        ]


def test_a_feature_of_length_zero_is_at_right_angles() -> None:
    cosines, rows = neighbours(np.zeros((3, 4), np.float32), np.ones((2, 4), np.float32), 3, CPU)
    assert cosines.tolist() == [[0, 0, 0]] * 2
    assert rows.tolist() == [[0, 1, 2]] * 2
