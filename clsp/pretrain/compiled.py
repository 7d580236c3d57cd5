"""What of a step torch.compile turns into kernels of its own, and why in these parts.

Each network of a method is one unit: encoder, heads and predictors, the average. So is each loss.
What lies between them stays as it is: queues, averages of weights, keyed random numbers, and
numbers of the step that Python holds, on which a larger unit would be compiled anew in each step.
A unit has one variant for each way it is used, such as the positive's pass that leaves no trace in
the running statistics; all are made within the first steps of a run, and no later one (DINO's loss
takes its temperature as a tensor).

CUDA graphs are not used. They would save the host's work of queuing kernels, which is hidden
anyway while steps take longer than that; and they want every buffer and number of a step in one
place, which forbids what the methods do between networks.
"""

from torch import nn

from clsp.models.ema import Teacher
from clsp.pretrain.queue import Queue

# torch gives up on a unit after 8 variants, and counts those of all networks together, as all of
# them are called by the same line of torch.nn.Module. A method has up to 5 networks, each with up
# to 3 variants: with gradients, without running statistics, without gradients.
VARIANTS = 32


def _random(network: nn.Module) -> bool:
    """Whether a network draws at random in training: compiled, it would draw other numbers."""
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in network.modules())


def compile_networks(method: nn.Module, compiler: str) -> None:
    """Compile the networks of a method in place; names in its state_dict stay as they are.

    Args:
        method: Its children are compiled when they are first called.
        compiler: torch.compile's backend.
    """
    import torch._dynamo  # costs seconds that a run which compiles nothing spares

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
    for child in method.children():
        network = child.network if isinstance(child, Teacher) else child
        if not isinstance(network, Queue) and not _random(network):
            network.compile(backend=compiler, dynamic=False)
