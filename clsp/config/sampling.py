"""Settings that every generator of candidates shares, and how a network's blocks are named."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from clsp.config.denoisers import AnyDenoiserSpec
from clsp.config.strict import Fraction, PositiveInt, Strict
from clsp.runtime.errors import ConfigError

Scheduler = Literal["ddim", "ddpm", "dpm_solver"]
Block = Annotated[str, Field(pattern=r"^(mid|(down|up)\.(0|[1-9]\d*))$")]
MIDDLE = "mid"
# What an option of a generator means where it is left out; and the eta of schedulers that fix it.
ABSENT = {"scheduler": "ddim", "share_anchor_noise": False, "mix_at": MIDDLE}
FIXED_ETA = {"ddpm": 1.0, "dpm_solver": 0.0}
AUTHORS_STEPS, AUTHORS_ETA = 100, 1.0  # D03: what their plain "ddim" branch always does


def block_names(levels: int) -> tuple[str, ...]:
    """Names of the blocks of a network with so many levels, in the order in which data pass."""
    down, up = ([f"{way}.{level}" for level in range(levels)] for way in ("down", "up"))
    return *down, MIDDLE, *up


@dataclass(frozen=True)
class Solver:
    """What a sampler does in the end, whatever was asked for."""

    scheduler: Scheduler
    steps: int
    eta: float


class SamplerSettings(Strict):
    """How images are drawn from a denoiser; base of the generators' Config classes."""

    uses_labels: ClassVar[bool] = False  # whether the generator is given the anchors' labels

    # ddim: as the authors. ddpm: ancestral, their "fixed large" variance. dpm_solver: second-order
    # DPM-Solver++ (arXiv:2211.01095), deterministic, for few steps. None: ddim.
    scheduler: Scheduler | None = None
    steps: PositiveInt  # must divide the denoiser's train_timesteps, but for dpm_solver
    eta: Fraction  # of ddim: 0 deterministic, 1 as noisy as ancestral sampling
    rounding: Literal["nearest", "truncate"]  # D02
    batch_size: PositiveInt  # images drawn at a time, at most; changes none beyond float rounding
    precision: Literal["full", "bf16"] | None = None  # of the network; None: full
    compile: bool | None = None  # torch.compile; changes images by rounding

    @model_validator(mode="after")
    def _check_eta(self) -> "SamplerSettings":
        fixed = FIXED_ETA.get(self.solver_name)
        if fixed is not None and self.eta != fixed:
            raise ValueError(
                f"eta must be {fixed:g} with scheduler {self.scheduler}, whose noise is fixed; "
                f"found {self.eta}"
            )
        return self

    @property
    def solver_name(self) -> Scheduler:
        """The scheduler, also where it is left out."""
        return self.scheduler or ABSENT["scheduler"]

    def solver(self) -> Solver:
        """What is done with these settings."""
        return Solver(self.solver_name, self.steps, self.eta)

    def check_denoiser(self, denoiser: AnyDenoiserSpec) -> None:
        """Refuse a denoiser that cannot be sampled from with these settings.

        Raises:
            ConfigError: Naming the setting and both values.
        """
        solver = self.solver()
        if solver.scheduler != "dpm_solver":
            denoiser.check_steps(solver.steps)
        elif solver.steps > denoiser.train_timesteps:
            raise ConfigError(
                f"steps must not exceed the denoiser's train_timesteps {denoiser.train_timesteps}, "
                f"found {solver.steps}"
            )


class PlainSamplerSettings(SamplerSettings):
    """Settings of generators that mix nothing, with the authors' slip by name."""

    # plain_ddim: 100 steps and eta 1.0 whatever `steps` and `eta` say, as the authors' code does in
    # its branch "ddim" (D03). None: both are honoured.
    quirk: Literal["plain_ddim"] | None = None

    @model_validator(mode="after")
    def _check_quirk(self) -> "PlainSamplerSettings":
        if self.quirk and self.solver_name != "ddim":
            raise ValueError(
                f"quirk {self.quirk} needs scheduler ddim, which it is about; "
                f"found {self.scheduler}"
            )
        return self

    def solver(self) -> Solver:
        """What is done with these settings."""
        if self.quirk:
            return Solver("ddim", AUTHORS_STEPS, AUTHORS_ETA)
        return super().solver()
