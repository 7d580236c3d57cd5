"""The page as a reader uses it: claims, tables, evidence, provenance; links, contrast, bytes."""

import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from faults_claims import BAND, write_curves
from injecting import Tree
from results_tree import (
    ABLATED,
    IMPORTED,
    JUDGED,
    LABELLED,
    MEASURED,
    PAIRED,
    PARAMS,
    REPO,
    TAUGHT,
    TreeBuilder,
    tiny_params,
)

from clsp.report.cells import COLUMNS, DEMONSTRATION, FIELDS, marks, read_cells
from clsp.report.claims_view import BADGES, build_claims
from clsp.report.escape import write_csv
from clsp.report.evidence import Book
from clsp.report.limits import LIMITS, MEANING
from clsp.report.page import Parts, render_page
from clsp.report.records import Records
from clsp.report.reference import CURVES, EXPLANATIONS
from clsp.runtime.canonical import canonical_json
from clsp.runtime.errors import DataError
from clsp.runtime.manifest import Artefact, read_manifest

VOID = {"meta", "br", "img", "link", "hr", "input", "wbr"}
KINDS = {
    "plain": {},
    "judged": JUDGED,
    "imported": IMPORTED,
    "measured": MEASURED,
    "paired": PAIRED,
    "labelled": LABELLED,
    "ablated": ABLATED,
}


class Element:
    """One element of a page."""

    def __init__(self, tag: str, attributes: dict[str, str], parent: "Element | None") -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children: list[Element | str] = []

    def walk(self) -> Iterator["Element"]:
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.walk()

    @property
    def text(self) -> str:
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    def all(self, tag: str) -> list["Element"]:
        return [element for element in self.walk() if element.tag == tag]

    def within(self, *tags: str) -> "Element | None":
        """The nearest element around this one, itself included, of one of some tags."""
        around: Element | None = self
        while around is not None and around.tag not in tags:
            around = around.parent
        return around


class Page(HTMLParser):
    """A page as a tree; unbalanced tags are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = self.here = Element("", {}, None)
        self.feed(text)
        assert self.here is self.root, f"<{self.here.tag}> is never closed"
        self.named = {e.attributes["id"]: e for e in self.root.walk() if "id" in e.attributes}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {k: v or "" for k, v in attrs}, self.here)
        self.here.children.append(element)
        if tag not in VOID:
            self.here = element

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.here.tag, f"</{tag}> closes <{self.here.tag}>"
        assert self.here.parent is not None
        self.here = self.here.parent

    def handle_data(self, data: str) -> None:
        self.here.children.append(data)

    def section(self, heading: str) -> Element:
        """The section whose heading has an id."""
        found = self.named[heading].within("section")
        assert found is not None
        return found


def build(folder: Path, **changes: object) -> TreeBuilder:
    """A tree with its report, whose jobs claim to be mirrored."""
    builder = TreeBuilder(folder, tiny_params(**changes))
    builder.mlflow = lambda job, metrics, history: f"mlflow-{job.stage}-{job.name}"
    return builder.everything()


def page_of(builder: TreeBuilder) -> Page:
    return Page((builder.reports / "report.html").read_text())


def figures(kind: str) -> dict[str, list[str]]:
    """One figure in one tree: drawing takes longer than all the rest."""
    return {"figures": ["curves"] if kind == "plain" else []}


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TreeBuilder]:
    return {
        kind: build(tmp_path_factory.mktemp(kind), **{**changes, **figures(kind)})
        for kind, changes in KINDS.items()
    }


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def tree(trees: dict[str, TreeBuilder], kind: str) -> TreeBuilder:
    return trees[kind]


@pytest.fixture
def page(tree: TreeBuilder) -> Page:
    return page_of(tree)


def test_sections_come_in_order(page: Page) -> None:
    order = ["about", "claims", "tables", "evidence", "provenance"]
    assert [h.attributes["id"] for h in page.root.all("h2")] == order


def test_ids_are_unique_and_links_have_targets(page: Page) -> None:
    ids = [e.attributes["id"] for e in page.root.walk() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    links = [a.attributes["href"] for a in page.root.all("a")]
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    labelled = [e.attributes.get("aria-labelledby") for e in page.root.walk()]
    assert {name for name in labelled if name} <= set(ids)


def test_files_beside_the_page_are_there(tree: TreeBuilder, page: Page) -> None:
    links = {a.attributes["href"] for a in page.root.all("a")}
    beside = {link for link in links if not link.startswith("#")}
    assert "tables/main.csv" in beside and "claims.csv" in beside
    assert all((tree.reports / link).is_file() for link in beside)


def test_nothing_that_a_link_leads_to_is_folded_away(page: Page) -> None:
    links = {a.attributes["href"][1:] for a in page.root.all("a")}
    for name, element in page.named.items():
        assert name not in links or element.within("details") is None, name


def _chain_is_told(builder: TreeBuilder, article: Element, slug: str) -> None:
    """The chain of custody of a run stands in an article."""
    text, records = article.text, Records(builder.results)
    made = [a for a in records if a.folder.name == slug and a.stage in MAKERS]
    assert slug in text and made
    for artefact in made:
        inside = artefact.predicate
        assert inside["externalParameters"]["spec_sha256"] in text
        assert inside["internalParameters"]["git_commit"] in text
        if artefact.stage in ("pretrain-encoder", "import-encoder"):
            assert artefact.subjects["encoder.safetensors"]["digest"]["sha256"] in text
        if inside["mlflow_run_id"]:
            assert f"mlflow-{artefact.stage}-{slug}" in text
        read = inside["resolvedDependencies"]
        images = [d["digest"]["sha256"] for d in read if d["uri"].endswith("/images.npy")]
        assert any(digest in text for digest in images)
        if artefact.stage == "pretrain-encoder":
            seeds = [th.text for th in article.all("tbody")[1].all("th")]
            assert str(artefact.spec["seed"]) in seeds


MAKERS = ("pretrain-encoder", "import-encoder", "measure-bank")


def test_every_cell_leads_to_its_chain_of_custody(tree: TreeBuilder, page: Page) -> None:
    seen = 0
    for table in tree.params.tables:
        path = tree.reports / f"tables/{table}.csv"
        cells = read_cells(path.read_text(), str(path))
        shown = page.section(f"table-{table}").all("td")
        links = [td.all("a")[0] for td in shown if td.all("a")]
        links = [a for a in links if a.attributes["href"].startswith("#cells-")]
        assert [a.text for a in links] == [cell.text for cell in cells]
        for link, cell in zip(links, cells, strict=True):
            entry = page.named[link.attributes["href"][1:]]
            article = entry.within("article")
            assert entry.tag == "tr" and article is not None
            assert entry.all("td")[0].text.startswith(cell.text)
            for slug in cell.runs.split():
                assert f"run-{slug}" in page.named or table == "quality"
                if not slug.endswith((".pixels", ".random.s0", ".random.s1")):
                    _chain_is_told(tree, article, slug)
                    seen += 1
    assert seen


def test_values_of_seeds_average_to_the_cell(trees: dict[str, TreeBuilder]) -> None:
    builder, page = trees["judged"], page_of(trees["judged"])
    path = builder.reports / "tables/transfer.csv"
    (cell, *_) = [
        c
        for c in read_cells(path.read_text(), str(path))
        if (c.label, c.column) == ("CLSP-SimCLR", "average")
    ]
    links = [a for a in page.section("table-transfer").all("a") if a.text == cell.text]
    entry = page.named[links[0].attributes["href"][1:]]
    values = [float(re.match(r"[0-9.]+", td.text)[0]) for td in entry.all("td")[1:]]
    assert sum(values) / len(values) == pytest.approx(cell.mean, abs=1e-3)
    texts = [td.text for td in entry.all("td")[1:]]
    assert all("target-mini" in text and "predictions.npz" in text for text in texts)


def test_a_floor_says_what_it_is_made_of(trees: dict[str, TreeBuilder]) -> None:
    page = page_of(trees["judged"])
    pixels, random = (page.named[f"run-digits.tiny.{n}"] for n in ("pixels", "random.s0"))
    assert "none: no encoder" in pixels.text and "start.safetensors" not in pixels.text
    assert "digits.tiny.simclr.none.s0/checkpoints/start.safetensors" in random.text
    rank = [tr for tr in page.section("evidence-transfer").all("tr") if "not ranked" in tr.text]
    assert len(rank) == 2


def test_imports_are_told_without_the_path_of_the_machine(trees: dict[str, TreeBuilder]) -> None:
    builder, text = trees["imported"], (trees["imported"].reports / "report.html").read_text()
    assert "Imported: theirs" in text and "from encoder.pt" in text
    assert str(builder.base) not in text


def test_published_numbers_lead_to_their_sources(
    trees: dict[str, TreeBuilder], tmp_path: Path
) -> None:
    builder = trees["plain"]
    shutil.copytree(builder.reports, tmp_path / "reports")
    path = tmp_path / "reports/tables/main.csv"
    text = path.read_text()
    cells = read_cells(text, str(path))
    found = [c for c in cells if c.column == "linear"]
    told = {"published": 90.25, "published_protocol": "offline_linear", "difference": -1.5}
    sources = {id(c): name for c, name in zip(found, ("A <README>", "B"), strict=True)}
    known = [
        replace(c, **told, published_source=sources[id(c)]) if id(c) in sources else c
        for c in cells
    ]
    rows = [{name: getattr(c, name) for name in FIELDS} | marks(True, []) for c in known]
    path.write_text(write_csv(COLUMNS, rows))
    page = Page(render_page(builder.params, builder.results, parts_of(tmp_path / "reports")))
    links = [a for a in page.section("table-main").all("a") if "90.25 (" in a.text]
    assert [a.text for a in links] == ["90.25 (−1.50)1", "90.25 (−1.50)2"]
    notes = [page.named[a.attributes["href"][1:]].text for a in links]
    assert ["A <README>" in notes[0], "values: B;" in notes[1]] == [True, True]


def test_missing_runs_say_what_is_missing(trees: dict[str, TreeBuilder], tmp_path: Path) -> None:
    builder = TreeBuilder(tmp_path, tiny_params(figures=[]))
    shutil.copytree(trees["plain"].results, builder.results)
    gone = ["runs", "features", "probes", "transfer"]
    for folder in gone:
        shutil.rmtree(builder.results / folder / "digits.tiny.simclr.none.s1")
    for seed in range(3):
        shutil.rmtree(builder.results / "transfer" / f"digits.tiny.simclr.synthetic.s{seed}")
    _report(builder)
    page = page_of(builder)
    dashes = [a for a in page.section("tables").all("a") if a.text == "— (0 of 3)"]
    assert len(dashes) == 2  # the column and the average of CLSP-SimCLR
    entry = page.named[dashes[0].attributes["href"][1:]]
    assert entry.text.count("not there: transfer") == 3
    article = page.named["run-digits.tiny.simclr.none.s1"].text
    assert "Not there: pretraining, features, linear probe and kNN, transfer." in article
    row = next(a for a in page.section("table-main").all("a") if "(2 of 3)" in a.text)
    found = page.named[row.attributes["href"][1:]]
    assert "2 of 3 are there; not complete: seed 1" in found.text
    assert "numbers are missing" in page.section("about").text
    assert "1 of 3 seeds are missing" in page.named["claim-C4"].text


def test_a_page_without_any_run_is_a_page(tmp_path: Path) -> None:
    builder = TreeBuilder(tmp_path, tiny_params(figures=[]))
    builder.results.mkdir(parents=True)
    _report(builder)
    page = page_of(builder)
    assert "Not there: it has not been gathered." in page.section("banks").text
    ids = set(page.named)
    links = [a.attributes["href"] for a in page.root.all("a")]
    assert {link[1:] for link in links if link.startswith("#")} <= ids


def parts_of(reports: Path) -> Parts:
    """What the page of a folder of reports is made from."""
    frame, claims, table = (
        read_manifest(reports / f"{name}.manifest.json")
        for name in ("frame", "claims", "tables/main")
    )
    spec, template = REPO / "reports/spec", REPO / "clsp/report/report.html.jinja"
    read = {name: spec / name for name in (CURVES, EXPLANATIONS)}
    return Parts(frame, claims, [table], [], read, spec / "deviations.yaml", template)


def _report(builder: TreeBuilder) -> None:
    here = Path.cwd()
    os.chdir(builder.base)
    try:
        builder.report()
    finally:
        os.chdir(here)


def test_claims_stand_with_their_numbers(trees: dict[str, TreeBuilder]) -> None:
    builder, page = trees["plain"], page_of(trees["plain"])
    document = json.loads((builder.reports / "verdicts.json").read_text())
    for record in document["verdicts"]:
        card = page.named[f"claim-{record['id']}"]
        assert record["text"] in card.text and record["verdict"] in card.text
        assert record["because"] in card.text
    (record,) = [r for r in document["verdicts"] if r["id"] == "C4"]
    card = page.named["claim-C4"]
    assert f"Indicative, by the numbers alone: {record['indicative']}." in card.text
    assert f"{record['power'][0]:.0%}".replace("%", " %") in card.text
    assert f"p = {record['p']:.3g}; {record['p_holm']:.3g} with Holm" in card.text
    links = [a.attributes["href"][1:] for a in card.all("a")]
    slugs = [*record["left_runs"], *record["right_runs"]]
    assert {f"run-{slug}" for slug in slugs} <= set(links)
    cells = [page.named[link] for link in links if link.startswith("cells-main-")]
    assert [tr.all("th")[0].text.startswith("linear") for tr in cells] == [True, True]
    assert "6 of 6 pretraining runs recorded this claims file" in page.section("claims").text
    assert document["claims_sha256"][:16] in page.section("claims").text


def test_badges_say_their_verdict_in_words_and_by_a_symbol(page: Page) -> None:
    badges = [e for e in page.root.all("span") if "badge" in e.attributes.get("class", "").split()]
    looks = {}
    for badge in badges:
        verdict = badge.text[1:].strip()
        assert verdict in BADGES and badge.text.startswith(BADGES[verdict][1])
        looks[verdict] = badge.attributes["class"]
    assert looks.keys() == BADGES.keys()  # the legend has all of them
    assert len(set(looks.values())) == len(looks)


def test_verdicts_that_are_none_are_refused(trees: dict[str, TreeBuilder]) -> None:
    builder = trees["plain"]
    made = read_manifest(builder.reports / "claims.manifest.json")
    folder = builder.base / "bad"
    folder.mkdir()
    (folder / "verdicts.json").write_text(canonical_json({"verdicts": [{"id": "C1"}]}))
    forged = Artefact(folder / "claims.manifest.json", made.statement)
    with pytest.raises(DataError, match=r"verdicts\.json: not a record of verdicts"):
        build_claims(builder.params, Records(builder.results), forged, Book({}, {}, {}), {})


def test_hostile_names_stay_text_everywhere(tmp_path: Path) -> None:
    label = "<script>alert(1)</script>\"'{{ 7 * 7 }}&lt; onload=x"
    other = label.replace("(1)", "[1]")  # the same once letters and digits alone are left
    methods = {
        "simclr": {**PARAMS["methods"]["simclr"], "label": label},
        "moco": {**TAUGHT["methods"]["moco"], "label": other},
    }
    runs = {"main": {**PARAMS["runs"]["main"], "method": [*methods], "seed": [0, 1]}}
    builder = build(tmp_path, methods=methods, runs=runs, figures=["curves"])
    text = (builder.reports / "report.html").read_text()
    page = Page(text)
    assert not page.root.all("script") and "<script" not in text
    assert not [e for e in page.root.walk() for name in e.attributes if name.startswith("on")]
    ids = [e.attributes["id"] for e in page.root.walk() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    heads = [th.all("a")[0] for th in page.section("table-main").all("th") if th.all("a")]
    assert [a.text for a in heads] == [label, f"CLSP-{label}", other, f"CLSP-{other}"]
    assert len({a.attributes["href"] for a in heads}) == 4


def test_it_is_accessible(page: Page) -> None:
    root = page.root
    assert root.all("html")[0].attributes["lang"] == "en"
    assert [len(root.all(tag)) for tag in ("h1", "main", "header", "footer")] == [1, 1, 1, 1]
    levels = [int(e.tag[1]) for e in root.walk() if re.fullmatch("h[1-6]", e.tag)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert all(e.text.strip() for e in root.walk() if re.fullmatch("h[1-6]", e.tag))
    assert all(len(image.attributes["alt"]) > 20 for image in root.all("img"))
    assert all(th.attributes.get("scope") in ("row", "col") for th in root.all("th"))
    for table in root.all("table"):
        assert len(table.all("caption")) == 1 and table.all("caption")[0].text.strip()
        assert table.parent is not None
        around = table.parent.attributes
        assert around["role"] == "region" and around["tabindex"] == "0" and around["aria-label"]
    skip = root.all("body")[0].all("a")[0]
    assert skip.attributes["class"] == "skip" and skip.attributes["href"] == "#claims"
    assert all(a.text.strip() for a in root.all("a"))
    for nav in root.all("nav"):
        assert nav.attributes["aria-label"]


def _luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_enough(trees: dict[str, TreeBuilder]) -> None:
    style = page_of(trees["plain"]).root.all("style")[0].text
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", style))
    used = set(re.findall(r"var\(--([a-z-]+)\)", style))
    assert used == colours.keys()
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b", style.split("}", 1)[1])  # none beside these
    grounds = ("paper", "tint", "target")
    pairs = [(ink, ground) for ink in ("ink", "soft", "accent") for ground in grounds]
    pairs += [("warn", "warn-tint"), ("warn", "paper"), ("warn", "tint")]
    pairs += [(n, f"{n}-tint") for n in ("reproduced", "within", "missed", "unrun", "invalid")]
    for ink, ground in pairs:
        assert _contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    assert _contrast(colours["focus"], colours["paper"]) >= 3  # of what is no text
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)


def test_print_opens_what_is_folded(trees: dict[str, TreeBuilder]) -> None:
    style = page_of(trees["plain"]).root.all("style")[0].text
    printed = style.split("@media print")[1]
    assert "details::details-content { content-visibility: visible;" in printed


def test_limits_are_printed_word_for_word(trees: dict[str, TreeBuilder]) -> None:
    from clsp.audit.run import LIMITS as audited

    section = page_of(trees["plain"]).section("limits").text
    assert LIMITS in section and MEANING in section
    assert audited is LIMITS
    assert "passes L2; only A09/A11/A12 replays, RCP-HIGH and L4 speak to that" in LIMITS


def test_the_same_records_give_the_same_bytes(trees: dict[str, TreeBuilder]) -> None:
    builder = trees["plain"]
    first, second = (
        render_page(builder.params, builder.results, parts_of(builder.reports)) for _ in range(2)
    )
    assert first == second and len(first) > 50_000


def test_it_is_one_file_of_moderate_size(tree: TreeBuilder, page: Page) -> None:
    size = (tree.reports / "report.html").stat().st_size
    assert size < 5e6
    assert not {"script", "iframe", "object", "embed", "link", "form", "base", "svg"} & {
        e.tag for e in page.root.walk()
    }
    assert all(
        i.attributes["src"].startswith("data:image/png;base64,") for i in page.root.all("img")
    )


def test_every_part_of_a_demonstration_says_so(page: Page) -> None:
    for heading in ("claims", "tables", "values", "provenance"):
        assert DEMONSTRATION in page.section(heading).text
    assert DEMONSTRATION in page.root.all("footer")[0].text


def _compared(builder: TreeBuilder, folder: Path, **curves: object) -> Element:
    """The section about claims, with curves of authors who ended so many points below ours."""
    write_curves(Tree(builder.results, builder.reports, None), folder, **curves)
    parts = parts_of(builder.reports)
    read = {name: folder / name for name in (CURVES, EXPLANATIONS)}
    page = Page(render_page(builder.params, builder.results, replace(parts, expectations=read)))
    return page.section("claims")


@pytest.mark.parametrize(
    ("curves", "state"),
    [
        ({}, "within the band"),
        ({"ahead": -2 * BAND}, "RCP-LOW"),
        ({"ahead": 2 * BAND}, "RCP-HIGH"),
        ({"ahead": 2 * BAND, "reason": "the probe has another rate"}, "RCP-HIGH, explained"),
    ],
)
def test_rows_stand_beside_the_authors_curves(
    trees: dict[str, TreeBuilder], tmp_path: Path, curves: dict[str, object], state: str
) -> None:
    section = _compared(trees["plain"], tmp_path, **curves)
    rows = [tr for tr in section.all("tr") if tr.all("b")]
    assert [tr.all("b")[0].text for tr in rows] == [state, state]
    assert all(tr.all("a")[0].attributes["href"].startswith("#runs-") for tr in rows)
    assert ("(a reader, 2025-01-31)" in rows[0].text) is ("reason" in curves)


def test_without_such_a_row_the_page_says_so(page: Page) -> None:
    assert "No row of this profile follows a recipe" in page.section("claims").text


def test_counts_and_limits_are_claims_too(trees: dict[str, TreeBuilder], tmp_path: Path) -> None:
    builder = trees["judged"]
    told = Page((builder.reports / "report.html").read_text()).named["claim-C3"].text
    assert "best on" in told and "needed6 datasets" in told.replace("\n", "")
    shutil.copytree(builder.reports, tmp_path / "reports")
    path = tmp_path / "reports/verdicts.json"
    document = json.loads(path.read_text())
    about = {"text": "t", "verdict": "reproduced", "because": "", "indicative": "reproduced"}
    several = {"claim": "C2", "at_least": 2, "among": ["cifar10", "stl10"], "won": 1}
    limit = {"left": "digits.mix", "metric": "fid", "limit": 3.5, "tau": 0.5, "value": 3.25, "n": 1}
    document["verdicts"] = [
        {"id": "C1", **about, **several, "judged": {"cifar10": ["reproduced"]}},
        {"id": "C2", **about, **limit, "dataset": "digits", "source": "a paper"},
    ]
    path.write_text(canonical_json(document))
    page = Page(render_page(builder.params, builder.results, parts_of(tmp_path / "reports")))
    first, second = (page.named[f"claim-{name}"].text for name in ("C1", "C2"))
    assert "1 of 2, counted over cifar10, stl10" in first and "C2 on cifar10" in first
    assert "3.25" in second and "at most 3.5; tolerance 0.5" in second and "a paper" in second
    assert "reproduced 2: C1, C2" in page.section("about").text
