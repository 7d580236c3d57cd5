"""What a job ran on: hardware class, libraries and the settings that change numbers.

Environment variables are taken from a list of names, never dumped: others may hold secrets.
"""

import os
import platform
import sys
from pathlib import Path
from typing import Any

from clsp.runtime.source import library_versions

VARIABLES = (
    "CLSP_DEVICE",
    "CLSP_PROCESSES",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "LANG",
    "LC_ALL",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "PYTHONHASHSEED",
)
DRIVER = Path("/proc/driver/nvidia/version")
PROCESSORS = Path("/proc/cpuinfo")
COMPUTED_ON: list[str] = []  # kinds of device that torch was given in this process


def _first_line_with(path: Path, words: str) -> str | None:
    """The rest of a file's first line that holds the words, or None."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if words in line:
                    return line.partition(words)[2].strip(" :\t\n")
    except OSError:
        return None
    return None


def cpu_model() -> str:
    """The processor's name as the kernel gives it, else its architecture."""
    return _first_line_with(PROCESSORS, "model name") or platform.machine()


def _gpu(torch: Any) -> dict[str, Any] | None:
    """The GPU that this process used, or None."""
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    driver = _first_line_with(DRIVER, "Kernel Module")
    return {
        "name": properties.name,
        "memory_bytes": int(properties.total_memory),
        "driver": driver.split()[0] if driver else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _switches(torch: Any) -> dict[str, Any] | None:
    """Torch's own settings that decide whether equal runs give equal bits.

    None for a job that computes nothing with torch. Jobs that share a process find it imported all
    the same, so that is not what is asked.
    """
    if torch is None or not COMPUTED_ON:
        return None
    return {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
    }


def describe_machine(threads: int) -> dict[str, Any]:
    """Python, libraries, processor, GPU and settings of this process, for its manifest.

    Args:
        threads: That the job computes with.
    """
    torch = sys.modules.get("torch")
    torch = torch if hasattr(torch, "cuda") else None
    gpu = _gpu(torch)
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": library_versions(),
        "threads": threads,
        "device": gpu["name"] if gpu else "cpu",
        "gpu": gpu,
        "cpu": cpu_model(),
        "torch_switches": _switches(torch),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def hardware_class(environment: dict[str, Any]) -> str:
    """What has to be equal for equal bits: the GPU's name and memory, or the processor's name.

    Args:
        environment: From `describe_machine`, as a manifest holds it.
    """
    gpu = environment.get("gpu")
    if isinstance(gpu, dict):
        return f"{gpu.get('name')}, {gpu.get('memory_bytes')} bytes"
    return str(environment.get("cpu") or environment.get("device"))
