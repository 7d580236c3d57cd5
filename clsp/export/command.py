"""`python -m clsp export models|crate`: views of a finished experiment that others can read.

models: each pretrained encoder with weights, model card and evaluation results.
crate: the whole experiment as a Workflow Run RO-Crate.
Snakemake writes its own report itself: see docs/exports.md.
"""

import argparse
import logging
from pathlib import Path
from urllib.parse import urlsplit

from clsp.config.given import given_folder, given_params
from clsp.runtime.errors import ConfigError

log = logging.getLogger(__name__)
EXPORTS = "exports"  # below the profile's folder of reports/


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clsp export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("models", "crate"))
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE")
    given.add_argument("--spec", metavar="JSON", help="resolved parameters instead of a file")
    parser.add_argument("--results", type=Path, metavar="DIR", help="default: results/PROFILE")
    parser.add_argument("--reports", type=Path, metavar="DIR", help="default: reports/PROFILE")
    about = "default: REPORTS/exports/models (a folder per run) or REPORTS/exports/crate"
    parser.add_argument("--out", type=Path, metavar="DIR", help=about)
    models = parser.add_argument_group("models")
    models.add_argument(
        "--run", nargs="+", default=[], metavar="SLUG", help="default: every finished run"
    )
    models.add_argument("--license", metavar="ID", help="that the weights are published under")
    models.add_argument("--source", metavar="URL", help="where the evidence is published")
    crate = parser.add_argument_group("crate")
    crate.add_argument(
        "--whole", action="store_true", help="copy arrays, weights and logs too, not digests alone"
    )
    return parser


def _check_flags(arguments: argparse.Namespace) -> None:
    if arguments.what == "crate" and (arguments.run or arguments.license or arguments.source):
        raise ConfigError("--run, --license and --source are for `export models`")
    if arguments.what == "models" and arguments.whole:
        raise ConfigError("--whole is for `export crate`")
    if arguments.source and urlsplit(arguments.source).scheme != "https":
        raise ConfigError(f"--source {arguments.source}: expected an https address")


def main(argv: list[str]) -> int:
    """Write the exports of one profile; returns the exit code.

    Raises:
        ConfigError: If the parameters or a flag are wrong.
        IncompleteError: If what is asked for is not finished.
        DataError: If a record or file was changed, or nothing can be written.
    """
    arguments = _parser().parse_args(argv)
    _check_flags(arguments)
    params = given_params(arguments.params, arguments.spec)
    results = given_folder(arguments.results, "results", params.profile)
    reports = given_folder(arguments.reports, "reports", params.profile)
    # Here, because the libraries behind them take longer to load than --help may.
    from clsp.export.evidence import Evidence

    evidence = Evidence(params, results, reports)
    out = arguments.out or reports / EXPORTS / arguments.what
    if arguments.what == "models":
        from clsp.export.model import chosen_runs, export_model

        for run in chosen_runs(evidence, arguments.run):
            export_model(evidence, run, out / run.slug, arguments.license, arguments.source)
            log.info("%s", out / run.slug)
    else:
        from clsp.export.crate import export_crate

        export_crate(evidence, out, whole=arguments.whole)
        log.info("%s", out)
    return 0
