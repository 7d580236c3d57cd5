"""Reading images of every mode, and squaring them."""

import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from clsp.data.pictures import decode, fit, open_picture
from clsp.runtime.errors import DataError


def saved(image: Image.Image, path, **options):
    image.save(path, **options)
    return np.asarray(open_picture(path))


def test_rgb_is_kept(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(saved(Image.fromarray(pixels), tmp_path / "a.png"), pixels)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.gif", "a.ppm", "a.webp"])
def test_formats(name, tmp_path):
    image = Image.new("RGB", (6, 4), (255, 0, 0))
    shown = saved(image, tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
    np.testing.assert_array_equal(shown, np.full((4, 6, 3), (255, 0, 0)))


def test_grey_palette_and_bilevel(tmp_path):
    assert saved(Image.new("L", (2, 2), 77), tmp_path / "l.png")[0, 0].tolist() == [77, 77, 77]
    palette = Image.new("RGB", (2, 2), (10, 200, 30)).quantize(4)
    assert saved(palette, tmp_path / "p.png")[0, 0].tolist() == [10, 200, 30]
    assert saved(Image.new("1", (2, 2), 1), tmp_path / "b.png")[0, 0].tolist() == [255, 255, 255]
    assert saved(Image.new("CMYK", (2, 2)), tmp_path / "c.tiff").shape == (2, 2, 3)


def test_sixteen_bit_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 25700, 65535]], dtype=np.uint16)
    shown = saved(Image.fromarray(values), tmp_path / "a.png")
    assert shown[0, :, 0].tolist() == [0, 1, 100, 255]


def test_transparency_is_laid_on_white(tmp_path):
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert saved(clear, tmp_path / "a.png")[0, 0].tolist() == [255, 255, 255]
    half = Image.new("LA", (2, 2), (0, 128))
    assert saved(half, tmp_path / "b.png")[0, 0, 0] == 127
    keyed = Image.new("P", (2, 2), 0)
    assert saved(keyed, tmp_path / "c.gif", transparency=0)[0, 0].tolist() == [255, 255, 255]


def test_floating_point_is_refused(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match=r"a\.tiff.*floating-point"):
        open_picture(tmp_path / "a.tiff")


def test_beyond_sixteen_bit_is_refused(tmp_path):
    Image.fromarray(np.full((2, 2), 70000, np.int32)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match="outside 16 bits"):
        open_picture(tmp_path / "a.tiff")


def test_orientation_is_followed_on_request(tmp_path):
    image = Image.new("RGB", (4, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(tmp_path / "a.jpg", exif=exif)
    assert open_picture(tmp_path / "a.jpg").size == (4, 2)
    assert open_picture(tmp_path / "a.jpg", upright=True).size == (2, 4)


@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "tiff", "webp", "bmp"])
def test_a_truncated_file_is_named(ending, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"whole.{ending}"
    Image.fromarray(pixels).save(path)
    broken = tmp_path / f"broken.{ending}"
    broken.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"broken\.{ending}: not a readable image"):
        open_picture(broken)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"hello"])
def test_not_an_image(content, tmp_path):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png"):
        open_picture(tmp_path / "a.png")


@pytest.mark.parametrize("error", [
    NotImplementedError("layout"), TypeError(), KeyError(7), AttributeError("x"), OverflowError(),
    MemoryError(), zlib.error("stream"), IndexError(), SyntaxError("chunk"),
])  # fmt: skip
def test_whatever_a_reader_trips_over_names_the_file(error, tmp_path, monkeypatch):
    def load(image):
        raise error

    Image.new("RGB", (2, 2)).save(tmp_path / "a.bmp")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(DataError, match=r"a\.bmp: not a readable image \(.+\)"):
        open_picture(tmp_path / "a.bmp")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png"):
        open_picture(tmp_path / "gone.png")


def test_fit_leaves_the_right_size_alone():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(fit(pixels, 8), pixels)
    np.testing.assert_array_equal(fit(Image.fromarray(pixels), 8), pixels)


@pytest.mark.parametrize("shape", [(30, 20), (20, 31), (7, 7), (5, 64), (33, 32), (8, 9)])
def test_fit_is_torchvisions_resize_and_centre_crop(shape):
    from torchvision import transforms as T

    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    bicubic = T.InterpolationMode.BICUBIC
    expected = T.Compose([T.Resize(8, bicubic, antialias=True), T.CenterCrop(8)])
    np.testing.assert_array_equal(fit(pixels, 8), np.asarray(expected(Image.fromarray(pixels))))


def test_fit_of_an_extreme_shape():
    assert fit(np.zeros((1, 500, 3), np.uint8), 4).shape == (4, 4, 3)


@pytest.mark.parametrize("shape", [(30, 20), (20, 31), (8, 8), (11, 9)])
def test_fit_may_resize_to_more_than_it_keeps(shape):
    from torchvision import transforms as T

    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    bicubic = T.InterpolationMode.BICUBIC
    expected = T.Compose([T.Resize(11, bicubic, antialias=True), T.CenterCrop(8)])
    shown = fit(pixels, 8, 11)
    np.testing.assert_array_equal(shown, np.asarray(expected(Image.fromarray(pixels))))
    assert shown.shape == (8, 8, 3)


def test_bytes_are_decoded_like_a_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    assert decode(BytesIO(content), "x") == open_picture(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"^record 5: not a readable image"):
        decode(BytesIO(content[:50]), "record 5")
