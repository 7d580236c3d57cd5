"""A working copy of the suite in a temporary folder, and the commands a user runs in it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import yaml

from clsp.config.load import read_yaml

ROOT = Path(__file__).parents[2]
PARTS = [
    "clsp",
    "rules",
    "Snakefile",
    "profiles",
    "reports/spec",
    "dvc.yaml",
    ".dvcignore",
    ".gitignore",
    "requirements.lock",
    "configs",
]
# Rules that only name a phase, and the table's heading.
TARGETS = {
    "all",
    "data",
    "diffusion",
    "synthesis",
    "pretrain",
    "mining",
    "evaluate",
    "tables",
    "report",
    "job",
}
FOUND = re.compile(r"^(\w+) +(\d+)$", re.M)


def smallest(params):
    """The demo cut down to every stage once: minutes become seconds, nothing is left out."""
    params["denoisers"]["digits"].update(channels=[8, 16], epochs=2, warmup_steps=2)
    params["banks"]["digits.mix"].update(candidates=1, steps=2)
    params["encoders"]["tiny"]["width"] = 4
    params["recipes"]["demo"].update(epochs=2, warmup_epochs=1)
    params["methods"]["moco"]["queue"] = 256
    params["runs"] = {
        "all": {
            "dataset": ["digits"],
            "encoder": ["tiny"],
            "method": ["simclr", "moco"],
            "positives": ["none", "synthetic"],
            "seed": [0],
        }
    }
    params["datasets"]["digits"]["limit"] = 400
    # One task as pixels, one as image files, one in which an image shows several classes.
    tasks = ["cifar10-mini", "dtd-mini", "voc2007-mini"]
    params["datasets"]["dtd-mini"]["storage"] = "encoded"
    params["datasets"]["voc2007-mini"] = {
        "kind": "voc2007",
        "size": 16,
        "source": "miniature",
        "seed": 0,
    }
    params["datasets"] = {k: v for k, v in params["datasets"].items() if k in ["digits", *tasks]}
    params["evaluation"]["linear"]["epochs"] = 20
    params["evaluation"]["linear"]["milestones"] = [12, 16]
    transfer = params["evaluation"]["transfer"]
    transfer["datasets"] = tasks
    transfer["logistic"]["count"] = 3
    transfer["few_shot"].update(shots=[1, 2], draws=2)
    transfer["fine_tune"] = {
        "epochs": 1,
        "batch_size": 64,
        "learning_rates": [0.01],
        "weight_decays": [0.0],
        "momentum": 0.9,
        "crop_scale": 0.5,
        "flip": 0.0,
        "validation": "ssl_transfer",
        "validation_fraction": 0.2,
        "seed": 0,
    }
    params["quality"].update(anchors=100, candidates=[1])
    del params["quality"]["vary"]  # other banks are those of the demo itself
    params["tables"] = [*params["tables"], "fine_tune"]
    params["profile"] = "smoke"
    return params


@dataclass(frozen=True)
class Suite:
    """A working copy of the suite and the commands a user runs in it."""

    folder: Path

    def _environment(self, changes):
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        private = ("MLFLOW_", "CLSP_", "SNAKEMAKE_", "DVC_", "GIT_")
        base = {k: v for k, v in os.environ.items() if not k.startswith(private)}
        base |= {"PATH": path, "PYTHONPATH": str(self.folder)}
        return {**base, "CLSP_PROGRESS": "plain", **changes}

    def run(self, *command, check=True, **environment):
        """Run a command as from the activated environment; returns the finished process."""
        done = subprocess.run(
            list(map(str, command)),
            cwd=self.folder,
            env=self._environment(environment),
            capture_output=True,
            text=True,
        )
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def start(self, *command, **environment):
        """Start a command and return at once."""
        return subprocess.Popen(
            list(map(str, command)),
            cwd=self.folder,
            env=self._environment(environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def planned(self, *arguments):
        """Jobs per rule that `snakemake -n` would run."""
        done = self.run("snakemake", "-n", *arguments)
        text = done.stdout + done.stderr
        if "Nothing to be done" in text:
            return {}
        table = text.split("Job stats:")[1].split("total")[0]
        jobs = {rule: int(n) for rule, n in FOUND.findall(table) if rule != "total"}
        return {rule: count for rule, count in jobs.items() if rule not in TARGETS}

    def params(self, edit):
        """Edit params.yaml through a function of its data."""
        path = self.folder / "params.yaml"
        data = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump(edit(data) or data, sort_keys=False))

    def replace(self, file, old, new):
        """Replace a piece of text that must be there."""
        path = self.folder / file
        text = path.read_text()
        assert old in text, f"{old!r} is not in {file}"
        path.write_text(text.replace(old, new))

    def manifests(self):
        """run_uid of every artefact by the path of its manifest."""
        found = sorted(self.folder.glob("results/**/*manifest.json"))
        return {
            str(p.relative_to(self.folder)): json.loads(p.read_text())["predicate"]["run_uid"]
            for p in found
        }


def made_again(before, after):
    """Stages and counts of artefacts that were made anew between two `manifests()`."""
    changed = [path for path, uid in after.items() if before.get(path) != uid]
    return Counter(path.split("/")[2] for path in changed)


def copy_suite(folder):
    """Copy the tracked parts of the suite and write the smallest params.yaml."""
    for part in PARTS:
        source, target = ROOT / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    params = smallest(read_yaml(ROOT / "params.yaml"))
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    suite = Suite(folder)
    suite.run("git", "init", "-q")
    suite.run("git", "config", "user.email", "test@example.org")
    suite.run("git", "config", "user.name", "test")
    suite.run("git", "config", "commit.gpgsign", "false")
    suite.run("git", "add", "-A")
    suite.run("git", "commit", "-qm", "suite")
    return suite
