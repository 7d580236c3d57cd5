"""The training loop: one step, and the course of all steps of a run."""

from dataclasses import dataclass

import torch
from torch import Tensor

from clsp.pretrain.contract import Batch, Step
from clsp.pretrain.feed import Feed
from clsp.pretrain.journal import Journal
from clsp.pretrain.losses.alignment import alignment
from clsp.pretrain.optim import set_learning_rates
from clsp.pretrain.resume import Position, Resume, snapshot
from clsp.pretrain.setup import Setup
from clsp.pretrain.watch import Watch, watched
from clsp.runtime.errors import DivergedError
from clsp.runtime.progress import Progress


@dataclass(frozen=True)
class Taken:
    """What one step leaves for the log.

    Attributes:
        known: Values known on the host.
        scalars: Values on the device: the method's terms, the alignment, the loss.
        terms: Names of the method's own terms; the loss is their sum plus the weighted alignment.
        done: What the method gave.
    """

    known: dict[str, float]
    scalars: dict[str, Tensor]
    terms: list[str]
    done: Step


def objective(step: Step, weight: float) -> dict[str, Tensor]:
    """The loss of a step and what it is made of.

    loss = sum of the method's terms + weight * alignment(z_anchor, z_positive)   (methods.md 2.1)

    The sum is taken in float64, so that the logged parts add up to the logged loss.

    Args:
        step: From the method.
        weight: lambda; without a positive there is no alignment term.
    """
    parts = {name: term.double() for name, term in step.terms.items()}
    loss = torch.stack(list(parts.values())).sum()
    if step.z_positive is not None:
        parts["alignment"] = alignment(step.z_anchor, step.z_positive).double()
        loss = loss + weight * parts["alignment"]
    return {**parts, "loss": loss}


def gradient_norm(setup: Setup) -> Tensor:
    """Euclidean norm of all gradients together; not finite if any of them is not."""
    grads = [p.grad for p in setup.method.parameters() if p.grad is not None]
    return torch.stack(torch._foreach_norm(grads)).norm()


def train_step(setup: Setup, batch: Batch, step: int) -> Taken:
    """One optimizer step.

    Raises:
        DivergedError: If the loss or a gradient is not finite; no weight has been updated then.
    """
    moment = setup.moment(step)
    hook = getattr(setup.method, "before_step", None)
    known = hook(moment) if hook else {}
    done = setup.method.step(batch)
    parts = objective(done, setup.spec.alignment_weight)
    setup.optimizer.zero_grad(set_to_none=True)
    parts["loss"].backward()
    setup.team.add_up([p.grad for p in setup.method.parameters() if p.grad is not None])
    if hasattr(setup.method, "before_update"):
        setup.method.before_update(moment)
    norm = gradient_norm(setup)
    if not bool(torch.isfinite(parts["loss"]) & torch.isfinite(norm)):
        found = ", ".join(f"{name} {part.item():g}" for name, part in parts.items())
        raise DivergedError(
            f"step {step} (epoch {moment.epoch}): not finite ({found}, gradient norm "
            f"{norm.item():g}), so training stopped before the update; the learning rate was "
            f"{setup.optimizer.param_groups[0]['lr']:g}"
        )
    setup.optimizer.step()
    return Taken(known, {**parts, "gradient_norm": norm}, sorted(done.terms), done)


@dataclass
class Course:
    """A run under way: what is trained, and everything that watches and records it."""

    setup: Setup
    watch: Watch
    position: Position
    journal: Journal
    resume: Resume

    def advance(self, batch: Batch) -> Taken:
        """Take one step on the given batch and log it; `position` moves along.

        Raises:
            DivergedError: If the step diverges, naming the last good state.
        """
        setup, position = self.setup, self.position
        rate = set_learning_rates(
            setup.optimizer, setup.spec.recipe, position.step, setup.per_epoch
        )
        try:
            taken = train_step(setup, batch, position.step)
        except DivergedError as error:
            raise DivergedError(f"{error}; {self.resume.kept}") from None
        scalars = {**taken.scalars, **self.watch.each_step(taken.done, batch.index)}
        if (position.step + 1) % setup.per_epoch == 0:
            scalars |= self.watch.each_epoch(taken.done)
        known = {"epoch": setup.moment(position.step).epoch, "lr": rate, **taken.known}
        self.journal.add(position.step, known, scalars)
        position.terms = taken.terms
        position.step += 1
        return taken

    def keep(self) -> None:
        """Take the middle checkpoint when it is due, and save what a killed run needs.

        State is saved by the clock, and once after the first epoch, so that a run that diverges
        leaves a good one.
        """
        setup, position = self.setup, self.position
        if position.step == setup.middle:
            position.middle = snapshot(setup.method)
        if self.resume.due() or position.step == setup.per_epoch:
            self.journal.flush()
            position.records = self.journal.records
            self.resume.save(position)

    def train(self) -> None:
        """Run all remaining steps.

        Raises:
            DivergedError: If a step diverges.
        """
        setup, position, spec = self.setup, self.position, self.setup.spec
        feed = Feed(setup)
        label = f"pretrain {spec.dataset} {spec.method} {spec.positives} s{spec.seed}"
        with Progress(label, setup.steps, "step", position.step) as bar:
            for epoch in range(position.step // setup.per_epoch, spec.recipe.epochs):
                while position.step < (epoch + 1) * setup.per_epoch:
                    taken = self.advance(feed.batch(position.step))
                    self.keep()
                    bar.step(1, **({"loss": taken.scalars["loss"].item()} if bar.due() else {}))
                self.journal.flush()
                self.resume.refuse_broken(position.step)
                self.watch.judge(epoch, watched(taken.done).shape[1], self.journal.records[-1])
