"""Foreign files through Snakemake: a bank from the authors' denoiser, their encoder in the table."""

import json

import pytest
from theirs import save_torch, their_encoder, their_unet
from working_copy import ROOT, copy_suite, smallest

from clsp.config.load import read_yaml

pytestmark = pytest.mark.slow
UNET, ENCODER = "pretrained_ckpts/unet.pt", "pretrained_ckpts/their encoder.pt"


def with_imports(params):
    params["denoisers"] = {
        "theirs": {
            "dataset": "digits",
            "format": "clsp",
            "path": UNET,
            "train_timesteps": 1000,
            "beta_start": 0.0001,
            "beta_end": 0.02,
        }
    }
    params["banks"]["digits.mix"]["denoiser"] = "theirs"
    params["imported"] = {
        "theirs": {
            "label": "SimCLR (file)",
            "dataset": "digits",
            "encoder": "tiny",
            "format": "clsp",
            "path": ENCODER,
            "epochs": 1000,
            "uses_labels": False,
        }
    }
    grid = params["runs"]["all"]
    grid.update(method=["simclr"], positives=["synthetic"])
    params["datasets"]["digits"]["limit"] = 120
    params["evaluation"]["knn"].update(k=5, best_of=[])
    params["evaluation"]["transfer"] = None
    params.update(tables=["main"], figures=[], quality=None, shards=1, tracking=False)


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    made = copy_suite(tmp_path_factory.mktemp("imports") / "suite")
    made.params(with_imports)
    return made


def put(suite, seed=0):
    (suite.folder / "pretrained_ckpts").mkdir(exist_ok=True)
    if not (suite.folder / UNET).exists():
        save_torch(their_unet(1000).state_dict(), suite.folder / UNET)
    save_torch(their_encoder(width=4, seed=seed), suite.folder / ENCODER)


def test_imports_from_files_to_a_verified_table(suite):
    done = suite.run("snakemake", "--cores", "all", check=False)
    assert done.returncode == 1  # before anything ran
    assert "Missing input files for rule import_" in done.stderr and UNET in done.stderr
    assert not (suite.folder / "results/smoke/data").exists()

    put(suite)
    suite.run("snakemake", "--cores", "all")
    table = (suite.folder / "reports/smoke/tables/main.md").read_text()
    assert r"SimCLR \(file\)" in table or "SimCLR (file)" in table
    assert "their encoder.pt sha256:" in table
    audit = json.loads((suite.folder / "reports/smoke/audit.json").read_text())
    assert audit["verdict"] == "verified", audit["findings"]
    cells = {(c["label"], c["column"]): c["verdict"] for c in audit["cells"]}
    assert cells[("SimCLR (file)", "linear")] == "verified"
    for file in (UNET, ENCODER):  # results stand without the files
        (suite.folder / file).rename(suite.folder / f"{file}.away")
    assert suite.planned() == {}
    for file in (UNET, ENCODER):
        (suite.folder / f"{file}.away").rename(suite.folder / file)

    put(suite, seed=1)
    transfer = smallest(read_yaml(ROOT / "params.yaml"))["evaluation"]["transfer"]
    transfer.update(datasets=["cifar10-mini"], floors=["pixels"])
    suite.params(lambda params: params["evaluation"].update(transfer=transfer))
    planned = suite.planned()
    assert (planned["import_encoder"], planned["fine_tune_encoder"]) == (1, 2)
    assert (planned["extract_features"], planned["probe_transfer"]) == (3, 3)
    assert {"import_denoiser", "generate_shard", "pretrain_encoder"}.isdisjoint(planned)
