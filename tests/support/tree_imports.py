"""The imported part of the tiny results tree: a denoiser and two encoders, from
files beside it."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from injecting import Tree, edit_statement, fault, forge_ledger
from safetensors.numpy import load, save
from tree_params import PARAMS
from tree_results import stream

from clsp.config.foreign import Imported
from clsp.config.plan import Job, denoiser_job, import_job
from clsp.config.schema import Params
from clsp.runtime.manifest import Artefact, read_manifest, write_manifest

UNET, ENCODER, LABELLED = "foreign/unet.pt", "foreign/encoder.pt", "foreign/supcon.safetensors"
SLUG, MARKED = "theirs", "supcon.labels"


def _content(path: str) -> bytes:
    return f"bytes of {path}".encode()


def _sha256(path: str) -> str:
    return hashlib.sha256(_content(path)).hexdigest()


_ENTRY = {"dataset": "digits", "encoder": "tiny"}
IMPORTED: dict[str, Any] = {  # changes: the bank's denoiser and two encoders come from files
    "denoisers": {
        "digits": {
            "dataset": "digits",
            "format": "clsp",
            "path": UNET,
            "train_timesteps": 10,
            "beta_start": 0.0001,
            "beta_end": 0.02,
        }
    },
    "imported": {
        "theirs": {
            **_ENTRY,
            "label": "SimCLR (theirs)",
            "format": "clsp",
            "path": ENCODER,
            "sha256": _sha256(ENCODER),
            "epochs": 1000,
            "uses_labels": False,
        },
        "supcon": {
            **_ENTRY,
            "label": "SupCon (theirs)",
            "format": "torchvision",
            "path": LABELLED,
            "uses_labels": True,
        },
    },
    "runs": {"main": {**PARAMS["runs"]["main"], "seed": [0, 1]}},
    "comparison": {"recipes": "single", "labels": "marked"},
}


def _digest(tensors: dict[str, np.ndarray]) -> str:
    """Spelled out once more: names in order, little-endian types, shapes, bytes."""
    total = hashlib.sha256()
    for name, values in sorted(tensors.items()):
        total.update(f"{name}|{values.dtype.str}|{values.shape}|".encode() + values.tobytes())
    return total.hexdigest()


class Importing:
    """Writes what is imported; the part of TreeBuilder that knows foreign files."""

    base: Path
    params: Params
    write: Callable[..., Artefact]  # one artefact; TreeBuilder's

    def _import(
        self, job: Job, folder: str, files: dict[str, Any], dataset: Artefact, facts: dict[str, Any]
    ) -> Artefact:
        path = job.spec["path"]
        (self.base / path).parent.mkdir(exist_ok=True)
        (self.base / path).write_bytes(_content(path))
        source = {"path": path, "sha256": _sha256(path), "size": len(_content(path))}
        facts = {"source": source, "format": job.spec["format"], "dropped": ["fc.weight"], **facts}
        made = self.write(job, folder, files, [dataset], facts=facts)
        predicate = made.predicate
        read = {"name": f"foreign/{Path(path).name}", "uri": path}
        read["digest"] = {"sha256": source["sha256"]}
        inputs = [*predicate.pop("resolvedDependencies"), read]
        predicate.pop("schema_version")
        outputs = {name: made.folder / name for name in made.subjects}
        final = write_manifest(made.manifest, outputs, inputs, predicate)
        forge_ledger(final.manifest)  # the attempt ended with this manifest
        return final

    def imported_denoiser(self, name: str, dataset: Artefact) -> Artefact:
        """An imported denoiser of one tensor."""
        tensors = {"conv_in.weight": stream("unet").normal(size=(2, 3)).astype(np.float32)}
        files = {
            "model_index.json": "{}\n",
            "unet/config.json": "{}\n",
            "unet/diffusion_pytorch_model.safetensors": save(tensors),
            "scheduler/scheduler_config.json": "{}\n",
        }
        facts = {"tensors_sha256": {"imported": _digest(tensors)}, "label_conditioned": False}
        job = denoiser_job(self.params, name)
        return self._import(job, f"denoisers/{name}", files, dataset, facts)

    def imported_encoder(self, imported: Imported, dataset: Artefact) -> Artefact:
        """An imported encoder of one tensor."""
        tensors = {"conv1.weight": stream(imported.slug).normal(size=(4,)).astype(np.float32)}
        used = imported.spec.uses_labels
        facts = {"tensors_sha256": _digest(tensors), "uses_labels": used, "label_free": not used}
        files = {"encoder.safetensors": save(tensors)}
        job = import_job(imported)
        return self._import(job, f"imported/{imported.slug}", files, dataset, facts)


def _facts(tree: Tree, folder: str, **changes: Any) -> None:
    edit_statement(tree.results / folder / "manifest.json", lambda p: p["facts"].update(changes))


def _edit_tensor(path: Path) -> None:
    tensors = load(path.read_bytes())
    name = next(iter(tensors))
    path.write_bytes(save({name: tensors[name] + 1}))


@fault("A02", "A44", within="imported")
def imported_encoder_edited(tree: Tree) -> None:
    _edit_tensor(tree.results / f"imported/{SLUG}/encoder.safetensors")


@fault("A22", "A24", "A44", within="imported")
def imported_denoiser_edited_with_its_manifest(tree: Tree) -> None:
    folder = tree.results / "denoisers/digits"
    _edit_tensor(folder / "unet/diffusion_pytorch_model.safetensors")
    edit_statement(folder / "manifest.json", lambda _: None)


@fault("A22", "A44", within="imported")
def imported_from_another_file(tree: Tree) -> None:
    """The record names another file than the pinned one."""
    made = read_manifest(tree.results / f"imported/{SLUG}/manifest.json")
    source = {**made.predicate["facts"]["source"], "sha256": "0" * 64}
    _facts(tree, f"imported/{SLUG}", source=source)


@fault("A22", "A44", within="imported")
def imported_from_nowhere(tree: Tree) -> None:
    """The record says nothing of the file."""
    _facts(tree, f"imported/{SLUG}", source={})


@fault("A22", "A44", within="imported")
def imported_labels_denied(tree: Tree) -> None:
    _facts(tree, f"imported/{MARKED}", uses_labels=False, label_free=True)


@fault("A22", "A44", within="imported")
def imported_denoiser_with_labels(tree: Tree) -> None:
    _facts(tree, "denoisers/digits", label_conditioned=True)


@fault("A22", "A24", within="imported")
def features_of_another_import(tree: Tree) -> None:
    """The features of one imported encoder were made with the other."""
    donor = read_manifest(tree.results / f"features/{MARKED}/manifest.json")
    edit_statement(
        tree.results / f"features/{SLUG}/manifest.json",
        lambda p: p.update(resolvedDependencies=donor.predicate["resolvedDependencies"]),
    )


@fault("A01", "A22", "A24", within="imported")
def imported_encoder_missing(tree: Tree) -> None:
    for name in ("encoder.safetensors", "manifest.json"):
        (tree.results / f"imported/{SLUG}/{name}").unlink()


@fault("A19", "A21", "A22", within="imported")
def epoch_of_an_import_edited(tree: Tree) -> None:
    """The record of its probe claims fewer epochs than params.yaml says of it."""

    def change(predicate: dict[str, Any]) -> None:
        predicate["facts"]["results"][0]["epoch"] = 5

    edit_statement(tree.results / f"probes/{SLUG}/manifest.json", change)
