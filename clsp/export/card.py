"""The model card of an encoder, and its evaluation results in the formats of the Hugging Face Hub.

Metadata are built by huggingface_hub's own classes, offline. Ids of datasets are those of
params.yaml: the suite judged its own preparation of them, not a copy on the Hub, and a `revision`
is the sha256 of the prepared dataset's card.
"""

import json
import os
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from clsp import __version__
from clsp.config.grid import Run
from clsp.export.encoder import STEMS, features_of, is_torchvision, loading_code, timm_note
from clsp.export.evidence import Evidence
from clsp.export.licence import licence_fields
from clsp.export.numbers import Number
from clsp.report.cells import DASH, DEMONSTRATION
from clsp.report.escape import markdown
from clsp.report.limits import LIMITS
from clsp.runtime.manifest import Artefact

METRICS = {  # ours -> identifier and name on the Hub
    "top1": ("accuracy", "top-1 accuracy, percent"),
    "mean_per_class": ("mean_per_class_accuracy", "mean per-class accuracy, percent"),
    "map11": ("mean_average_precision", "11-point mean average precision, percent"),
}
PROTOCOLS = {
    "linear": "linear probe",
    "knn": "k nearest neighbours",
    "transfer": "transfer, logistic regression",
    "few_shot": "few labels, logistic regression",
    "fine_tune": "fine-tuning",
}

CURVE = "few_shot"  # dozens of numbers: in .eval_results alone


def _named(number: Number) -> str:
    return "_".join(filter(None, (number.protocol, number.variant)))


def _titled(number: Number) -> str:
    title = PROTOCOLS[number.protocol]
    return f"{title} ({number.variant.replace('_', ' ')})" if number.variant else title


def _counted(record: dict[str, Any]) -> str:
    return f"{record['correct']} of {record['total']} correct" if record.get("total") else "a score"


def notes_of(number: Number, demonstration: bool) -> str:
    """What is said of a number beside its value: how it was made, and what it follows from."""
    record = number.record or {}
    split = f"{record['split']} split, nothing chosen on it"
    if record["selected_on"] != "none":
        split = f"{record['split']} split, chosen on {record['selected_on']}"
    told = [
        _titled(number),
        record["metric"],
        _counted(record),
        split,
        f"predictions_sha256 {number.predictions_sha256}",
        f"manifest_sha256 {number.manifest_sha256}",
    ]
    return "; ".join([*told, *([DEMONSTRATION] if demonstration else [])])


def _offline() -> None:
    """Before huggingface_hub is imported: nothing here needs the network."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def eval_results(
    numbers: Iterable[Number], demonstration: bool, source: str | None
) -> dict[str, str]:
    """File name in `.eval_results/` -> YAML, one file per protocol; numbers not run are left out.

    Args:
        numbers: Of the encoder.
        demonstration: Whether the profile is one.
        source: Address where the evidence is published, or None.
    """
    _offline()
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump

    found: dict[str, list[EvalResultEntry]] = {}
    for number in numbers:
        if number.record is not None:
            entry = EvalResultEntry(
                dataset_id=number.task.name,
                task_id=_named(number),
                value=number.record["value"],
                dataset_revision=number.task.card_sha256,
                date=number.finished,
                source_url=source,
                source_name="CLSP reproducibility suite: records" if source else None,
                notes=notes_of(number, demonstration),
            )
            found.setdefault(number.protocol, []).append(entry)
    return {
        f"{protocol}.yaml": yaml_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
        for protocol, entries in found.items()
    }


def _metadata(
    run: Run, numbers: list[Number], evidence: Evidence, licence: str | None, source: str | None
) -> str:
    _offline()
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="image-classification",
            task_name=_titled(n),
            dataset_type=n.task.name,
            dataset_name=n.task.title,
            dataset_split=n.record["split"],
            dataset_revision=n.task.card_sha256,
            metric_type=METRICS[n.record["metric"]][0],
            metric_name=f"{METRICS[n.record['metric']][1]}: {_titled(n)}",
            metric_value=n.record["value"],
            metric_args={
                **{k: n.record.get(k) for k in ("correct", "total", "selected_on", "epoch")},
                "predictions_sha256": n.predictions_sha256,
            },
            source_name="CLSP reproducibility suite: records" if source else None,
            source_url=source,
        )
        for n in numbers
        if n.record is not None and n.protocol != CURVE
    ]
    marks = ["demonstration"] if evidence.params.demonstration else []
    data = ModelCardData(
        **licence_fields(licence),
        library_name="timm" if is_torchvision(run.spec.encoder) else None,
        pipeline_tag="image-feature-extraction",
        tags=["self-supervised-learning", "contrastive-learning", "resnet", *marks],
        model_name=run.slug if results else None,
        eval_results=results or None,
    )
    return data.to_yaml()


def _row(number: Number) -> dict[str, str]:
    record = number.record
    shown = DASH if record is None else f"{record['value']:.2f}"
    mean = DASH if number.mean is None else f"{number.mean:.2f}"
    spread = "" if number.std is None else f" ± {number.std:.2f}"
    return {
        "protocol": _titled(number),
        "task": markdown(number.task.title),
        "metric": DASH if record is None else METRICS[record["metric"]][1],
        "value": shown,
        "counted": "not run" if record is None else _counted(record).removesuffix(" correct"),
        "chosen": DASH if record is None else record["selected_on"],
        "seeds": f"{mean}{spread} ({number.n} of {number.expected})",
        "predictions": f"`{number.predictions_sha256}`" if record else DASH,
    }


def render_card(
    run: Run,
    made: Artefact,
    numbers: list[Number],
    evidence: Evidence,
    about: dict[str, Any],
) -> str:
    """README.md of an exported encoder.

    Args:
        run: That made it.
        made: Its artefact.
        numbers: Of the encoder.
        evidence: The records.
        about: The dataset's card, the bank, digests, deviations and what the user asked for:
            see clsp.export.model.
    """
    import jinja2

    source = (files("clsp.export") / "card.md.jinja").read_text(encoding="utf-8")
    settings = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    template = jinja2.Environment(  # noqa: S701 - markdown; names pass through escape.markdown
        undefined=jinja2.StrictUndefined, **settings
    ).from_string(source)
    encoder, facts = run.spec.encoder, made.predicate["facts"]
    return template.render(
        metadata=_metadata(run, numbers, evidence, about["licence"], about["published"]),
        run=run,
        label=markdown(run.label),
        demonstration=DEMONSTRATION if evidence.params.demonstration else "",
        stem=STEMS[encoder.stem],
        features=features_of(encoder),
        facts=facts,
        inside=made.predicate["internalParameters"],
        code=loading_code(encoder, about["statistics"], about["card"]["size"]),
        timm=timm_note(encoder),
        recipe=json.dumps(made.spec, indent=2),
        rows=[_row(number) for number in numbers if number.protocol != CURVE],
        curve=any(number.protocol == CURVE and number.record for number in numbers),
        audited=evidence.audited,
        limits=LIMITS,
        version=__version__,
        head=evidence.ledger.head,
        **about,
    )
