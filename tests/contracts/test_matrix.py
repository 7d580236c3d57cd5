"""Every row of the fault matrix is shown by a fault or by a test that exists."""

import ast
from functools import cache
from pathlib import Path

import pytest
from faults import FAULTS
from matrix import MATRIX, injected

ROOT = Path(__file__).parents[2]


@cache
def functions(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))


def test_all_sixty_rows_are_there():
    assert list(MATRIX) == list(range(1, 61))


@pytest.mark.parametrize("number", MATRIX)
def test_row_is_shown(number: int):
    row = MATRIX[number]
    assert row.faults or row.tests
    assert set(row.faults) <= FAULTS.keys()
    for test in row.tests:
        path, _, name = test.partition("::")
        assert name in functions(path), test


def test_the_self_test_injects_each_fault_once():
    assert len(injected()) == len(set(injected())) > 45
