"""Who stands against whom in a claim: rows of runs by what they are, and the seeds that count."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from clsp.config.claims import Measured, Side, Where
from clsp.config.grid import Run, expand_runs
from clsp.config.schema import Params


@dataclass(frozen=True)
class Contender:
    """A row: the runs of one label on one dataset and encoder, by seed.

    Attributes:
        dataset: Name of the dataset it was pretrained on.
        kind: Its kind.
        encoder: Name of the encoder.
        label: As tables print it.
        method: Name of the method in params.yaml.
        plugin: Plug-in of the method.
        source: Of positives.
        runs: By seed.
    """

    dataset: str
    kind: str
    encoder: str
    label: str
    method: str
    plugin: str
    source: str
    runs: dict[int, Run] = field(default_factory=dict)


def fits(contender: Contender, side: Side) -> bool:
    """Whether a row may stand on a side of a claim."""
    return contender.source in side.positives and (
        side.method is None or contender.plugin in side.method
    )


@dataclass(frozen=True)
class Contest:
    """Everything that claims are judged by: the rows of a profile and their numbers."""

    params: Params
    frame: pd.DataFrame

    @cached_property
    def contenders(self) -> list[Contender]:
        """Label-free rows of ordinary runs, in the order of params.yaml."""
        found: dict[tuple[str, str, str], Contender] = {}
        for run in expand_runs(self.params).values():
            if run.variation or run.label_users:
                continue
            dataset, encoder = str(run.axes["dataset"]), str(run.axes["encoder"])
            kind, method = self.params.datasets[dataset].kind, str(run.axes["method"])
            one = Contender(
                dataset, kind, encoder, run.label, method, run.spec.method, run.spec.positives
            )
            row = found.setdefault((dataset, encoder, run.label), one)
            row.runs[run.spec.seed] = run
        return [*found.values()]

    def places(self, where: Where) -> list[list[Contender]]:
        """The rows of every dataset and encoder that a claim speaks of."""
        grouped: dict[tuple[str, str], list[Contender]] = {}
        for row in self.contenders:
            architecture = self.params.encoders[row.encoder].architecture
            if where.dataset is not None and row.kind not in where.dataset:
                continue
            if where.architecture is not None and architecture != where.architecture:
                continue
            grouped.setdefault((row.dataset, row.encoder), []).append(row)
        return [*grouped.values()]

    @cached_property
    def _done(self) -> dict[tuple[str, str, str, str], tuple[float, int | None]]:
        """Values, and test images where the metric is the share of them that are right."""
        done = self.frame[self.frame["status"] == "done"]
        keys = zip(done["run"], done["task"], done["protocol"], done["variant"], strict=True)
        told = zip(done["value"], done["metric"], done["total"], strict=True)
        numbers = [
            (float(v), int(total) if metric == "top1" else None) for v, metric, total in told
        ]
        return dict(zip(keys, numbers, strict=True))

    def value(self, run: Run, task: str, number: Measured) -> float | None:
        """One number of one run, percent; None where it is not there."""
        key = (run.slug, task, number.protocol, number.variant)
        return self._done[key][0] if key in self._done else None

    def images(self, run: Run, task: str, number: Measured) -> int | None:
        """Test images behind one number; None where it is not there or no share of images."""
        key = (run.slug, task, number.protocol, number.variant)
        return self._done[key][1] if key in self._done else None


@dataclass(frozen=True)
class Seeds:
    """Which declared seeds count: the first of the list, whatever their numbers are.

    Attributes:
        used: Declared seeds that every row runs, from the start of the list without a gap.
        missing: Those of them that some number is not there for.
        skipped: Why no seed counts though some are run, or nothing.
    """

    used: tuple[int, ...]
    missing: tuple[int, ...]
    skipped: str = ""


def seeds_of(declared: Sequence[int], rows: Sequence[Contender], there: dict[int, bool]) -> Seeds:
    """The seeds that count for some rows.

    Args:
        declared: In the order of the claim.
        rows: All of them.
        there: By seed, whether every number of every row is there.
    """
    run = [seed for seed in declared if all(seed in row.runs for row in rows)]
    if run != list(declared[: len(run)]):
        first = next(s for s in declared if s not in run)
        return Seeds((), (), f"seed {first} is declared before others and not run")
    return Seeds(tuple(run), tuple(seed for seed in run if not there[seed]))
