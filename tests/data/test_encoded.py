"""Images kept as files: what is stored, how it is read, and files that are damaged."""

import os
import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from clsp.data import decoders, encoded
from clsp.data.encoded import EncodedWriter, encode, open_encoded
from clsp.data.pictures import fit, open_picture
from clsp.runtime.errors import ConfigError, DataError


def photos(count=12, seed=0):
    generator = np.random.default_rng(seed)
    sides = generator.integers(6, 30, (count, 2))
    return [generator.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sides]


def write(path, pictures):
    with EncodedWriter(path) as writer:
        for picture in pictures:
            writer.add(encode(picture, None), *picture.shape[:2])
    return path


@pytest.fixture
def pictures():
    return photos()


@pytest.fixture
def images(tmp_path, pictures):
    return open_encoded(write(tmp_path / "images.arrow", pictures), 8, 9)


@pytest.mark.parametrize("limits", [(1, 4096), (1 << 24, 5), (1 << 24, 4096)])
def test_images_are_read_as_they_were_written(tmp_path, monkeypatch, pictures, limits):
    monkeypatch.setattr(encoded, "BATCH_BYTES", limits[0])
    monkeypatch.setattr(encoded, "BATCH_ROWS", limits[1])
    images = open_encoded(write(tmp_path / "a.arrow", pictures), 8, None)
    assert len(images) == len(pictures) and images.shape == (12, 8, 8, 3)
    for row, picture in enumerate(pictures):
        np.testing.assert_array_equal(np.asarray(images.picture(row)), picture)
    heights, widths = images.sides(np.arange(12))
    assert [(h, w) for h, w in zip(heights, widths, strict=True)] == [p.shape[:2] for p in pictures]


def test_the_file_is_an_arrow_file_that_anybody_can_read(tmp_path, pictures):
    path = write(tmp_path / "a.arrow", pictures)
    with pa.memory_map(str(path)) as mapped:
        table = pa.ipc.open_file(mapped).read_all()
    assert table.column_names == ["image", "height", "width"]
    with Image.open(BytesIO(table["image"][3].as_py())) as shown:
        np.testing.assert_array_equal(np.asarray(shown), pictures[3])


@pytest.mark.parametrize("rows", [1, 4096])
def test_a_full_disk_names_the_file(monkeypatch, pictures, rows):
    monkeypatch.setattr(encoded, "BATCH_ROWS", rows)
    with pytest.raises(DataError, match=r"^/dev/full: cannot be written \(.*No space left"):
        write(Path("/dev/full"), pictures)


def test_a_file_that_cannot_be_created_is_named(tmp_path, pictures):
    with pytest.raises(DataError, match=r"nowhere/a\.arrow: cannot be written \(.*No such file"):
        write(tmp_path / "nowhere" / "a.arrow", pictures)


def test_rows_are_read_like_those_of_an_array(images, pictures):
    whole = np.stack([fit(picture, 8, 9) for picture in pictures])
    rows = np.array([5, -1, 5, 0])
    for key in (slice(None), slice(2, 9, 3), slice(-2, None), rows, [1, 2], 4, -3, np.int64(2)):
        read = images[key]
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, whole[key])
    np.testing.assert_array_equal(
        images[whole.mean((1, 2, 3)) > 127], whole[whole.mean((1, 2, 3)) > 127]
    )
    assert images[0:0].shape == (0, 8, 8, 3)


@pytest.mark.parametrize("key", [12, -13, [0, 12]])
def test_a_row_that_is_not_there(images, key):
    with pytest.raises(IndexError):
        images[key]


def test_a_window_is_a_range_and_reads_nothing(images, monkeypatch):
    whole = images[:]
    monkeypatch.setattr(encoded, "decode", lambda *_: pytest.fail("decoded"))
    part = images.window(3, 9).window(1, 4)
    assert len(part) == 3 and part.shape == (3, 8, 8, 3) and part.dtype == np.uint8
    assert len(images.window(10, 99)) == 2 and len(images.window(5, 2)) == 0
    monkeypatch.undo()
    np.testing.assert_array_equal(part[:], whole[4:7])
    np.testing.assert_array_equal(part[[-1]], whole[[6]])
    with pytest.raises(IndexError):
        part[3]


def test_all_images_are_never_read_by_accident(images):
    with pytest.raises(TypeError, match=r"images\[rows\]"):
        np.array(images)
    with pytest.raises(TypeError, match=r"images\[rows\]"):
        np.asarray(images)


def test_each_image_is_decoded_once_in_several_threads(images, monkeypatch):
    monkeypatch.setenv(decoders.VARIABLE, "3")
    seen, real, together = [], encoded.decode, threading.Barrier(3, timeout=20)

    def decode(file, name, upright=False):
        seen.append(name)
        together.wait()  # three at a time, or the barrier breaks
        return real(file, name, upright)

    monkeypatch.setattr(encoded, "decode", decode)
    read = images[np.array([4, 1, 4, 4, 2, 1])]
    assert len(seen) == 3
    monkeypatch.undo()
    np.testing.assert_array_equal(read, images[:][[4, 1, 4, 4, 2, 1]])


@pytest.mark.parametrize("given", ["0", "-1", "many", ""])
def test_a_number_of_threads_that_is_none(monkeypatch, given):
    monkeypatch.setenv(decoders.VARIABLE, given)
    with pytest.raises(ConfigError, match="CLSP_DECODE_THREADS: expected a positive number"):
        decoders.threads()


def test_threads_follow_the_processors(monkeypatch):
    monkeypatch.delenv(decoders.VARIABLE, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert decoders.threads() == min(16, len(os.sched_getaffinity(0)))


def saved(path, image, **options):
    image.save(path, **options)
    return path, open_picture(path)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_plain_files_are_kept_byte_for_byte(tmp_path, name, mode):
    image = Image.fromarray(photos(1)[0]).convert(mode)
    path, picture = saved(tmp_path / name, image)
    assert encode(picture, path) == path.read_bytes()


def others():
    image = Image.fromarray(photos(1)[0])
    clear = image.quantize(8)
    clear.info["transparency"] = 0
    return {
        "cmyk.jpg": image.convert("CMYK"), "palette.png": image.quantize(8), "clear.png": clear,
        "alpha.png": image.convert("RGBA"), "deep.png": Image.fromarray(np.arange(60, dtype=np.uint16).reshape(6, 10) * 1000),
        "a.bmp": image, "a.gif": image.quantize(16), "a.webp": image,
    }  # fmt: skip


@pytest.mark.parametrize("name", others())
def test_everything_else_is_kept_without_loss(tmp_path, name):
    path, picture = saved(tmp_path / name, others()[name])
    content = encode(picture, path)
    with Image.open(BytesIO(content)) as stored:
        assert (stored.format, stored.mode) == ("PNG", "RGB")
        np.testing.assert_array_equal(np.asarray(stored), np.asarray(picture))


def test_a_turned_photo_is_kept_only_where_nobody_turns_it(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path, plain = saved(tmp_path / "a.jpg", Image.fromarray(photos(1)[0]), exif=exif)
    upright = open_picture(path, upright=True)
    assert encode(plain, path) == path.read_bytes()
    with Image.open(BytesIO(encode(upright, path))) as stored:
        assert stored.size == upright.size == plain.size[::-1]
        np.testing.assert_array_equal(np.asarray(stored), np.asarray(upright))


def test_a_file_that_is_read_as_something_else_is_not_kept(tmp_path):
    path, picture = saved(tmp_path / "a.jpg", Image.fromarray(photos(1)[0]))
    part = picture.crop((1, 1, 5, 5))
    with Image.open(BytesIO(encode(part, path))) as stored:
        np.testing.assert_array_equal(np.asarray(stored), np.asarray(part))


@pytest.mark.parametrize("kept", [0, 7, 100, 0.5, 0.999])
def test_a_truncated_file_is_named(tmp_path, pictures, kept):
    path = write(tmp_path / "cut.arrow", pictures)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(DataError, match=r"cut\.arrow: not a readable Arrow file"):
        open_encoded(path, 8, None)


def test_a_file_that_is_missing_or_something_else(tmp_path):
    with pytest.raises(DataError, match=r"gone\.arrow: not a readable Arrow file"):
        open_encoded(tmp_path / "gone.arrow", 8, None)
    table = pa.table({"image": [b"x"], "height": [1], "width": [1]})
    with (
        pa.OSFile(str(tmp_path / "other.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as out,
    ):
        out.write_table(table)
    with pytest.raises(
        DataError, match=r"other\.arrow: expected the columns image, height and width"
    ):
        open_encoded(tmp_path / "other.arrow", 8, None)


def test_a_damaged_image_is_named_when_it_is_read(tmp_path, pictures):
    path = tmp_path / "a.arrow"
    with EncodedWriter(path) as writer:
        writer.add(encode(pictures[0], None), *pictures[0].shape[:2])
        writer.add(encode(pictures[1], None)[:40], *pictures[1].shape[:2])
        writer.add(encode(pictures[2], None), 1, 1)
    images = open_encoded(path, 8, None)
    assert images[0].shape == (8, 8, 3)
    with pytest.raises(DataError, match=r"a\.arrow: image 1: not a readable image"):
        images[:2]
    with pytest.raises(DataError, match=r"a\.arrow: image 2 is \d+x\d+, expected 1x1"):
        images.window(1, 3)[[1]]


def test_a_file_without_images(tmp_path):
    images = open_encoded(write(tmp_path / "a.arrow", []), 8, None)
    assert len(images) == 0 and images[:].shape == (0, 8, 8, 3)
