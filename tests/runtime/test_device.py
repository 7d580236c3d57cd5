import pytest

from clsp.runtime import device
from clsp.runtime.errors import ConfigError, DataError


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


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    """A machine with three GPUs, nobody else's locks, and a way to end the wait for one."""
    monkeypatch.setattr(device, "cuda_devices", lambda: 3)
    monkeypatch.setattr(device.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv(device.VARIABLE, "auto")
    held = set()

    def claim(count):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
        taken = device.claim_gpus(count)
        held.update(taken)
        return taken, device.os.environ["CUDA_VISIBLE_DEVICES"]

    def free(handles):
        for handle in handles:
            device.os.close(handle)
            held.discard(handle)

    yield claim, free
    free(list(held))


def test_jobs_take_different_gpus(gpus):
    claim, _ = gpus
    assert [claim(1)[1], claim(2)[1]] == ["0", "1,2"]


def test_a_job_that_cannot_have_all_its_gpus_holds_none_while_it_waits(gpus, monkeypatch):
    claim, free = gpus
    first, _ = claim(2)
    meanwhile = []

    def pause(_seconds):
        meanwhile.append(claim(1)[1])  # another job may have what is free
        free(first)

    monkeypatch.setattr(device.time, "sleep", pause)
    assert claim(2)[1] == "0,1"
    assert meanwhile == ["2"]


def test_more_gpus_than_there_are_is_refused(gpus):
    with pytest.raises(DataError, match="4 GPUs were asked for, but this machine offers 3"):
        gpus[0](4)


def test_number_of_processes_is_read_strictly(monkeypatch):
    for text, expected in {"": 1, "0": 1, "3": 3}.items():
        monkeypatch.setenv(device.PROCESSES, text)
        assert device.processes() == expected
    monkeypatch.setenv(device.PROCESSES, "two")
    with pytest.raises(ConfigError, match=r"CLSP_PROCESSES: expected a whole number .* 'two'"):
        device.processes()
