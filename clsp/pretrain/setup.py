"""Everything that one pretraining run is built from, and what is refused before training."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clsp.config.execution import ExecutionSpec, switches
from clsp.config.labels import spec_uses_labels
from clsp.config.recipe import Normalisation
from clsp.config.schema import METHODS, POSITIVES, RunSpec
from clsp.config.strict import parse
from clsp.data.prepared import Prepared
from clsp.models.encoder import Encoder
from clsp.pretrain.anchors import Anchors, load_anchors
from clsp.pretrain.compiled import compile_networks
from clsp.pretrain.contract import Method, Moment, Source
from clsp.pretrain.optim import build_optimizer
from clsp.pretrain.sharing import check_shared, share
from clsp.runtime.errors import ConfigError
from clsp.runtime.manifest import Artefact
from clsp.runtime.registry import load, settings_class
from clsp.runtime.rng import key_of
from clsp.runtime.team import ALONE, Team

COMPILER = "inductor"  # torch.compile's own


@dataclass(frozen=True)
class Setup:
    """Everything one run trains with; nothing in it changes but the method and the optimizer.

    Attributes:
        checks_each_step: Look at loss and gradient before each update, which makes the host wait
            for the device: free on a CPU. Otherwise a step that is not finite is found at the next
            reading (clsp/pretrain/journal.py).
        compiler: Backend of torch.compile, or None.
        own_statistics: From `share`.
    """

    spec: RunSpec
    anchors: Anchors
    source: Source
    method: Method
    optimizer: torch.optim.Optimizer
    statistics: Normalisation
    view_key: int
    team: Team = ALONE
    checks_each_step: bool = True
    compiler: str | None = None
    own_statistics: Sequence[Tensor] = ()

    @property
    def execution(self) -> ExecutionSpec:
        """The switches of the run."""
        return switches(self.spec.execution)

    @property
    def per_epoch(self) -> int:
        """Steps per epoch; a last incomplete batch is dropped."""
        return len(self.anchors) // self.spec.recipe.batch_size

    def moment(self, step: int) -> Moment:
        """Where in the run a step is."""
        return Moment(step, self.steps, step // self.per_epoch)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.per_epoch * self.spec.recipe.epochs

    @property
    def middle(self) -> int:
        """Step after which the middle checkpoint is taken: half of the epochs are done."""
        return self.per_epoch * max(1, self.spec.recipe.epochs // 2)


def build_method(spec: RunSpec, classes: int) -> Method:
    """The method around a fresh encoder, on the CPU.

    Weights come from torch's global stream, seeded here and put back afterwards, because torch's
    layers take no generator.

    Raises:
        ConfigError: If the options do not fit the method or the batch size.
    """
    module = load(METHODS, spec.method, "method")
    config = parse(module.Config, spec.method_options, f"options of method {spec.method}")
    try:
        config.check_batch(spec.recipe.batch_size)
        config.check_epochs(spec.recipe.epochs)
    except ValueError as error:
        raise ConfigError(f"method {spec.method}: {error}") from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_of(spec.seed, "weights"))
        return module.Method(Encoder(spec.encoder), config, spec.seed, classes)


def build_source(spec: RunSpec, anchors: Anchors, given: dict[str, list[Artefact]]) -> Source:
    """The positive source of a run.

    Args:
        spec: Of the run.
        anchors: Training images.
        given: Artefacts on the command line, by kind: "bank" and "pairs".

    Raises:
        ConfigError: If what is given is not what the source reads.
        DataError: If the artefact belongs to another dataset or split.
    """
    module = load(POSITIVES, spec.positives, "positive source")
    config = parse(module.Config, spec.positives_options, f"options of source {spec.positives}")
    for kind, artefacts in given.items():
        wanted = int(config.reads == kind)
        if len(artefacts) != wanted:
            raise ConfigError(
                f"--{kind}: positives {spec.positives} take {wanted or 'none'}, "
                f"found {len(artefacts) or 'none'}"
            )
    read = given[config.reads][0] if config.reads else None
    return module.Source(config, anchors, read, spec.seed)


def set_up(
    spec: RunSpec,
    dataset: Prepared,
    given: dict[str, list[Artefact]],
    device: torch.device,
    team: Team = ALONE,
) -> Setup:
    """Build everything, and refuse before training what cannot work.

    Raises:
        ConfigError: If the batch is larger than the data, options do not fit, or several processes
            cannot share the run.
        DataError: If the bank or pairs belong to another dataset, group ids or labels are missing,
            or the dataset is multi-label.
    """
    groups = settings_class(POSITIVES, spec.positives).uses_groups
    execution, labels = switches(spec.execution), any(spec_uses_labels(spec).values())
    anchors = load_anchors(dataset, device, labels, groups, execution)
    batch = spec.recipe.batch_size
    if batch > len(anchors):
        raise ConfigError(
            f"recipe.batch_size {batch} exceeds the {len(anchors)} training images "
            f"of dataset {spec.dataset}"
        )
    check_shared(spec, team.size)
    source = build_source(spec, anchors, given)
    classes = len(dataset.classes)
    # Channels last: the layout convolutions are fastest in, on CPUs by a fifth.
    method = build_method(spec, classes).to(device, memory_format=torch.channels_last).train()
    own_statistics = share(method, spec, team)
    statistics = spec.normalisation or Normalisation(
        mean=tuple(dataset.mean), std=tuple(dataset.std)
    )
    optimizer = build_optimizer(method, spec.recipe, execution.fused)
    compiler = COMPILER if execution.compile else None
    if compiler is not None:
        compile_networks(method, compiler)
    return Setup(
        spec,
        anchors,
        source,
        method,
        optimizer,
        statistics,
        key_of(spec.seed, "view"),
        team,
        checks_each_step=device.type == "cpu",
        compiler=compiler,
        own_statistics=own_statistics,
    )
