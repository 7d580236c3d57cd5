"""The training loop: one step, and the course of all steps of a run.

On a GPU the host only queues work: nothing is read back within an epoch but every READ_EVERY steps
and where state is saved, so that the device never waits for the host.
"""

from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clsp.pretrain.contract import Batch, Step
from clsp.pretrain.feed import Feed
from clsp.pretrain.journal import Journal, describe
from clsp.pretrain.losses.alignment import alignment
from clsp.pretrain.losses.precision import compiled_losses
from clsp.pretrain.optim import set_learning_rates
from clsp.pretrain.resume import Position, Resume, snapshot
from clsp.pretrain.setup import Setup
from clsp.pretrain.watch import Watch, watched
from clsp.runtime.errors import DivergedError
from clsp.runtime.progress import Progress
from clsp.runtime.stopping import Stop, stoppable


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


def forward(setup: Setup, batch: Batch) -> tuple[Step, dict[str, Tensor]]:
    """What a method makes of a batch, and the parts of the loss, in the precision of the run.

    Losses are float32 in every mode: clsp/pretrain/losses/precision.py.
    """
    # The layout that the weights have, so that no convolution turns its input around.
    views = [view.contiguous(memory_format=torch.channels_last) for view in batch.views]
    positive = batch.positive
    if positive is not None:
        positive = positive.contiguous(memory_format=torch.channels_last)
    laid = replace(batch, views=views, positive=positive)
    half = setup.execution.precision == "bf16"  # D33
    with compiled_losses(setup.compiler):
        with torch.autocast(batch.index.device.type, torch.bfloat16, enabled=half):
            done = setup.method.step(laid)
        return done, objective(done, setup.spec.alignment_weight)


def train_step(setup: Setup, batch: Batch, step: int) -> Taken:
    """One optimizer step.

    Raises:
        DivergedError: If the set-up checks each step and the loss or a gradient is not finite; no
            weight has been updated then.
    """
    moment = setup.moment(step)
    hook = getattr(setup.method, "before_step", None)
    known = hook(moment) if hook else {}
    done, parts = forward(setup, batch)
    setup.optimizer.zero_grad(set_to_none=True)
    parts["loss"].backward()
    setup.team.add_up([p.grad for p in setup.method.parameters() if p.grad is not None])
    if hasattr(setup.method, "before_update"):
        setup.method.before_update(moment)
    scalars = {**parts, "gradient_norm": gradient_norm(setup)}
    if setup.checks_each_step:
        refuse_broken_step(setup, step, scalars)
    setup.optimizer.step()
    setup.team.follow(setup.own_statistics)
    return Taken(known, scalars, sorted(done.terms), done)


def refuse_broken_step(setup: Setup, step: int, scalars: dict[str, Tensor]) -> None:
    """Stop before an update that would break the weights; reads from the device.

    Raises:
        DivergedError: If loss or gradient are not finite.
    """
    if bool(torch.isfinite(scalars["loss"]) & torch.isfinite(scalars["gradient_norm"])):
        return
    values = {name: value.item() for name, value in scalars.items()}
    rate = setup.optimizer.param_groups[0]["lr"]
    record = {"step": step, "epoch": setup.moment(step).epoch, "lr": rate, **values}
    raise DivergedError(f"{describe(record)} before the update")


@dataclass
class Course:
    """A run under way: what is trained, and everything that watches and records it."""

    setup: Setup
    watch: Watch
    position: Position
    journal: Journal
    resume: Resume

    def advance(self, batch: Batch) -> Taken:
        """Take one step on the given batch and note it; `position` moves along.

        Raises:
            DivergedError: If the step is found to diverge.
        """
        setup, position = self.setup, self.position
        rate = set_learning_rates(
            setup.optimizer, setup.spec.recipe, position.step, setup.per_epoch
        )
        taken = train_step(setup, batch, position.step)
        scalars = {**taken.scalars, **self.watch.each_step(taken.done, batch.index)}
        if (position.step + 1) % setup.per_epoch == 0:
            scalars |= self.watch.each_epoch(taken.done)
        known = {"epoch": setup.moment(position.step).epoch, "lr": rate, **taken.known}
        self.journal.add(position.step, known, scalars)
        position.terms = taken.terms
        position.step += 1
        return taken

    def keep(self, stop: Stop) -> None:
        """Take the middle checkpoint when it is due, and save what a killed run needs.

        State is saved by the clock, and once after the first epoch, so that a run that diverges
        leaves a good one; and when the run is told to end. Processes agree on the step.

        Raises:
            DivergedError: If a step, or a weight, is not finite; nothing is saved then.
            SystemExit: If told to end by SIGTERM; the state is saved then.
            KeyboardInterrupt: The same by SIGINT.
        """
        setup, position = self.setup, self.position
        if position.step == setup.middle:
            position.middle = snapshot(setup.method)
        wish = 2 * stop.number + (self.resume.due() or position.step == setup.per_epoch)
        told, due = divmod(setup.team.largest(wish), 2)
        if told or due:
            self.journal.flush()
            self.resume.save(position, self.journal.history)
        elif self.journal.full:
            self.journal.flush()
        if told:
            self.resume.close()
            raise KeyboardInterrupt if told == 2 else SystemExit(128 + told)

    def shown(self, taken: Taken, bar: Progress | None) -> dict[str, float]:
        """What the progress bar tells; reads the loss of this step only where that is free."""
        if self.setup.checks_each_step and bar is not None and bar.due():
            return {"loss": taken.scalars["loss"].item()}
        return {name: self.journal.last[name] for name in ("loss",) if name in self.journal.last}

    def train(self) -> None:
        """Run all remaining steps.

        Raises:
            DivergedError: If a step diverges, naming the last good state.
            DataError: If the log or state cannot be written.
            SystemExit: If told to end by SIGTERM; the state is saved then.
            KeyboardInterrupt: The same by SIGINT.
        """
        setup, spec, team = self.setup, self.setup.spec, self.setup.team
        label = f"pretrain {spec.dataset} {spec.method} {spec.positives} s{spec.seed}"
        done = self.position.step
        shown = Progress(label, setup.steps, "step", done) if team.leads else nullcontext()
        orphaned = None if team.parent is None else lambda: team.orphaned
        try:
            with stoppable(orphaned) as stop, shown as bar:
                self._epochs(bar, stop)
        except DivergedError as error:
            raise DivergedError(f"{error}; {self.resume.kept}") from None
        finally:
            self.resume.close()

    def _epochs(self, bar: Progress | None, stop: Stop) -> None:
        setup, position = self.setup, self.position
        feed = Feed(setup)
        for epoch in range(position.step // setup.per_epoch, setup.spec.recipe.epochs):
            while position.step < (epoch + 1) * setup.per_epoch:
                taken = self.advance(feed.batch(position.step))
                self.keep(stop)
                if bar is not None:
                    bar.step(1, **self.shown(taken, bar))
            self.journal.flush()
            self.resume.refuse_broken(position.step)
            self.watch.judge(epoch, watched(taken.done).shape[1], self.journal.last)
