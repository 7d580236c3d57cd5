"""Escapers: text from configuration reaches csv, markdown and LaTeX as text, never as code."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clsp.runtime.canonical import sha256_json
from clsp.runtime.errors import DataError

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run these
MARKDOWN = "\\`*_{}[]<>#|~$&!"
LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "—": "---",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "λ": r"$\lambda$",
}


def anchor(kind: str, *parts: str) -> str:
    """The HTML id of something named by texts: letters, digits and dashes, other for other texts.

    The readable part alone would not do: "A+" and "A-" would share it.
    """
    readable = "-".join((kind, *parts))
    safe = "".join(c if c.isascii() and c.isalnum() else "-" for c in readable)
    return f"{safe}-{sha256_json([kind, *parts])[:8]}"


def plain(text: str) -> str:
    """One line of printable text: control characters and line breaks become spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def csv_cell(value: Any) -> str:
    """A csv cell: numbers as they are, text with a leading quote where it could be a formula."""
    if value is None:
        return ""
    if isinstance(value, float | int):
        return repr(value)
    text = str(value)
    return f"'{text}" if text.startswith((*FORMULA, "'")) else text


def csv_value(text: str) -> str:
    """The text that `csv_cell` wrote."""
    return text[1:] if text.startswith("'") else text


def markdown(text: str) -> str:
    """Text for a markdown table cell."""
    return "".join(f"\\{c}" if c in MARKDOWN else c for c in plain(text))


def latex(text: str) -> str:
    """Text for a LaTeX document in text mode."""
    return "".join(LATEX.get(c, c) for c in plain(text))


def write_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Csv text with a header, Unix line ends and escaped cells: the same bytes everywhere."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([csv_cell(row[column]) for column in columns] for row in rows)
    return stream.getvalue()


def read_csv(text: str, columns: Sequence[str], where: str) -> list[dict[str, str]]:
    """The rows that `write_csv` wrote, every value as text.

    Raises:
        DataError: If the header or a row is not as expected.
    """
    lines = list(csv.reader(io.StringIO(text)))
    if not lines or tuple(lines[0]) != tuple(columns):
        found = ",".join(lines[0]) if lines else "nothing"
        raise DataError(f"{where}: expected the columns {','.join(columns)}, found {found}")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(columns):
            raise DataError(
                f"{where}: line {number} has {len(line)} cells, expected {len(columns)}"
            )
    return [dict(zip(columns, map(csv_value, line), strict=True)) for line in lines[1:]]


def latex_table(
    caption: str,
    style: str,
    columns: str,
    head: Iterable[str],
    rows: Iterable[str],
    notes: Iterable[str],
) -> str:
    r"""A table environment for the packages booktabs and threeparttable.

    Args:
        caption: Plain text.
        style: A command for the whole table, such as \centering.
        columns: As tabular takes them.
        head: Titles of the columns, plain text.
        rows: In LaTeX, each with its end.
        notes: Below the table, plain text.
    """
    lines = [
        "% needs \\usepackage{booktabs,threeparttable}",
        "\\begin{table}",
        style,
        f"\\caption{{{latex(caption)}}}",
        "\\begin{threeparttable}",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        " & ".join(map(latex, head)) + r" \\",
        "\\midrule",
        *rows,
        "\\bottomrule",
        "\\end{tabular}",
        "\\begin{tablenotes}",
        *(f"\\item {latex(note)}" for note in notes),
        "\\end{tablenotes}",
        "\\end{threeparttable}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"
