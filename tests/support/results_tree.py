"""A complete, tiny and consistent results tree with real manifests, made without torch.

One method, two sources of positives, three seeds, one transfer dataset; more by request. Numbers are drawn; records agree.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save
from tree_data import Preparing
from tree_imports import IMPORTED, Importing
from tree_params import (
    ABLATED,
    ABLATIONS,
    ALONG,
    CANDIDATES,
    JUDGE,
    JUDGED,
    LABELLED,
    NEIGHBOURS,
    PAIRED,
    PARAMS,
    SIDE,
    TAUGHT,
    THRESHOLD,
    TRAIN,
    tiny_params,
)
from tree_quality import MEASURED, Measuring
from tree_results import Judged, Judging, stream
from tree_weights import checkpoints, has_teacher, momentum, tensors_sha256

from clsp.config.denoisers import DenoiserSpec
from clsp.config.execution import switches
from clsp.config.floors import Floor, expand_floors
from clsp.config.foreign import expand_imported
from clsp.config.grid import Run, expand_runs
from clsp.config.labels import spec_uses_labels
from clsp.config.plan import (
    Job,
    bank_job,
    banks_needed,
    datasets_needed,
    denoiser_job,
    duplicates_job,
    pairs_job,
    pretrain_job,
    report_job,
    report_params,
    shard_job,
)
from clsp.config.schema import Params
from clsp.data.duplicates import count_duplicates
from clsp.job import Call, run
from clsp.report.collect import collect_results
from clsp.report.figure import render_figure
from clsp.report.page import render_report
from clsp.report.table import render_table
from clsp.report.verdicts import judge_claims
from clsp.runtime.canonical import (
    canonical_json,
    sha256_array,
    sha256_file,
    sha256_json,
    sha256_text,
)
from clsp.runtime.ledger import Attempt
from clsp.runtime.manifest import Artefact, write_manifest
from clsp.runtime.source import lock_digest
from clsp.runtime.tracking import MIRRORED

__all__ = [
    "ABLATED",
    "ABLATIONS",
    "ALONG",
    "IMPORTED",
    "JUDGE",
    "JUDGED",
    "LABELLED",
    "MEASURED",
    "PAIRED",
    "PARAMS",
    "REPO",
    "TAUGHT",
    "TreeBuilder",
    "tiny_params",
]

REPO = Path(__file__).parents[2]
CLAIMS = REPO / "reports/spec/claims.yaml"
EXPECTATIONS = ("claims.yaml", "official_curves.json", "explanations.yaml")
WEIGHTS = "diffusion_pytorch_model.safetensors"


class TreeBuilder(Preparing, Importing, Measuring, Judging):
    """Writes the tree below a folder; every artefact through the suite's own manifest code."""

    shards = 2  # of every bank

    def __init__(self, base: Path, params: Params) -> None:
        self.params, self.base = params, base
        self.results = base / "results" / params.profile
        self.reports = base / "reports" / params.profile
        self.mlflow: Callable[[Job, dict[str, float], str], str | None] | None = None

    def everything(self) -> "TreeBuilder":
        """Science and report, made from the tree's own folder as a user makes them."""
        here = Path.cwd()
        os.chdir(self.base)
        try:
            self.science()
            self.report()
        finally:
            os.chdir(here)
        return self

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
                "lock_sha256": lock_digest(),
                **more.get("recorded", {}),
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
        about = {"stage": job.stage, "spec_sha256": sha256_json(job.spec), "code": job.code}
        attempt = Attempt(home / manifest, predicate["run_uid"], about)
        made = write_manifest(home / manifest, outputs, dependencies, predicate)
        attempt.end("completed", seconds=1.0, manifest_sha256=sha256_file(home / manifest))
        return made

    def denoiser(self, name: str, dataset: Artefact) -> Artefact:
        """A denoiser of one tensor."""
        spec = self.params.denoisers[name]
        steps = spec.epochs * (TRAIN // spec.batch_size)
        records = [
            {
                "step": n,
                "epoch": 0,
                "lr": spec.learning_rate,
                "loss": 1.0 - 0.1 * n,
                "grad_norm": 1.0,
            }
            for n in range(steps)
        ]
        weights = {n: {"w": stream("denoiser", name, n).normal(size=4)} for n in ("ema", "raw")}
        files = {
            "model_index.json": "{}\n",
            "unet/config.json": '{"num_class_embeds":null}\n',
            f"unet/{WEIGHTS}": save(weights["ema"]),
            f"raw/{WEIGHTS}": save(weights["raw"]),
            "scheduler/config.json": "{}\n",
            "snapshots/epoch-000001.png": b"a grid",
            "snapshots/loss.png": b"a curve",
            "history.jsonl": "".join(canonical_json(record) + "\n" for record in records),
        }
        job, folder = denoiser_job(self.params, name), f"denoisers/{name}"
        counters = {"steps": steps, "epochs": spec.epochs, "ema_updates": steps}
        digests = {n: tensors_sha256(tensors) for n, tensors in weights.items()}
        facts = {"tensors_sha256": digests, "label_conditioned": False, "processes": 1}
        return self.write(job, folder, files, [dataset], counters=counters, facts=facts)

    def bank(self, name: str, denoiser: Artefact, dataset: Artefact) -> Artefact:
        """A bank of random candidates, through a few shards."""
        shape = (TRAIN, CANDIDATES, SIDE, SIDE, 3)
        images = stream("bank", name).integers(0, 255, shape, dtype=np.uint8)
        anchors = np.load(dataset.folder / "images.npy")[:TRAIN]
        gaps = (images.astype(float) - anchors[:, None]) / 255
        made, held = [], np.array_split(np.arange(TRAIN), self.shards)
        sampled = "ema" if denoiser.stage == "train-denoiser" else "imported"
        for number, rows in enumerate(held, start=1):
            shard = f"{number}-of-{self.shards}"
            made.append(
                self.write(
                    shard_job(self.params, name),
                    f"banks/{name}/shards",
                    {f"{shard}.npy": images[rows]},
                    [denoiser, dataset],
                    f"{shard}.manifest.json",
                    arguments={"shard": shard},
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
        for number, rows in enumerate(held, start=1):
            index["shard"][rows] = number
            index["row"][rows] = np.arange(len(rows))[:, None]
        index["sha64"] = [
            [int.from_bytes(hashlib.sha256(i.tobytes()).digest()[:8], "big") for i in row]
            for row in images
        ]
        return self.write(
            bank_job(self.params, name),
            f"banks/{name}",
            {"images.npy": images, "index.npy": index.reshape(-1)},
            [*made, dataset],
            metrics={"bank/own_mse": float((gaps**2).mean())},
            counters={"anchors": TRAIN},
            facts={
                "label_conditioned": False,
                "denoiser": {
                    "tensors_sha256": denoiser.predicate["facts"]["tensors_sha256"][sampled],
                    "weights": sampled,
                },
                "sampler": {"generator": "interpolate", **self.params.banks[name].options},
                "devices": ["cpu"],
                "dataset": {
                    "anchors": TRAIN,
                    "images_sha256": sha256_array(np.load(dataset.folder / "images.npy")),
                },
            },
        )

    def pairs(self, name: str, encoder: Artefact, dataset: Artefact) -> Artefact:
        """Pairs among random features, mined in plain Python."""
        features = stream("pairs", name).normal(size=(TRAIN, 6)).astype(np.float16)
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

    def log(self, run: Run, steps: int, per_epoch: int) -> list[dict[str, Any]]:
        """Records of a step log that adds up; of two epochs at most."""
        weight, records = run.spec.alignment_weight, []
        for step in range(steps):
            parts = {"info_nce": 2.0 - 0.1 * step + 0.01 * run.spec.seed}
            if run.spec.positives != "none":
                parts["alignment"] = 1.0 - 0.05 * step
            loss = parts["info_nce"] + weight * parts.get("alignment", 0.0)
            epoch = step // per_epoch
            rate = (0.001, 0.1)[epoch]  # one epoch of warm-up, then the start of the cosine
            if has_teacher(run):
                parts["momentum"] = momentum(run, step, steps)
            record = {"step": step, "epoch": epoch, "lr": rate, **parts, "loss": loss}
            records.append({**record, "embedding_std": 0.1})
        return records

    def training(self, run: Run, inputs: list[Artefact]) -> Artefact:
        """A pretraining run with a step log that adds up."""
        per_epoch = TRAIN // run.spec.recipe.batch_size
        steps = per_epoch * run.spec.recipe.epochs
        records = self.log(run, steps, per_epoch)
        lines = [canonical_json(record) for record in records]
        weights, digests = checkpoints(run, per_epoch)
        files = {**weights, "history.jsonl": "\n".join(lines) + "\n"}
        read = [artefact.predicate["facts"].get("label_conditioned") for artefact in inputs]
        given = {**spec_uses_labels(run.spec), "artefact": any(read)}
        facts = {
            "uses_labels": given,
            "label_free": not any(given.values()),
            "recipe_family": run.spec.recipe.family,
            "execution": switches(run.spec.execution).canonical(),
            "processes": 1,
            "batch_norm": run.spec.batch_norm,
            "init_sha256": digests["start"],
            "first_batch_sha256": sha256_text(f"batch {run.spec.seed}"),
            "final_sha256": digests["final"],
            "terms": ["info_nce"],
        }
        return self.write(
            pretrain_job(run),
            f"runs/{run.slug}",
            files,
            inputs,
            recorded={"claims_sha256": sha256_file(CLAIMS)},
            metrics={"pretrain/loss": sum(r["loss"] for r in records[-per_epoch:]) / per_epoch},
            counters={
                "optimizer_steps": steps,
                "ema_updates": steps if has_teacher(run) else 0,
                "samples": steps * run.spec.recipe.batch_size,
            },
            facts=facts,
        )

    def check(self) -> Artefact:
        """The record that the datasets fit the settings; no number depends on it."""
        spec = report_params(self.params).canonical()
        job = Job("check-data", "data-check", spec, "0" * 16)
        return self.write(job, "provenance/data-check", {"checked.json": "{}\n"}, [])

    def science(self) -> None:
        """Everything but the report; call it inside `base`."""
        data = {name: self.dataset(name) for name in datasets_needed(self.params)}
        self.check()
        (self.results / "provenance/snakemake.json").write_text("{}\n")
        own = isinstance(self.params.denoisers["digits"], DenoiserSpec)
        make = self.denoiser if own else self.imported_denoiser
        denoiser = make("digits", data["digits"])
        banks = {n: self.bank(n, denoiser, data["digits"]) for n in banks_needed(self.params)}
        self.duplicates([*data.values()], [*banks.values()])
        encoders, pairs = {}, {}
        for of_run in expand_runs(self.params).values():
            inputs = [data["digits"]]
            inputs += [banks[of_run.spec.bank]] if of_run.spec.bank else []
            if name := of_run.spec.pairs:
                judge = encoders[self.params.pairs[name].run]
                pairs[name] = pairs.get(name) or self.pairs(name, judge, data["digits"])
                inputs.append(pairs[name])
            encoders[of_run.slug] = self.training(of_run, inputs)
            self.judge(of_run, encoders[of_run.slug], data)
        for imported in expand_imported(self.params).values():
            made = self.imported_encoder(imported, data[imported.dataset])
            encoders[imported.slug] = made
            self.judge(imported, made, data)
        for floor in expand_floors(self.params).values():
            self.judge(floor, encoders[floor.run], data)
        self.measure(banks, encoders, data)

    def judge(self, judged: Judged, encoder: Artefact, data: dict[str, Artefact]) -> None:
        """Everything that judges an encoder or floor."""
        spec = judged.features
        tasks = [data[name] for name in spec.tasks]
        own = [data[spec.own]] if spec.own else []
        read = None if spec.source == "pixels" else encoder
        features = self.features(judged, read, [*own, *tasks])
        if not isinstance(judged, Floor):
            self.probe(judged, features, *own)
            self.fine_tune(judged, encoder, tasks)
        self.transfer(judged, features, tasks)
        self.few_shot(judged, features, tasks)

    def duplicates(self, datasets: list[Artefact], banks: list[Artefact]) -> None:
        """Duplicates between what is trained on and test splits, by the real stage."""
        home, job = self.results / "evaluations/duplicates", duplicates_job(self.params)
        arguments = {
            "spec": job.json,
            "datasets": [artefact.manifest for artefact in datasets],
            "banks": [artefact.manifest for artefact in banks],
            "duplicates": home / "duplicates.json",
        }
        run(Call(job.stage, count_duplicates, arguments, home / "manifest.json", job.code, 1))

    def _run(
        self, stage: str, function: Any, manifest: str, name: str | None, **given: Any
    ) -> None:
        job = report_job(self.params, stage, name)
        text = canonical_json(report_params(self.params).canonical())
        arguments = {"spec": text, **given}
        run(Call(stage, function, arguments, self.reports / manifest, job.code, 1))

    def report(self, expectations: Path = CLAIMS.parent) -> None:
        """The report, by the real stages; call it inside `base`."""
        reports, root = self.reports, self.results
        told = [expectations / name for name in EXPECTATIONS]
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
        endings = {"csv": "claims.csv", "md": "claims.md", "tex": "claims.tex"}
        self._run(
            "judge-claims",
            judge_claims,
            "claims.manifest.json",
            None,
            root=root,
            frame=frame,
            claims=told[0],
            verdicts=reports / "verdicts.json",
            statement=reports / "verdicts.intoto.json",
            **{flag: reports / name for flag, name in endings.items()},
        )
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
                expectations=told,
                **files,
            )
        self._run(
            "render-report",
            render_report,
            "report.manifest.json",
            None,
            root=root,
            frame=frame,
            claims=[reports / "claims.manifest.json"],
            tables=tables,
            figures=figures,
            expectations=told[1:],
            deviations=REPO / "reports/spec/deviations.yaml",
            template=REPO / "clsp/report/report.html.jinja",
            page=reports / "report.html",
        )
