"""Every deviation is cited where it is made, and every citation names a deviation."""

import re
from pathlib import Path

from clsp.config.load import read_yaml

ROOT = Path(__file__).parents[2]


def test_deviations_and_their_citations_agree():
    listed = [d["id"] for d in read_yaml(ROOT / "reports/spec/deviations.yaml")["deviations"]]
    assert len(set(listed)) == len(listed)
    sources = [*(ROOT / "clsp").rglob("*.py"), *(ROOT / "configs").rglob("*.yaml")]
    cited = {found for path in sources for found in re.findall(r"\bD\d\d\b", path.read_text())}
    assert cited == set(listed)
