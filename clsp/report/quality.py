"""Quality figures of banks as tables, figures and the page show them: one row per bank.

In the frame a number of a bank stands beside those of runs: `run` is the bank, `encoder` the
network that judged it, `task` and `metric` what was measured, `variant` how many candidates.
"""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from clsp.config.labels import ENDING, MARK
from clsp.config.measured import bank_label, bank_uses_labels, line_of, measured_banks
from clsp.config.plan import quality_job
from clsp.config.quality import PROTOCOL, metrics_of
from clsp.config.schema import Params
from clsp.config.variation import number
from clsp.report.records import Records
from clsp.runtime.manifest import Artefact

Row = dict[str, Any]
Name = tuple[str, str, str]  # dataset, network and label: what names a row of the table
TITLES = {
    "fid": "FID",
    "frechet_distance": "Frechet distance",
    "own_cosine": "cosine, own anchor",
    "random_cosine": "cosine, random anchor",
    "nearer_cosine": "nearer to own, %",
    "own_mse": "MSE, own anchor",
    "random_mse": "MSE, random anchor",
    "nearer_mse": "nearer to own in pixels, %",
    "diversity_cosine": "diversity, 1 − cosine",
    "diversity_mse": "diversity, MSE",
    "nearest_own_feature": "nearest image is own, %",
    "distance_ratio_feature": "distance ratio",
    "near_copies_feature": "near copies",
    "copies_of_others_feature": "near copies of others",
    "nearest_own_pixel": "nearest image is own in pixels, %",
    "distance_ratio_pixel": "distance ratio in pixels",
    "near_copies_pixel": "near copies in pixels",
    "copies_of_others_pixel": "near copies of others in pixels",
    "label_agreement": "label agreement, %",
    "anchor_accuracy": "probe on anchors, %",
}
SHARING = "share_anchor_noise"
COMPARED = ("own_cosine", "own_mse", "diversity_cosine", "diversity_mse")
UNITS = {"%": "share", "near copies": "count"}  # by a word of the title; others are plain numbers


def variant_of(k: int) -> str:
    """Variant of the numbers of the first k candidates."""
    return f"k={k}"


def row_name(params: Params, bank: str) -> Name:
    """Dataset, network and label of a bank's row."""
    return params.banks[bank].dataset, params.quality.network, bank_label(params, bank)


def bank_rows(params: Params) -> dict[Name, str]:
    """The bank behind every row of the quality table."""
    return {row_name(params, bank): bank for bank in measured_banks(params)}


def bank_numbers(params: Params) -> Iterator[tuple[str, str, str, str]]:
    """Bank, metric, protocol and variant of every number that params.yaml asks for."""
    for bank in measured_banks(params):
        for k in params.quality.candidates:
            for metric in metrics_of(params.quality, k):
                yield bank, metric, PROTOCOL, variant_of(k)


def current_quality(params: Params, records: Records, bank: str) -> Artefact | None:
    """The measurement of a bank that params.yaml asks for now, if it is there."""
    job = quality_job(params, bank)
    return records.current(job.stage, job.name, job.spec)


def images_text(artefact: Artefact, k: int) -> str:
    """How many images went in, as one text."""
    for entry in artefact.predicate["facts"].get("quality", []):
        if entry["k"] == k:
            counts = entry["images"]
            text = f"{counts['candidates']} candidates, {counts['training']} training images"
            return f"{text}, too few for a covariance of full rank" if entry["singular"] else text
    return ""


def weights_text(artefact: Artefact) -> str:
    """Name and digest of the network that measured a bank."""
    network = artefact.predicate["facts"].get("network", {})
    text = f"{network.get('name')} sha256:{network.get('weights_sha256')}"
    if "reference_weights" not in network:
        return text
    known = "the file" if network["reference_weights"] else "not the file"
    return f"{text} ({known} that torch-fidelity and pytorch-fid publish)"


def quality_rows(params: Params, records: Records) -> Iterator[tuple[Row, Artefact | None]]:
    """One row of the frame per expected number, with the artefact that holds it, if one does."""
    measured = measured_banks(params)
    names = {bank: row_name(params, bank) for bank in measured}
    artefacts = {bank: current_quality(params, records, bank) for bank in measured}
    for bank, metric, protocol, variant in bank_numbers(params):
        (dataset, network, label), artefact = names[bank], artefacts[bank]
        value = (
            artefact.metrics.get(f"quality/{variant.replace('=', '')}/{metric}")
            if artefact
            else None
        )
        used = "yes" if bank_uses_labels(params, bank) else "no"
        row = {
            "run": bank,
            "label": label,
            "dataset": dataset,
            "encoder": network,
            "method": "",
            "positives": "",
            "variation": "",
            "recipe": "",
            "uses_labels": used,
            "checkpoint": weights_text(artefact) if artefact and value is not None else "",
            "task": metric,
            "protocol": protocol,
            "variant": variant,
            "metric": metric,
            "value": value,
            "images": images_text(artefact, int(variant[2:])) if value is not None else "",
        }
        yield row, artefact if value is not None else None


def quality_notes(params: Params, frame: pd.DataFrame) -> list[str]:
    """What is below the quality table and, in part, in captions."""
    quality = params.quality
    notes = [network_note(params)]
    distances = frame[(frame["metric"] == quality.distance) & (frame["value"].notna())]
    for images, rows in distances.groupby("images", sort=False):
        notes.append(
            f"{TITLES[quality.distance]} of {images}: {', '.join(rows['run'])}. Its bias falls "
            "with the number of images, so that values of other numbers are not comparable."
        )
    for weights in frame.loc[frame["checkpoint"] != "", "checkpoint"].unique():
        notes.append(f"Weights: {weights}.")
    notes += [
        "Cosines are of features, MSE of pixels in [0, 1]. Random anchor: another training image "
        "drawn at random. Diversity: between two candidates of one anchor.",
        "Nearest image: among all training images, by the angle between features and by pixels. "
        "Distance ratio: median of the distance to it over its distance to its own nearest other "
        f"training image. Near copy: a ratio below {quality.near_copy:.12g}, or an exact copy. A "
        "candidate is drawn to resemble its anchor, so that near copies of the anchor show how far "
        "it strays; near copies of others show what the denoiser has memorised.",
    ]
    if quality.label_agreement:
        notes.append(
            "Label agreement: share of candidates in which a linear probe, trained on the labelled "
            "training images, sees the class of the anchor; probe on anchors: its accuracy on the "
            "anchors themselves, on which it was trained. Labels are read for this analysis alone."
        )
    return [*notes, *sharing_notes(params, frame), *label_notes(params)]


def sharing_notes(params: Params, frame: pd.DataFrame) -> list[str]:
    """What shared anchor noise changes, for every two banks that differ in nothing else."""
    known = frame[frame["value"].notna()].set_index(["run", "metric"])["value"].to_dict()
    measured, notes = measured_banks(params), []
    for shared in measured:
        if not params.banks[shared].options.get(SHARING):
            continue
        for own in line_of(params, shared, SHARING, measured, [False]):
            parts = [
                f"{TITLES[name]} {number(round(float(known[own, name]), 4))} → "
                f"{number(round(float(known[shared, name]), 4))}"
                for name in (params.quality.distance, *COMPARED)
                if (own, name) in known and (shared, name) in known
            ]
            if parts:
                notes.append(f"Shared anchor noise, {own} → {shared}: {', '.join(parts)}.")
    return notes


def network_note(params: Params) -> str:
    """Which network every number is about."""
    quality = params.quality
    if quality.inception is None:
        labelled = " It was trained with labels." if quality.network.endswith(ENDING) else ""
        return (
            f"Features: backbone of the encoder {quality.network}. Distances on them are Frechet "
            f"distances, not FID, and comparable under this encoder alone.{labelled}"
        )
    return (
        f"Features: the 2048 of {quality.network}, weights from the file {quality.inception.path}."
    )


def label_notes(params: Params) -> list[str]:
    """That candidates of some bank were drawn with labels; nothing if none were."""
    used = [bank for bank in measured_banks(params) if bank_uses_labels(params, bank)]
    if not used:
        return []
    return [f'Drawn with labels of the training images ("{MARK.strip()}"): {", ".join(used)}.']
