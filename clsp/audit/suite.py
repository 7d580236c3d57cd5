"""What is audited: the expectations of params.yaml, the manifests, and what depends on what.

Everything is computed once and shared by the checks. Nothing here writes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from clsp.audit.arrays import load_npy
from clsp.audit.finding import Number
from clsp.audit.items import is_card
from clsp.audit.level import generator_of
from clsp.audit.lineage import Producer, bank_from, floor_from, import_from, made_from
from clsp.audit.logs import Logs
from clsp.audit.place import Place
from clsp.audit.replaying import Depth
from clsp.config.convergence import EXPECTATIONS
from clsp.config.floors import Floor, expand_floors
from clsp.config.foreign import Imported, expand_imported
from clsp.config.grid import Run, expand_runs
from clsp.config.measured import measured_banks
from clsp.config.plan import Job, expected_jobs, prepare_job, report_job, report_params
from clsp.config.quality import PROTOCOL
from clsp.config.schema import Params
from clsp.report.collect import (
    Judged,
    Name,
    build_frame,
    current_artefacts,
    expected_numbers,
    frame_csv,
    results_of,
    runs_by_name,
)
from clsp.report.quality import bank_numbers, bank_rows
from clsp.report.records import SHARD, Records, name_of, shard_of
from clsp.runtime.canonical import read_json, sha256_file
from clsp.runtime.errors import ClspError
from clsp.runtime.ledger import Chain, ledger_below, read_ledger
from clsp.runtime.manifest import Artefact

JUDGING = {  # stage -> protocols whose numbers it gives
    "probe-encoder": ("linear", "knn"),
    "probe-transfer": ("transfer",),
    "probe-few-shot": ("few_shot",),
    "fine-tune-encoder": ("fine_tune",),
    "measure-bank": (PROTOCOL,),
}
REPORTS = ("collect-results", "render-table", "render-figure", "render-report")


@dataclass(frozen=True)
class Suite:
    """One profile's parameters, results and reports.

    Attributes:
        params: As given.
        results: Folder with the profile's results.
        reports: Folder with the profile's report.
        mlflow: Tracking URI of a store that may hold the mirrored runs, or None.
        compare_mlflow: False when the auditor left the mirror out; the record then says so.
        depth: How deep the audit goes, and what it computes again.
        anchor: Hash of a line of the ledger that the auditor noted earlier, or None.
        place: Where files lie that are beside results and reports; a bundle's are unpacked.
    """

    params: Params
    results: Path
    reports: Path
    mlflow: str | None
    compare_mlflow: bool = True
    depth: Depth = field(default_factory=Depth)
    anchor: str | None = None
    expectations: Path = EXPECTATIONS  # claims, curves, explanations: the auditor's own
    place: Place = field(default_factory=Place)

    @cached_property
    def ledger(self) -> Chain | None:
        """The ledger of attempts, or the copy that travelled with the records; None without one."""
        path = ledger_below(self.results)
        return read_ledger(path) if path else None

    def chosen(self, *purpose: str) -> np.random.Generator:
        """Draws what is sampled for a purpose."""
        return generator_of(self.depth.nonce, self.ledger.head if self.ledger else "", *purpose)

    @cached_property
    def records(self) -> Records:
        """Manifests of the results."""
        return Records(self.results)

    @cached_property
    def report_records(self) -> Records:
        """Manifests of the report."""
        return Records(self.reports)

    @cached_property
    def artefacts(self) -> list[Artefact]:
        """Everything that has a readable manifest."""
        return [*self.records, *self.report_records]

    @cached_property
    def shown(self) -> Params:
        """The parameters as the report stages see them."""
        return report_params(self.params)

    @cached_property
    def runs(self) -> dict[str, Run]:
        """Runs that params.yaml asks for."""
        return expand_runs(self.params)

    @cached_property
    def floors(self) -> dict[str, Floor]:
        """Floors that params.yaml asks for."""
        return expand_floors(self.params)

    @cached_property
    def imported(self) -> dict[str, Imported]:
        """Imported encoders that params.yaml asks for."""
        return expand_imported(self.params)

    @cached_property
    def judged(self) -> dict[str, Judged]:
        """Everything that numbers are about."""
        return {**self.runs, **self.imported, **self.floors}

    @cached_property
    def jobs(self) -> list[Job]:
        """Scientific artefacts that params.yaml asks for; a bank's shards count once."""
        unique = {(job.stage, job.name): job for job in expected_jobs(self.params)}
        return list(unique.values())

    @cached_property
    def report_jobs(self) -> list[tuple[Job, str]]:
        """Artefacts of the report, each with the name of its manifest below the report folder."""
        jobs = [(report_job(self.params, "collect-results"), "frame.manifest.json")]
        jobs += [(report_job(self.params, "judge-claims"), "claims.manifest.json")]
        for table in self.params.tables:
            job = report_job(self.params, "render-table", table)
            jobs.append((job, f"tables/{table}.manifest.json"))
        for figure in self.params.figures:
            job = report_job(self.params, "render-figure", figure)
            jobs.append((job, f"figures/{figure}.manifest.json"))
        return [*jobs, (report_job(self.params, "render-report"), "report.manifest.json")]

    @cached_property
    def tracked(self) -> list[Artefact]:
        """Artefacts in use that were made while MLflow was on."""
        return [artefact for _, artefact in self.in_use if artefact.predicate.get("tracking")]

    def report_artefact(self, manifest: str) -> Artefact | None:
        """An artefact of the report by the name of its manifest."""
        return self.report_records.read[0].get(self.reports / manifest)

    def made(self, job: Job) -> list[Artefact]:
        """Current and outdated artefacts of a job; of shards those that the bank needs."""
        made = self.records.named(job.stage, job.name)
        if job.stage != SHARD:
            return made
        wanted = self.shards_of(job.name)
        return [artefact for artefact in made if shard_of(artefact) in wanted]

    def shards_of(self, bank: str) -> list[str]:
        """Names of the shards of a bank: 1-of-N to N-of-N.

        N is the one that the bank was gathered from, because it changes no image and the report's
        parameters leave it out; before there is a bank, it is what params.yaml says.
        """
        count = self.params.shards
        named = [f"{number}-of-{count}" for number in range(1, count + 1)]
        return self.records.shards_of(bank) or named

    @cached_property
    def in_use(self) -> list[tuple[Job, Artefact]]:
        """Every artefact that params.yaml asks for, with its job; superseded ones left out."""
        science = [(job, artefact) for job in self.jobs for artefact in self.made(job)]
        drawn = [(job, self.report_artefact(name)) for job, name in self.report_jobs]
        return science + [(job, artefact) for job, artefact in drawn if artefact is not None]

    @cached_property
    def _hashes(self) -> dict[Path, str | None]:
        return {}

    def sha256(self, path: Path) -> str | None:
        """sha256 of a file's bytes now, hashed once; None if it cannot be read."""
        if path not in self._hashes:
            try:
                self._hashes[path] = sha256_file(path) if path.is_file() else None
            except (OSError, ValueError, ClspError):  # a name that no file can have, for example
                self._hashes[path] = None
        return self._hashes[path]

    @cached_property
    def numbers(self) -> frozenset[Number]:
        """Every number that params.yaml asks for, of encoders, floors and banks."""
        return frozenset(
            Number(judged.slug, *key)
            for judged in self.judged.values()
            for keys in expected_numbers(judged).values()
            for key in keys
        ) | {Number(*number) for number in bank_numbers(self.params)}

    @cached_property
    def _rows(self) -> dict[Name, frozenset[str]]:
        named = runs_by_name(self.params)
        rows = {name: frozenset(run.slug for run in runs) for name, runs in named.items()}
        return rows | {n: frozenset({bank}) for n, bank in bank_rows(self.params).items()}

    def runs_of_row(self, name: Name) -> frozenset[str]:
        """Slugs of the runs, or the bank, that a row of any table covers; none for a foreign row.

        An ablation names an ordinary run by its value too, so that a run may have several names.
        """
        return self._rows.get(name, frozenset())

    def dependents(self, stage: str, name: str) -> frozenset[Number]:
        """The numbers that depend on an artefact."""
        return frozenset(n for n in self.numbers if self._depends(n, stage, name))

    def _depends(self, number: Number, stage: str, name: str) -> bool:
        if stage in JUDGING:
            return number.run == name and number.protocol in JUDGING[stage]
        if stage == "extract-features":
            return number.run == name and number.protocol != "fine_tune"
        if stage in ("fetch-dataset", "prepare-dataset") and number.task == name:
            return True
        return (stage, name) in self._lineages[number.run]

    @cached_property
    def _lineages(self) -> dict[str, frozenset[Producer]]:
        of_runs = {slug: made_from(self.params, self.runs, slug) for slug in self.runs}
        of_files = {slug: import_from(each) for slug, each in self.imported.items()}
        of_floors = {slug: floor_from(each, self.runs) for slug, each in self.floors.items()}
        banks = measured_banks(self.params)
        of_banks = {bank: bank_from(self.params, self.runs, bank) for bank in banks}
        return of_runs | of_files | of_floors | of_banks

    def affected(self, artefact: Artefact) -> frozenset[Number]:
        """The numbers that depend on an artefact; a report's artefact touches cells instead."""
        return self.dependents(artefact.stage, name_of(artefact))

    def cells_of(self, artefact: Artefact) -> frozenset[str]:
        """Cells of the table an artefact of the report is, or all cells if it feeds them all."""
        if artefact.stage == "render-table":
            name = artefact.predicate["facts"].get("table", "")
            return frozenset({f"{name}:*"})
        return frozenset({"*"}) if artefact.stage in REPORTS else frozenset()

    @cached_property
    def frame(self) -> list[dict[str, Any]]:
        """The frame as it follows from the manifests that are there now."""
        return build_frame(self.shown, self.results)

    @cached_property
    def frame_text(self) -> str:
        """The same as csv."""
        return frame_csv(self.frame)

    @cached_property
    def probes(self) -> list[tuple[Judged, Artefact]]:
        """Every current artefact that holds numbers, with what it judges."""
        found = []
        for judged in self.judged.values():
            artefacts = current_artefacts(judged, self.records)
            found += [(judged, artefacts[stage]) for stage in JUDGING if stage in artefacts]
        return found

    @cached_property
    def trainings(self) -> list[tuple[Run, Artefact]]:
        """Every current pretraining artefact with its run."""
        found = [(r, current_artefacts(r, self.records)) for r in self.runs.values()]
        return [(r, a["pretrain-encoder"]) for r, a in found if "pretrain-encoder" in a]

    def results_of(
        self, judged: Judged, probe: Artefact
    ) -> Iterator[tuple[Number, dict[str, Any]]]:
        """The result records of a probe's manifest."""
        for key, record in results_of(probe).items():
            yield Number(judged.slug, *key), record

    @cached_property
    def told(self) -> dict[Number, tuple[Artefact, dict[str, Any]]]:
        """Every number's probe and what its manifest tells of it."""
        every = ((probe, self.results_of(judged, probe)) for judged, probe in self.probes)
        return {number: (probe, record) for probe, told in every for number, record in told}

    @cached_property
    def truth(self) -> dict[Number, float]:
        """Numbers that check A26 recomputed from predictions, which fills it."""
        return {}

    @cached_property
    def _logs(self) -> Logs:
        return Logs()

    def history(self, artefact: Artefact) -> list[dict[str, Any]]:
        """The step log of an artefact: numbers only, each record with its `step`.

        Raises:
            OSError, ValueError: If it cannot be read or holds something else.
        """
        return self._logs.read(artefact.folder / "history.jsonl")

    @cached_property
    def _datasets(self) -> dict[str, tuple[np.ndarray, dict[str, Any]] | None]:
        return {}

    def dataset(self, name: str) -> tuple[np.ndarray, dict[str, Any]] | None:
        """Labels (N,) and card of a prepared dataset, or None if they cannot be read."""
        if name not in self._datasets:
            self._datasets[name] = None
            job = prepare_job(self.params, name) if name in self.params.datasets else None
            artefact = job and self.records.current(job.stage, job.name, job.spec)
            if artefact:
                try:
                    labels = load_npy(artefact.folder / "labels.npy")
                    card = read_json(artefact.folder / "card.json")
                    if is_card(card) and isinstance(labels, np.ndarray):
                        self._datasets[name] = (labels, card)
                except (OSError, ValueError, EOFError, ClspError):
                    self._datasets[name] = None
        return self._datasets[name]
