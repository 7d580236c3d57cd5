"""What may stand side by side: runs of one recipe family, and runs without labels."""

from clsp.config.grid import Run, grid_runs
from clsp.config.labels import MARK
from clsp.config.schema import Params
from clsp.runtime.errors import ConfigError


def _check_labels(name: str, run: Run) -> None:
    if run.label_users:
        verb = "uses" if len(run.label_users) == 1 else "use"
        raise ConfigError(
            f"runs.{name}: {' and '.join(run.label_users)} {verb} labels of training images, which "
            f'"comparison: {{labels: refused}}" keeps out (run {run.slug}); leave it out, or '
            f'write "comparison: {{labels: marked}}", and its label ends in "{MARK.strip()}" '
            "everywhere"
        )


def _check_marks(params: Params) -> None:
    """The mark is set by the suite alone, so that it is always true."""
    for section in ("methods", "positives"):
        for name, entry in getattr(params, section).items():
            if MARK.strip() in entry.label:
                raise ConfigError(
                    f'{section}.{name}.label: "{MARK.strip()}" is added by the suite where labels '
                    f'are used, found "{entry.label}"'
                )


def check_comparison(params: Params) -> None:
    """Refuse runs that use labels, or that mix recipe families, unless `comparison` allows it.

    Raises:
        ConfigError: Naming the grid and what uses labels, or both families with a run of each; and
            what to write to compare them all the same.
    """
    _check_marks(params)
    first: dict[str, Run] = {}
    for name, grid in params.runs.items():
        for run in grid_runs(params, grid):
            if params.comparison.labels == "refused":
                _check_labels(name, run)
            if params.comparison.recipes == "single":
                dataset = str(run.axes["dataset"])
                known = first.setdefault(dataset, run)
                families = (known.spec.recipe.family, run.spec.recipe.family)
                if len(set(families)) > 1:
                    raise ConfigError(
                        f"runs.{name}: on dataset {dataset} the runs follow recipes of two "
                        f'families, "{families[0]}" (run {known.slug}) and "{families[1]}" (run '
                        f"{run.slug}); a difference between them would not be the methods' "
                        "alone. Use recipes of one family, or write "
                        '"comparison: {recipes: mixed}", and every table says so'
                    )
