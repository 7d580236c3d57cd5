"""Half a run of every method, in a process of its own: `python resume_child.py first|second DIR`."""

import sys
from pathlib import Path

import torch
from pretraining import NOTHING, make_prepared, make_spec, take_step

from clsp.config.schema import METHODS
from clsp.pretrain.optim import set_learning_rates
from clsp.pretrain.resume import Position, Resume
from clsp.pretrain.setup import set_up
from clsp.runtime.registry import names

HALF, WHOLE = 3, 6


def start(method):
    """A small run with a positive, and what resumes it below a folder."""
    return set_up(
        make_spec(method, recipe={"learning_rate": 0.02}),
        make_prepared(),
        NOTHING,
        torch.device("cpu"),
    )


def advance(setup, first, last):
    """Take steps first to last - 1 on batches that differ."""
    for step in range(first, last):
        set_learning_rates(setup.optimizer, setup.spec.recipe, step, setup.per_epoch)
        take_step(setup, torch.arange(8) + step, step)


def whole_state(setup):
    """Every tensor of the method and of the optimizer, by name."""
    state = {f"method.{name}": t.clone() for name, t in setup.method.state_dict().items()}
    for number, entries in setup.optimizer.state_dict()["state"].items():
        held = {n: v for n, v in entries.items() if v is not None}
        state |= {f"optimizer.{number}.{name}": v.clone() for name, v in held.items()}
    return state


def main(part, folder):
    """Run one half of every method; the second half starts from what the first one saved."""
    for method in names(METHODS):
        setup = start(method)
        resume = Resume(folder / method, "fingerprint", setup.method, setup.optimizer)
        if part == "first":
            advance(setup, 0, HALF)
            resume.save(Position(HALF))
            resume.close()
        else:
            advance(setup, resume.restore().step, WHOLE)
            torch.save(whole_state(setup), folder / f"{method}.pt")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
