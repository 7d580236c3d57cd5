"""How fast are candidates drawn and denoisers trained, beside the plain algorithm? In one run.

    python benchmarks/synthesis.py [--network authors|narrow] [--steps 100] [--batch 1000]

The reference is benchmarks/reference_sampler.py: full precision, encoder on sample and anchor one
after the other, decoder on the sample; its noise comes from torch's generator, which costs less
than the suite's keyed noise. Every variant works on the same device, network and batch; variants
take turns, round by round, and medians are reported. Then the reference is given the suite's keyed
noise, and the generator's images are compared with its own. `share` is the rate of floating-point
operations that a variant needs, as part of what a large product of matrices reaches on this device
in the same precision. Writes below benchmarks/results/ the table as JSON and
markdown.
"""

import argparse
import copy
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import diffusers
import numpy as np
import torch
from reference_sampler import bottleneck, interpolate, noise_of, train_step
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from clsp.config.denoisers import DenoiserSpec
from clsp.diffusion.feed import Feed, Pixels
from clsp.diffusion.loop import Loop
from clsp.diffusion.pixels import to_signed
from clsp.diffusion.state import begin
from clsp.diffusion.train import memory_layout
from clsp.models.denoiser import Denoiser, build_denoiser
from clsp.runtime.device import resolve
from clsp.runtime.rng import torch_stream
from clsp.runtime.team import Team
from clsp.synthesis.contract import Request
from clsp.synthesis.generators.interpolate import Config, generate
from clsp.synthesis.network import Network, images_at_once

HERE = Path(__file__).parent
SIZE, CANDIDATES, WEIGHT, ETA, SEED = 32, 8, 0.1, 0.1, 0
NETWORKS = {
    "authors": {
        "channels": (128, 256, 256, 256),
        "attention": (False, True, False, False),
        "layers_per_block": 2,
        "norm_groups": 32,
    },
    "narrow": {
        "channels": (32, 64, 64),
        "attention": (False, True, False),
        "layers_per_block": 1,
        "norm_groups": 8,
    },
}


def denoiser_spec(network: str, batch: int, **changed: Any) -> DenoiserSpec:
    """The authors' training of one of the networks."""
    values = {
        "dataset": "noise",
        **NETWORKS[network],
        "dropout": 0.1,
        "train_timesteps": 1000,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "epochs": 10**6,
        "batch_size": batch,
        "learning_rate": 2e-4,
        "warmup_steps": 5000,
        "gradient_clip": 1.0,
        "ema_decay": 0.9999,
        "flip": 0.5,
        "log_every": 100,
        "seed": SEED,
        **changed,
    }
    return DenoiserSpec.model_validate(values)


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def matrix_rate(device: torch.device, kind: torch.dtype) -> float:
    """Floating-point operations per second of a large product of matrices."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    seconds = []
    for _ in range(8):
        wait(device)
        started = time.perf_counter()
        a @ b
        wait(device)
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / median(seconds)


def flops(work: Callable[[], object]) -> int:
    """Floating-point operations of a call."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def take_turns(
    work: dict[str, Callable[[], object]], device: torch.device, rounds: int
) -> dict[str, list[float]]:
    """Seconds of every call: one round to warm up, then rounds in which all take turns."""
    found: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, call in work.items():
            wait(device)
            started = time.perf_counter()
            call()
            wait(device)
            if number:
                found[name].append(time.perf_counter() - started)
    return found


def lively(spec: DenoiserSpec, device: torch.device) -> Denoiser:
    """A denoiser whose every layer matters: without the initial gains of 1e-5."""
    unet = build_denoiser(spec, SIZE)
    stream = torch_stream(SEED, "benchmark weights")
    for parameter in unet.parameters():
        if parameter.ndim > 1:
            torch.nn.init.xavier_uniform_(parameter.data, 0.7, stream)
    return Denoiser(unet.eval().requires_grad_(False).to(device), spec, SIZE, None, "")


def request_of(batch: int, device: torch.device) -> Request:
    """All candidates of batch / CANDIDATES anchors, whose images are random."""
    rows = torch.arange(batch // CANDIDATES)
    pixels = torch.randint(
        0,
        256,
        (len(rows), SIZE, SIZE, 3),
        dtype=torch.uint8,
        generator=torch_stream(SEED, "images"),
    )
    which = rows.repeat_interleave(CANDIDATES)
    candidates = torch.arange(CANDIDATES).repeat(len(rows))
    placed = (t.to(device) for t in (to_signed(pixels), rows, which, candidates))
    return Request(*placed, labels=None, seed=SEED)


def parts_of(request: Request, largest: int) -> list[Request]:
    """The same pairs in the batches in which generate-shard draws them: whole anchors."""
    step = max(1, largest // CANDIDATES)
    parts = []
    for first in range(0, len(request.anchors), step):
        rows = slice(first, first + step)
        pairs = slice(first * CANDIDATES, (first + step) * CANDIDATES)
        parts.append(
            Request(
                images=request.images[rows],
                anchors=request.anchors[rows],
                which=request.which[pairs] - first,
                candidates=request.candidates[pairs],
                labels=None,
                seed=request.seed,
            )
        )
    return parts


def variants(device: torch.device, steps: int, batch: int) -> dict[str, Config]:
    """Settings of the generator that are measured."""
    common = {
        "interpolation_weight": WEIGHT,
        "steps": steps,
        "eta": ETA,
        "rounding": "nearest",
        "batch_size": batch,
    }
    chosen: dict[str, dict[str, Any]] = {
        "full precision": {},
        "full precision, shared noise": {"share_anchor_noise": True},
        "bf16": {"precision": "bf16"},
    }
    if device.type == "cuda":
        chosen["bf16, compiled"] = {"precision": "bf16", "compile": True}
        chosen["bf16, compiled, shared noise"] = {
            **chosen["bf16, compiled"],
            "share_anchor_noise": True,
        }
    return {name: Config.model_validate(common | more) for name, more in chosen.items()}


def sampling(
    arguments: argparse.Namespace, device: torch.device
) -> tuple[list[dict[str, Any]], list[str]]:
    """One record per variant of the generator, and what its images are like."""
    spec = denoiser_spec(arguments.network, arguments.batch)
    denoiser, request = lively(spec, device), request_of(arguments.batch, device)
    plain = copy.deepcopy(denoiser.unet)  # the suite changes the memory format of its own
    anchors = request.images[request.which]
    settings = variants(device, arguments.steps, arguments.batch)
    networks = {name: Network(denoiser, config) for name, config in settings.items()}
    parts = {
        name: parts_of(request, images_at_once(config, SIZE, device))
        for name, config in settings.items()
    }
    known = (WEIGHT, arguments.steps, ETA)

    def reference(draw: Callable[[str, int], Tensor]) -> Tensor:
        return interpolate(plain, spec, anchors, *known, draw)

    def drawn(name: str) -> Tensor:
        made = [generate(networks[name], part, settings[name]) for part in parts[name]]
        return torch.cat(made)

    work: dict[str, Callable[[], object]] = {
        "reference": lambda: reference(lambda purpose, step: torch.randn_like(anchors))
    }
    work |= {name: partial(drawn, name) for name in settings}
    seconds = take_turns(work, device, arguments.rounds)
    one = anchors[:1]
    times = torch.zeros(1, dtype=torch.int64, device=device)
    with torch.no_grad():
        half = flops(lambda: bottleneck(plain, one, times))
        whole = flops(lambda: noise_of(plain, *bottleneck(plain, one, times)))
    rows = []
    for name, found in seconds.items():
        passes = half / CANDIDATES if "shared" in name else half
        rate = arguments.batch / median(found)
        rows.append(record(f"draw: {name}", rate, found, (whole + passes) * arguments.steps))
    keyed = reference(request.noise)
    notes = []
    for name in ("full precision", "bf16"):
        gap = (drawn(name).int() - keyed.int()).abs()
        notes.append(
            f"Images of the generator ({name}) against the reference with the same noise: "
            f"largest difference {int(gap.max())} grey levels, "
            f"{float((gap > 0).double().mean()):.4%} of values differ."
        )
    return rows, notes


def training(arguments: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """One record per way of training the denoiser."""
    count, steps = arguments.train_batch, arguments.train_steps
    drawn = np.random.default_rng(SEED).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    spec = denoiser_spec(arguments.network, count)
    unet = build_denoiser(spec, SIZE).to(device).train()
    average = copy.deepcopy(unet).requires_grad_(False)
    optimizer = torch.optim.Adam(unet.parameters(), lr=spec.learning_rate)
    clean = to_signed(torch.from_numpy(drawn).to(device))

    def plain() -> None:
        for _ in range(steps):
            train_step(unet, average, optimizer, spec, clean, spec.ema_decay, spec.gradient_clip)

    work: dict[str, Callable[[], object]] = {"reference": plain}
    settings: dict[str, dict[str, Any]] = {"full precision": {}, "bf16": {"precision": "bf16"}}
    if device.type == "cuda":
        settings["bf16, compiled"] = {"precision": "bf16", "compile": True}
    for name, changed in settings.items():
        mine = denoiser_spec(arguments.network, count, **changed)
        layout = memory_layout(device)
        state = begin(mine, SIZE, None, device, layout)
        state.unet.train()
        feed = Feed(Pixels(drawn, "noise", device), count, None, mine, Team())
        loop = Loop(state, mine, feed, Team(), None, None, HERE, "", layout)
        work[name] = lambda loop=loop: [loop.advance() for _ in range(steps)]
    seconds = take_turns(work, device, arguments.rounds)
    time = torch.zeros(1, dtype=torch.int64, device=device)
    per_image = flops(lambda: unet(clean[:1], time).sample.sum().backward())
    return [
        record(f"train: {name}", count * steps / median(found), found, per_image)
        for name, found in seconds.items()
    ]


def record(name: str, rate: float, seconds: list[float], per_image: float) -> dict[str, Any]:
    """What is kept of a variant; `flops` are those that an image needs."""
    return {
        "variant": name,
        "images_per_second": rate,
        "seconds": seconds,
        "flops_per_image": per_image,
        "precision": "bf16" if "bf16" in name else "full",
    }


def complete(rows: list[dict[str, Any]], rates: dict[str, float]) -> None:
    """Add to every record its ratio to the reference and its share of the device's rate."""
    for row in rows:
        kind = row["variant"].split(":")[0]
        base = next(r for r in rows if r["variant"] == f"{kind}: reference")
        row["ratio"] = row["images_per_second"] / base["images_per_second"]
        row["share"] = row["images_per_second"] * row["flops_per_image"] / rates[row["precision"]]


def table(rows: list[dict[str, Any]]) -> str:
    """The records as a markdown table."""
    lines = ["| variant | images/s | ratio to reference | share |", "|---|---:|---:|---:|"]
    for row in rows:
        lines.append(
            f"| {row['variant']} | {row['images_per_second']:.2f} | {row['ratio']:.2f} | "
            f"{row['share']:.0%} |"
        )
    return "\n".join(lines)


def commit() -> str:
    """Of the working tree."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=10"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def main() -> int:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="authors")
    parser.add_argument("--steps", type=int, default=100, help="DDIM steps")
    parser.add_argument("--batch", type=int, default=1000, help="candidates drawn at a time")
    parser.add_argument("--train-batch", type=int, default=128)
    parser.add_argument("--train-steps", type=int, default=20, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "synthesis.json")
    arguments = parser.parse_args()
    if arguments.batch % CANDIDATES:
        parser.error(f"--batch must be a multiple of {CANDIDATES}, found {arguments.batch}")
    device = resolve()
    rates = {
        "full": matrix_rate(device, torch.float32),
        "bf16": matrix_rate(device, torch.bfloat16),
    }
    rows, notes = sampling(arguments, device)
    rows += training(arguments, device)
    complete(rows, rates)
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    about = (
        f"Device {name}, {os.cpu_count()} processors, {torch.get_num_threads()} threads; network "
        f"{arguments.network}; {arguments.steps} steps, batches of {arguments.batch} candidates "
        f"and {arguments.train_batch} training images; medians of {arguments.rounds} rounds; "
        f"matrix products reach {rates['full'] / 1e9:.0f} GFLOP/s in full precision and "
        f"{rates['bf16'] / 1e9:.0f} in bf16; torch {torch.__version__}, diffusers "
        f"{diffusers.__version__}, commit {commit()}"
    )
    kept = {"about": about, "notes": notes, "rows": rows}
    arguments.out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    text = "\n\n".join([about, table(rows), *notes])
    arguments.out.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
