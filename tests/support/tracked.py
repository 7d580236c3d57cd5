"""Jobs that MLflow follows; a module of its own, so that spawned processes find it."""

from pathlib import Path

from clsp.runtime import tracking
from clsp.runtime.history import StepLog


def tracked_job(
    name: str, history: Path | None, metrics: dict[str, float], **settings: str
) -> str | None:
    """One finished job in the store; its MLflow run."""
    spec = {"seed": 0, "recipe": {"epochs": 2}, **settings}
    with tracking.mirror("pretrain-encoder", f"runs/{name}/manifest.json", spec, "c") as m:
        m.follow(history)
        m.finish(metrics, history)
    return m.run_id


def tracked_history(path: Path, steps: int) -> Path:
    """A step log of two steps per epoch."""
    history = StepLog(path)
    for step in range(steps):
        history.log(step, epoch=step // 2, loss=10.0 - step)
    return path


def tracked_process(folder: Path, name: str) -> None:
    """Body of one process."""
    tracked_job(name, tracked_history(folder / f"{name}.jsonl", 6), {"linear/top1": 50.0})
