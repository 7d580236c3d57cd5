"""The one place that decides where tensors live. `auto` takes a GPU if there is one."""

import ctypes
import fcntl
import logging
import os
import tempfile
import time
from pathlib import Path

from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.machine import COMPUTED_ON

log = logging.getLogger(__name__)
VARIABLE = "CLSP_DEVICE"  # set by the Snakefile from params.yaml's `device`
PROCESSES = "CLSP_PROCESSES"  # set by rules whose jobs may use several GPUs


def cuda_devices() -> int:
    """How many CUDA devices the driver offers, asked without importing torch."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def wanted() -> str:
    """The setting in force: "auto", "cpu" or "cuda"."""
    return os.environ.get(VARIABLE, "auto")


def check_demand(setting: str) -> None:
    """Stop at once when a GPU is demanded where there is none.

    Raises:
        DataError: With what was asked and what is here.
    """
    if setting == "cuda" and cuda_devices() == 0:
        raise DataError(
            "device: cuda was demanded, but this machine offers no CUDA device; "
            "set device: auto or device: cpu to run on the CPU"
        )


def resolve(deterministic: bool = True) -> "torch.device":  # noqa: F821 - torch is imported only when a stage needs it
    """The torch device of this process; on a GPU, also which kernels torch may choose.

    Args:
        deterministic: Equal runs on equal hardware give equal bits, and convolutions keep full
            precision as the authors' do (audit.md 6). Otherwise the fastest kernels are tried out
            and float32 convolutions may use TF32; matrix products never do, as losses are made of
            them. A CPU repeats its bits either way.

    Raises:
        DataError: If a GPU is demanded and there is none, or torch cannot use the one there is.
    """
    device = _settle(deterministic)
    COMPUTED_ON.append(device.type)
    return device


def _settle(deterministic: bool) -> "torch.device":  # noqa: F821
    import torch

    setting = wanted()
    check_demand(setting)
    if setting == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        torch.backends.cudnn.deterministic = deterministic
        torch.backends.cudnn.benchmark = not deterministic
        torch.backends.cudnn.allow_tf32 = not deterministic
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        return torch.device("cuda")
    if setting == "cuda":
        raise DataError(
            f"device: cuda was demanded, but torch {torch.__version__} cannot use the GPU here"
        )
    return torch.device("cpu")


def to_device(values: "torch.Tensor", device: "torch.device") -> "torch.Tensor":  # noqa: F821
    """Copy from the host without waiting for the device: a plain copy would wait for its queue."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def processes() -> int:
    """How many processes, each with a device of its own, one job may start on this machine.

    Raises:
        ConfigError: If the variable is no whole number; 0 counts as 1, for jobs without a GPU.
    """
    given = os.environ.get(PROCESSES) or "1"
    if not given.isdecimal():
        raise ConfigError(f"{PROCESSES}: expected a whole number of processes, found {given!r}")
    return max(1, int(given))


def _lock(name: str) -> int | None:
    """Take one GPU; None if another job has it."""
    path = Path(tempfile.gettempdir()) / f"clsp-gpu-{os.getuid()}-{name}.lock"
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def claim_gpus(count: int = 1) -> list[int]:
    """Take free GPUs of this machine for the life of the process.

    Several jobs share a machine; Snakemake counts GPUs but assigns none. A claim is a file lock
    that the kernel drops when the process dies. All are taken or none, so that two jobs cannot wait
    for each other's.

    Args:
        count: How many.

    Returns:
        The locks' descriptors, which must stay open; none where there is nothing to choose (CPU,
        one device given, or a batch system that has assigned devices already).

    Raises:
        DataError: If there are fewer GPUs than that.
    """
    if wanted() == "cpu" or "SLURM_JOB_ID" in os.environ:
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else [str(i) for i in range(cuda_devices())]
    if names and count > len(names):
        raise DataError(f"{count} GPUs were asked for, but this machine offers {len(names)}")
    if len(names) < 2:
        return []
    told = False
    while True:
        held: dict[str, int] = {}
        for name in names:
            if len(held) < count and (handle := _lock(name)) is not None:
                held[name] = handle
        if len(held) == count:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held)
            return list(held.values())
        for handle in held.values():
            os.close(handle)
        if not told:
            log.info("waiting until %d of the GPUs %s are free", count, ", ".join(names))
            told = True
        time.sleep(0.5)
