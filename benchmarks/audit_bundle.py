"""How long does the audit of a bundle as large as CIFAR-10's take, and how much memory?

    python benchmarks/audit_bundle.py [--seeds 3] [--rounds 1] [--cores 2] [--keep FOLDER]

Makes a tree of results of that size with the tests' own builder, without training: 60,000 images
of 32 x 32 pixels, a bank of 50,000 x 8 candidates, a denoiser of 35.7 million parameters twice, and
for SimCLR with and without candidates one run per seed: weights of 11.2 million parameters four
times, 48,000 records of steps, features of 110,000 images (mirrored ones among them) x 512, logits
of two probes. Then it packs the tree and audits the bundle in a process of its own that may use
so many cores. Pixels, weights and features are noise, so that nothing compresses. Neither MLflow
nor downstream datasets are in it. Writes below benchmarks/results/ the table as JSON and markdown.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from recording import Timing, record, surroundings

HERE = Path(__file__).parent
SUPPORT = HERE.parent / "tests/support"
TRAIN, TEST, CANDIDATES, SIDE, CLASSES = 50_000, 10_000, 8, 32, 10
WIDTH, LAYERS = 512, 21_875  # of features; rows of so many that make an encoder's parameters
DENOISER = 35_700_000  # parameters
EPOCHS, BATCH = 1000, 1024


class Large:
    """Draws normal numbers, of whatever shape is asked for, in another one."""

    def __init__(self, generator: np.random.Generator, shape: tuple[int, ...]) -> None:
        self.generator, self.shape = generator, shape

    def normal(self, **_: Any) -> np.ndarray:
        """Standard normal numbers, float32."""
        return self.generator.standard_normal(self.shape, dtype=np.float32)


def enlarge() -> None:
    """Make the tests' tree as large as CIFAR-10's; before its modules read the sizes."""
    sys.path.insert(0, str(SUPPORT))
    import tree_params

    sizes = {"TRAIN": TRAIN, "TEST": TEST, "CANDIDATES": CANDIDATES, "SIDE": SIDE}
    for name, value in {**sizes, "CLASSES": CLASSES}.items():
        setattr(tree_params, name, value)
    import results_tree
    import tree_results
    import tree_weights

    tree_results.WIDTH = WIDTH
    plain = tree_results.stream

    def stream(*parts: Any) -> Any:
        drawn = plain(*parts)
        shapes = {"denoiser": (DENOISER,), "weights": (LAYERS, WIDTH), "way": (LAYERS, WIDTH)}
        return Large(drawn, shapes[parts[0]]) if parts[0] in shapes else drawn

    results_tree.stream = tree_weights.stream = stream
    ends = results_tree.Attempt.end

    def end(attempt: Any, status: str, **about: Any) -> None:
        ends(attempt, status, **{**about, "seconds": 3600.0})  # 48,000 steps take their time

    results_tree.Attempt.end = end


def changes(seeds: int) -> dict[str, Any]:
    """What the tree is asked for beyond the tests' parameters."""
    from tree_params import PARAMS

    recipe = {**PARAMS["recipes"]["short"], "epochs": EPOCHS, "batch_size": BATCH}
    linear = {**PARAMS["evaluation"]["linear"], "epochs": 100, "batch_size": 256}
    linear |= {"milestones": [60, 80], "flip": True, "learning_rate": 1.0}
    evaluation = {k: v for k, v in PARAMS["evaluation"].items() if k != "transfer"}
    denoiser = {**PARAMS["denoisers"]["digits"], "batch_size": 128}
    runs = {**PARAMS["runs"]["main"], "seed": list(range(seeds))}
    banks = {"digits.mix": {**PARAMS["banks"]["digits.mix"], "candidates": CANDIDATES}}
    return {
        "banks": banks,
        "recipes": {"short": recipe},
        "evaluation": {**evaluation, "linear": linear},
        "denoisers": {"digits": denoiser},
        "runs": {"main": runs},
        "tables": ["main"],
        "figures": ["curves", "candidates"],
    }


def builder_of(base: Path, params: Any) -> Any:
    """The tests' builder, with long step logs and mirrored features."""
    from results_tree import TreeBuilder
    from safetensors.numpy import load_file, save

    from clsp.audit.checks.a15_losses import expected_rates
    from clsp.audit.relearn import relearn_linear, revote
    from clsp.config.plan import features_job

    class Builder(TreeBuilder):
        def log(self, run: Any, steps: int, per_epoch: int) -> list[dict[str, Any]]:
            rates = expected_rates(run.spec.recipe, np.arange(EPOCHS), 1).tolist()
            records = []
            for step in range(steps):
                parts = {"info_nce": 6.0 - 1e-4 * step + 0.01 * run.spec.seed}
                if run.spec.positives != "none":
                    parts["alignment"] = 1.0 - 1e-5 * step
                loss = parts["info_nce"] + run.spec.alignment_weight * parts.get("alignment", 0.0)
                told = {"step": step, "epoch": step // per_epoch, "lr": rates[step // per_epoch]}
                records.append({**told, **parts, "loss": loss, "embedding_std": 0.1})
            return records

        def features(self, judged: Any, encoder: Any, datasets: list[Any]) -> Any:
            data = datasets[0]
            name = data.folder.name
            splits = {"train": TRAIN, "test": TEST}
            drawn = {k: self._drawn(judged.slug, data, k, n) for k, n in splits.items()}
            drawn["train.mirrored"] = drawn["train"] + np.float32(0.01)
            files = {"features.safetensors": save({f"{name}/{k}": v for k, v in drawn.items()})}
            facts = {"epoch": EPOCHS, "source": judged.features.source, "features": WIDTH}
            facts["resolutions"] = {name: SIDE}
            place = f"features/{judged.slug}"
            return self.write(features_job(judged), place, files, [encoder, data], facts=facts)

        def _learnt(self, judged: Any, features: Any, dataset: Any) -> list[np.ndarray]:
            stored = load_file(features.folder / "features.safetensors")
            name, labels = dataset.folder.name, np.load(dataset.folder / "labels.npy")
            train, test = stored[f"{name}/train"], stored[f"{name}/test"]
            both = np.concatenate([train, stored[f"{name}/train.mirrored"]])
            rest, spec = (labels[:TRAIN], test, labels[TRAIN:]), judged.probe
            logits = relearn_linear(spec.linear, both, *rest, classes=CLASSES, seed=spec.seed)[1]
            guess = revote(spec.knn, train, *rest, CLASSES).guess
            return [logits, np.eye(CLASSES, dtype=np.float32)[guess]]

        def transfer(self, *_: Any) -> None:
            """There are no downstream datasets."""

        @staticmethod
        def epoch(_: Any) -> int:
            return EPOCHS

    return Builder(base, params)


def build(base: Path, seeds: int) -> None:
    """Make the tree, in a process of its own."""
    enlarge()
    from results_tree import tiny_params
    from tree_params import PARAMS

    asked = changes(seeds)
    text = yaml.safe_dump({**PARAMS, **asked}, sort_keys=False)
    (base / "params.yaml").write_text(text, encoding="utf-8")
    builder_of(base, tiny_params(**asked)).everything()


def run(command: list[str], folder: Path, cores: int) -> tuple[float, float]:
    """Seconds and peak resident memory in MiB of a command and its children.

    Raises:
        SystemExit: With what it wrote, if it does not end with 0.
    """
    threads = {name: str(cores) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    environment = {**os.environ, **threads, "PYTHONPATH": str(HERE.parent)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    measured = f"import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cores}]);"
    measured += "import sys; sys.argv = ['clsp', *sys.argv[1:]];"
    measured += "from clsp.__main__ import entry; entry()"
    started = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            [sys.executable, "-c", measured, *command],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )
        _, status, used = os.wait4(child.pid, 0)
        if code := os.waitstatus_to_exitcode(status):
            log.seek(0)
            raise SystemExit(f"exit code {code}\n{log.read().decode(errors='replace')[-4000:]}")
    return time.perf_counter() - started, used.ru_maxrss / 1024


def main() -> None:
    """Build, pack, audit and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="where the tree is made, or lies already")
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build:
        build(arguments.build, arguments.seeds)
        return
    with tempfile.TemporaryDirectory(prefix="clsp-large-") as room:
        base = (arguments.keep or Path(room)).resolve()
        base.mkdir(parents=True, exist_ok=True)
        if not (base / "results").is_dir():
            given = ["--build", str(base), "--seeds", str(arguments.seeds)]
            environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
            subprocess.run([sys.executable, __file__, *given], check=True, env=environment)
        measure(base, arguments)


def measure(base: Path, arguments: argparse.Namespace) -> None:
    """Time packing and auditing, and write the table."""
    packed = base / "large.zip"
    work = {
        "pack": ["bundle", "create", "--without-mlflow", "--out", str(packed)],
        "audit at L2": ["audit", str(packed), "--out", str(base / "audit.json")],
    }
    rows = []
    for name, command in work.items():
        found = [run(command, base, arguments.cores) for _ in range(arguments.rounds)]
        timing = Timing([seconds for seconds, _ in found])
        low, high = min(timing.seconds), max(timing.seconds)
        row = {"variant": name, "unit": "s", "value": timing.median, "least": low, "most": high}
        row |= {"baseline": name, "ratio": 1.0, "seconds": timing.seconds}
        rows.append({**row, "peak MiB": max(memory for _, memory in found)})
    told = json.loads((base / "audit.json").read_text(encoding="utf-8"))
    about = surroundings(None, "numpy")
    about |= {"seeds": arguments.seeds, "cores of the audit": arguments.cores}
    about["bundle"] = f"{packed.stat().st_size / 2**20:,.0f} MiB"
    about["unpacked"] = (
        f"{told['totals']['bytes'] / 2**20:,.0f} MiB in {told['totals']['files']} files"
    )
    about["verdict"] = f"{told['verdict']} at {told['level']}"
    print(record("audit_bundle", about, rows, extra=("peak MiB",)))


if __name__ == "__main__":
    main()
