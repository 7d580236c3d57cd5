"""Notices every place where the host would have to wait for a GPU, on a machine without one."""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
READS = {
    "item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__",
    "nonzero", "equal", "allclose", "unique", "masked_select", "__array__",
}  # fmt: skip
OPERATIONS = {
    aten._local_scalar_dense, aten.is_nonzero, aten.item, aten.nonzero, aten.equal,
    aten.masked_select, aten._unique2, aten.unique_dim,
}  # fmt: skip


class _Calls(TorchFunctionMode):
    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in READS:
            self.found.append(f"call {name}")
        return function(*args, **(kwargs or {}))


class _Kernels(TorchDispatchMode):
    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        packet = function.overloadpacket
        if packet in OPERATIONS:
            self.found.append(f"kernel {packet}")
        if packet in (aten.index, aten.index_put, aten.index_put_) and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        ):
            self.found.append(f"kernel {packet} of a mask")
        return function(*args, **(kwargs or {}))


class Waits:
    """Context in which they are counted.

    Attributes:
        found: What was noticed, in order.
    """

    def __init__(self):
        self.found = []
        self.modes = [_Calls(self.found), _Kernels(self.found)]

    def __enter__(self):
        for mode in self.modes:
            mode.__enter__()
        return self

    def __exit__(self, *failure):
        for mode in reversed(self.modes):
            mode.__exit__(*failure)
