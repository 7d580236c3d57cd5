"""Runs that several processes share: which can be, and whose batch-norm statistics they use."""

from torch import Tensor, nn

from clsp.config.execution import switches
from clsp.config.schema import METHODS, RunSpec
from clsp.pretrain.batch_norm import running_statistics, share_statistics
from clsp.pretrain.forward import GPUS
from clsp.runtime.errors import ConfigError
from clsp.runtime.registry import load
from clsp.runtime.team import Team


def check_shared(spec: RunSpec, size: int) -> None:
    """Refuse what several processes cannot share.

    Raises:
        ConfigError: If the batch cannot be split as it has to be, or the method does not gather.
    """
    if size == 1:
        return
    batch, kind = spec.recipe.batch_size, spec.batch_norm
    if batch % size:
        raise ConfigError(f"recipe.batch_size {batch} cannot be shared equally by {size} processes")
    if kind == "four_gpu" and (GPUS % size or batch % GPUS):
        raise ConfigError(
            f"method {spec.method}: forward four_gpu splits a batch into {GPUS} chunks, which 1, 2 "
            f"or 4 processes can share where the batch is a multiple of {GPUS}; found {size} "
            f"processes and recipe.batch_size {batch}"
        )
    if kind == "per_device" and batch == size:
        raise ConfigError(
            f"recipe.batch_norm per_device needs at least 2 images for each process, but "
            f"recipe.batch_size is {batch} and there are {size} processes"
        )
    method = load(METHODS, spec.method, "method").Method
    if not getattr(method, "GATHERS", False):
        raise ConfigError(
            f"method {spec.method}: it does not gather what it compares (Batch.gather, and GATHERS "
            f"to say so: clsp/pretrain/contract.py), so {size} processes would train something "
            "else than one; run it with one"
        )


def share(method: nn.Module, spec: RunSpec, team: Team) -> list[Tensor]:
    """Make a method's batch norm that of a team.

    Returns:
        Running statistics that each process would move in its own way, so that those of process 0
        have to be taken over after each step; none if all move them alike.
    """
    if team.size == 1:
        return []
    if spec.batch_norm == "synchronised":
        share_statistics(method, team, switches(spec.execution).compile)
        return []
    return running_statistics(method)
