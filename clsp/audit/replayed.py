"""What was computed again in this audit: which runs and banks are chosen, and the answers, once."""

from typing import Any

import numpy as np

from clsp.audit.suite import Suite
from clsp.config.grid import Run
from clsp.config.plan import (
    bank_job,
    banks_needed,
    denoiser_job,
    fetch_job,
    is_fetched,
    pairs_job,
    prepare_job,
    pretrain_job,
    shard_job,
)
from clsp.runtime.errors import ClspError
from clsp.runtime.manifest import Artefact


def chosen_runs(suite: Suite) -> list[Run]:
    """Runs whose first steps are repeated; drawn by the nonce where there are more than asked."""
    if not suite.depth.replays:
        return []
    runs = [run for run, _ in suite.trainings]
    order = suite.chosen("runs").permutation(len(runs))[: suite.depth.runs]
    return [runs[number] for number in sorted(order)]


def _current(suite: Suite, job: Any) -> Artefact | None:
    return suite.records.current(job.stage, job.name, job.spec)


def inputs_of(suite: Suite, run: Run) -> list[Artefact] | None:
    """Dataset and bank or pairs of a run; None if one is not there."""
    spec, jobs = run.spec, [prepare_job(suite.params, run.spec.dataset)]
    jobs += [bank_job(suite.params, spec.bank)] if spec.bank else []
    jobs += [pairs_job(suite.params, spec.pairs)] if spec.pairs else []
    found = [_current(suite, job) for job in jobs]
    return None if None in found else found


def first_steps(suite: Suite, run: Run) -> dict[str, Any] | str | None:
    """The answer of the replayer for a run, or why there is none.

    Returns:
        See `Replayer.training`; a message where it cannot be done; None where it was not chosen or
        an artefact is missing.
    """
    if run.slug not in {chosen.slug for chosen in chosen_runs(suite)}:
        return None
    answers = suite.depth.answers
    if run.slug not in answers:
        answers[run.slug] = _ask(suite, run)
    return answers[run.slug]


def _ask(suite: Suite, run: Run) -> dict[str, Any] | str | None:
    artefact, inputs = _current(suite, pretrain_job(run)), inputs_of(suite, run)
    if artefact is None or inputs is None:
        return None  # A01 reports it
    seed = int(suite.chosen("labels", run.slug).integers(1 << 31))
    try:
        for each in (artefact, *inputs):
            each.verify()  # what was changed is not computed with; A02 reports it
        return suite.depth.replayer.training(artefact, inputs, seed)
    except ClspError as error:
        return str(error)


def chosen_banks(suite: Suite) -> list[str]:
    """Banks of which candidates are drawn again."""
    return banks_needed(suite.params) if suite.depth.replays else []


def drawn_again(
    suite: Suite, bank: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]] | str | None:
    """Candidates of a bank: what is stored, and what drawing them again gives.

    Returns:
        Pairs (P, 2), stored and fresh images (P, H, W, 3), and what they were drawn on; a message
        where it cannot be done; None where an artefact is missing.
    """
    gathered = _current(suite, bank_job(suite.params, bank))
    shards = suite.made(shard_job(suite.params, bank))
    spec = suite.params.banks[bank]
    denoiser = _current(suite, denoiser_job(suite.params, spec.denoiser))
    dataset = _current(suite, prepare_job(suite.params, spec.dataset))
    if gathered is None or not shards or denoiser is None or dataset is None:
        return None
    try:
        images = np.load(gathered.folder / "images.npy", mmap_mode="r", allow_pickle=False)
        count, candidates = images.shape[:2]
        total = min(suite.depth.samples, count * candidates)
        numbers = suite.chosen("candidates", bank).choice(count * candidates, total, replace=False)
        pairs = np.stack([numbers // candidates, numbers % candidates], axis=1).astype(np.int64)
        stored = np.stack([images[anchor, candidate] for anchor, candidate in pairs])
        for each in (denoiser, dataset):
            each.verify()
        fresh, facts = suite.depth.replayer.candidates(shards[0], denoiser, dataset, pairs)
    except ClspError as error:
        return str(error)
    except (OSError, ValueError, IndexError) as error:
        return f"the bank cannot be read ({error})"
    return pairs, stored, np.asarray(fresh), facts


def prepared_name(dataset: str) -> str:
    """How a dataset that was prepared again is listed beside runs and banks."""
    return f"dataset {dataset}"


def prepared_again(suite: Suite, name: str) -> dict[str, Any] | str | None:
    """The answer of the replayer for a dataset, or why there is none.

    Returns:
        See `Replayer.dataset`; a message where it cannot be done; None where nothing is computed
        again or an artefact is missing.
    """
    dataset, raw = _current(suite, prepare_job(suite.params, name)), []
    if not suite.depth.replays or dataset is None:
        return None
    if is_fetched(suite.params, name):
        fetched = _current(suite, fetch_job(suite.params, name))
        if fetched is None:
            return None  # A01 reports it
        raw.append(fetched)
    try:
        return suite.depth.replayer.dataset(dataset, raw)
    except ClspError as error:
        return str(error)
