"""What the rules share: the validated parameters and look-ups in them. No logic beyond that."""

import gc
from functools import cache
from pathlib import Path

from clsp.config.denoisers import DenoiserSpec
from clsp.config.floors import expand_floors
from clsp.config.foreign import denoiser_files, expand_imported
from clsp.config.grid import expand_runs
from clsp.config.load import load_params
from clsp.config.measured import measured_banks
from clsp.config.tasks import few_shot_tasks
from clsp.config import plan
from clsp.data.check import check_prepared
from clsp.data.fingerprint import fingerprint
from clsp.runtime.device import check_demand, cuda_devices
from clsp.workflow import provenance, shared_process
from clsp.workflow.environment import job_environment
from clsp.workflow.stop import or_stop

# The jobs of a large grid are millions of objects that stay. Python would look through them for
# garbage again and again, which took a fifth of the time until the first job.
gc.set_threshold(50_000, 20, 100)


def validated(settings):
    """Judge params.yaml, the user's folders and the machine before anything runs."""
    known = {key: value for key, value in settings.items() if key != "partial"}
    params = load_params(known, where="params")
    if workflow.is_main_process:
        provenance.restore(params.profile)
    prepared = f"results/{params.profile}/data/prepared"
    cards = {n: Path(prepared, n, "card.json") for n in plan.datasets_needed(params)}
    contents = {n: fingerprint(params.datasets[n], card) for n, card in cards.items()}
    if workflow.is_main_process:
        check_prepared(params, cards, contents)
    return params, expand_runs(params), expand_floors(params), contents


PARAMS, RUNS, FLOORS, CONTENTS = or_stop(validated, config)
IMPORTED = expand_imported(PARAMS)
ENCODERS = RUNS | IMPORTED  # judged by every protocol
JUDGED = ENCODERS | FLOORS  # by transfer and few-shot curves
RESULTS = f"results/{PARAMS.profile}"
REPORTS = f"reports/{PARAMS.profile}"
PARTIAL = bool(config.get("partial"))  # of the report: see docs/report.md
TRANSFER = PARAMS.evaluation.transfer
TASKS = list(TRANSFER.datasets) if TRANSFER else []
FEW_SHOT_TASKS = few_shot_tasks(PARAMS)
ENCODED = [name for name, dataset in PARAMS.datasets.items() if dataset.encoded]
ARRAYS = [name for name in PARAMS.datasets if name not in ENCODED]
TRAINED = [
    path
    for kind, names in plan.trained(PARAMS).items()
    for name in names
    if (path := Path(RESULTS, kind, name, "manifest.json")).exists()
]
GPUS_PER_JOB = (
    0 if PARAMS.device == "cpu" else int(PARAMS.device == "cuda" or cuda_devices() > 0)
)


pathvars:
    results=RESULTS,
    reports=REPORTS,
    logs=f"logs/{PARAMS.profile}",
    benchmarks=f"logs/{PARAMS.profile}/benchmarks",


# The same environment for every job, here or on a cluster: device, tracking, die with Snakemake.
ENVIRONMENT = job_environment(PARAMS)
shell.prefix(ENVIRONMENT)


def one_of(names):
    """A constraint of a wildcard to the given names; where there are none, nothing matches."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    dataset=one_of(PARAMS.datasets),
    denoiser=one_of(PARAMS.denoisers),
    bank=one_of(PARAMS.banks),
    run=one_of(RUNS),
    imported=one_of(IMPORTED),
    encoder=one_of(ENCODERS),
    judged=one_of(JUDGED),
    pairs=one_of(PARAMS.pairs or {}),
    table=one_of(PARAMS.tables),
    figure=one_of(PARAMS.figures),


scattergather:
    shard=PARAMS.shards,


onstart:
    if workflow.local_exec:
        or_stop(check_demand, PARAMS.device)
        shared_process.start(
            ENVIRONMENT, Path(f"logs/{PARAMS.profile}/shared_process.log")
        )
    shell("python -m clsp track-init")


onsuccess:
    shared_process.stop()
    provenance.export(PARAMS.profile)


onerror:
    shared_process.stop()
    provenance.export(PARAMS.profile)


def finished(files):
    """All files, or in a partial report only those that are there."""
    return [path for path in files if Path(path).exists()] if PARTIAL else files


@cache
def prepared(name):
    """Files of a prepared dataset, made by the rule of its storage."""
    maker = rules.encode_dataset if name in ENCODED else rules.prepare_dataset
    return expand(maker.output, dataset=name)


def settled(rule, **wildcards):
    """Files of an artefact that holds folders.

    Snakemake knows a folder by its time stamp alone, which a pull or a copy sets anew; the manifest
    beside it, written last, tells by its content whether the artefact was made again.
    """
    files = expand(rule.output, **wildcards)
    return [path if Path(path).suffix else ancient(path) for path in files]


def raw_of_dataset(wildcards):
    """Files of the fetched dataset, or nothing where none is needed."""
    if plan.is_fetched(PARAMS, wildcards.dataset):
        return settled(rules.fetch_dataset, dataset=wildcards.dataset)
    return []


def dataset_of_denoiser(wildcards):
    return prepared(PARAMS.denoisers[wildcards.denoiser].dataset)


def dataset_of_bank(wildcards):
    return prepared(PARAMS.banks[wildcards.bank].dataset)


def denoiser_files_of(name):
    """Files of a denoiser, made by the rule of its kind."""
    own = isinstance(PARAMS.denoisers[name], DenoiserSpec)
    return settled(
        rules.train_denoiser if own else rules.import_denoiser, denoiser=name
    )


def denoiser_of_bank(wildcards):
    return denoiser_files_of(PARAMS.banks[wildcards.bank].denoiser)


def foreign_of_denoiser(wildcards):
    """Files that somebody else made; where one is missing, Snakemake stops and names it."""
    return denoiser_files(PARAMS.denoisers[wildcards.denoiser])


def foreign_of_encoder(wildcards):
    return IMPORTED[wildcards.imported].spec.path


def dataset_of_imported(wildcards):
    return prepared(IMPORTED[wildcards.imported].dataset)


def dataset_of_run(wildcards):
    return prepared(RUNS[wildcards.run].spec.dataset)


def dataset_of_probe(wildcards):
    return prepared(ENCODERS[wildcards.encoder].judged_on)


def encoder_files_of(slug):
    """Files of an encoder, made by the rule of its kind."""
    if slug in IMPORTED:
        return expand(rules.import_encoder.output, imported=slug)
    return expand(rules.pretrain_encoder.output, run=slug)


def encoder_of_fine_tuning(wildcards):
    return encoder_files_of(wildcards.encoder)


def bank_of_run(wildcards):
    """Files of the run's bank, or nothing where its positives need none."""
    name = RUNS[wildcards.run].spec.bank
    return expand(rules.gather_bank.output, bank=name) if name else []


def pairs_of_run(wildcards):
    """Files of the run's pairs, or nothing where its positives need none."""
    name = RUNS[wildcards.run].spec.pairs
    return expand(rules.mine_pairs.output, pairs=name) if name else []


def encoder_of_features(wildcards):
    """Files of the run whose encoder gives the features; none where pixels are the features."""
    judged = JUDGED[wildcards.judged]
    if judged.features.source == "pixels":
        return []
    return encoder_files_of(judged.run if judged.slug in FLOORS else judged.slug)


def datasets_of_features(wildcards):
    """Files of every dataset that a run or floor is judged on."""
    spec = JUDGED[wildcards.judged].features
    names = dict.fromkeys([*([spec.own] if spec.own else []), *spec.tasks])
    return [file for name in names for file in prepared(name)]


def features_of_encoder(wildcards):
    return expand(rules.extract_features.output, judged=wildcards.encoder)


def datasets_of_tasks(wildcards):
    return [file for name in TASKS for file in prepared(name)]


def datasets_of_few_shot(wildcards):
    return [file for name in FEW_SHOT_TASKS for file in prepared(name)]


def dataset_of_pairs(wildcards):
    return prepared(PARAMS.pairs[wildcards.pairs].dataset)


def encoder_of_pairs(wildcards):
    """Files of the run that judges the pairs. Runs may train on pairs: see clsp/config/chain.py."""
    run = PARAMS.pairs[wildcards.pairs].run
    return expand(rules.pretrain_encoder.output, run=run)


def encoder_of_quality(wildcards):
    """Files of the encoder that banks are measured with; none with Inception."""
    slug = PARAMS.quality.encoder
    return encoder_files_of(slug) if slug else []


def weights_of_quality(wildcards):
    """The user's file of Inception's weights; where it is missing, Snakemake stops and names it."""
    return PARAMS.quality.inception.path if PARAMS.quality.inception else []


def content_of_dataset(wildcards):
    """Fingerprint of the user's folder; of a dataset that no run needs, nothing is kept."""
    return CONTENTS.get(wildcards.dataset, "")


def data_checked(wildcards):
    """No file, but before the first training an order: all data are prepared and checked.

    An ordinary input would not do. Every edit of params.yaml would rerun the check, and with it
    all training; and behind an ancient() input Snakemake 9.27 overlooks jobs whose own parameters
    changed. A checkpoint that has been passed leaves no trace in the inputs of a job.
    """
    if workflow.is_main_process and not TRAINED:
        checkpoints.check_data.get()
    return []


def fetch_of(wildcards):
    return plan.fetch_job(PARAMS, wildcards.dataset)


def prepare_of(wildcards):
    return plan.prepare_job(PARAMS, wildcards.dataset)


def denoiser_of(wildcards):
    return plan.denoiser_job(PARAMS, wildcards.denoiser)


def shard_of(wildcards):
    return plan.shard_job(PARAMS, wildcards.bank)


def bank_of(wildcards):
    return plan.bank_job(PARAMS, wildcards.bank)


def pretrain_of(wildcards):
    return plan.pretrain_job(RUNS[wildcards.run])


def import_of(wildcards):
    return plan.import_job(IMPORTED[wildcards.imported])


def pairs_of(wildcards):
    return plan.pairs_job(PARAMS, wildcards.pairs)


def probe_of(wildcards):
    return plan.probe_job(ENCODERS[wildcards.encoder])


def quality_of(wildcards):
    return plan.quality_job(PARAMS, wildcards.bank)


def features_of(wildcards):
    return plan.features_job(JUDGED[wildcards.judged])


def transfer_of(wildcards):
    return plan.transfer_job(JUDGED[wildcards.judged])


def few_shot_of(wildcards):
    return plan.few_shot_job(JUDGED[wildcards.judged])


def fine_tune_of(wildcards):
    return plan.fine_tune_job(ENCODERS[wildcards.encoder])


def spec_of(job):
    """A params function: the --spec flag of a job."""
    return lambda wildcards: job(wildcards).json


def code_of(job):
    """A params function: the digest of the code behind a job."""
    return lambda wildcards: job(wildcards).code


def folder_of(path):
    """A params function: a folder that a job looks through for whatever manifests it holds."""
    return lambda wildcards: path


def scratch_of(stage):
    """A params function: where a job keeps its resume state, outside its outputs."""
    return lambda wildcards: ".".join(
        (f".clsp/scratch/{PARAMS.profile}/{stage}", *wildcards)
    )


def report_of(stage):
    """A job function of the report; the plug-in is the rule's only wildcard, if it has one."""
    return lambda wildcards: plan.report_job(PARAMS, stage, next(iter(wildcards), None))
