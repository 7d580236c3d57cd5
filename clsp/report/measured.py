"""The custody of the quality figures of banks: which network looked at which images."""

from typing import Any

from clsp.config.measured import measured_banks
from clsp.config.plan import quality_job
from clsp.config.schema import Params
from clsp.report.chain import (
    build_chain,
    build_step,
    dataset_source,
    digest_of,
    mlflow_of,
    source_of,
)
from clsp.report.collect import Key
from clsp.report.custody import STAGES, Custody, Number
from clsp.report.escape import anchor
from clsp.report.quality import (
    TITLES,
    bank_numbers,
    current_quality,
    images_text,
    weights_text,
)
from clsp.report.records import Records
from clsp.runtime.manifest import Artefact

FILE = "quality.json"
STAGE = "measure-bank"


def _number(key: Key, artefact: Artefact | None) -> Number:
    metric, _, variant = key
    name = f"{TITLES[metric]}, {variant}"
    found = (
        artefact.metrics.get(f"quality/{variant.replace('=', '')}/{metric}") if artefact else None
    )
    if artefact is None or found is None:
        return Number(name, None, None, None, "", "", None, "", "", "")
    digest, mirrored = digest_of(artefact, FILE), mlflow_of(artefact)
    return Number(name, found, None, None, metric, "", None, FILE, digest, mirrored)


def _custody(params: Params, records: Records, bank: str) -> Custody:
    artefact, chain, job = current_quality(params, records, bank), None, quality_job(params, bank)
    keys = [key[1:] for key in bank_numbers(params) if key[0] == bank]
    numbers = {
        (metric, protocol, variant): _number((metric, protocol, variant), artefact)
        for metric, protocol, variant in keys
    }
    steps, files, missing = [], [], []
    if artefact is not None:
        title = STAGES[STAGE]
        network = artefact.predicate["facts"].get("network", {})
        weights = [(f"network {network.get('name')}", str(network.get("weights_sha256")))]
        data = [
            source_of("bank", bank, artefact, "images.npy"),
            dataset_source(params.banks[bank].dataset, artefact),
        ]
        chain = build_chain(artefact, [artefact], weights, data, records)
        steps = [build_step(title, artefact, records)]
        files = [(name, digest_of(artefact, name)) for name in artefact.subjects]
    else:
        reason = records.failure(job.stage, job.name, job.spec)
        missing = [STAGES[STAGE] + (f" (failed: {reason})" if reason else "")]
    home = anchor("measured", bank)
    return Custody(bank, "bank", home, None, chain, steps, numbers, [], files, missing)


def build_measured(params: Params, records: Records) -> dict[str, Custody]:
    """Every bank that is measured, with its numbers."""
    return {bank: _custody(params, records, bank) for bank in measured_banks(params)}


def describe_measured(params: Params, records: Records) -> dict[str, dict[str, Any]]:
    """What the page says of a measurement as a whole; nothing of one that is not there."""
    found = {}
    for bank in measured_banks(params):
        artefact = current_quality(params, records, bank)
        if artefact is None:
            continue
        facts = artefact.predicate["facts"]
        found[bank] = {
            "network": weights_text(artefact),
            "images": [(e["k"], images_text(artefact, e["k"])) for e in facts.get("quality", [])],
            "labels_read": bool(facts.get("labels_read_for_analysis")),
        }
    return found
