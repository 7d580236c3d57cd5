"""A complete, tiny and consistent results tree with real manifests, made without torch.

One method, two sources of positives, three seeds, one transfer dataset; more by request. Numbers are drawn; records agree.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clsp.config.grid import Run, expand_runs
from clsp.config.labels import spec_uses_labels
from clsp.config.load import load_params
from clsp.config.plan import (
    Job,
    bank_job,
    banks_needed,
    denoiser_job,
    pairs_job,
    prepare_job,
    pretrain_job,
    probe_job,
    report_job,
    report_params,
    shard_job,
    transfer_job,
)
from clsp.config.schema import Params
from clsp.job import Call, run
from clsp.report.collect import collect_results
from clsp.report.figure import render_figure
from clsp.report.page import render_report
from clsp.report.table import render_table
from clsp.runtime.canonical import canonical_json, sha256_array, sha256_text
from clsp.runtime.manifest import Artefact, write_manifest
from clsp.runtime.tracking import MIRRORED

REPO = Path(__file__).parents[2]
SIDE, CLASSES, TRAIN, TEST, CANDIDATES = 4, 3, 12, 9, 2
NEIGHBOURS, THRESHOLD = 3, 0.2

PARAMS: dict[str, Any] = {
    "profile": "tiny",
    "demonstration": True,
    "device": "auto",
    "tracking": False,
    "shards": 2,
    "datasets": {
        "digits": {"kind": "digits", "size": SIDE, "test_fraction": 0.25, "seed": 0},
        "target-mini": {"kind": "digits", "size": SIDE, "test_fraction": 0.5, "seed": 1},
    },
    "denoisers": {
        "digits": {
            "dataset": "digits",
            "channels": [8],
            "attention": [False],
            "layers_per_block": 1,
            "norm_groups": 4,
            "dropout": 0.0,
            "train_timesteps": 10,
            "beta_start": 0.0001,
            "beta_end": 0.02,
            "epochs": 1,
            "batch_size": 4,
            "learning_rate": 0.001,
            "warmup_steps": 0,
            "gradient_clip": 1.0,
            "ema_decay": 0.9,
            "flip": 0.0,
            "seed": 0,
        }
    },
    "banks": {
        "digits.mix": {
            "generator": "interpolate",
            "denoiser": "digits",
            "dataset": "digits",
            "candidates": CANDIDATES,
            "interpolation_weight": 0.1,
            "steps": 2,
            "eta": 0.1,
            "rounding": "nearest",
            "batch_size": 4,
            "seed": 0,
        }
    },
    "encoders": {"tiny": {"architecture": "resnet18", "stem": "small", "width": 8}},
    "recipes": {
        "short": {
            "family": "tiny",
            "epochs": 2,
            "batch_size": 4,
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "learning_rate_scaling": "none",
            "momentum": 0.9,
            "weight_decay": 0.0001,
            "weight_decay_on": "all",
            "schedule": "epoch",
            "warmup_epochs": 1,
            "warmup_start": 0.001,
            "views": {
                "crop_scale": [0.4, 1.0],
                "crop_ratio": [0.75, 1.25],
                "interpolation": "bilinear",
                "flip": 0.0,
                "jitter": {
                    "probability": 0.8,
                    "brightness": 0.4,
                    "contrast": 0.4,
                    "saturation": 0.4,
                    "hue": 0.1,
                },
                "grayscale": 0.2,
                "solarize": 0.0,
            },
        }
    },
    "methods": {
        "simclr": {
            "label": "SimCLR",
            "recipe": "short",
            "alignment_weight": 1.0,
            "temperature": 0.2,
            "hidden": 8,
            "projection": 4,
            "forward": "joint",
        }
    },
    "positives": {
        "none": {"label": "{method}"},
        "synthetic": {"source": "bank", "label": "CLSP-{method}", "bank": "{dataset}.mix"},
    },
    "runs": {
        "main": {
            "dataset": ["digits"],
            "encoder": ["tiny"],
            "method": ["simclr"],
            "positives": ["none", "synthetic"],
            "seed": [0, 1, 2],
        }
    },
    "comparison": {"recipes": "single", "labels": "refused"},
    "overrides": [],
    "evaluation": {
        "seed": 0,
        "linear": {
            "epochs": 5,
            "batch_size": 4,
            "learning_rate": 1.0,
            "momentum": 0.0,
            "weight_decay": 0.0,
            "milestones": [3],
            "decay": 0.1,
            "flip": False,
        },
        "knn": {"k": 3, "temperature": 0.07, "best_of": [1, 3]},
        "transfer": {
            "datasets": ["target-mini"],
            "logistic": {
                "low": -2,
                "high": 2,
                "count": 3,
                "max_iterations": 10,
                "tolerance": 0.0001,
                "validation_fraction": 0.2,
                "seed": 0,
            },
        },
    },
    "tables": ["main", "transfer"],
    "figures": ["curves", "candidates", "tsne"],
}

ALONG = {"dataset": ["digits"], "encoder": ["tiny"], "method": ["simclr"], "seed": [0, 1, 2]}
ABLATIONS = ("ablation_alignment", "ablation_candidates", "ablation_interpolation")
ABLATED: dict[str, Any] = {  # changes that add a grid for each ablation, its table and its figure
    "runs": {
        **PARAMS["runs"],
        "alignment": {**ALONG, "positives": ["synthetic"], "alignment_weight": [1.0, 0, 0.5]},
        "candidates": {**ALONG, "positives": ["synthetic"], "candidates": [1, 2]},
        "interpolation": {**ALONG, "positives": ["synthetic"], "interpolation_weight": [0.1, 0.5]},
    },
    "tables": [*PARAMS["tables"], *ABLATIONS],
    "figures": [*PARAMS["figures"], *ABLATIONS],
}
PAIRED: dict[str, Any] = {  # changes that add runs on pairs, which the first run judges
    "positives": {
        **PARAMS["positives"],
        "semantic": {
            "source": "semantic_pairs",
            "label": "SePP-{method}",
            "pairs": "{dataset}.near",
        },
    },
    "pairs": {
        "digits.near": {
            "dataset": "digits",
            "run": "digits.tiny.simclr.none.s0",
            "neighbours": NEIGHBOURS,
            "threshold": THRESHOLD,
        }
    },
    "runs": {**PARAMS["runs"], "semantic": {**ALONG, "positives": ["semantic"]}},
}
SUPCON: dict[str, Any] = {
    "label": "SupCon",
    "recipe": "other",
    "alignment_weight": 1.0,
    "form": "mean_outside_log",
    "temperature": 0.2,
    "hidden": 8,
    "projection": 4,
    "forward": "joint",
}
JUDGE = "digits.tiny.supcon.none.s0.labels"
LABELLED: dict[str, Any] = {  # a run with labels, by another recipe, judges the pairs
    "recipes": {**PARAMS["recipes"], "other": {**PARAMS["recipes"]["short"], "family": "another"}},
    "methods": {**PARAMS["methods"], "supcon": SUPCON},
    "positives": PAIRED["positives"],
    "pairs": {"digits.near": {**PAIRED["pairs"]["digits.near"], "run": JUDGE}},
    "runs": {
        "supervision": {**ALONG, "method": ["supcon"], "positives": ["none"]},
        **PAIRED["runs"],
    },
    "comparison": {"recipes": "mixed", "labels": "marked"},
}


def tiny_params(**changes: Any) -> Params:
    """The parameters of the tree, with top-level entries replaced."""
    return load_params({**PARAMS, **changes}, "tiny")


def _stream(*parts: Any) -> np.random.Generator:
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def accuracy_record(
    task: str,
    protocol: str,
    variant: str,
    metric: str,
    stored: dict[str, np.ndarray],
    names: dict[str, str],
    **more: Any,
) -> dict[str, Any]:
    """A result record, counted in plain Python."""
    logits, labels = stored[names["logits"]], stored[names["labels"]]
    hit = logits.argmax(axis=1) == labels
    per_class = [
        [int(hit[labels == c].sum()), int((labels == c).sum())] for c in range(logits.shape[1])
    ]
    correct, total = int(hit.sum()), len(labels)
    shares = [100 * c / t for c, t in per_class if t]
    value = 100 * correct / total if metric == "top1" else sum(shares) / len(shares)
    return {
        "task": task,
        "protocol": protocol,
        "variant": variant,
        "metric": metric,
        "value": value,
        "correct": correct,
        "total": total,
        "per_class": per_class,
        "split": "test",
        "epoch": 2,
        "predictions": names,
        **more,
    }


class TreeBuilder:
    """Writes the tree below a folder; every artefact through the suite's own manifest code."""

    def __init__(self, base: Path, params: Params) -> None:
        self.params, self.base = params, base
        self.results = base / "results" / params.profile
        self.reports = base / "reports" / params.profile
        self.mlflow: Callable[[Job, dict[str, float], str], str | None] | None = None

    def write(
        self,
        job: Job,
        folder: str,
        files: dict[str, bytes | str | np.ndarray],
        inputs: list[Artefact],
        manifest: str = "manifest.json",
        **more: Any,
    ) -> Artefact:
        """Write one artefact and its manifest."""
        home = self.results / folder
        for name, content in files.items():
            path = home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, np.ndarray):
                np.save(path, content, allow_pickle=False)
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        dependencies = [
            {
                "name": f"input/{name}",
                "uri": str((artefact.folder / name).relative_to(self.base)),
                "digest": subject["digest"],
            }
            for artefact in inputs
            for name, subject in artefact.subjects.items()
        ]
        metrics = more.get("metrics", {})
        tracked = self.mlflow is not None and job.stage in MIRRORED
        mirrored = self.mlflow(job, metrics, files.get("history.jsonl", "")) if tracked else None
        predicate = {
            "step": job.stage,
            "run_uid": sha256_text(folder + manifest)[:32],
            "status": "completed",
            "externalParameters": {"spec": job.spec, "arguments": more.get("arguments", {})},
            "internalParameters": {
                "code": job.code,
                "git_commit": "1" * 40,
                "dirty": False,
                "python": "3.11",
                "platform": "test",
                "versions": {"numpy": np.__version__},
                "threads": 1,
                "device": "cpu",
                "lock_sha256": "0" * 64,
            },
            "runDetails": {
                "started": "2024-01-01T00:00:00+00:00",
                "finished": "2024-01-01T00:00:01+00:00",
                "seconds": 1.0,
            },
            "metrics": metrics,
            "counters": more.get("counters", {}),
            "facts": more.get("facts", {}),
            "tracking": tracked,
            "mlflow_run_id": mirrored,
        }
        outputs = {name: home / name for name in files}
        return write_manifest(home / manifest, outputs, dependencies, predicate)

    def dataset(self, name: str) -> Artefact:
        """A prepared dataset of random images."""
        draw = _stream("dataset", name)
        count = TRAIN + TEST
        images = draw.integers(0, 255, (count, SIDE, SIDE, 3), dtype=np.uint8)
        labels = np.arange(count, dtype=np.int64) % CLASSES
        card = {
            "title": "Tiny",
            "classes": [f"class {c}" for c in range(CLASSES)],
            "splits": {"train": [0, TRAIN], "val": [TRAIN, TRAIN], "test": [TRAIN, count]},
            "mean": [0.5] * 3,
            "std": [0.25] * 3,
            "license": "CC0",
            "source": "drawn",
            "metric": "top1" if name == "digits" else "mean_per_class",
            "images_sha256": sha256_array(images),
            "labels_sha256": sha256_array(labels),
        }
        files = {"images.npy": images, "labels.npy": labels, "card.json": canonical_json(card)}
        return self.write(prepare_job(self.params, name), f"data/{name}", files, [])

    def denoiser(self, name: str, dataset: Artefact) -> Artefact:
        """A denoiser whose weights are a few bytes."""
        files = {
            "model_index.json": "{}\n",
            "unet/config.json": "{}\n",
            "unet/diffusion_pytorch_model.safetensors": b"ema",
            "scheduler/config.json": "{}\n",
            "history.jsonl": '{"epoch":0,"loss":1.0,"step":0}\n',
        }
        return self.write(denoiser_job(self.params, name), f"denoisers/{name}", files, [dataset])

    def bank(self, name: str, denoiser: Artefact, dataset: Artefact) -> Artefact:
        """A bank of random candidates, through two shards."""
        shape = (TRAIN, CANDIDATES, SIDE, SIDE, 3)
        images = _stream("bank", name).integers(0, 255, shape, dtype=np.uint8)
        half, made = TRAIN // 2, []
        for number, part in enumerate((images[:half], images[half:]), start=1):
            made.append(
                self.write(
                    shard_job(self.params, name),
                    f"banks/{name}/shards",
                    {f"{number}-of-2.npy": part},
                    [denoiser, dataset],
                    f"{number}-of-2.manifest.json",
                    arguments={"shard": f"{number}-of-2"},
                )
            )
        index = np.zeros(
            (TRAIN, CANDIDATES),
            [
                ("anchor", "<i8"),
                ("candidate", "<i4"),
                ("shard", "<i4"),
                ("row", "<i8"),
                ("sha64", "<u8"),
            ],
        )
        index["anchor"] = np.arange(TRAIN)[:, None]
        index["candidate"] = np.arange(CANDIDATES)
        index["sha64"] = [
            [int.from_bytes(hashlib.sha256(i.tobytes()).digest()[:8], "big") for i in row]
            for row in images
        ]
        return self.write(
            bank_job(self.params, name),
            f"banks/{name}",
            {"images.npy": images, "index.npy": index.reshape(-1)},
            [*made, dataset],
            metrics={"bank/own_mse": 0.1},
            counters={"anchors": TRAIN},
            facts={
                "dataset": {
                    "anchors": TRAIN,
                    "images_sha256": sha256_array(np.load(dataset.folder / "images.npy")),
                }
            },
        )

    def pairs(self, name: str, encoder: Artefact, dataset: Artefact) -> Artefact:
        """Pairs among random features, mined in plain Python."""
        features = _stream("pairs", name).normal(size=(TRAIN, 6)).astype(np.float16)
        units = features.astype(np.float64)
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        cosines = units @ units.T
        near = [
            set(
                sorted(set(range(TRAIN)) - {i}, key=lambda j, i=i: (-cosines[i, j], j))[:NEIGHBOURS]
            )
            for i in range(TRAIN)
        ]
        found = [
            (i, j, cosines[i, j])
            for i in range(TRAIN)
            for j in range(i + 1, TRAIN)
            if j in near[i] and i in near[j] and cosines[i, j] >= THRESHOLD
        ]
        pairs = np.array(found, [("left", "<i8"), ("right", "<i8"), ("cosine", "<f4")])
        owner = {
            "anchors": TRAIN,
            "images_sha256": sha256_array(np.load(dataset.folder / "images.npy")),
            "split": "train",
        }
        return self.write(
            pairs_job(self.params, name),
            f"pairs/{name}",
            {"pairs.npy": pairs, "features.npy": features},
            [encoder, dataset],
            metrics={
                "pairs/count": len(pairs),
                "pairs/anchors_share": len({i for p in found for i in p[:2]}) / TRAIN,
                "pairs/mean_cosine": float(pairs["cosine"].mean()),
            },
            facts={
                "dataset": owner,
                "run": encoder.folder.name,
                "label_conditioned": not encoder.predicate["facts"]["label_free"],
            },
        )

    def training(self, run: Run, inputs: list[Artefact]) -> Artefact:
        """A pretraining run with a step log that adds up."""
        per_epoch = TRAIN // run.spec.recipe.batch_size
        steps = per_epoch * run.spec.recipe.epochs
        weight, lines = run.spec.alignment_weight, []
        for step in range(steps):
            parts = {"info_nce": 2.0 - 0.1 * step + 0.01 * run.spec.seed}
            if run.spec.positives != "none":
                parts["alignment"] = 1.0 - 0.05 * step
            loss = parts["info_nce"] + weight * parts.get("alignment", 0.0)
            epoch = step // per_epoch
            rate = (0.001, 0.1)[epoch]  # one epoch of warm-up, then the start of the cosine
            record = {"step": step, "epoch": epoch, "lr": rate, **parts, "loss": loss}
            lines.append(canonical_json({**record, "embedding_std": 0.1}))
        files = {
            "encoder.safetensors": f"encoder {run.slug}",
            "checkpoints/start.safetensors": f"start {run.slug}",
            "checkpoints/middle.safetensors": f"middle {run.slug}",
            "checkpoints/final.safetensors": f"final {run.slug}",
            "history.jsonl": "\n".join(lines) + "\n",
        }
        read = [artefact.predicate["facts"].get("label_conditioned") for artefact in inputs]
        given = {**spec_uses_labels(run.spec), "artefact": any(read)}
        facts = {
            "uses_labels": given,
            "label_free": not any(given.values()),
            "recipe_family": run.spec.recipe.family,
            "init_sha256": sha256_text(f"init {run.slug}"),
            "first_batch_sha256": sha256_text(f"batch {run.spec.seed}"),
            "final_sha256": sha256_text(f"final {run.slug}"),
            "terms": ["info_nce"],
        }
        return self.write(
            pretrain_job(run),
            f"runs/{run.slug}",
            files,
            inputs,
            metrics={"pretrain/loss": loss},
            counters={"optimizer_steps": steps},
            facts=facts,
        )

    def _logits(self, *parts: Any) -> np.ndarray:
        labels = np.arange(TRAIN, TRAIN + TEST) % CLASSES
        noise = _stream(*parts).normal(size=(TEST, CLASSES))
        return (noise + 1.2 * np.eye(CLASSES)[labels]).astype(np.float32)

    def _arrays(self, prefix: str, logits: np.ndarray) -> dict[str, np.ndarray]:
        rows = np.arange(TRAIN, TRAIN + TEST, dtype=np.int64)
        return {f"{prefix}logits": logits, f"{prefix}labels": rows % CLASSES, f"{prefix}rows": rows}

    def probe(self, run: Run, encoder: Artefact, dataset: Artefact) -> Artefact:
        """Linear probe and kNN, with logits that give the recorded numbers."""
        names = {"logits": "logits", "labels": "labels", "rows": "rows"}
        linear = self._arrays("", self._logits("linear", run.slug))
        knn = self._arrays("", self._logits("knn", run.slug))
        knn["logits_best_of_k"] = self._logits("best", run.slug)
        fixed = {"selected_on": "none"}
        of_linear = [
            accuracy_record(
                "digits",
                "linear",
                "",
                "top1",
                linear,
                {"file": "linear.npz", **names},
                selection={},
                **fixed,
            )
        ]
        of_knn = [
            accuracy_record(
                "digits",
                "knn",
                "",
                "top1",
                knn,
                {"file": "knn.npz", **names},
                selection={"k": 3},
                **fixed,
            ),
            accuracy_record(
                "digits",
                "knn",
                "best_of_k",
                "top1",
                knn,
                {"file": "knn.npz", **names, "logits": "logits_best_of_k"},
                selection={"k": 1},
                selected_on="test",
            ),
        ]
        features = _stream("features", run.slug).normal(size=(TEST, 8)).astype(np.float32)
        files: dict[str, Any] = {
            "linear.json": _document(run.slug, of_linear),
            "knn.json": _document(run.slug, of_knn),
            "linear.npz": _npz(self.base, linear),
            "knn.npz": _npz(self.base, knn),
            "features.npy": features,
        }
        metrics = {
            "linear/top1": of_linear[0]["value"],
            "knn/top1": of_knn[0]["value"],
            "knn_best_of_k/top1": of_knn[1]["value"],
        }
        return self.write(
            probe_job(run),
            f"probes/{run.slug}",
            files,
            [encoder, dataset],
            metrics=metrics,
            facts={"results": of_linear + of_knn},
        )

    def transfer(self, run: Run, encoder: Artefact, dataset: Artefact) -> Artefact:
        """Transfer to one dataset, judged by mean per class."""
        task = "target-mini"
        stored = self._arrays(f"{task}.", self._logits("transfer", run.slug))
        names = {"file": "predictions.npz"}
        names |= {key: f"{task}.{key}" for key in ("logits", "labels", "rows")}
        record = accuracy_record(
            task,
            "transfer",
            "",
            "mean_per_class",
            stored,
            names,
            selected_on="val",
            selection={"log10_lambda": 0.0},
        )
        files: dict[str, Any] = {
            "transfer.json": _document(run.slug, [record]),
            "predictions.npz": _npz(self.base, stored),
        }
        job = transfer_job(run)
        assert job is not None
        return self.write(
            job,
            f"transfer/{run.slug}",
            files,
            [encoder, dataset],
            metrics={f"transfer/{task}": record["value"]},
            facts={"results": [record]},
        )

    def check(self) -> Artefact:
        """The record that the datasets fit the settings; no number depends on it."""
        spec = report_params(self.params).canonical()
        job = Job("check-data", "data-check", spec, "0" * 16)
        return self.write(job, "provenance/data-check", {"checked.json": "{}\n"}, [])

    def science(self) -> None:
        """Everything but the report."""
        digits, target = self.dataset("digits"), self.dataset("target-mini")
        self.check()
        (self.results / "provenance/snakemake.json").write_text("{}\n")
        denoiser = self.denoiser("digits", digits)
        banks = {n: self.bank(n, denoiser, digits) for n in banks_needed(self.params)}
        encoders, pairs = {}, {}
        for of_run in expand_runs(self.params).values():
            inputs = [digits, banks[of_run.spec.bank]] if of_run.spec.bank else [digits]
            if name := of_run.spec.pairs:
                judge = encoders[self.params.pairs[name].run]
                pairs[name] = pairs.get(name) or self.pairs(name, judge, digits)
                inputs.append(pairs[name])
            encoder = encoders[of_run.slug] = self.training(of_run, inputs)
            self.probe(of_run, encoder, digits)
            self.transfer(of_run, encoder, target)

    def _run(
        self, stage: str, function: Any, manifest: str, name: str | None, **given: Any
    ) -> None:
        job = report_job(self.params, stage, name)
        text = canonical_json(report_params(self.params).canonical())
        arguments = {"spec": text, **given}
        run(Call(stage, function, arguments, self.reports / manifest, job.code, 1))

    def report(self) -> None:
        """The report, by the real stages; call it inside `base`."""
        reports, root = self.reports, self.results
        self._run(
            "collect-results",
            collect_results,
            "frame.manifest.json",
            None,
            root=root,
            frame=reports / "frame.csv",
            metrics=reports / "metrics.json",
        )
        frame = [reports / "frame.manifest.json"]
        tables, figures = [], []
        for name in self.params.tables:
            tables.append(reports / f"tables/{name}.manifest.json")
            files = {e: reports / f"tables/{name}.{e}" for e in ("csv", "md", "tex")}
            self._run(
                "render-table",
                render_table,
                f"tables/{name}.manifest.json",
                name,
                table=name,
                frame=frame,
                published=REPO / "reports/spec/published.yaml",
                **files,
            )
        for name in self.params.figures:
            figures.append(reports / f"figures/{name}.manifest.json")
            files = {e: reports / f"figures/{name}.{e}" for e in ("csv", "png")}
            self._run(
                "render-figure",
                render_figure,
                f"figures/{name}.manifest.json",
                name,
                figure=name,
                root=root,
                frame=frame,
                **files,
            )
        self._run(
            "render-report",
            render_report,
            "report.manifest.json",
            None,
            root=root,
            frame=frame,
            tables=tables,
            figures=figures,
            deviations=REPO / "reports/spec/deviations.yaml",
            template=REPO / "clsp/report/report.html.jinja",
            page=reports / "report.html",
        )


def _document(slug: str, results: list[dict[str, Any]]) -> str:
    return canonical_json({"schema_version": 1, "run": slug, "results": results}) + "\n"


def _npz(base: Path, arrays: dict[str, np.ndarray]) -> bytes:
    path = base / "arrays.npz"
    np.savez(path, **arrays)
    content = path.read_bytes()
    path.unlink()
    return content
