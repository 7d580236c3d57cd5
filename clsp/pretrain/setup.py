"""Everything that one pretraining run is built from, and what is refused before training."""

from dataclasses import dataclass

import torch
from torch import Tensor

from clsp.config.labels import spec_uses_labels
from clsp.config.recipe import Normalisation
from clsp.config.schema import METHODS, POSITIVES, RunSpec
from clsp.config.strict import parse
from clsp.data.prepared import Prepared
from clsp.data.views import make_views
from clsp.models.encoder import Encoder, normalise
from clsp.pretrain.anchors import Anchors, load_anchors
from clsp.pretrain.contract import Batch, Method, Moment, Source
from clsp.pretrain.optim import build_optimizer
from clsp.runtime.errors import ConfigError
from clsp.runtime.manifest import Artefact
from clsp.runtime.registry import load, settings_class
from clsp.runtime.rng import key_of


@dataclass(frozen=True)
class Setup:
    """Everything one run trains with; nothing in it changes but the method and the optimizer."""

    spec: RunSpec
    anchors: Anchors
    source: Source
    method: Method
    optimizer: torch.optim.Optimizer
    statistics: Normalisation
    view_key: int

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
    spec: RunSpec, dataset: Prepared, given: dict[str, list[Artefact]], device: torch.device
) -> Setup:
    """Build everything, and refuse before training what cannot work.

    Raises:
        ConfigError: If the batch is larger than the data, or options do not fit.
        DataError: If the bank or pairs belong to another dataset, or group ids are missing.
    """
    groups = settings_class(POSITIVES, spec.positives).uses_groups
    anchors = load_anchors(dataset, device, any(spec_uses_labels(spec).values()), groups)
    batch = spec.recipe.batch_size
    if batch > len(anchors):
        raise ConfigError(
            f"recipe.batch_size {batch} exceeds the {len(anchors)} training images "
            f"of dataset {spec.dataset}"
        )
    source = build_source(spec, anchors, given)
    classes = len(dataset.classes)
    # Channels last: the layout convolutions are fastest in, on CPUs by a fifth.
    method = build_method(spec, classes).to(device, memory_format=torch.channels_last).train()
    statistics = spec.normalisation or Normalisation(
        mean=tuple(dataset.mean), std=tuple(dataset.std)
    )
    optimizer = build_optimizer(method, spec.recipe)
    view_key = key_of(spec.seed, "view")
    return Setup(spec, anchors, source, method, optimizer, statistics, view_key)


def _views(setup: Setup, images: Tensor, index: Tensor, epoch: int, numbers: list[int]) -> Tensor:
    """Views of images that are stacked view by view; `numbers` are the views' own."""
    recipe = setup.spec.recipe
    second = numbers == [1]  # on its own only where its pipeline differs
    view = torch.tensor(numbers, device=index.device).repeat_interleave(len(index))
    return make_views(
        images,
        index.repeat(len(numbers)),
        epoch,
        view,
        setup.view_key,
        recipe.second_view if second else recipe.views,
    )


def load_batch(setup: Setup, index: Tensor, epoch: int) -> Batch:
    """Views 1 and 2 of the anchors and the positive, which passes the pipeline of view 1.

    Args:
        setup: Gives images, source and pipeline.
        index: Numbers of the anchors, int64 (B,).
        epoch: From 0.

    Returns:
        Normalised views and positive, (B, 3, H, W) each; labels only for a method that uses them.
    """
    anchors = setup.anchors.images[index]  # uint8 (B, H, W, 3)
    positive = setup.source.batch(index, epoch)
    more = [] if positive is None else [positive]
    if setup.spec.recipe.second_view is None:
        numbers = [0, 1, 2][: 2 + len(more)]
        shown = torch.cat([anchors, anchors, *more])
        views = list(_views(setup, shown, index, epoch, numbers).chunk(len(numbers)))
    else:
        numbers = [0, 2][: 1 + len(more)]
        first = _views(setup, torch.cat([anchors, *more]), index, epoch, numbers)
        views = list(first.chunk(len(numbers)))
        views.insert(1, _views(setup, anchors, index, epoch, [1]))
    views = [normalise(view, setup.statistics) for view in views]
    labels = setup.anchors.labels[index] if spec_uses_labels(setup.spec)["method"] else None
    return Batch(views[:2], views[2] if more else None, index, labels)
