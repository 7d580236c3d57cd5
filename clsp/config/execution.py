"""How pretraining is computed: the switches that make it faster, all off in the mode `exact`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from clsp.config.strict import Strict


class ExecutionSpec(Strict):
    """Switches of a run that is not computed in the mode `exact`.

    They belong to a run's spec because they change rounding, and `views` the random numbers too.
    """

    precision: Literal["full", "bf16"]  # bf16: networks under autocast; losses stay in float32
    compile: bool  # encoder, views and losses by torch.compile
    fused: bool  # the optimizer's update in one kernel
    deterministic: bool  # on a GPU: only kernels that repeat their bits, no TF32
    # device: in batches where the images are, numbers keyed. torchvision: its own classes, image
    # by image in worker processes, as most codes do it.
    views: Literal["device", "torchvision"]


EXACT = ExecutionSpec(
    precision="full", compile=False, fused=False, deterministic=True, views="device"
)
MODES: dict[str, ExecutionSpec | None] = {
    "exact": None,  # absent from a spec, so that a spec names only what departs from it
    "fast": ExecutionSpec(
        precision="bf16", compile=True, fused=True, deterministic=False, views="device"
    ),
}


def _mode(value: Any) -> Any:
    """The switches of a mode that is named."""
    if isinstance(value, str):
        if value not in MODES:
            raise ValueError(f"expected exact, fast or the switches, found {value!r}")
        return MODES[value]
    return None if value == EXACT or value == EXACT.canonical() else value


# `execution:` of params.yaml: a mode by its name, or the switches one by one.
Execution = Annotated[ExecutionSpec | None, BeforeValidator(_mode)]


def switches(given: ExecutionSpec | None) -> ExecutionSpec:
    """The switches of a run's spec."""
    return EXACT if given is None else given


def departures(given: ExecutionSpec) -> str:
    """What makes a run fast rather than exact, in words."""
    told = {
        "bf16 arithmetic": given.precision == "bf16",
        "compiled kernels": given.compile,
        "a fused optimizer": given.fused,
        "kernels that do not repeat their bits": not given.deterministic,
        "views by torchvision's own classes": given.views == "torchvision",
    }
    return ", ".join(name for name, holds in told.items() if holds)
