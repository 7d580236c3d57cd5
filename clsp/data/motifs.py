"""What the miniature of each fetched set shows: one drawing function per set.

Shapes are signed distances: negative inside. Arguments and result are those of
clsp.data.miniature.Motif.
"""

import colorsys

import numpy as np

EDGE = 0.08  # width of a soft edge; about a pixel
Array = np.ndarray
Stream = np.random.Generator


def _hsv(hue: float, saturation: float, value: float) -> Array:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))


def _wash(x: Array, colour: Array) -> Array:
    return np.broadcast_to(colour, (*x.shape, 3)).copy()


def _fill(canvas: Array, distance: Array, colour: Array) -> Array:
    inside = np.clip(0.5 - distance / EDGE, 0, 1)[..., None]
    return canvas * (1 - inside) + colour * inside


def _pose(stream: Stream, x: Array, y: Array, turn: float, shift: float) -> tuple[Array, Array]:
    """Coordinates of a figure that is turned, shifted and scaled at random."""
    angle = stream.uniform(-turn, turn)
    scale = stream.uniform(0.8, 1.2)
    dx, dy = stream.uniform(-shift, shift, 2)
    u, v = (x - dx) / scale, (y - dy) / scale
    return u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)


def _box(x: Array, y: Array, half_width: float, half_height: float) -> Array:
    return np.maximum(abs(x) - half_width, abs(y) - half_height)


def _oval(x: Array, y: Array, half_width: float, half_height: float) -> Array:
    return (np.hypot(x / half_width, y / half_height) - 1) * min(half_width, half_height)


def _polygon(x: Array, y: Array, sides: int, radius: float) -> Array:
    sector = 2 * np.pi / sides
    within = np.mod(np.arctan2(y, x), sector) - sector / 2
    return np.hypot(x, y) * np.cos(within) - radius


def plain_shapes(stream: Stream, label: int, x: Array, y: Array) -> Array:
    """CIFAR-10: disc, square, triangle, ring or cross, in any colour on any other."""
    u, v = _pose(stream, x, y, turn=0.5, shift=0.25)
    distance = (
        np.hypot(u, v) - 0.6,
        _box(u, v, 0.5, 0.5),
        _polygon(v, u, 3, 0.35),
        abs(np.hypot(u, v) - 0.5) - 0.14,
        np.minimum(_box(u, v, 0.7, 0.18), _box(u, v, 0.18, 0.7)),
    )[label]
    hue = stream.uniform()
    canvas = _wash(x, _hsv(hue + stream.uniform(0.3, 0.7), 0.5, stream.uniform(0.2, 0.5)))
    return _fill(canvas, distance, _hsv(hue, 0.7, stream.uniform(0.7, 1.0)))


def striped_polygons(stream: Stream, label: int, x: Array, y: Array) -> Array:
    """CIFAR-100: polygons of 3 to 8 sides; stripes inside them become finer with the class."""
    u, v = _pose(stream, x, y, turn=np.pi, shift=0.2)
    canvas = _wash(x, _hsv(stream.uniform(), 0.3, 0.85))
    hue = stream.uniform()
    canvas = _fill(canvas, _polygon(u, v, 3 + label, 0.65), _hsv(hue, 0.8, 0.7))
    stripes = 0.5 - abs(np.sin(u * (2 + 1.5 * label)))
    return _fill(canvas, np.maximum(_polygon(u, v, 3 + label, 0.5), stripes), _hsv(hue, 0.5, 0.3))


def textures(stream: Stream, label: int, x: Array, y: Array) -> Array:
    """DTD: banded, blotchy, chequered, dotted or zigzagged, all over the image."""
    u, v = _pose(stream, x, y, turn=0.4, shift=1.0)
    pitch = stream.uniform(5, 8)
    a, b = u * pitch, v * pitch
    waves = stream.uniform(-4, 4, (6, 2))
    blotches = sum(np.sin(u * p + v * q + p) for p, q in waves) / 3
    tone = (
        np.sin(b),
        blotches,
        np.sign(np.sin(a) * np.sin(b)),
        0.6 - np.hypot(np.sin(a / 2), np.sin(b / 2)) * 1.6,
        np.sin(b + 2 * abs(np.mod(a / np.pi, 2) - 1)),
    )[label]
    share = np.clip(0.5 + tone / 2, 0, 1)[..., None]
    hue = stream.uniform(0.03, 0.15)
    return _hsv(hue, 0.5, 0.25) * (1 - share) + _hsv(hue, 0.25, 0.9) * share


def flowers(stream: Stream, label: int, x: Array, y: Array) -> Array:
    """Flowers-102: petals by number and colour on green leaves."""
    u, v = _pose(stream, x, y, turn=np.pi, shift=0.2)
    leaves = 0.3 + 0.15 * np.sin(x * stream.uniform(3, 6) + y * stream.uniform(3, 6))
    canvas = leaves[..., None] * np.array((0.5, 1.0, 0.4))
    petals = (3, 4, 5, 6, 8)[label]
    outline = 0.55 + 0.25 * np.cos(petals * np.arctan2(v, u))
    hue = 0.75 + 0.12 * label + stream.normal(0, 0.05)
    canvas = _fill(canvas, np.hypot(u, v) - outline, _hsv(hue, 0.65, 0.95))
    return _fill(canvas, np.hypot(u, v) - 0.2, _hsv(0.13, 0.8, stream.uniform(0.5, 1.0)))


def dishes(stream: Stream, label: int, x: Array, y: Array) -> Array:
    """Food-101: a plate on a table; the class decides the pieces, their number and colour."""
    grain = 0.45 + 0.05 * np.sin(8 * y + stream.uniform(0, 6))
    canvas = grain[..., None] * np.array((1.0, 0.7, 0.45))
    u, v = _pose(stream, x, y, turn=0.3, shift=0.1)
    canvas = _fill(canvas, np.hypot(u, v) - 0.85, np.array((0.95, 0.95, 0.92)))
    count, radius = ((1, 0.5), (3, 0.28), (9, 0.13), (4, 0.22), (2, 0.35))[label]
    hue = (0.08, 0.02, 0.11, 0.28, 0.95)[label] + stream.normal(0, 0.03)
    for _ in range(count):
        dx, dy = stream.uniform(-0.45, 0.45, 2)
        value = stream.uniform(0.5, 0.9)
        canvas = _fill(canvas, _oval(u - dx, v - dy, radius, radius * 0.8), _hsv(hue, 0.8, value))
    return canvas


def faces(stream: Stream, label: int, x: Array, y: Array) -> Array:
    """Oxford-IIIT Pets: a face whose ears, width and fur follow the breed."""
    canvas = _wash(x, _hsv(stream.uniform(), 0.25, stream.uniform(0.4, 0.9)))
    u, v = _pose(stream, x, y, turn=0.25, shift=0.15)
    width = (0.5, 0.62, 0.42, 0.55, 0.48)[label]
    fur = _hsv(0.08 + stream.normal(0, 0.02), 0.5, (0.8, 0.35, 0.6, 0.9, 0.25)[label])
    ear = abs(u) - 0.42
    ears = (
        _polygon(-(v + 0.5), ear, 3, 0.16),
        _oval(ear - 0.15, v + 0.1, 0.16, 0.45),
        _polygon(-(v + 0.6), ear, 3, 0.22),
        _oval(ear, v + 0.5, 0.22, 0.22),
        _box(ear, v + 0.55, 0.1, 0.25),
    )[label]
    canvas = _fill(canvas, ears, fur * 0.75)
    canvas = _fill(canvas, _oval(u, v, width, 0.58), fur)
    canvas = _fill(canvas, _oval(abs(u) - 0.2, v + 0.12, 0.09, 0.09), np.array((0.05, 0.1, 0.05)))
    return _fill(canvas, _oval(u, v - 0.2, 0.12, 0.07), np.array((0.3, 0.1, 0.1)))


def aircraft(stream: Stream, label: int, x: Array, y: Array) -> Array:
    """FGVC-Aircraft: one fuselage against the sky; wings, tail and engines make the variant."""
    sky = np.clip(0.75 - 0.2 * y + 0.05 * np.sin(3 * x + stream.uniform(0, 6)), 0, 1)
    canvas = sky[..., None] * np.array((0.65, 0.8, 1.0))
    u, v = _pose(stream, x, y, turn=0.35, shift=0.15)
    metal = _hsv(0.6, 0.08, stream.uniform(0.3, 0.6))
    swept = abs(v) * (0.0, 0.6, 1.0, 0.3, -0.4)[label]
    wing = _box(
        u + swept, v, (0.14, 0.16, 0.3, 0.1, 0.2)[label], (0.75, 0.65, 0.5, 0.8, 0.6)[label]
    )
    canvas = _fill(canvas, _oval(u, v, 0.85, (0.12, 0.15, 0.1, 0.2, 0.13)[label]), metal)
    canvas = _fill(canvas, wing, metal * 0.85)
    canvas = _fill(canvas, _box(u - 0.7, v, 0.08, (0.3, 0.2, 0.15, 0.35, 0.25)[label]), metal)
    if label in (1, 3):
        canvas = _fill(canvas, _oval(u + 0.1, abs(v) - 0.35, 0.16, 0.07), metal * 0.5)
    return canvas


def outlines(stream: Stream, label: int, x: Array, y: Array) -> Array:
    """Caltech-101: line drawings on paper; class 0, the background class, is clutter."""
    canvas = _wash(x, np.full(3, stream.uniform(0.85, 1.0)))
    ink = _hsv(stream.uniform(), 0.4, 0.25)
    if label == 0:
        for _ in range(4):
            u, v = _pose(stream, x, y, turn=np.pi, shift=0.7)
            canvas = _fill(canvas, _box(u, v, stream.uniform(0.1, 0.8), 0.06), ink)
        return canvas
    u, v = _pose(stream, x, y, turn=0.6, shift=0.2)
    shape = (
        _oval(u, v, 0.75, 0.3),
        _polygon(u, v, 4, 0.5),
        np.hypot(u, v) - 0.55 - 0.2 * np.cos(5 * np.arctan2(v, u)),
        np.minimum(_oval(u + 0.35, v, 0.32, 0.32), _oval(u - 0.35, v, 0.32, 0.32)),
    )[label - 1]
    return _fill(canvas, abs(shape) - 0.07, ink)


def silhouettes(stream: Stream, label: int, x: Array, y: Array) -> Array:
    """STL-10: a dark body with wings, legs or wheels against a bright sky."""
    u, v = _pose(stream, x, y, turn=0.25, shift=0.2)
    canvas = (0.85 - 0.15 * y)[..., None] * _hsv(stream.uniform(0.5, 0.65), 0.25, 1.0)
    legs = np.minimum(_box(u - 0.35, v - 0.4, 0.06, 0.35), _box(u + 0.35, v - 0.4, 0.06, 0.35))
    parts = (
        _box(u + 0.5 * abs(v), v, 0.12, 0.75),
        _polygon(-u, abs(v) - 0.25, 3, 0.28),
        np.hypot(abs(u) - 0.45, v - 0.35) - 0.22,
        np.minimum(legs, _oval(u - 0.6, v + 0.35, 0.25, 0.25)),
        np.minimum(legs, _box(abs(u - 0.6) - 0.1, v + 0.55, 0.03, 0.3)),
    )[label]
    ink = _hsv(stream.uniform(), 0.4, stream.uniform(0.1, 0.35))
    return _fill(_fill(canvas, parts, ink * 0.8), _oval(u, v, 0.7, 0.25), ink)


def cars(stream: Stream, label: int, x: Array, y: Array) -> Array:
    """Stanford Cars: one car from the side, in any colour; cabin and wheels make the model."""
    road = np.clip((y - 0.4) / EDGE, 0, 1)[..., None]
    sky = _hsv(stream.uniform(0.5, 0.65), 0.2, 0.9)
    canvas = _wash(x, sky) * (1 - road) + np.full(3, stream.uniform(0.3, 0.5)) * road
    u, v = _pose(stream, x, y, turn=0.08, shift=0.12)
    paint = _hsv(stream.uniform(), 0.8, stream.uniform(0.5, 1.0))
    place, length, height = (
        (0.1, 0.6, 0.34), (-0.1, 0.35, 0.22), (0.0, 0.5, 0.14), (0.25, 0.25, 0.3), (-0.3, 0.3, 0.16)
    )[label]  # fmt: skip
    canvas = _fill(canvas, _box(u - place, v + height, length, height), paint * 0.6)
    canvas = _fill(canvas, _box(u, v - 0.12, 0.85, 0.2), paint)
    wheel = (0.26, 0.16, 0.2, 0.14, 0.22)[label]
    return _fill(canvas, np.hypot(abs(u) - 0.5, v - 0.35) - wheel, np.full(3, 0.08))


def scenes(stream: Stream, label: int, x: Array, y: Array) -> Array:
    """SUN397: towers, rows of seats, a hall, a narrow street or a block of windows."""
    u, v = _pose(stream, x, y, turn=0.05, shift=0.25)
    light, dark = stream.uniform(0.7, 0.95), stream.uniform(0.15, 0.4)
    tone = (
        np.where((v > -0.1) | (abs(abs(u) - 0.5) < 0.18), dark, light),
        np.where(np.sin(7 * v) * abs(u) > 0.15, dark, light),
        np.where(v > 0.2, dark, light) + 0.2 * np.sin(9 * u) * (v < 0.2),
        np.where(abs(u) < 0.15 + 0.35 * np.clip(v + 1, 0, 2), light, dark),
        np.where((np.sin(9 * u) > 0.2) & (np.sin(9 * v) > 0.2), light, dark),
    )[label]
    return np.clip(tone, 0, 1)[..., None] * _hsv(stream.uniform(), 0.25, 1.0)


def objects(stream: Stream, label: int, x: Array, y: Array) -> Array:
    """VOC2007: several things in one image; bit k of `label` says whether class k is shown."""
    canvas = _wash(x, _hsv(stream.uniform(), 0.2, stream.uniform(0.5, 0.8)))
    for thing in range(5):
        u, v = _pose(stream, x * 1.6, y * 1.6, turn=0.3, shift=0.8)
        distance = (
            np.minimum(_box(u, v, 0.6, 0.1), _box(u, v, 0.12, 0.5)),
            abs(np.hypot(abs(u) - 0.4, v) - 0.3) - 0.08,
            _polygon(v, u, 3, 0.3),
            np.maximum(np.hypot(u, v) - 0.6, -v),
            _box(u, v, 0.18, 0.6),
        )[thing]
        if label >> thing & 1:
            canvas = _fill(canvas, distance, _hsv(0.2 * thing + stream.normal(0, 0.03), 0.8, 0.9))
    return canvas
