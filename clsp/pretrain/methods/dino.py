"""DINO (arXiv:2104.14294) with a ResNet (methods.md 2.11)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from clsp.config.methods import HeadConfig, MomentumConfig, Temperature
from clsp.config.strict import NonNegativeInt, PositiveFloat, PositiveInt, Share
from clsp.models.ema import Teacher
from clsp.models.encoder import Encoder
from clsp.models.heads import DinoHead, freeze_gradient
from clsp.pretrain.contract import Batch, Moment, Step
from clsp.pretrain.losses.clustering import dino


class Config(HeadConfig, MomentumConfig):
    """Options of DINO."""

    prototypes: PositiveInt  # K, outputs of the head
    initial_std: PositiveFloat  # of the head's weights; larger for a narrow head
    student_temperature: Temperature
    teacher_temperature: Temperature  # after warm-up
    teacher_temperature_start: Temperature
    teacher_warmup_epochs: NonNegativeInt
    centre_momentum: Share
    frozen_prototype_epochs: NonNegativeInt

    def check_epochs(self, epochs: int) -> None:
        """The prototypes have to learn, and the warm-up has to end, within the run."""
        if self.frozen_prototype_epochs >= epochs:
            raise ValueError(
                f"frozen_prototype_epochs {self.frozen_prototype_epochs} must be below "
                f"epochs {epochs}"
            )
        if self.teacher_warmup_epochs > epochs:
            raise ValueError(
                f"teacher_warmup_epochs {self.teacher_warmup_epochs} exceed epochs {epochs}"
            )

    def check_images(self, count: int) -> None:
        """An output needs an image."""
        if self.prototypes > count:
            raise ValueError(f"prototypes {self.prototypes} are more than the {count} images")


class Method(nn.Module):
    """Student, its moving average as teacher, and the centre of the teacher's outputs."""

    ALIGNED: ClassVar[str] = (
        "student's bottleneck embedding of view 1 and teacher's of the positive; gradient on view "
        "1's side only, as in the method's own term"
    )
    GATHERS: ClassVar[bool] = True

    def __init__(self, encoder: Encoder, config: Config, seed: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.head = DinoHead(
            encoder.features,
            config.hidden,
            config.projection,
            config.prototypes,
            config.initial_std,
        )
        self.teacher = Teacher(self.online(), config.momentum_start, config.momentum_end)
        self.register_buffer("centre", torch.zeros(1, config.prototypes))
        self.epoch = 0

    def online(self) -> nn.Sequential:
        """What the average follows."""
        return nn.Sequential(self.encoder, self.head)

    def before_step(self, moment: Moment) -> dict[str, float]:
        """Move the average; note the epoch, which sets the teacher's temperature."""
        self.epoch = moment.epoch
        followed = self.teacher.follow(self.online(), moment.step, moment.steps)
        return {**followed, "teacher_temperature": self.teacher_temperature()}

    def before_update(self, moment: Moment) -> None:
        """Leave the last layer as it is in the first epochs."""
        if moment.epoch < self.config.frozen_prototype_epochs:
            freeze_gradient(self.head.prototypes)

    def teacher_temperature(self) -> float:
        """A line from start to end over the warm-up epochs, then constant."""
        config = self.config
        if self.epoch >= config.teacher_warmup_epochs:
            return config.teacher_temperature
        rise = config.teacher_temperature - config.teacher_temperature_start
        return config.teacher_temperature_start + rise * self.epoch / max(
            config.teacher_warmup_epochs - 1, 1
        )

    def counters(self) -> dict[str, int]:
        """Updates of the moving average, for the manifest."""
        return {"ema_updates": int(self.teacher.updates)}

    @torch.no_grad()
    def _move_centre(self, logits: list[Tensor]) -> None:
        mean = torch.cat(logits).to(self.centre.dtype).mean(dim=0, keepdim=True)
        self.centre.lerp_(mean, 1 - self.config.centre_momentum)

    def _embed(
        self, network: nn.Module, views: list[Tensor], batch: Batch
    ) -> list[tuple[Tensor, Tensor]]:
        """Embedding and logits per view, of the whole batch."""
        if self.config.forward == "separate":
            return [tuple(batch.gather(*network(view))) for view in views]
        embeddings, logits = network(torch.cat(views))
        parts = embeddings.chunk(len(views)), logits.chunk(len(views))
        return list(zip(*(batch.gather(*part) for part in parts), strict=True))

    def step(self, batch: Batch) -> Step:
        """The student's view predicts the teacher's other view; the teacher sees the positive."""
        config = self.config
        student = self._embed(self.online(), batch.views, batch)
        shown = batch.views if batch.positive is None else [*batch.views, batch.positive]
        taught = self._embed(self.teacher, shown, batch)
        of_teacher = [logits for _, logits in taught[:2]]
        loss = dino(
            [logits for _, logits in student],
            of_teacher,
            self.centre.clone(),
            config.student_temperature,
            # Not a number, on which a compiled loss would be compiled anew in each epoch.
            torch.tensor(self.teacher_temperature(), dtype=torch.float64),
        )
        self._move_centre(of_teacher)
        z_positive = taught[2][0] if batch.positive is not None else None
        return Step({"distillation": loss}, student[0][0], z_positive)
