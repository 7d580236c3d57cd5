"""Stage import-encoder: an encoder that was pretrained elsewhere, as one of the suite's own."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from clsp.config.foreign import ImportedEncoderSpec
from clsp.config.recipe import Normalisation
from clsp.data.prepared import open_prepared
from clsp.models.encoder import Encoder, save_encoder
from clsp.runtime.checkpoint import tensors_sha256
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.foreign import Foreign, compare_names, load_foreign, without_prefix
from clsp.runtime.stage import Files, Input, Outcome, Output

HEADS = {  # what is dropped by name: torchvision's classifier, the authors' head in its place
    "torchvision": re.compile(r"fc\.(weight|bias)"),
    "clsp": re.compile(r"fc\.(\d+\.)?(weight|bias)"),
}
COUNTS = "num_batches_tracked"  # of batch norm; files from before PyTorch 0.4.1 have none


def _encoder_of(foreign: Foreign, spec: ImportedEncoderSpec) -> tuple[Encoder, list[str]]:
    """The encoder with the file's weights, and the names that were left out."""
    tensors = without_prefix(foreign.path, foreign.tensors)
    dropped = [name for name in sorted(tensors) if HEADS[spec.format].fullmatch(name)]
    kept = {name: tensor for name, tensor in tensors.items() if name not in dropped}
    encoder = Encoder(spec.encoder)
    expected = encoder.state_dict()
    if not any(name.endswith(COUNTS) for name in kept):  # eval mode never looks at them
        kept |= {name: torch.zeros_like(t) for name, t in expected.items() if name.endswith(COUNTS)}
    what = (
        f"a {spec.encoder.architecture} of width {spec.encoder.width} with the stem "
        f"{spec.encoder.stem}"
    )
    compare_names(foreign.path, kept, expected, what)
    _check_variances(foreign, kept)
    encoder.load_state_dict({n: t.to(expected[n].dtype) for n, t in kept.items()})
    return encoder, dropped


def _check_variances(foreign: Foreign, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise DataError(f'{foreign.path}: "{name}" holds a negative variance')


def import_encoder(
    spec: ImportedEncoderSpec, foreign: Files, dataset: Input, encoder: Output
) -> Outcome:
    """Read the encoder of a foreign checkpoint.

    Args:
        spec: What the file is said to hold.
        foreign: The file: safetensors or a zip file of torch.save; see clsp/runtime/foreign.py.
        dataset: That it was pretrained on; its card gives the statistics of the inputs where the
            spec gives none.
        encoder: As a pretraining run writes it, head left out.

    Raises:
        ConfigError: If the file or dataset is not the spec's.
        DataError: If the file is none that is read, or holds another network.
    """
    if [str(path) for path in foreign] != [spec.path]:
        raise ConfigError(f"--foreign {' '.join(map(str, foreign))}: expected {spec.path}")
    prepared = open_prepared(dataset)
    if dataset.folder.name != spec.dataset:
        raise ConfigError(f"--dataset {dataset.folder.name}: expected {spec.dataset}")
    statistics = spec.normalisation or Normalisation(
        mean=tuple(prepared.mean), std=tuple(prepared.std)
    )
    read = load_foreign(foreign[0], spec.sha256)
    network, dropped = _encoder_of(read, spec)
    save_encoder(encoder, network, spec.encoder, statistics)
    facts = {
        "source": read.facts(),
        "format": spec.format,
        "architecture": spec.encoder.canonical(),
        "dropped": dropped,
        "tensors_sha256": tensors_sha256(network.state_dict()),
        "uses_labels": spec.uses_labels,  # as params.yaml says; no file shows it
        "label_free": not spec.uses_labels,
        "normalisation": statistics.canonical(),
    }
    counters = {"parameters": sum(p.numel() for p in network.parameters())}
    return Outcome({}, counters, facts)
