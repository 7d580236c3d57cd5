"""Escapers: text cannot become markup, a command or a formula."""

import pytest

from clsp.report.escape import csv_cell, csv_value, latex, markdown, read_csv, write_csv
from clsp.runtime.errors import DataError


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "'quoted"])
def test_formulas_are_disarmed_and_come_back(text: str) -> None:
    assert csv_cell(text) == f"'{text}"
    assert csv_value(csv_cell(text)) == text


def test_numbers_stay_numbers() -> None:
    assert [csv_cell(value) for value in (-1.5, 3, None, "a")] == ["-1.5", "3", "", "a"]


def test_csv_round_trip() -> None:
    rows = [{"a": 'x,"y"', "b": "=cmd"}, {"a": "line\nbreak", "b": ""}]
    assert read_csv(write_csv(("a", "b"), rows), ("a", "b"), "t") == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [("a,c\n", "expected the columns a,b, found a,c"), ("a,b\n1\n", "line 2 has 1 cells")],
)
def test_foreign_csv_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_csv(text, ("a", "b"), "t")


def test_markdown() -> None:
    assert markdown("a|b") == r"a\|b"
    assert markdown("<script>") == r"\<script\>"
    assert markdown("[x](y)\nnew") == r"\[x\](y) new"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50% & more_", r"50\% \& more\_"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("1 ± 2", r"1 $\pm$ 2"),
        ("λ = 0.5", r"$\lambda$ = 0.5"),
        ("a^b~c", r"a\textasciicircum{}b\textasciitilde{}c"),
    ],
)
def test_latex(text: str, expected: str) -> None:
    assert latex(text) == expected
