"""What is recorded of the machine: enough to compare, and no secret."""

import pytest

from clsp.runtime import device, machine
from clsp.runtime.canonical import canonical_json
from clsp.runtime.machine import VARIABLES, describe_machine, hardware_class


def test_everything_that_a_record_of_the_environment_needs_is_there():
    found = describe_machine(3)
    assert found["threads"] == 3 and found["cpu"]
    assert found["versions"]["numpy"]
    assert {"python", "platform", "device", "gpu", "torch_switches", "variables"} <= found.keys()
    canonical_json(found)


def test_variables_come_from_a_list(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    variables = describe_machine(1)["variables"]
    assert variables["OMP_NUM_THREADS"] == "1"
    assert set(variables) <= set(VARIABLES) and "hush" not in canonical_json(variables)


def test_the_class_of_hardware_is_that_of_the_gpu_with_its_memory_or_of_the_processor():
    a = {"gpu": {"name": "H100", "memory_bytes": 80}, "cpu": "x"}
    b = {"gpu": {"name": "H100", "memory_bytes": 94}, "cpu": "x"}
    assert hardware_class(a) != hardware_class(b)
    assert hardware_class({"gpu": None, "cpu": "x"}) == "x"
    assert hardware_class({"device": "cpu"}) == "cpu"  # a record of an earlier version


def test_switches_of_torch_are_recorded_where_it_computed_not_where_it_was_imported(
    monkeypatch: pytest.MonkeyPatch,
):
    import torch  # as the process is in which short jobs are forked

    monkeypatch.setattr(machine, "COMPUTED_ON", [])
    monkeypatch.setattr(device, "COMPUTED_ON", machine.COMPUTED_ON)
    monkeypatch.setenv(device.VARIABLE, "cpu")
    assert describe_machine(1)["torch_switches"] is None
    assert device.resolve() == torch.device("cpu")
    switches = describe_machine(1)["torch_switches"]
    assert switches["matmul_tf32"] is False and switches["deterministic_algorithms"] is False
