"""`python -m clsp bundle`: pack what an audit needs, for somebody who ran nothing.

Exit codes: 0 done, 1 something private would have been in it, 2 usage or configuration,
4 files or environment.
"""

import argparse
import os
import sys
from pathlib import Path

from clsp.audit import mirror
from clsp.audit.suite import Suite
from clsp.bundle.create import create
from clsp.bundle.layout import Contents
from clsp.bundle.opened import opened
from clsp.bundle.unpack import opened_archive, read_contents
from clsp.config.convergence import EXPECTATIONS
from clsp.config.given import given_folder, given_params
from clsp.config.schema import Params
from clsp.runtime import tracking
from clsp.runtime.errors import DataError

FOLDER = Path("bundles")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clsp bundle",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    pack = verbs.add_parser("create", help="pack one profile")
    pack.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE")
    pack.add_argument("--results", type=Path, metavar="DIR", help="default: results/PROFILE")
    pack.add_argument("--reports", type=Path, metavar="DIR", help="default: reports/PROFILE")
    pack.add_argument("--out", type=Path, metavar="FILE", help="default: bundles/PROFILE.zip")
    pack.add_argument(
        "--mlflow", metavar="URI", help=f"default: ${tracking.URI}, or mlflow.db if it is here"
    )
    pack.add_argument("--without-mlflow", action="store_true", help="leave the mirror out")
    pack.add_argument(
        "--leave-out",
        action="append",
        default=[],
        metavar="PATTERN",
        help="files not to pack, as results/*/data/*/images.npy; their numbers are then not judged",
    )
    for verb, about in (("list", "show what a bundle holds"), ("verify", "unpack it, hash all")):
        verbs.add_parser(verb, help=about).add_argument("bundle", type=Path, metavar="BUNDLE")
    return parser


def _store(arguments: argparse.Namespace, params: Params) -> str | None:
    if arguments.without_mlflow:
        return None
    if arguments.mlflow:
        if not mirror.exists(arguments.mlflow):
            raise DataError(f"--mlflow {arguments.mlflow}: no such store")
        return arguments.mlflow
    given = os.environ.get(tracking.URI) if params.tracking else None
    return given or tracking.default_uri()


def _create(arguments: argparse.Namespace) -> list[str]:
    params = given_params(arguments.params)
    suite = Suite(
        params,
        given_folder(arguments.results, "results", params.profile),
        given_folder(arguments.reports, "reports", params.profile),
        _store(arguments, params),
        expectations=EXPECTATIONS,
    )
    out = arguments.out or FOLDER / f"{params.profile}.zip"
    members, record = create(suite, out, arguments.leave_out)
    stored = [member for member in members if member.part is None]
    size = out.stat().st_size / 1e6
    lines = [
        f"{out}: {len(members)} files in {size:.1f} MB, {len(members) - len(stored)} of them parts "
        "of others",
        f"ledger head {record['ledger']['head']}",
    ]
    if absent := record["missing"]:
        told = f"{len(absent)} artefacts are missing, {absent[0]} for one"
        lines.append(f"unfinished: {told}; an audit will not judge it")
    lines += [f"left out: {each['name']} ({each['why']})" for each in record["left_out"]]
    return [*lines, f"to audit it: python -m clsp audit {out}"]


def _shown(contents: Contents) -> list[str]:
    record = contents.record
    state = "complete" if record["complete"] else f"{len(record['missing'])} artefacts missing"
    lines = [f"profile {contents.profile}, {state}, ledger head {record['ledger'].get('head')}"]
    for member in contents.members.values():
        about = f", part of {member.part.member}" if member.part else ""
        lines.append(f"{member.sha256[:16]} {member.size:>12} {member.name}{about}")
    lines += [
        f"left out          {each.size:>12} {each.name}" for each in contents.left_out.values()
    ]
    return lines


def _list(path: Path) -> list[str]:
    with opened_archive(path) as archive:
        return _shown(read_contents(path, archive))


def _verify(path: Path) -> list[str]:
    with opened(path) as bundle:
        return [
            f"{path}: whole: {len(bundle.contents.members)} files have the sha256 of the manifest"
        ]


def main(argv: list[str]) -> int:
    """Create, list or verify a bundle; returns the exit code.

    Raises:
        ClspError: If something private would have been packed.
        ConfigError: If the parameters or a flag are wrong.
        DataError: If files are missing, damaged or hostile, or cannot be written.
    """
    arguments = _parser().parse_args(argv)
    if arguments.verb == "create":
        lines = _create(arguments)
    else:
        lines = (_list if arguments.verb == "list" else _verify)(arguments.bundle)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0
