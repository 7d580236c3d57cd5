import pytest

from clsp.runtime import device
from clsp.runtime.errors import DataError


def test_auto_and_cpu_never_demand_a_gpu(monkeypatch):
    monkeypatch.setattr(device, "cuda_devices", lambda: 0)
    device.check_demand("auto")
    device.check_demand("cpu")
    monkeypatch.setenv(device.VARIABLE, "cpu")
    assert device.resolve().type == "cpu"


def test_a_demanded_gpu_that_is_not_there_stops_at_once(monkeypatch):
    monkeypatch.setattr(device, "cuda_devices", lambda: 0)
    monkeypatch.setenv(device.VARIABLE, "cuda")
    with pytest.raises(DataError, match="cuda was demanded, but this machine offers no CUDA"):
        device.resolve()


def test_jobs_take_different_gpus(monkeypatch, tmp_path):
    monkeypatch.setattr(device, "cuda_devices", lambda: 2)
    monkeypatch.setattr(device.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv(device.VARIABLE, "auto")
    taken = []
    for _ in range(2):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        handle = device.claim_gpu()
        taken.append((handle, device.os.environ["CUDA_VISIBLE_DEVICES"]))
    assert [name for _, name in taken] == ["0", "1"]
    for handle, _ in taken:
        device.os.close(handle)
