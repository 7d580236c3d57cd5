"""The suite's nearest neighbours beside scikit-learn's and a plain matrix product.

    python benchmarks/knn.py [--bank 50000] [--queries 10000] [--rounds 3] [--device cpu]

    suite    clsp.models.nearest: the bank in blocks, ties settled by row
    plain    torch: all features on the device, cosines of all of the bank at once for a block of
             queries, topk
    sklearn  NearestNeighbors(algorithm="brute", metric="cosine")

All find the same K neighbours of the same random features, in turn, round by round. Then memory:
suite and plain search banks of N and 10 N features that lie in a file, each in a process of its
own, whose largest anonymous memory (what cannot be dropped and read again) is sampled beside what
it had before. Writes benchmarks/results/knn.json and .md. Exit code 1 if neighbours differ by more
than ties of rounding, or if the suite's memory grows with the bank. Under 5 minutes on two cores.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from recording import compare, record, side_by_side, surroundings
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits
from torch.nn import functional

from clsp.models import nearest

FEATURES, K = 512, 200  # of a ResNet-18; the largest k that the authors try
BLOCK = 256  # queries of the plain product
AGREE = 0.9999  # of neighbours: others are equally near but for rounding
GROWTH = 1.2  # of memory that still counts as none, for ten times the bank


def draw(count: int, seed: int) -> np.ndarray:
    """Random features, float32 (N, F)."""
    return np.random.default_rng(seed).standard_normal((count, FEATURES), np.float32)


def suite(bank: np.ndarray, queries: np.ndarray, device: torch.device) -> np.ndarray:
    """Rows of the neighbours, (M, K)."""
    return nearest.neighbours(bank, queries, K, device)[1]


def plain(bank: np.ndarray, queries: np.ndarray, device: torch.device) -> np.ndarray:
    """The same without care for memory or ties."""
    held, asked = (
        functional.normalize(torch.from_numpy(np.array(each)).to(device), dim=1)
        for each in (bank, queries)
    )
    found = [(part @ held.T).topk(K, dim=1).indices.cpu() for part in asked.split(BLOCK)]
    return torch.cat(found).numpy()


def reference(bank: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """scikit-learn's."""
    search = NearestNeighbors(n_neighbors=K, algorithm="brute", metric="cosine").fit(bank)
    return search.kneighbors(queries, return_distance=False)


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Share of neighbours that both found."""
    shared = [len(np.intersect1d(a, b)) for a, b in zip(one, other, strict=True)]
    return sum(shared) / one.size


def speed(given: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """One row per variant."""
    bank, queries = draw(given.bank, 0), draw(given.queries, 1)
    found: dict[str, np.ndarray] = {}
    work = {
        "suite": lambda: found.update(suite=suite(bank, queries, device)),
        "plain": lambda: found.update(plain=plain(bank, queries, device)),
        "sklearn": lambda: found.update(sklearn=reference(bank, queries)),
    }
    with threadpool_limits(given.threads):
        rows = compare(
            side_by_side(work, given.rounds, device, 0), "sklearn", len(queries), "queries"
        )
    for row in rows:
        row["agreement"] = agreement(found[row["variant"]], found["sklearn"])
    return rows


def anonymous() -> int:
    """Memory of this process that no file stands behind, bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def peak_of(path: Path, variant: str, queries: int) -> int:
    """Largest memory of one search above what there was before it, bytes."""
    bank = np.load(path, mmap_mode="r")
    asked, device = draw(queries, 1), torch.device("cpu")
    work = {"suite": suite, "plain": plain}[variant]
    work(bank[:K], asked[:1], device)  # libraries are loaded
    before, peak, done = anonymous(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, anonymous())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    work(bank, asked, device)
    done.set()
    watcher.join()
    return peak - before


def memory(given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """MiB by variant and size of the bank."""
    found: dict[str, dict[str, float]] = {"suite": {}, "plain": {}}
    with TemporaryDirectory() as folder:
        for count in (given.memory_bank, 10 * given.memory_bank):
            path = Path(folder) / "bank.npy"
            bank = np.lib.format.open_memmap(path, "w+", np.float32, (count, FEATURES))
            for start in range(0, count, 10_000):
                bank[start : start + 10_000] = draw(min(10_000, count - start), start)
            bank.flush()
            del bank
            for variant, known in found.items():
                command = [sys.executable, __file__, "--peak", str(path), "--variant", variant]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                known[str(count)] = json.loads(done.stdout.splitlines()[-1]) / 2**20
    return found


def main() -> int:
    """Exit code 1 if neighbours differ or memory grows with the bank."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bank", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--memory-bank", type=int, default=40_000, help="the smaller one")
    parser.add_argument("--memory-queries", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", default="knn", help="of the files with the results")
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)  # a process of `memory`
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.peak:
        print(peak_of(given.peak, given.variant, given.memory_queries))
        return 0
    device = torch.device(given.device)
    rows, held = speed(given, device), memory(given)
    about = surroundings(device, "numpy", "scikit-learn")
    about["features"] = (
        f"{given.bank} in the bank, {given.queries} queries, {FEATURES} each, K = {K}"
    )
    notes = [
        f"memory of {variant}: "
        + ", ".join(f"{mib:.0f} MiB for a bank of {count}" for count, mib in known.items())
        + f" ({given.memory_queries} queries)."
        for variant, known in held.items()
    ]
    print(record(given.name, about, rows, notes, extra=("agreement",), memory_mib=held))
    small, large = held["suite"].values()
    return int(min(row["agreement"] for row in rows) < AGREE or large > GROWTH * small)


if __name__ == "__main__":
    sys.exit(main())
