"""Figures drawn again in memory: their numbers and captions, not their pixels.

Pixels depend on the machine's fonts and libraries, numbers do not. Of an embedding (t-SNE) not even
the numbers can be repeated elsewhere.
"""

from clsp.audit.finding import BLOCKING, Finding
from clsp.audit.suite import Suite
from clsp.config.plan import datasets_needed
from clsp.report.figure import draw_figure
from clsp.runtime.errors import ClspError
from clsp.runtime.manifest import Artefact

EMBEDDED = ("tsne",)
EXPECTED = ("claims.yaml", "official_curves.json", "explanations.yaml")
MALFORMED = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    EOFError,
    MemoryError,
    ClspError,
)
CHECK = "A22"

Problem = tuple[str, str, str]  # file, expected, found


def _first(found: str, expected: str) -> tuple[str, str]:
    """The first line in which two texts differ: expected, found."""
    ours, theirs = expected.split("\n"), found.split("\n")
    for number, (a, b) in enumerate(zip(ours, theirs, strict=False), start=1):
        if a != b:
            return f"line {number}: {a}"[:120], f"line {number}: {b}"[:120]
    return f"{len(ours)} lines", f"{len(theirs)} lines"


def _problem(suite: Suite, name: str, artefact: Artefact) -> Problem | None:
    path = artefact.folder / f"{name}.csv"
    known = {file: suite.expectations / file for file in EXPECTED}
    try:
        _, numbers, told = draw_figure(suite.shown, name, suite.records, suite.frame_text, known)
        found = path.read_text(encoding="utf-8")
    except MALFORMED as error:
        return str(path), "a figure that can be drawn again", f"{type(error).__name__}: {error}"
    if found != numbers:
        return str(path), *_first(found, numbers)
    facts = artefact.predicate["facts"]
    for key, expected in told.items():
        if facts.get(key) != expected:
            return str(artefact.manifest), f"{key}: {expected}"[:160], f"{facts.get(key)}"[:160]
    return None


def redrawn(suite: Suite) -> list[Finding]:
    """Compare the numbers and captions of all figures with what the manifests give now."""
    if any(suite.dataset(name) is None for name in datasets_needed(suite.params)):
        return []  # some figures show images; A08 and A14 report it
    findings = []
    for name in suite.shown.figures:
        artefact = suite.report_artefact(f"figures/{name}.manifest.json")
        if artefact is None or name in EMBEDDED:
            continue  # A01 reports that it is not there
        if problem := _problem(suite, name, artefact):
            message = "the figure is not what the manifests give"
            findings.append(Finding(CHECK, BLOCKING, *problem, message, f"figure {name}"))
    return findings
