"""A shard on its way to disk: batches, the writing thread, kills and resuming."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusing import Factory, bank_spec

from clsp.runtime.errors import DataError
from clsp.synthesis.shard import batches
from clsp.synthesis.storage import ArrayFile, open_anchors, release
from clsp.synthesis.stream import PROGRESS, Writer, open_stream

SHAPE = (3, 2, 4, 4, 3)
CHILD = """
import json, os, signal, sys
from pathlib import Path
from clsp.__main__ import _terminate
from clsp.config.schema import BankSpec
from clsp.runtime.manifest import read_manifest
from clsp.synthesis import shard, stream
data, denoiser, out, scratch, spec, how = sys.argv[1:]
signal.signal(signal.SIGTERM, _terminate)
append, made = stream.Stream.append, []
def killing(self, low, drawn):
    done = append(self, low, drawn)
    made.append(done)
    if len(made) == 2:
        os.kill(os.getpid(), getattr(signal, how))
    return done
stream.Stream.append = killing
shard.generate_shard(
    BankSpec.model_validate(json.loads(spec)), "1-of-1", read_manifest(Path(denoiser)),
    read_manifest(Path(data)), Path(out), Path(scratch),
)
"""


def batch(value: int, count: int) -> torch.Tensor:
    return torch.full((count, *SHAPE[2:]), value, dtype=torch.uint8)


def filled(folder: Path) -> np.ndarray:
    return np.load(folder / "images.npy").reshape(-1, *SHAPE[2:])


def test_array_is_written_in_place_and_refuses_what_does_not_fit(tmp_path):
    with ArrayFile.reserve(tmp_path / "a.npy", np.int32, (5, 2)) as array:
        array.write(3, np.array([[1, 2], [3, 4]]))
        array.flush()
        for row, values in ((4, np.zeros((2, 2))), (0, np.zeros((1, 3)))):
            with pytest.raises(ValueError, match="do not fit"):
                array.write(row, values)
    assert np.load(tmp_path / "a.npy").tolist() == [[0, 0], [0, 0], [0, 0], [1, 2], [3, 4]]


def test_progress_of_other_work_is_not_continued(tmp_path):
    stream, done = open_stream(tmp_path, "first", SHAPE)
    assert done == 0
    stream.append(0, batch(7, 4).numpy())
    assert open_stream(tmp_path, "first", SHAPE)[1] == 4
    assert (filled(tmp_path)[:4] == 7).all()
    assert open_stream(tmp_path, "second", SHAPE)[1] == 0
    assert (filled(tmp_path) == 0).all()


@pytest.mark.parametrize("state", ["{", '{"key": "k"}', '{"key": "k", "done": 9}', "[]"])
def test_damaged_progress_is_refused(tmp_path, state):
    open_stream(tmp_path, "k", SHAPE)
    (tmp_path / PROGRESS).write_text(state)
    with pytest.raises(DataError, match="damaged resume state"):
        open_stream(tmp_path, "k", SHAPE)


def test_array_cut_short_is_refused(tmp_path):
    open_stream(tmp_path, "k", SHAPE)[0].append(0, batch(1, 2).numpy())
    os.truncate(tmp_path / "images.npy", 150)
    with pytest.raises(DataError, match="damaged resume state"):
        open_stream(tmp_path, "k", SHAPE)


def test_array_without_a_byte_is_refused(tmp_path):
    open_stream(tmp_path, "k", SHAPE)[0].append(0, batch(1, 2).numpy())
    os.truncate(tmp_path / "images.npy", 0)
    with pytest.raises(DataError, match="damaged resume state"):
        open_stream(tmp_path, "k", SHAPE)


def test_writing_overlaps_with_drawing_and_at_most_one_batch_is_in_flight(tmp_path):
    stream, _ = open_stream(tmp_path, "k", SHAPE)
    counted: list[int] = []
    may_write = threading.Event()
    append = type(stream).append

    class Slow(type(stream)):
        def append(self, low, drawn):
            may_write.wait(5)
            return append(self, low, drawn)

    slow = Slow(stream.folder, stream.key, stream.images)
    with Writer(slow, counted.append) as writer:
        writer.put(0, batch(1, 2))  # returns while nothing can be written yet
        assert (filled(tmp_path) == 0).all()
        assert counted == []
        threading.Timer(0.1, may_write.set).start()
        writer.put(2, batch(2, 2))  # waits for the first
        assert counted == [2]
        assert (filled(tmp_path)[:2] == 1).all()
        writer.put(4, batch(3, 2))
    assert counted == [2, 2, 2]
    assert filled(tmp_path)[:, 0, 0, 0].tolist() == [1, 1, 2, 2, 3, 3]
    assert json.loads((tmp_path / PROGRESS).read_text())["done"] == 6


def test_an_error_of_the_writer_reaches_the_job(tmp_path):
    stream, _ = open_stream(tmp_path, "k", SHAPE)
    os.close(stream.images._stream.fileno())
    with pytest.raises(OSError), Writer(stream, lambda count: None) as writer:
        writer.put(0, batch(1, 2))
        writer.put(2, batch(1, 2))
        pytest.fail("the second put must raise")
    assert not (tmp_path / PROGRESS).exists()


def test_the_batch_in_flight_is_kept_when_drawing_fails(tmp_path):
    stream, _ = open_stream(tmp_path, "k", SHAPE)

    def draw(writer):
        writer.put(0, batch(9, 2))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Writer(stream, lambda count: None) as writer:
        draw(writer)
    assert open_stream(tmp_path, "k", SHAPE)[1] == 2
    assert (filled(tmp_path)[:2] == 9).all()


@pytest.mark.parametrize(("size", "starts"), [(5, [0, 4, 8]), (1, range(10)), (64, [0])])
def test_batches_hold_whole_anchors_where_they_can(size, starts):
    made = list(batches(10, 2, size, False, 0))
    assert [int(pairs[0]) for pairs, _ in made] == list(starts)
    assert [pair for pairs, wanted in made for pair in pairs[:wanted]] == list(range(10))
    resumed = list(batches(10, 2, size, False, int(made[-1][0][0])))
    assert np.array_equal(resumed[0][0], made[-1][0])


def test_batches_of_compiled_code_have_one_size():
    made = list(batches(10, 2, 4, True, 0))
    assert [len(pairs) for pairs, _ in made] == [4, 4, 4]
    assert [pair for pairs, wanted in made for pair in pairs[:wanted]] == list(range(10))
    assert made[-1][0].tolist() == [8, 9, 0, 1]


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_stopped_process_resumes_bit_for_bit(tmp_path, how):
    factory, spec = Factory(tmp_path), bank_spec()
    whole = factory.images(spec, 1, "whole")
    out, scratch = tmp_path / "out.npy", factory.scratch("1-of-1")
    stopped = subprocess.run(
        [sys.executable, "-c", CHILD, factory.dataset.manifest, factory.denoiser.manifest, out,
         scratch, json.dumps(spec.canonical()), how],
        env={**os.environ, "PYTHONPATH": str(Path.cwd()),
             "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )  # fmt: skip
    number = getattr(signal, how)
    assert stopped.returncode == (-number if how == "SIGKILL" else 128 + number)
    assert not out.exists()
    done = json.loads((scratch / PROGRESS).read_text())["done"]
    assert done == 8 if how == "SIGKILL" else done in (8, 12)  # SIGTERM lets a batch finish
    assert np.array_equal(
        np.load(scratch / "images.npy").reshape(-1, 192)[:done], whole.reshape(-1, 192)[:done]
    )
    assert np.array_equal(factory.images(spec, 1, "resumed"), whole)


def _resident() -> int:
    """KiB of mapped files that count as this process's memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssFile")).split()[1])


def test_pages_of_anchors_are_given_back(tmp_path):
    images = np.lib.format.open_memmap(
        tmp_path / "big.npy", mode="w+", dtype=np.uint8, shape=(64, 1 << 20)
    )
    images[:] = 1
    images.flush()
    mapped = np.load(tmp_path / "big.npy", mmap_mode="r")
    del images
    before = _resident()
    assert int(mapped[3:].sum()) == 61 << 20
    assert _resident() - before > 50 << 10
    release(mapped[3:])
    assert _resident() - before < 10 << 10
    assert int(mapped[5].sum()) == 1 << 20  # still readable
    release(np.zeros(3))  # nothing to give back


def test_labels_stay_closed_unless_asked_for(tmp_path):
    factory = Factory(tmp_path)
    factory.dataset.path("labels.npy").unlink()
    prepared = open_anchors(factory.dataset, labelled=False)
    assert set(prepared.split("train").labels.tolist()) == {-1}
    with pytest.raises(DataError, match=r"labels\.npy"):
        open_anchors(factory.dataset, labelled=True)
