"""Images kept as the files that they came in, all in one Arrow file, decoded when they are read.

The file is an Arrow IPC file (https://arrow.apache.org/docs/format/Columnar.html), uncompressed,
with the bytes of each image file and its height and width. It is mapped into memory and nothing is
copied but the bytes of an image that is being decoded, so any order of reading is as good.
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from clsp.data.catalog import Picture
from clsp.data.decoders import each
from clsp.data.pictures import decode, fit
from clsp.runtime.errors import DataError
from clsp.runtime.files import writing

FILE = "images.arrow"
SCHEMA = pa.schema(
    [
        pa.field("image", pa.large_binary(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
    ]
)
# A record batch is written when it has one or the other: what bounds the writer's memory.
BATCH_BYTES = 1 << 24
BATCH_ROWS = 4096
KEPT = {"JPEG": ("RGB", "L"), "PNG": ("RGB", "L")}  # formats stored byte for byte, and their modes


def _as_png(picture: Image.Image) -> bytes:
    stream = BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def encode(picture: Picture, path: Path | None) -> bytes:
    """The bytes that a picture is stored as.

    Args:
        picture: What reading the image gives: an RGB image, or uint8 (H, W, 3).
        path: Its file, if it has one of its own.

    Returns:
        The file itself if it is a JPEG or PNG that decodes to just this picture; else a PNG of the
        picture, which loses nothing.

    Raises:
        DataError: If the file cannot be read.
    """
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    if path is None:
        return _as_png(image)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    with Image.open(BytesIO(content)) as stored:
        kept = stored.mode in KEPT.get(stored.format or "", ())
    if kept and np.array_equal(np.asarray(decode(BytesIO(content), path)), np.asarray(image)):
        return content
    return _as_png(image)


class EncodedWriter:
    """Writes an Arrow file of images from front to back; a context manager."""

    def __init__(self, path: Path) -> None:
        """Create the file.

        Raises:
            DataError: If it cannot be created; `add` and leaving the context raise it as well.
        """
        self.path = path
        with writing(path):
            self._sink = pa.OSFile(str(path), "wb")
            self._writer = pa.ipc.new_file(self._sink, SCHEMA)
        self._rows: list[tuple[bytes, int, int]] = []
        self._bytes = 0

    def __enter__(self) -> "EncodedWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._sink:
            if kind is None:  # else there is an error to tell already, and no file to end
                self._flush()
                with writing(self.path):
                    self._writer.close()

    def add(self, content: bytes, height: int, width: int) -> None:
        """Append one image."""
        self._rows.append((content, height, width))
        self._bytes += len(content)
        if self._bytes >= BATCH_BYTES or len(self._rows) >= BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [pa.array(v, f.type) for v, f in zip(columns, SCHEMA, strict=True)]
            with writing(self.path):
                self._writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))
        self._rows, self._bytes = [], 0


class EncodedFile:
    """An Arrow file of images, mapped into memory.

    Attributes:
        path: The file.
        height: Of each image, int32 (N,), pixels.
        width: The same.
    """

    def __init__(self, path: Path) -> None:
        """Map the file.

        Raises:
            DataError: If it is missing, truncated, or no such file.
        """
        self.path = path
        try:
            self._map = pa.memory_map(str(path))
            reader = pa.ipc.open_file(self._map)
            if not reader.schema.equals(SCHEMA):
                raise DataError(f"{path}: expected the columns image, height and width of images")
            batches = [reader.get_batch(n) for n in range(reader.num_record_batches)]
            for batch in batches:
                batch.validate(full=True)
        except (OSError, pa.ArrowException) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise DataError(f"{path}: not a readable Arrow file of images ({reason})") from error
        self._columns = [batch.column(0) for batch in batches]
        self._starts = np.cumsum([0, *(len(column) for column in self._columns)])
        self.height, self.width = (
            np.concatenate([np.empty(0, np.int32), *(b.column(n).to_numpy() for b in batches)])
            for n in (1, 2)
        )

    def __len__(self) -> int:
        return len(self.height)

    def content(self, row: int) -> memoryview:
        """The bytes of one image file; a view into the map."""
        batch = int(np.searchsorted(self._starts, row, side="right")) - 1
        return memoryview(self._columns[batch][row - self._starts[batch]].as_buffer())

    def picture(self, row: int) -> Image.Image:
        """Decode one image, at its own resolution.

        Raises:
            DataError: Naming file and row, if the bytes are damaged.
        """
        picture = decode(BytesIO(self.content(row)), f"{self.path}: image {row}")
        if picture.size != (self.width[row], self.height[row]):
            raise DataError(
                f"{self.path}: image {row} is {picture.width}x{picture.height}, "
                f"expected {self.width[row]}x{self.height[row]}"
            )
        return picture


@dataclass(frozen=True)
class EncodedImages:
    """A range of the images of an Arrow file, as if it were one uint8 array (N, size, size, 3).

    `images[rows]` decodes, each image once; nothing else does. `rows` is a number, a slice, or an
    array of numbers.

    Attributes:
        file: The Arrow file.
        size: Side of the square that a decoded image is fitted to.
        resize: Shorter side before the square is cut; None: size.
        start: First row of the file.
        stop: One after the last.
    """

    file: EncodedFile
    size: int
    resize: int | None
    start: int
    stop: int

    ndim = 4
    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the array that reading all images would give."""
        return len(self), self.size, self.size, 3

    @property
    def nbytes(self) -> int:
        """Of that array."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.stop - self.start

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("encoded images are no array: read the rows that are needed, images[rows]")

    def __getitem__(self, key: Any) -> np.ndarray:
        rows = np.arange(len(self))[key]  # numpy's own rules, negative and wrong numbers included
        if rows.ndim == 0:
            return self._fitted(int(rows))
        if rows.ndim != 1:
            raise IndexError(f"rows have one dimension, found {rows.ndim}")
        distinct, places = np.unique(rows, return_inverse=True)
        read = np.empty((len(distinct), *self.shape[1:]), np.uint8)

        def fill(place: int) -> None:
            read[place] = self._fitted(int(distinct[place]))

        for _ in each(fill, range(len(distinct))):
            pass
        return read if np.array_equal(distinct, rows) else read[places]

    def _fitted(self, row: int) -> np.ndarray:
        return fit(self.picture(row), self.size, self.resize)

    def window(self, start: int, stop: int) -> "EncodedImages":
        """A range of these images, nothing decoded; bounds as of a slice."""
        first, last, _ = slice(start, stop).indices(len(self))
        begin = self.start + first
        return EncodedImages(
            self.file, self.size, self.resize, begin, max(begin, self.start + last)
        )

    def picture(self, row: int) -> Image.Image:
        """Decode one image at its own resolution; row in [0, len).

        Raises:
            DataError: Naming file and row, if the bytes are damaged.
        """
        return self.file.picture(self.start + row)

    def sides(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Height and width of images at their own resolution, int32 (n,) each."""
        return self.file.height[self.start + rows], self.file.width[self.start + rows]


def open_encoded(path: Path, size: int, resize: int | None) -> EncodedImages:
    """All images of an Arrow file.

    Raises:
        DataError: If it is missing, truncated, or no such file.
    """
    file = EncodedFile(path)
    return EncodedImages(file, size, resize, 0, len(file))
