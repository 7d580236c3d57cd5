"""Lists, fetches and verifies the datasets: `python -m clsp data [list|fetch|verify]`."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from clsp.config.catalog import dataset_info, known_kinds
from clsp.config.load import load_params, read_yaml
from clsp.config.schema import Params
from clsp.data.checked import VARIABLE, downloads
from clsp.data.fetch import obtain_all
from clsp.data.survey import DatasetState, installed_copy, look
from clsp.runtime.errors import ConfigError, DataError

EPILOG = f"""Archives are kept in downloads/; the environment variable {VARIABLE} names another
folder. Without a network put them there by hand: they are checked and used as if they had been
downloaded. Datasets that need a manual step say which file goes where."""
STEP = 1000
SHOWN = 3  # protocols of a dataset in the table


def amount(size: int) -> str:
    """Bytes as people read them."""
    value, units = float(size), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while value >= STEP and unit != "TB":
        value, unit = value / STEP, next(units)
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns of equal width, two spaces apart."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    shown = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
    return "".join(f"{line}\n" for line in shown)


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="machine-readable output")
    common.add_argument(
        "--results", type=Path, default=Path("results"), help="where stages write (%(default)s)"
    )
    return common


def _describe_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--params", type=Path, metavar="FILE", help="its datasets instead of kinds")
    parser.add_argument(
        "--check", action="store_true", help="read archives and compare digests, not only sizes"
    )


def _describe_fetch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    parser.add_argument("--params", type=Path, metavar="FILE", help="all that its datasets need")


def _describe_verify(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Reads the real files as stages do and compares counts and class names with the published "
        "ones, protocol by protocol. Exit code 0: all as published; 1: not."
    )
    parser.add_argument("kinds", nargs="+", metavar="KIND")
    opened = parser.add_mutually_exclusive_group()
    opened.add_argument(
        "--images", type=int, default=100, metavar="N", help="open so many per split (%(default)s)"
    )
    opened.add_argument("--every-image", action="store_true", help="open all of them")
    parser.add_argument("--root", metavar="FOLDER", help="of kinds that read your own folder")


def _parser() -> argparse.ArgumentParser:
    shown = {"epilog": EPILOG, "formatter_class": argparse.RawDescriptionHelpFormatter}
    about = "Which datasets are here, and where the others come from."
    parser = argparse.ArgumentParser(prog="python -m clsp data", description=about, **shown)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, help_text, describe in (
        ("list", "every dataset kind and its state (the default)", _describe_list),
        ("fetch", "download the archives of kinds, without Snakemake", _describe_fetch),
        ("verify", "compare real files with what is published of them", _describe_verify),
    ):
        describe(commands.add_parser(name, parents=[_common()], help=help_text, **shown))
    return parser


def _params(path: Path) -> Params:
    return load_params(read_yaml(path), str(path))


def _homes(given: argparse.Namespace) -> list[Path]:
    """Where stages keep data: results/<profile>/data."""
    return sorted(given.results.glob("*/data"))


def _states(given: argparse.Namespace) -> list[DatasetState]:
    folder, digests = downloads(), given.check
    if given.params is None:
        return [look(kind, folder, _homes(given), digests) for kind in known_kinds()]
    params = _params(given.params)
    homes = [given.results / params.profile / "data"]
    entries = params.datasets.items()
    return [look(spec.kind, folder, homes, digests, (name, spec)) for name, spec in entries]


def _show_states(states: list[DatasetState]) -> str:
    rows = []
    for state in states:
        named = (state.name,) if state.name == state.kind else (f"{state.name} ({state.kind})",)
        size = amount(state.size) if state.size else "-"
        more = ", ..." if len(state.protocols) > SHOWN else ""
        protocols = ", ".join(state.protocols[:SHOWN]) + more
        rows.append((*named, state.state, size, protocols or "-", state.license))
    text = table(("dataset", "state", "on disk", "protocols", "licence"), rows)
    notes = [f"{state.name}: {state.note}\n" for state in states if state.note]
    return f"{text}\n{''.join(notes)}Archives: {downloads()}\n"


def _list(given: argparse.Namespace) -> int:
    states = _states(given)
    if given.json:
        _write_json([state.record() for state in states])
    else:
        sys.stdout.write(_show_states(states))
    return 0


def _wanted(given: argparse.Namespace) -> list[str]:
    """Kinds to fetch: those named, or those of a params.yaml that have archives.

    Miniatures need none, nor does a kind of which the system has a copy.
    """
    if given.params is None:
        if not given.kinds:
            raise ConfigError("data fetch: name a kind, or a file with --params")
        return list(dict.fromkeys(given.kinds))
    if given.kinds:
        raise ConfigError("data fetch: kinds and --params exclude each other")
    datasets = _params(given.params).datasets.values()
    needed = [s.kind for s in datasets if s.options.get("source") != "miniature"]
    return [
        kind
        for kind in dict.fromkeys(needed)
        if dataset_info(kind).archives and installed_copy(kind) is None
    ]


def _fetch(given: argparse.Namespace) -> int:
    kinds = _wanted(given)
    for kind in kinds:
        dataset_info(kind)  # a misspelt name is told before the first download
    records: list[dict[str, Any]] = []
    failures = []
    for kind in kinds:
        try:
            for archive, (path, url, checked) in obtain_all(kind):
                facts = {"kind": kind, "name": archive.name, "path": str(path), "url": url}
                records.append({**facts, **checked.record()})
        except DataError as error:
            failures.append(str(error))
    if given.json:
        _write_json(records)
    else:
        header = ("kind", "archive", "size", "from", "sha256", "")
        rows = [
            (r["kind"], r["name"], amount(r["size"]), r["url"], r["sha256"][:16], _proof(r))
            for r in records
        ]
        sys.stdout.write(table(header, rows))
    if failures:
        raise DataError("\n".join(failures))
    return 0


def _proof(record: dict[str, Any]) -> str:
    if record["confirmed"]:
        return "published sha256"
    return "pinned" if record["pinned"] else "not pinned: of unknown size"


def _verify(given: argparse.Namespace) -> int:
    from clsp.data.verify import verify  # readers of real files need more than a list does

    for kind in given.kinds:
        dataset_info(kind)
    if given.images < 0:
        raise ConfigError(f"--images: expected 0 or more, found {given.images}")
    most = None if given.every_image else given.images
    options = {} if given.root is None else {"root": given.root}
    rows = [row for kind in given.kinds for row in verify(kind, _homes(given), most, options)]
    if given.json:
        _write_json([row.record() for row in rows])
    else:
        header = ("kind", "protocol", "what", "expected", "found", "")
        shown = [(r.kind, r.protocol, r.what, r.expected, r.found, _word(r.ok)) for r in rows]
        sys.stdout.write(table(header, shown))
        wrong = sum(not row.ok for row in rows)
        sys.stdout.write(f"\n{len(rows) - wrong} of {len(rows)} as published\n")
    return int(any(not row.ok for row in rows))


def _word(ok: bool) -> str:
    return "ok" if ok else "WRONG"


def _write_json(content: Any) -> None:
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def main(argv: list[str]) -> int:
    """Run one subcommand; without one, list.

    Raises:
        ConfigError: If a kind or an option is unknown.
        DataError: If something cannot be fetched.
    """
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help")):
        argv = ["list", *argv]
    given = _parser().parse_args(argv)
    return {"list": _list, "fetch": _fetch, "verify": _verify}[given.command](given)
