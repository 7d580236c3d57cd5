"""Flags of `python -m clsp audit`."""

import argparse
from pathlib import Path

from clsp.audit.level import DEFAULT, LEVELS
from clsp.config.convergence import EXPECTATIONS
from clsp.runtime import tracking


def build_parser(about: str | None) -> argparse.ArgumentParser:
    """The parser; `about` is what --help begins with."""
    parser = argparse.ArgumentParser(
        prog="python -m clsp audit",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    told = "what `python -m clsp bundle create` packed; default: the folders here"
    parser.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE", help=told)
    told = "an empty folder for what is in BUNDLE; default: a temporary one"
    parser.add_argument("--unpack", type=Path, metavar="DIR", help=told)
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--params", type=Path, metavar="FILE", help="default: params.yaml")
    given.add_argument("--spec", metavar="JSON", help="resolved parameters instead of a file")
    parser.add_argument("--results", type=Path, metavar="DIR", help="default: results/PROFILE")
    parser.add_argument("--reports", type=Path, metavar="DIR", help="default: reports/PROFILE")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: REPORTS/audit.json")
    parser.add_argument(
        "--mlflow", metavar="URI", help=f"default: ${tracking.URI}, or mlflow.db if it is here"
    )
    parser.add_argument(
        "--without-mlflow", action="store_true", help="leave the mirror out; the record says so"
    )
    parser.add_argument(
        "--level",
        choices=LEVELS,
        default=DEFAULT,
        help="L0 structure, L1 rehash, L2 recompute (default), L3 replay samples, L4 rerun: as L3, "
        "and the command that repeats a whole run",
    )
    parser.add_argument("--nonce", metavar="HEX", help="decides what is sampled; drawn at L3")
    parser.add_argument("--samples", type=int, default=32, help="candidates per bank drawn at L3")
    parser.add_argument("--replay-runs", type=int, default=3, help="runs repeated at L3, at most")
    told = "claims, curves and explanations; default: reports/spec of this copy of the suite"
    parser.add_argument("--expectations", type=Path, default=EXPECTATIONS, metavar="DIR", help=told)
    parser.add_argument("--anchor", metavar="HASH", help="a line of the ledger noted earlier")
    parser.add_argument(
        "--accept", action="append", default=[], metavar="ID", help="accept findings; never a pass"
    )
    parser.add_argument("--reason", action="append", default=[], metavar="TEXT", help="of --accept")
    parser.add_argument("--self-test", action="store_true", help="inject every known fault")
    parser.add_argument("--list-checks", action="store_true")
    parser.add_argument("--explain", metavar="ID")
    parser.add_argument("--json", action="store_true", help="print audit.json instead of lines")
    return parser
