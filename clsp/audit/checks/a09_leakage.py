"""Test images that something was trained on are counted, and the count is the recorded one.

Every image is hashed again and compared with its dataset's list; every training split and every
bank is compared with every test split. Duplicates themselves decide nothing, since published test
sets hold some. They are named, and their number must not be hidden. That sampled candidates of a
bank have a test image as their nearest real one more often than chance is noted.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from clsp.audit.finding import BADGE, BLOCKING, Finding
from clsp.audit.leakage import (
    Dataset,
    Pair,
    bank_digests,
    count_bank,
    count_dataset,
    open_dataset,
    pairs_wanted,
)
from clsp.audit.nearness import nearness
from clsp.audit.suite import Suite
from clsp.config.plan import bank_job, banks_needed, datasets_needed, duplicates_job, prepare_job
from clsp.runtime.canonical import read_json
from clsp.runtime.errors import ClspError
from clsp.runtime.manifest import Artefact
from clsp.runtime.progress import Progress

ID = "A09"
SEVERITY = BLOCKING
LEVEL = "L2"
NEAR = 512  # candidates per bank that are compared with real images
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, ClspError)


def _datasets(suite: Suite) -> tuple[dict[str, Dataset], list[Finding]]:
    """Every dataset that can be read, and findings about those whose list is wrong."""
    found, findings, names = {}, [], datasets_needed(suite.params)
    images = sum(len(known[0]) for name in names if (known := suite.dataset(name)))
    with Progress("hash images", images, "image") as progress:
        for name in names:
            job = prepare_job(suite.params, name)
            artefact = suite.records.current(job.stage, job.name, job.spec)
            if artefact is None:
                continue  # A01 and A05 report it
            message, told = "the list of images does not give the digests of the images", None
            try:
                found[name] = open_dataset(artefact, progress.step)
            except UNREADABLE as error:
                told = "readable images and list", str(error)
            else:
                if wrong := found[name].differing:
                    row, column = wrong[0]
                    told = f"{column} of the image in row {row}", f"another ({len(wrong)} differ)"
            if told:
                numbers = suite.dependents(job.stage, name)
                path = str(artefact.folder / "items.csv")
                findings.append(Finding(ID, BLOCKING, path, *told, message, name, numbers))
    return found, findings


def _recorded(path: Path) -> dict[Pair, dict[str, Any]]:
    """The counts on record, by kind, set and name of the tested dataset."""
    pairs = read_json(path)["pairs"]
    found = {(p["kind"], p["trained_on"], p["tested_on"].removesuffix("/test")): p for p in pairs}
    if len(found) != len(pairs):
        raise ValueError("a comparison is there twice")
    return found


def _counts(suite: Suite, datasets: dict[str, Dataset]) -> Iterator[tuple[Pair, int, int]]:
    """Every comparison that can be made: its pair, duplicates and test images."""

    @cache
    def bank(name: str) -> Any:
        job = bank_job(suite.params, name)
        artefact = suite.records.current(job.stage, job.name, job.spec)
        try:
            return artefact and bank_digests(artefact)
        except UNREADABLE:
            return None  # A02 and A10 report it

    wanted = pairs_wanted(suite.params, suite.runs)
    with Progress("compare digests", len(wanted), "comparison") as progress:
        for pair, splits in wanted.items():
            kind, trained, tested = pair
            test, name = datasets.get(tested), trained.partition("/")[0]
            progress.step()
            if test is None or (kind != "bank" and name not in datasets):
                continue
            if kind != "bank":
                count = count_dataset(datasets[name], splits, test)
            elif (drawn := bank(name)) is not None:
                count = count_bank(*drawn, test)
            else:
                continue
            yield pair, count, test.splits["test"][1] - test.splits["test"][0]


def _compare(suite: Suite, artefact: Artefact, datasets: dict[str, Dataset]) -> list[Finding]:
    path, message = artefact.folder / "duplicates.json", "the count on record is not the images'"
    try:
        recorded = _recorded(path)
    except UNREADABLE as error:
        told = ("readable counts", str(error), "the counts cannot be compared")
        return [Finding(ID, BLOCKING, str(path), *told)]
    findings = []
    for pair, count, images in _counts(suite, datasets):
        kind, trained, tested = pair
        about = f"{trained} and {tested}/test"
        record = recorded.get(pair, {})
        found = record.get("duplicates"), record.get("images")
        if found != (count, images):
            told = (f"{count} of {images}", "{} of {}".format(*found), message)
            findings.append(Finding(ID, BLOCKING, str(path), *told, about))
        if count:
            told = ("no test image that was trained on", f"{count} of {images}")
            said = f"test images are exact duplicates of images of a {kind} that is trained on"
            findings.append(Finding(ID, BADGE, str(path), *told, said, about))
    if strange := sorted(recorded.keys() - pairs_wanted(suite.params, suite.runs).keys()):
        told = ("comparisons that params.yaml asks for", " ".join(strange[0]), message)
        findings.append(Finding(ID, BLOCKING, str(path), *told))
    return findings


def _near(suite: Suite, bank: str) -> Finding | None:
    """A note where candidates have test images as their nearest ones more often than chance."""
    jobs = bank_job(suite.params, bank), prepare_job(suite.params, suite.params.banks[bank].dataset)
    artefacts = [suite.records.current(job.stage, job.name, job.spec) for job in jobs]
    known = suite.dataset(suite.params.banks[bank].dataset)
    if None in artefacts or known is None:
        return None  # A01, A02 and A05 report it
    try:
        drawn, images = (
            np.load(artefact.folder / "images.npy", mmap_mode="r", allow_pickle=False)
            for artefact in artefacts
        )
        splits = known[1]["splits"]
        count, total = drawn.shape[1], drawn.shape[0] * drawn.shape[1]
        draw = suite.chosen("nearness", bank)
        chosen = np.sort(draw.choice(total, min(NEAR, total), replace=False))
        candidates = np.stack([drawn[n // count, n % count] for n in chosen])
        train, test = (images[slice(*splits[name])] for name in ("train", "test"))
        found = nearness(candidates, train, test)
    except UNREADABLE:
        return None  # encoded images, or files that A02 and A10 report
    if not found.striking:
        return None
    told = (
        f"about {found.chance:.1%} of candidates nearest to a test image, or fewer",
        f"{found.nearer} of {found.candidates}",
        "candidates look like test images more often than chance",
    )
    return Finding(ID, BADGE, str(artefacts[0].folder / "images.npy"), *told, bank)


def check(suite: Suite) -> list[Finding]:
    """Hash all images again and compare all counts."""
    datasets, findings = _datasets(suite)
    job = duplicates_job(suite.params)
    artefact = suite.records.current(job.stage, job.name, job.spec)
    if artefact is not None:  # if not, A01 or A05 reports it
        findings += _compare(suite, artefact, datasets)
    near = [_near(suite, bank) for bank in banks_needed(suite.params)]
    return findings + [finding for finding in near if finding]
