"""A whole run once more, in a scratch folder, and its files compared with the stored ones (L4)."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from clsp.config.schema import RunSpec
from clsp.config.strict import parse
from clsp.pretrain.run import pretrain_encoder
from clsp.replay.training import sort_inputs
from clsp.runtime.canonical import sha256_file, sha256_json
from clsp.runtime.checkpoint import load_tensors, tensors_sha256
from clsp.runtime.machine import describe_machine, hardware_class
from clsp.runtime.manifest import Artefact

OUTPUTS = {
    "encoder": "encoder.safetensors",
    "start": "checkpoints/start.safetensors",
    "middle": "checkpoints/middle.safetensors",
    "final": "checkpoints/final.safetensors",
    "history": "history.jsonl",
}


def _content(path: Path) -> str:
    """Digest of what a file holds. Safetensors writes its metadata in no fixed order."""
    if path.suffix != ".safetensors":
        return sha256_file(path)
    tensors, metadata = load_tensors(path)
    return sha256_json([tensors_sha256(tensors), metadata])


def rerun(run: Artefact, inputs: Sequence[Artefact], folder: Path | None) -> tuple[bool, list[str]]:
    """Repeat a whole run and compare every file.

    Args:
        run: Of pretrain-encoder.
        inputs: Its dataset, and its bank or pairs.
        folder: Where it is made, and kept; None: in a temporary folder.

    Raises:
        DataError: If a stored file is not the one that the manifest names.

    Returns:
        Whether all files are equal, and a line for each of them and for the machine.
    """
    run.verify()
    recorded = run.predicate["internalParameters"]
    threads = int(recorded.get("threads") or 1)
    torch.set_num_threads(threads)
    spec, (dataset, given) = parse(RunSpec, run.spec, f"{run.manifest}"), sort_inputs(inputs)
    with tempfile.TemporaryDirectory(prefix="clsp-rerun-") as temporary:
        home = folder or Path(temporary)
        made = {flag: home / name for flag, name in OUTPUTS.items()}
        made["encoder"].parent.mkdir(parents=True, exist_ok=True)
        pretrain_encoder(spec, dataset, **given, **made, scratch=home / "scratch")
        digests = {name: _content(home / name) for name in OUTPUTS.values()}
    lines, equal = [], True
    for name, found in digests.items():
        stored = _content(run.folder / name)
        equal &= found == stored
        word = "equal" if found == stored else f"differs: {found[:16]}, stored {stored[:16]}"
        lines.append(f"{name}: {word}")
    now = describe_machine(threads)
    for about, then, here in (
        ("hardware", hardware_class(recorded), hardware_class(now)),
        ("torch", recorded.get("versions", {}).get("torch"), now["versions"].get("torch")),
    ):
        if then != here:
            lines.append(f"{about} is {here}, then it was {then}: bits need not be equal")
    return equal, lines
