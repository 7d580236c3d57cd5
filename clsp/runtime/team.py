"""Several processes that share one training on one machine, each with a device of its own.

They are started by torch's elastic launcher, the one behind torchrun, from inside the job: lock,
manifest and outputs stay with the one parent, which Snakemake sees.
"""

import json
import logging
import os
import signal
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from clsp.runtime import errors
from clsp.runtime.device import resolve
from clsp.runtime.errors import ClspError, DataError
from clsp.runtime.files import write_atomic

FAILURE = "failure-of-process-{rank}.json"
LOOK_EVERY = 0.2  # seconds between looks at whether a process has ended


@dataclass(frozen=True)
class Team:
    """Which of how many processes this one is.

    Attributes:
        rank: From 0; process 0 alone writes files.
        size: Processes in all.
        parent: Process that started this one; None where there is only one.
    """

    rank: int = 0
    size: int = 1
    parent: int | None = None

    @property
    def leads(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def average(self, parameters: Sequence[Tensor], loss: Tensor) -> Tensor:
        """Replace gradients by their mean over all processes; the same for the loss.

        All parts of a batch are equally large, so this is the mean over the batch. One buffer in a
        fixed order: the sum does not depend on when a process was started.

        Returns:
            The mean loss, detached.
        """
        if self.size == 1:
            return loss.detach()
        gradients = [parameter.grad for parameter in parameters]
        flat = torch.cat([g.reshape(-1) for g in gradients] + [loss.detach().reshape(1)])
        dist.all_reduce(flat)
        flat /= self.size
        *parts, mean = flat.split([g.numel() for g in gradients] + [1])
        shaped = [part.view(g.shape) for part, g in zip(parts, gradients, strict=True)]
        torch._foreach_copy_(gradients, shaped)
        return mean[0]

    def add_up(self, gradients: Sequence[Tensor]) -> None:
        """Replace gradients by their sum over all processes, in one buffer in a fixed order."""
        if self.size == 1:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        shaped = [part.view(g.shape) for part, g in zip(parts, gradients, strict=True)]
        torch._foreach_copy_(list(gradients), shaped)

    def part(self, whole: Tensor) -> Tensor:
        """This process's rows of (B, ...): the rank-th of `size` equal parts, in order."""
        return whole.tensor_split(self.size)[self.rank] if self.size > 1 else whole

    def collect(self, part: Tensor) -> Tensor:
        """The rows of all processes, by rank: (B / size, ...) -> (B, ...). Carries no gradient."""
        if self.size == 1:
            return part
        part = part.detach().contiguous()
        whole = part.new_empty((self.size * len(part), *part.shape[1:]))
        dist.all_gather_into_tensor(whole, part)
        return whole

    def follow(self, buffers: Sequence[Tensor]) -> None:
        """Replace buffers by those of process 0, in one message that holds every kind exactly."""
        if self.size == 1 or not buffers:
            return
        flat = torch.cat([buffer.reshape(-1).double() for buffer in buffers])
        dist.broadcast(flat, 0)
        parts = flat.split([buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view(buffer.shape))

    def largest(self, number: int) -> int:
        """The largest of one integer per process, agreed on the CPU: no device waits for it."""
        if self.size == 1:
            return number
        held = torch.tensor([number])
        dist.all_reduce(held, dist.ReduceOp.MAX)
        return int(held)

    def gather(self, text: str) -> list[str]:
        """One text of every process, by rank."""
        if self.size == 1:
            return [text]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, text)
        return found

    @property
    def orphaned(self) -> bool:
        """Whether the job that started this process is gone."""
        return self.parent is not None and os.getppid() != self.parent


ALONE = Team()


def _work(work: Callable[[Any, Team], Any], job: Any, folder: Path) -> Any:
    """Body of one process."""
    rank, size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.WARNING, format="%(message)s")
    torch.set_num_threads(max(1, torch.get_num_threads() // size))
    try:
        on_gpu = resolve().type == "cuda"
        if on_gpu:
            torch.cuda.set_device(rank)
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
        done = work(job, Team(rank, size, os.getppid()))
        dist.destroy_process_group()
        return done
    except (ClspError, OSError) as error:
        expected = error if isinstance(error, ClspError) else DataError(str(error))
        record = {"error": type(expected).__name__, "message": str(expected)}
        write_atomic(folder / FAILURE.format(rank=rank), json.dumps(record))
        sys.exit(expected.exit_code)
    except Exception:
        traceback.print_exc()
        # When a process dies, those that wait for it fail here. The launcher names the first of
        # those that it finds ended in one look, so the one that died has to be found alone.
        time.sleep(5 * LOOK_EVERY)
        sys.exit(1)


def _reason(failed: Any, size: int, folder: Path, stage: str) -> ClspError:
    """Why the processes ended: what one of them said, or else which one ended first and how."""
    for rank in range(size):
        path = folder / FAILURE.format(rank=rank)
        if path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
            path.unlink()
            return getattr(errors, record["error"])(record["message"])
    rank, failure = failed.get_first_failure()
    ended = (
        f"by signal {signal.Signals(-failure.exitcode).name}"
        if failure.exitcode < 0
        else f"with exit code {failure.exitcode}"
    )
    return ClspError(
        f"{stage}: process {rank} of {size} ended {ended}, so all were stopped and nothing "
        f"was written; start the job again to continue from the state kept in {folder}"
    )


def launch(work: Callable[[Any, Team], Any], job: Any, size: int, folder: Path, stage: str) -> Any:
    """Run `work(job, team)` in several processes.

    Args:
        work: A function of a module; it and `job` are pickled.
        job: What to do.
        size: Processes.
        folder: Where a process leaves the reason why it ended.
        stage: What is run, for messages.

    Returns:
        What process 0 returned.

    Raises:
        DataError: If there are fewer GPUs than processes.
        ClspError: If a process fails: its own error, or which one died and how.
        SystemExit: After a signal, once the processes have saved their state and ended.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    device = resolve()
    if device.type == "cuda" and torch.cuda.device_count() < size:
        found = torch.cuda.device_count()
        raise DataError(f"{stage}: {size} GPUs were asked for, but this job has {found}")
    for name in ("torch.distributed.elastic", "torch.multiprocessing.spawn"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the error below says what happened
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(FAILURE.format(rank="*")):
        path.unlink()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=size,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,  # a job that failed is started again by whoever schedules it
        monitor_interval=LOOK_EVERY,
        start_method="spawn",
    )
    taken = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    handlers = {number: signal.getsignal(number) for number in taken}  # the launcher sets its own
    try:
        done = elastic_launch(config, _work)(work, job, folder)
    except SignalException as error:
        raise SystemExit(128 + error.sigval) from None
    except ChildFailedError as error:
        raise _reason(error, size, folder, stage) from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
    if device.type == "cuda":
        torch.cuda.init()  # so that the manifest names the GPU
    return done[0]
