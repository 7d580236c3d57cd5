"""One run shared by processes: equal to one process, resumable, clear when one dies."""

import signal
import subprocess
import sys

import pytest
import torch
from pretraining import ROOT, make_spec, write_dataset
from teaming import CASES, OUTPUTS, PER_DEVICE, SPEC, TEAMS, dying_work
from torch import nn

from clsp.config.schema import METHODS
from clsp.pretrain import batch_norm, run, sharing
from clsp.pretrain.gather import gathered
from clsp.pretrain.methods import simclr
from clsp.pretrain.run import pretrain_encoder
from clsp.runtime import device, team
from clsp.runtime.checkpoint import load_state, load_tensors, tensors_sha256
from clsp.runtime.errors import ClspError, ConfigError, DataError
from clsp.runtime.history import read_history
from clsp.runtime.manifest import read_manifest
from clsp.runtime.registry import names
from clsp.runtime.team import ALONE, Team

# Relative to the largest value of its kind, so that gradients which are 0 but for rounding count
# as such. In float64; where a loss rounds to float32, as SwAV's does, that is 1e-7.
CLOSE = 1e-6


@pytest.fixture(autouse=True)
def _two_processes(monkeypatch):
    monkeypatch.setenv(device.VARIABLE, "cpu")
    monkeypatch.setenv("CLSP_PROGRESS", "plain")
    monkeypatch.setenv(device.PROCESSES, "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where teams of 1, 2 and 4 processes left what they computed."""
    folder = tmp_path_factory.mktemp("teams")
    support = ROOT / "tests/support"
    environment = {
        "PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{support}", "OMP_NUM_THREADS": "1",
        device.VARIABLE: "cpu", "CLSP_PROGRESS": "plain", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    command = [sys.executable, str(support / "teaming.py"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def found(folder):
    """Tensors by (size of the team, rank), case and name."""
    return {
        (size, rank): torch.load(folder / f"{size}-{rank}.pt")
        for size in TEAMS
        for rank in range(size)
    }


def kind_of(name):
    """Values that are measured by the same yardstick: all gradients of a step, and so on."""
    step, kind, *_ = name.split()
    return (step, "grad") if kind == "grad" else name


def assert_close(left, right):
    """Two teams computed the same, up to rounding."""
    assert left.keys() == right.keys()
    sizes = {}
    for name, tensor in left.items():
        if tensor.is_floating_point():
            kind, size = kind_of(name), tensor.abs().max().item()
            sizes[kind] = max(sizes.get(kind, 0.0), size, 1e-6)
    for name, tensor in left.items():
        if tensor.is_floating_point():
            gap = (tensor - right[name]).abs().max().item()
            assert gap <= CLOSE * sizes[kind_of(name)], (name, gap, sizes[kind_of(name)])
        else:
            assert torch.equal(tensor, right[name]), name


def test_every_method_is_compared_with_and_without_a_positive():
    for positives in ("none", "augmentation"):
        assert {case.method for case in CASES if case.positives == positives} == set(names(METHODS))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_batch_shared_by_processes_trains_what_one_process_does(found, case):
    """Loss and parts, embeddings, all gradients, weights, queues, centres, running statistics."""
    alone = found[1, 0][str(case)]
    assert any(name.startswith(f"{case.steps - 1} grad encoder") for name in alone)
    for size, cases in TEAMS.items():
        if size > 1 and case in cases:
            assert_close(alone, found[size, 0][str(case)])


@pytest.mark.parametrize("size", [2, 4])
def test_all_processes_hold_the_same_bits(found, size):
    """Per-device batch norm included: the running statistics are those of process 0."""
    first = found[size, 0]
    for rank in range(1, size):
        for case, tensors in found[size, rank].items():
            different = [n for n, t in tensors.items() if not torch.equal(t, first[case][n])]
            assert different == [], case


def test_in_bf16_processes_round_apart_far_less_than_bf16_from_float32(found):
    """With bf16 statistics, or a gradient that forgets the other process, they would not."""
    alone, shared = (found[size, 0]["precisions"] for size in (1, 2))
    norm = alone["full"].norm()
    assert (shared["full"] - alone["full"]).norm() < 1e-4 * norm
    rounded = (alone["bf16"] - alone["full"]).norm()
    assert 0.01 * norm < rounded < 0.5 * norm
    assert (shared["bf16"] - alone["bf16"]).norm() < 0.15 * rounded


def test_batch_norm_of_each_device_is_something_else(found):
    shared = str(next(c for c in CASES if c.method == "simclr" and c.forward == "joint"))
    name = "0 state encoder.bn1.running_mean"
    left, right = (found[2, 0][str(case)][name] for case in (shared, PER_DEVICE))
    assert (left - right).abs().max() > 1e-3


def test_a_stopped_run_continues_bit_for_bit(folder):
    """Process 0 is told to end; all finish the step, save, end, and go on from there."""
    ended = [(folder / f"ended-{rank}").read_text() for rank in range(2)]
    assert ended == [str(128 + signal.SIGTERM)] * 2
    assert (folder / "left").read_text() == "history.jsonl start.safetensors"
    straight, stopped = folder / "straight", folder / "stopped"
    assert sorted(p.name for p in stopped.iterdir()) == sorted(OUTPUTS.values())
    for name in OUTPUTS.values():
        if name == "history.jsonl":
            assert (straight / name).read_bytes() == (stopped / name).read_bytes()
            continue
        left, right = (load_tensors(place / name) for place in (straight, stopped))
        assert left[1] == right[1] and tensors_sha256(left[0]) == tensors_sha256(right[0]), name
    records = read_history(straight / "history.jsonl")
    assert [r["step"] for r in records] == list(range(6))
    assert {"neighbour_label_share", "embedding_std", "gradient_norm"} <= records[0].keys()


def test_the_outcome_tells_how_many_processes_there_were(folder):
    outcome = torch.load(folder / "outcome.pt")
    assert outcome["facts"]["processes"] == 2
    assert outcome["facts"]["batch_norm"] == "synchronised"
    assert outcome["counters"] == {"optimizer_steps": 6, "ema_updates": 6, "samples": 48}
    final = load_tensors(folder / "straight/final.safetensors")[0]
    assert outcome["facts"]["final_sha256"] == tensors_sha256(final)


def stage(dataset, folder, spec=SPEC):
    """Run the stage, with outputs and scratch below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    outputs = {name: folder / file for name, file in OUTPUTS.items()}
    return pretrain_encoder(spec, dataset, [], [], **outputs, scratch=folder / "scratch")


def test_a_process_that_dies_stops_all_and_its_state_is_of_two(folder, tmp_path, monkeypatch):
    """Killed behind the last step: the launched team has done what the forked one did."""
    dataset = read_manifest(folder / "toy/manifest.json")
    monkeypatch.setattr(run, "work", dying_work)
    with pytest.raises(ClspError, match="process 1 of 2 ended by signal SIGKILL, so all were"):
        stage(dataset, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"history.jsonl", "start.safetensors", "scratch"}
    kept, final = load_state(tmp_path / "scratch"), folder / "straight/final.safetensors"
    assert (kept["step"], kept["processes"]) == (6, 2)
    assert tensors_sha256(kept["method"]) == tensors_sha256(load_tensors(final)[0])
    monkeypatch.undo()
    monkeypatch.setenv(device.VARIABLE, "cpu")
    with pytest.raises(ConfigError, match="is of 2 processes, but this job has 1"):
        stage(dataset, tmp_path)


def four(**changes):
    """A run whose `forward` splits a batch into four chunks."""
    return make_spec(options={"forward": "four_gpu"}, recipe={"batch_size": 8, **changes})


@pytest.mark.parametrize(("spec", "size", "told"), [
    (make_spec(), 3, "batch_size 8 cannot be shared equally by 3 processes"),
    (four(), 8, "1, 2 or 4 processes can share.*found 8 processes and recipe.batch_size 8"),
    (four(batch_size=6), 2, "multiple of 4; found 2 processes and recipe.batch_size 6"),
    (make_spec(recipe={"batch_norm": "per_device"}), 8, "at least 2 images for each process"),
])  # fmt: skip
def test_what_processes_cannot_share_is_refused(tmp_path, monkeypatch, spec, size, told):
    monkeypatch.setenv(device.PROCESSES, str(size))
    monkeypatch.setattr(run, "launch", None)
    with pytest.raises(ConfigError, match=told):
        stage(write_dataset(tmp_path / "toy"), tmp_path / "run", spec)


def test_a_method_that_does_not_gather_is_refused_with_several_processes(monkeypatch):
    monkeypatch.delattr(simclr.Method, "GATHERS")
    sharing.check_shared(make_spec(), 1)
    with pytest.raises(ConfigError, match="method simclr: it does not gather what it compares"):
        sharing.check_shared(make_spec(), 2)


def test_more_processes_than_gpus_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(team, "resolve", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DataError, match="pretrain-encoder: 2 GPUs were asked for, but this job"):
        stage(write_dataset(tmp_path / "toy"), tmp_path / "run")


def test_processes_that_hold_different_weights_are_refused(monkeypatch):
    """At the end, and where they continue: one that read another state would wait for ever."""
    monkeypatch.setattr(Team, "gather", lambda self, text: [text, "step 3, another"])
    with pytest.raises(ClspError, match=r"2 processes hold different .*step 4, .*; step 3, ano"):
        run._agreed({"w": torch.ones(1)}, 4, Team(0, 2))


def test_one_process_gathers_nothing():
    rows = torch.ones(3, 2)
    assert gathered(ALONE, rows) is rows and ALONE.part(rows) is rows
    assert [len(Team(rank, 3).part(torch.arange(6))) for rank in range(3)] == [2, 2, 2]
    assert Team(1, 3).part(torch.arange(6)).tolist() == [2, 3]


def test_shared_batch_norm_keeps_names_and_modes():
    """Alone it equals torch's layer in training, with frozen statistics and in evaluation."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 4, 3, 3, generator=generator, dtype=torch.float64)
    plain = nn.Sequential(nn.BatchNorm2d(4, affine=False)).double()
    shared = nn.Sequential(nn.BatchNorm2d(4, affine=False)).double()
    batch_norm.share_statistics(shared, ALONE)
    assert isinstance(shared[0], batch_norm.SharedBatchNorm)
    for mode in (True, True, False):
        left, right = (network.train(mode)(images) for network in (plain, shared))
        torch.testing.assert_close(left, right)
        states = plain.state_dict(), shared.state_dict()
        assert list(states[0]) == list(states[1])
        for name, buffer in states[0].items():
            torch.testing.assert_close(buffer, states[1][name])
    with pytest.raises(ValueError, match="expected rows and channels"):
        shared.train()(images[0, 0, 0])


def test_shared_batch_norm_rounds_in_bf16_as_torchs_layer_does():
    """Against float64: statistics in float32, and one rounding of the result and of its gradient.

    Few rows, so that the part of the gradient that goes through the statistics counts.
    """
    generator = torch.Generator().manual_seed(0)
    images, upstream = (torch.randn(4, 8, 2, 2, generator=generator).bfloat16() for _ in range(2))

    def made(network, dtype):
        shown = images.detach().clone().to(dtype).requires_grad_()
        network(shown).backward(upstream.to(dtype))
        return shown.grad.double(), network[0].weight.grad.double()

    layers = [nn.Sequential(nn.BatchNorm2d(8)) for _ in range(3)]
    batch_norm.share_statistics(layers[2], ALONE)
    exact = made(layers[0].double(), torch.float64)
    plain, shared = (made(layer, torch.bfloat16) for layer in layers[1:])
    for number, right in enumerate(exact):
        theirs, ours = ((found[number] - right).norm() for found in (plain, shared))
        assert 0 < ours < 1.3 * theirs


def test_a_layer_that_two_networks_share_stays_one():
    layer = nn.BatchNorm1d(2)
    network = nn.ModuleList([nn.Sequential(layer), nn.Sequential(layer)])
    batch_norm.share_statistics(network, ALONE)
    assert network[0][0] is network[1][0] and network[0][0].weight is layer.weight
    assert len(batch_norm.running_statistics(network)) == 3
