"""What params.yaml asks for, job by job: stage, name, spec and the digest of the code behind it.

The Snakefile builds its params from here and the audit compares manifests with it, so that the
two cannot disagree about what is current.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

from clsp.config.catalog import contents_digest
from clsp.config.denoisers import DenoiserSpec
from clsp.config.floors import Floor, expand_floors
from clsp.config.foreign import Imported, expand_imported
from clsp.config.grid import Run, expand_runs
from clsp.config.measured import measured_banks, quality_spec
from clsp.config.schema import (
    FIGURES,
    GENERATORS,
    KINDS,
    METHODS,
    POSITIVES,
    TABLES,
    FetchSpec,
    Params,
)
from clsp.config.strict import Strict
from clsp.runtime.canonical import sha256_text
from clsp.runtime.digest import code_digest
from clsp.runtime.registry import names


@dataclass(frozen=True)
class Job:
    """One expected artefact."""

    stage: str
    name: str  # dataset, denoiser, bank, pairs or run slug
    spec: dict[str, Any]
    code: str

    @property
    def json(self) -> str:
        """The --spec flag. Keys keep the order of params.yaml, which is the order of tables."""
        return json.dumps(self.spec, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _job(stage: str, name: str, spec: Strict, *modules: str) -> Job:
    return Job(stage, name, spec.canonical(), code_digest(*modules))


def is_fetched(params: Params, dataset: str) -> bool:
    """Whether a dataset has to be downloaded or drawn before it can be prepared."""
    return bool(params.datasets[dataset].settings().fetched)


def fetch_job(params: Params, name: str) -> Job:
    """Download or draw the files of one dataset; a change of its archives fetches it anew."""
    spec = FetchSpec.behind(params.datasets[name])
    job = _job("fetch-dataset", name, spec, "clsp.data.fetch", f"{KINDS}.{spec.kind}")
    code = sha256_text(f"{job.code} {contents_digest(spec.kind)}")[: len(job.code)]
    return replace(job, code=code)


def prepare_job(params: Params, name: str) -> Job:
    """Prepare one dataset; where encoders are judged that train on it makes no difference."""
    spec = params.datasets[name].model_copy(update={"judged_on": None})
    return _job("prepare-dataset", name, spec, "clsp.data.prepare", f"{KINDS}.{spec.kind}")


def denoiser_job(params: Params, name: str) -> Job:
    """Train one denoiser, or import it."""
    spec = params.denoisers[name]
    if isinstance(spec, DenoiserSpec):
        return _job("train-denoiser", name, spec, "clsp.diffusion.train")
    return _job("import-denoiser", name, spec, "clsp.diffusion.imported")


def shard_job(params: Params, name: str) -> Job:
    """Generate any shard of one bank."""
    spec = params.banks[name]
    generator = f"{GENERATORS}.{spec.generator}"
    return _job("generate-shard", name, spec, "clsp.synthesis.shard", generator)


def bank_job(params: Params, name: str) -> Job:
    """Gather one bank."""
    return _job("gather-bank", name, params.banks[name], "clsp.synthesis.gather")


def pretrain_job(run: Run) -> Job:
    """Pretrain one run."""
    modules = (f"{METHODS}.{run.spec.method}", f"{POSITIVES}.{run.spec.positives}")
    return _job("pretrain-encoder", run.slug, run.spec, "clsp.pretrain.run", *modules)


def import_job(imported: Imported) -> Job:
    """Import one encoder."""
    return _job("import-encoder", imported.slug, imported.spec, "clsp.models.imported")


def encoder_job(judged: Run | Imported | Floor) -> Job | None:
    """The job that gives an encoder of its own; a floor has none."""
    if isinstance(judged, Floor):
        return None
    return import_job(judged) if isinstance(judged, Imported) else pretrain_job(judged)


def pairs_job(params: Params, name: str) -> Job:
    """Mine one set of pairs."""
    return _job("mine-pairs", name, (params.pairs or {})[name], "clsp.mining.mine")


def quality_job(params: Params, bank: str) -> Job:
    """Measure one bank."""
    spec = quality_spec(params, bank)
    return _job("measure-bank", bank, spec, "clsp.evaluate.quality")


def features_job(judged: Run | Imported | Floor) -> Job:
    """Features of one encoder or floor on every dataset that it is judged on."""
    return _job("extract-features", judged.slug, judged.features, "clsp.evaluate.extract")


def probe_job(run: Run | Imported) -> Job:
    """Linear probe and kNN of one encoder."""
    return _job("probe-encoder", run.slug, run.probe, "clsp.evaluate.probe")


def transfer_job(judged: Run | Imported | Floor) -> Job | None:
    """Transfer of one encoder or floor, or None where none is asked for."""
    if judged.transfer is None:
        return None
    return _job("probe-transfer", judged.slug, judged.transfer, "clsp.evaluate.transfer")


def few_shot_job(judged: Run | Imported | Floor) -> Job | None:
    """Few-shot curves of one encoder or floor, or None where none are asked for."""
    if judged.few_shot is None:
        return None
    return _job("probe-few-shot", judged.slug, judged.few_shot, "clsp.evaluate.few_shot")


def fine_tune_job(run: Run | Imported) -> Job | None:
    """Fine-tuning of one encoder, or None where none is asked for."""
    if run.fine_tune is None:
        return None
    return _job("fine-tune-encoder", run.slug, run.fine_tune, "clsp.evaluate.fine_tune")


def judging_jobs(judged: Run | Imported | Floor) -> list[Job]:
    """Every job that judges one encoder or floor, in data-flow order."""
    own = [] if isinstance(judged, Floor) else [probe_job(judged), fine_tune_job(judged)]
    jobs = [features_job(judged), *own, transfer_job(judged), few_shot_job(judged)]
    return [job for job in jobs if job is not None]


def duplicates_job(params: Params) -> Job:
    """Exact duplicates between what is trained on and what is tested on."""
    return replace(report_job(params, "count-duplicates"), name="duplicates")


def report_params(params: Params) -> Params:
    """params.yaml without what concerns the machine, so that no device change redraws a table."""
    return params.model_copy(update={"device": "auto", "tracking": False, "shards": 1})


def report_job(params: Params, stage: str, plugin: str | None = None) -> Job:
    """A job over all of params.yaml: check-data, count-duplicates, or one of the report."""
    modules = {
        "check-data": ("clsp.data.check",),
        "count-duplicates": ("clsp.data.duplicates",),
        "collect-results": ("clsp.report.collect",),
        "judge-claims": ("clsp.report.verdicts",),
        "render-table": ("clsp.report.table", f"{TABLES}.{plugin}"),
        "render-figure": ("clsp.report.figure", f"{FIGURES}.{plugin}"),
        "render-report": ("clsp.report.page",),
    }[stage]
    return _job(stage, plugin or params.profile, report_params(params), *modules)


def audit_code() -> str:
    """Digest of the audit, so that a changed check is run again."""
    checks = tuple(f"clsp.audit.checks.{name}" for name in names("clsp.audit.checks"))
    return code_digest("clsp.audit.run", *checks)


def export_code() -> str:
    """Digest of the exports, so that a changed card or crate is written again."""
    return code_digest("clsp.export.model", "clsp.export.crate")


def banks_needed(params: Params) -> list[str]:
    """Banks that some run reads or that are measured, in the order of params.yaml."""
    used = {run.spec.bank for run in expand_runs(params).values()} | {*measured_banks(params)}
    return [name for name in params.banks if name in used]


def denoisers_needed(params: Params) -> list[str]:
    """Denoisers behind those banks."""
    return list(dict.fromkeys(params.banks[bank].denoiser for bank in banks_needed(params)))


def pairs_needed(params: Params) -> list[str]:
    """Pairs that some run trains on, in the order of params.yaml."""
    used = {run.spec.pairs for run in expand_runs(params).values()}
    return [name for name in params.pairs or {} if name in used]


def datasets_needed(params: Params) -> list[str]:
    """Datasets that are trained on, drawn from, transferred to or judged on."""
    imported = expand_imported(params).values()
    tasks = params.evaluation.transfer.datasets if params.evaluation.transfer else ()
    return list(
        dict.fromkeys(
            [run.spec.dataset for run in expand_runs(params).values()]
            + [run.judged_on for run in expand_runs(params).values()]
            + [params.banks[bank].dataset for bank in banks_needed(params)]
            + [params.denoisers[name].dataset for name in denoisers_needed(params)]
            + [params.pairs[name].dataset for name in pairs_needed(params)]
            + [name for each in imported for name in (each.dataset, each.judged_on)]
            + [*tasks]
        )
    )


def trained(params: Params) -> dict[str, list[str]]:
    """Names of everything that is trained or drawn from a trained model, by kind."""
    return {
        "denoisers": [
            name
            for name in denoisers_needed(params)
            if isinstance(params.denoisers[name], DenoiserSpec)
        ],
        "banks": banks_needed(params),
        "runs": list(expand_runs(params)),
        "pairs": pairs_needed(params),
    }


def _run_jobs(params: Params) -> list[Job]:
    """Jobs of all runs and pairs: each run in the order of params.yaml, but after what it reads."""
    runs, jobs, done = expand_runs(params), [], set()

    def add(run: Run) -> None:
        if run.slug in done:
            return
        if run.spec.pairs and run.spec.pairs not in done:
            add(runs[params.pairs[run.spec.pairs].run])
            jobs.append(pairs_job(params, run.spec.pairs))
            done.add(run.spec.pairs)
        jobs.extend([pretrain_job(run), *judging_jobs(run)])
        done.add(run.slug)

    for run in runs.values():
        add(run)
    return jobs


def expected_jobs(params: Params) -> list[Job]:
    """Every scientific artefact that the runs of params.yaml need, in data-flow order."""
    datasets, banks = datasets_needed(params), banks_needed(params)
    jobs = [fetch_job(params, name) for name in datasets if is_fetched(params, name)]
    jobs += [prepare_job(params, name) for name in datasets]
    jobs += [denoiser_job(params, name) for name in denoisers_needed(params)]
    jobs += [shard_job(params, name) for name in banks for _ in range(params.shards)]
    jobs += [bank_job(params, name) for name in banks]
    jobs += [duplicates_job(params), *_run_jobs(params)]
    for imported in expand_imported(params).values():
        jobs += [import_job(imported), *judging_jobs(imported)]
    jobs += [job for floor in expand_floors(params).values() for job in judging_jobs(floor)]
    return jobs + [quality_job(params, bank) for bank in measured_banks(params)]
