"""Frame, figures and page of the tiny tree, through the real stages."""

import csv
import itertools
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from results_tree import REPO, TreeBuilder, tiny_params

from clsp.report.cells import DEMONSTRATION
from clsp.report.collect import COLUMNS, build_frame
from clsp.report.table import render
from clsp.runtime.manifest import read_manifest


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> TreeBuilder:
    return TreeBuilder(tmp_path_factory.mktemp("tree"), tiny_params()).everything()


class Page(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def text(built: TreeBuilder) -> str:
    return (built.reports / "report.html").read_text()


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_frame_has_one_row_per_number(built: TreeBuilder) -> None:
    with open(built.reports / "frame.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 6 * 5
    assert {row["status"] for row in rows} == {"done"}
    assert (
        len({tuple(row[c] for c in ("run", "task", "protocol", "variant")) for row in rows}) == 30
    )
    manifest = built.results / rows[0]["manifest"]
    assert read_manifest(manifest).stage == "probe-encoder"


def test_the_best_rate_stands_beside_the_headline_and_says_how_it_was_chosen(
    built: TreeBuilder,
) -> None:
    frame = (built.reports / "frame.csv").read_text()
    table, texts = render(built.params, "main", frame, REPO / "reports/spec/published.yaml")
    assert table.columns[:2] == [("linear", ""), ("linear, best rate", "‡")]
    row = table.rows["digits", "tiny", "SimCLR"]
    chosen = {cell.column: cell.variant for cell in row.values()}
    assert (chosen["linear"], chosen["linear, best rate"]) == ("", "best_rate")
    assert "‡ the best learning rate of 0.5, 2 was chosen on 50 % of the training" in texts["md"]
    evaluation = built.params.evaluation
    linear = evaluation.linear.model_copy(update={"grid": None})
    evaluation = evaluation.model_copy(update={"linear": linear})
    plain = built.params.model_copy(update={"evaluation": evaluation})
    shown = pd.DataFrame(build_frame(plain, built.results))
    assert "best_rate" not in set(shown["variant"])


def test_frame_leaves_out_what_has_other_settings(built: TreeBuilder) -> None:
    evaluation = built.params.evaluation.model_copy(update={"seed": 5})
    changed = built.params.model_copy(update={"evaluation": evaluation})
    rows = build_frame(changed, built.results)
    status = {(row["protocol"], row["status"]) for row in rows}
    assert status == {("linear", "missing"), ("knn", "missing"), ("transfer", "done")}
    assert all(row["value"] is None for row in rows if row["status"] == "missing")


def test_metrics_hold_every_run_and_the_means(built: TreeBuilder) -> None:
    metrics = json.loads((built.reports / "metrics.json").read_text())
    assert len(metrics["runs"]) == 6
    means = metrics["summary"]["digits.tiny.SimCLR"]
    values = [
        metrics["runs"][f"digits.tiny.simclr.none.s{seed}"]["linear"]["digits"] for seed in range(3)
    ]
    assert means["linear"]["digits"] == pytest.approx(sum(values) / 3, abs=1e-4)


@pytest.mark.parametrize("name", ["curves", "candidates", "tsne"])
def test_figures(name: str, built: TreeBuilder) -> None:
    facts = read_manifest(built.reports / f"figures/{name}.manifest.json").predicate["facts"]
    assert facts["alt"] and facts["caption"] and facts["title"]
    assert (built.reports / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
    with open(built.reports / f"figures/{name}.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows and all(row["demonstration"] == DEMONSTRATION for row in rows)


@pytest.mark.parametrize("name", ["curves", "candidates", "tsne"])
def test_figures_without_any_result(name: str, tmp_path: Path) -> None:
    import pandas as pd

    from clsp.report import style
    from clsp.report.records import Records
    from clsp.runtime import registry

    module = registry.load("clsp.report.figures", name, "figure")
    drawing = module.draw(tiny_params(), Records(tmp_path), pd.DataFrame())
    assert drawing.alt and style.to_png(drawing.figure, True).startswith(b"\x89PNG")


def test_figures_are_deterministic(built: TreeBuilder) -> None:
    import pandas as pd

    from clsp.report import style
    from clsp.report.records import Records
    from clsp.runtime import registry

    for name in ("curves", "tsne"):
        module = registry.load("clsp.report.figures", name, "figure")
        style.apply_style()
        drawing = module.draw(built.params, Records(built.results), pd.DataFrame())
        again = style.to_png(drawing.figure, True)
        assert again == (built.reports / f"figures/{name}.png").read_bytes()


def test_page_has_no_scripts_and_no_external_references(page: Page, text: str) -> None:
    tags = {name for name, _ in page.tags}
    assert not tags & {"script", "iframe", "object", "embed", "link", "form", "base", "svg"}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            value = attributes.get(name)
            here = re.compile(r"#|data:image/png;base64,|(tables/|figures/)?[a-z_]+\.[a-z]+$")
            assert value is None or here.match(value)
    assert "url(" not in text and "@import" not in text
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_page_is_accessible(page: Page) -> None:
    assert page.all("html")[0]["lang"] == "en"
    assert all(image["alt"] for image in page.all("img"))
    assert len(page.all("h1")) == 1
    assert all("scope" in cell for cell in page.all("th"))
    tables, captions = len(page.all("table")), len(page.all("caption"))
    assert tables == captions > 0
    levels = [int(name[1]) for name, _ in page.tags if re.fullmatch("h[1-6]", name)]
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_every_link_has_its_target(page: Page) -> None:
    identifiers = [a["id"] for _, a in page.tags if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    links = [a["href"] for a in page.all("a")]
    assert {link[1:] for link in links if link.startswith("#")} <= set(identifiers)


def test_page_traces_every_run(built: TreeBuilder, text: str) -> None:
    for artefact_path in built.results.rglob("manifest.json"):
        if artefact_path.parent.parent.name in ("runs", "probes", "transfer"):
            assert artefact_path.relative_to(built.results).as_posix() in text
    npz = read_manifest(next(built.results.glob("probes/*/manifest.json"))).subjects["linear.npz"]
    assert npz["digest"]["sha256"] in text


def test_page_carries_the_mark_and_the_deviations(text: str) -> None:
    assert text.count(DEMONSTRATION) >= 6
    assert 'id="D01"' in text


def test_hostile_names_stay_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label = '<script>alert(1)</script>{{ 7 * 7 }}"'
    methods = {"simclr": {**tiny_params().methods["simclr"].canonical(), "label": label}}
    options = methods["simclr"].pop("options")
    params = tiny_params(methods={"simclr": {**methods["simclr"], **options}}, figures=[])
    builder = TreeBuilder(tmp_path, params)
    monkeypatch.chdir(tmp_path)
    builder.science()
    builder.report()
    found = (builder.reports / "report.html").read_text()
    assert "<script" not in found and "{{ 7 * 7 }}" in found
    assert not Page(found).all("script")


def test_it_never_imports_torch() -> None:
    code = (
        "import sys; import clsp.report.collect, clsp.report.table, clsp.report.figure, "
        "clsp.report.page, clsp.audit.run; from clsp.runtime import registry as r; "
        "[r.load(p, n, 'x') for p in ('clsp.report.tables', 'clsp.report.figures', "
        "'clsp.audit.checks') for n in r.names(p)]; "
        "sys.exit(','.join(m for m in ('torch', 'mlflow', 'diffusers') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
