"""Where the audited files lie: in the auditor's folder, or unpacked from a bundle."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clsp.runtime.digest import ROOT

EXPECTED = Path("reports/spec")  # tracked files with expectations
EXPECTATION = "expectations"  # their flag, before the name of one
TRACKED = {
    "claims": "claims.yaml",
    "published": "published.yaml",
    "deviations": "deviations.yaml",
}
TEMPLATE = ROOT / "clsp/report/report.html.jinja"


@dataclass(frozen=True)
class Place:
    """Resolves what records call files.

    Attributes:
        root: Folder that a bundle was unpacked into, or None.
        left_out: Files that the bundle names and does not hold, with their sha256.
    """

    root: Path | None = None
    left_out: Mapping[Path, str] = field(default_factory=dict)

    def beside(self, name: str | Path) -> Path:
        """A file beside results and reports, such as the lock file of datasets."""
        return (self.root or Path()) / name

    def tracked(self, uri: str, expectations: Path) -> Path:
        """A tracked file that a job read, as the auditor has it: expectations are never a bundle's.

        Args:
            uri: As the record names it.
            expectations: The auditor's folder of them.
        """
        path = Path(uri)
        if path.is_absolute():
            return path
        if self.root is None:
            return path if path.exists() else ROOT / path
        if path.is_relative_to(EXPECTED):
            return expectations / path.relative_to(EXPECTED)
        return ROOT / path


def own_copy(flag: str, expectations: Path) -> Path | None:
    """The auditor's copy of a tracked file that a report is made from; None for any other input.

    Published numbers, deviations, curves and the page's frame are what results are held against,
    so that no record may say where they lie.

    Args:
        flag: Name of the input, as the manifest has it.
        expectations: The auditor's folder of them.
    """
    if flag == "template":
        return TEMPLATE
    known = flag in TRACKED or flag.startswith(f"{EXPECTATION}/")
    name = TRACKED.get(flag, flag.rpartition("/")[2])
    here = (expectations / name, ROOT / EXPECTED / name)
    return next((path for path in here if path.is_file()), here[1]) if known else None
