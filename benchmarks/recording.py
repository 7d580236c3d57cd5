"""What the benchmark programs share: rounds in turn, where they ran, and one form of result.

    from recording import Timing, compare, record, side_by_side, surroundings

    seconds = side_by_side({"ours": ours, "plain": plain}, rounds=5, device=device)
    rows = compare(seconds, baseline="plain", items=256, unit="images")
    print(record("views", surroundings(device), rows, notes=["..."]))

`record` writes benchmarks/results/views.json and views.md: every value with the rounds behind it,
and the ratio to the baseline. No program of its own.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch

HERE = Path(__file__).parent
RESULTS = HERE / "results"


@dataclass(frozen=True)
class Timing:
    """Seconds of each round of one variant, the round that warms up left out."""

    seconds: list[float]

    @property
    def median(self) -> float:
        return median(self.seconds)


def wait(device: torch.device | None) -> None:
    """Until the device has done what it was given."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


def side_by_side(
    work: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device | None = None,
    warm_up: int = 1,
) -> dict[str, Timing]:
    """Time all variants in turn, round by round, so that whatever else runs meets all of them.

    Args:
        work: What one round of each variant does, by name.
        rounds: That count.
        device: Waited for before and after each; None: nothing runs asynchronously.
        warm_up: Rounds before those that count: compilation, caches, worker processes.
    """
    found: dict[str, list[float]] = {name: [] for name in work}
    for number in range(warm_up + rounds):
        for name, call in work.items():
            wait(device)
            started = time.perf_counter()
            call()
            wait(device)
            if number >= warm_up:
                found[name].append(time.perf_counter() - started)
    return {name: Timing(seconds) for name, seconds in found.items()}


def compare(
    timings: Mapping[str, Timing],
    baseline: str,
    items: float | Mapping[str, float] = 1.0,
    unit: str | None = None,
) -> list[dict[str, Any]]:
    """One row per variant, the baseline among them.

    Args:
        timings: From `side_by_side`.
        baseline: Name of the variant that the others are compared with.
        items: Handled in one round: the same for all variants, or by name.
        unit: What the items are, such as "views"; None: seconds are shown, not items per second.

    Returns:
        Rows with `variant`, `seconds` (of each round), `value` (median: items per second, or
        seconds), `least`, `most` and `ratio`: how many times as fast as the baseline, the median
        over rounds of the ratio within each round.
    """
    counts = {n: items[n] if isinstance(items, Mapping) else items for n in timings}
    rows = []
    for name, timing in timings.items():
        pairs = zip(timings[baseline].seconds, timing.seconds, strict=True)
        scale = counts[name] / counts[baseline]
        values = [counts[name] / s for s in timing.seconds] if unit else timing.seconds
        row = {
            "variant": name,
            "unit": f"{unit}/s" if unit else "s",
            "value": median(values),
            "least": min(values),
            "most": max(values),
            "baseline": baseline,
            "ratio": median(scale * base / mine for base, mine in pairs),
            "seconds": timing.seconds,
        }
        rows.append(row)
    return rows


def commit() -> str:
    """Of the working tree; "+changes" if it differs from the commit."""

    def git(*command: str) -> str:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(HERE), *command],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip()

    found = git("rev-parse", "--short=10", "HEAD") or "unknown"
    # The results of other benchmarks of the same session are no change of what was measured.
    changed = git("status", "--porcelain", "--", ":/", ":!/benchmarks/results")
    return found + ("+changes" if changed else "")


def processor() -> str:
    """The processor's name as the kernel knows it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _named(argument: str) -> str:
    return Path(argument).name if Path(argument).is_absolute() else argument


def surroundings(device: torch.device | None = None, *packages: str) -> dict[str, Any]:
    """Device, threads, versions, commit and command line of a measurement.

    Args:
        device: Where the work runs; None: the CPU.
        packages: Further packages whose versions matter; absent ones are recorded as such.
    """
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    on_gpu = device is not None and device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else processor(),
        "processors": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "versions": versions,
        "commit": commit(),
        # Of an absolute path its name alone: the rest tells of the machine.
        "command": " ".join(["python", *(_named(argument) for argument in sys.argv)]),
    }


def figure(number: float) -> str:
    """A number with four significant digits, without an exponent."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:#.4g}"


def table(rows: list[dict[str, Any]], extra: tuple[str, ...] = ()) -> str:
    """Rows of `compare` as a markdown table; `extra` names further keys to show as columns."""
    heads = ["variant", "value (least, most)", "unit", "ratio", "to", *extra]
    lines = [f"| {' | '.join(heads)} |", "|---|---:|---|---:|---|" + "---:|" * len(extra)]
    for row in rows:
        cells = [
            row["variant"],
            f"{figure(row['value'])} ({figure(row['least'])}, {figure(row['most'])})",
            row["unit"],
            f"{row['ratio']:.2f}",
            row["baseline"],
            *(_cell(row.get(key)) for key in extra),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return figure(value) if isinstance(value, float) else str(value)


def record(
    name: str,
    about: dict[str, Any],
    rows: list[dict[str, Any]],
    notes: list[str] | None = None,
    extra: tuple[str, ...] = (),
    **more: Any,
) -> str:
    """Write benchmarks/results/<name>.json and .md; returns the text of the latter.

    Args:
        name: Of the files.
        about: From `surroundings`, perhaps with settings of the program.
        rows: From `compare`, perhaps with further keys, or of several comparisons one by one.
        notes: Sentences below the table.
        extra: Keys of rows that the table shows beside the usual ones.
        more: Further entries of the JSON.
    """
    told = notes or []
    settings = ("device", "processors", "threads", "versions", "commit", "command")
    lines = [
        f"Device {about['device']}, {about['processors']} processors, {about['threads']} threads; "
        f"{', '.join(f'{k} {v}' for k, v in about['versions'].items())}; commit {about['commit']}.",
        f"`{about['command']}`",
        *[f"{key}: {value}." for key, value in about.items() if key not in settings],
        table(rows, extra),
        *told,
    ]
    text = "\n\n".join(lines)
    RESULTS.mkdir(exist_ok=True)
    kept = {"about": about, "rows": rows, "notes": told, **more}
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    return text
