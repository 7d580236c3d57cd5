"""Settings that every generator of candidates shares."""

from typing import ClassVar, Literal

from pydantic import model_validator

from clsp.config.strict import Fraction, PositiveInt, Strict


class SamplerSettings(Strict):
    """How images are drawn from a denoiser; base of the generators' Config classes."""

    uses_labels: ClassVar[bool] = False

    # ddim: as the authors. ddpm: ancestral, their "fixed large" variance. dpm_solver: second-order
    # DPM-Solver++ (arXiv:2211.01095), deterministic, for few steps. None: ddim.
    scheduler: Literal["ddim", "ddpm", "dpm_solver"] | None = None
    steps: PositiveInt  # must divide the denoiser's train_timesteps, but for dpm_solver
    eta: Fraction  # of ddim: 0 deterministic, 1 as noisy as ancestral sampling
    rounding: Literal["nearest", "truncate"]  # D02
    batch_size: PositiveInt  # images drawn at a time; changes none beyond float rounding
    precision: Literal["full", "bf16"] | None = None  # of the network; None: full
    compile: bool | None = None  # torch.compile; changes images by rounding

    @model_validator(mode="after")
    def _check_eta(self) -> "SamplerSettings":
        fixed = {"ddpm": 1, "dpm_solver": 0}.get(self.scheduler or "ddim")
        if fixed is not None and self.eta != fixed:
            raise ValueError(
                f"eta must be {fixed} with scheduler {self.scheduler}, whose noise is fixed; "
                f"found {self.eta}"
            )
        return self
