"""Single candidates of a bank once more, in batches of their own."""

from typing import Any

import numpy as np

from clsp.config.schema import GENERATORS, BankSpec
from clsp.config.strict import parse
from clsp.models.denoiser import load_denoiser
from clsp.runtime.device import resolve
from clsp.runtime.errors import ConfigError
from clsp.runtime.machine import describe_machine
from clsp.runtime.manifest import Artefact
from clsp.runtime.registry import load
from clsp.synthesis.network import Network, images_at_once
from clsp.synthesis.shard import check_fit, request_of
from clsp.synthesis.storage import open_anchors


def draw_candidates(
    shard: Artefact, denoiser: Artefact, dataset: Artefact, pairs: np.ndarray, threads: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """Draw candidates of a bank again, as its generator draws them.

    Code is not compiled, whatever the settings say: it is for a few images.

    Args:
        shard: Any shard of the bank; gives the settings.
        denoiser: That draws.
        dataset: Of the anchors.
        pairs: Rows (anchor, candidate), int64 (P, 2).
        threads: That torch computes with, for the record.

    Returns:
        uint8 (P, H, W, 3), and the device and machine they were drawn on.

    Raises:
        ConfigError: If a pair does not exist.
        DataError: If artefacts are damaged or do not fit.
    """
    spec, device = parse(BankSpec, shard.spec, f"{shard.manifest}"), resolve()
    settings = spec.settings().model_copy(update={"compile": False})
    prepared, loaded = open_anchors(dataset, settings.uses_labels), load_denoiser(denoiser, device)
    check_fit(spec, loaded, prepared, denoiser.folder)
    anchors = len(prepared.split("train").images)
    limits = np.array([anchors, spec.candidates])
    if pairs.ndim != 2 or pairs.shape[1] != 2 or (pairs < 0).any() or (pairs >= limits).any():
        raise ConfigError(f"--pairs: expected rows below {limits.tolist()}, found {pairs.shape}")
    generator, network = load(GENERATORS, spec.generator, "generator"), Network(loaded, settings)
    numbers, drawn = pairs[:, 0] * spec.candidates + pairs[:, 1], []
    step = images_at_once(settings, loaded.size, device)
    for low in range(0, len(numbers), step):
        request = request_of(numbers[low : low + step], 0, spec, prepared, device)
        drawn.append(generator.generate(network, request, settings).cpu().numpy())
    return np.concatenate(drawn), {"device": device.type, "machine": describe_machine(threads)}
