"""The empty studio: a white wall with lettering, the floor, the turntable, shadow and reflection.

Levels are gray values 0..255 as a picture stores them. What is smooth is drawn at a quarter of the
size. Knows the car only as an outline on the floor.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from carvana_ray.sample import camera
from carvana_ray.sample.camera import HEIGHT, WIDTH
from carvana_ray.sample.car import Car, Studio
from carvana_ray.sample.meshes import CarMeshes

Floats = NDArray[np.float32]
Pixels = list[tuple[float, float]]

_COARSE = (480, 320)
_PER_COARSE = HEIGHT / _COARSE[1]
_TURNTABLE_M = 3.2  # its edge is 1930 px wide in the real pictures
_FOOT_PX = 57.0  # the wall's foot is that far below the horizon: the floor runs up to the wall
_LETTER_PX = 240.0

# Strokes in a unit box, y upwards. The word is a plain one: the real wall carries a trade mark.
_WORD = "AUTOLANE"
_STROKES: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "A": (((0, 0), (0.5, 1), (1, 0)), ((0.8, 0.25), (0.55, 0.25))),
    "U": (((0, 1), (0, 0.3), (0.12, 0.08), (0.35, 0), (0.65, 0), (0.88, 0.08), (1, 0.3), (1, 1)),),
    "T": (((0, 1), (1, 1)), ((0.5, 1), (0.5, 0))),
    "O": (tuple((0.5 + 0.5 * math.sin(k / 6), 0.5 - 0.5 * math.cos(k / 6)) for k in range(39)),),
    "L": (((0, 1), (0, 0), (0.9, 0)),),
    "N": (((0, 0), (0, 1), (1, 0), (1, 1)),),
    "E": (((0.9, 1), (0, 1), (0, 0), (0.9, 0)), ((0, 0.5), (0.8, 0.5))),
}  # fmt: skip


def draw_backdrop(car: Car, parts: CarMeshes, view: int) -> Image.Image:
    """Return the studio without the car, but with its shadow and reflection, RGB 1918 x 1280."""
    room = car.studio
    wall = _wall(room)
    floor = _floor(car, parts, view)
    xs = np.linspace(0, WIDTH, 33)
    foot: Pixels = list(zip(xs.tolist(), _foot(room, xs).tolist(), strict=True))
    mask = Image.new("L", wall.size, 0)
    ImageDraw.Draw(mask).polygon([*foot, (WIDTH, HEIGHT), (0, HEIGHT)], fill=255)
    above = Image.composite(floor.crop((0, 0, *wall.size)), wall, mask)
    floor.paste(above.filter(ImageFilter.BoxBlur(0.7)), (0, 0))
    return floor


def _foot(room: Studio, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the row of the wall's foot in each column: the wall is bent around the turntable."""
    return room.horizon + _FOOT_PX + 22 * ((x - room.center_x) / (WIDTH / 2)) ** 2


def _wall(room: Studio) -> Image.Image:
    """Return the upper part of the picture, down to below the wall's foot."""
    tall = int(room.horizon + _FOOT_PX + 40)
    x = np.linspace(-1, 1, 120, dtype=np.float32)[None, :]
    y = np.linspace(0, 1, 40, dtype=np.float32)[:, None]
    panels = np.sin(6.0 * x + 2.5 * y + np.float32(room.panel_phase))
    level = (
        room.wall_level
        + 14 * y**3
        + room.brightness_slope * x
        - 7 * (1 - y) * x**2
        + 1.6 * panels * (1 - y)
    )
    tint = np.array([0.0, -0.4, 0.6 - 0.5 * room.warmth], dtype=np.float32)
    coarse = _image(level[..., None] + tint)
    wall = coarse.resize((WIDTH, tall), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(wall)
    left, right = room.center_x - 285, room.center_x + 210
    top = room.horizon - 205
    pen.line(
        [(left, tall), (left, top), (right, top), (right, tall)], fill=(196, 196, 198), width=2
    )
    _lettering(room, pen)
    return wall


def _lettering(room: Studio, pen: ImageDraw.ImageDraw) -> None:
    ink = tuple(int(room.wall_level * 0.46) + shift for shift in (0, -2, 2))
    pitch = (WIDTH - 70) / len(_WORD)
    for number, letter in enumerate(_WORD):
        left = room.center_x - WIDTH / 2 + 45 + number * pitch
        thick = 24 if number < len(_WORD) / 2 else 50
        for stroke in _STROKES[letter]:
            wide = 0.86 * pitch - thick
            x = np.array([left + thick / 2 + across * wide for across, _ in stroke])
            # The outer letters stand nearer to the camera.
            tall = _LETTER_PX * (1 + 0.06 * ((x - room.center_x) / (WIDTH / 2)) ** 2)
            y = _foot(room, x) - 4 - thick / 2 - np.array([up for _, up in stroke]) * (tall - thick)
            spots = list(zip(x.tolist(), y.tolist(), strict=True))
            pen.line(spots, fill=ink, width=thick, joint="curve")


def _floor(car: Car, parts: CarMeshes, view: int) -> Image.Image:
    """Return the whole picture as floor; what is above the wall's foot is not meant to be seen."""
    room = car.studio
    y = np.linspace(0, 1, _COARSE[1], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, _COARSE[0], dtype=np.float32)[None, :]
    middle = (y - 0.62) / 0.38
    level = room.floor_level + 9 * middle - 6 * x**2 * (y > 0) + room.brightness_slope * x
    level = level + _stains(room)
    tint = np.array([-3.0, 0.5, 3.0], dtype=np.float32)
    disc = _turntable(room)
    warm = np.array([2.0 + room.warmth, 0.0, -3.0 - room.warmth], dtype=np.float32)
    colour = level[..., None] + tint + disc[..., None] * warm
    shine, mirrored = _reflection(car, parts, view)
    colour += (mirrored - colour) * shine[..., None]
    colour *= (1 - _shadow(car, parts, view))[..., None]
    floor = _image(colour).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    _marks(car, view, ImageDraw.Draw(floor))
    return floor


def _stains(room: Studio) -> Floats:
    """Return what makes a real floor uneven, [320, 480], the same in a whole session."""
    rng = np.random.default_rng(room.stain_seed)
    total = np.zeros((_COARSE[1], _COARSE[0]), dtype=np.float32)
    for cells, strength in ((9, 2.2), (40, 1.0), (160, 0.7)):
        grain = rng.standard_normal((2 * cells, cells), dtype=np.float32) * np.float32(strength)
        field = Image.fromarray(grain).resize(_COARSE, Image.Resampling.BICUBIC)
        total += np.asarray(field)
    return total


def _on_floor(room: Studio, points: NDArray[np.float64], scale: float) -> Pixels:
    """Project floor points [N, 2] in room axes, to pixels divided by `scale`."""
    flat = np.concatenate([points, np.zeros((len(points), 1))], axis=1)
    pixels, _ = camera.project(flat.astype(np.float32), room)
    return [(float(a), float(b)) for a, b in pixels / np.float32(scale)]


def _circle(radius: float, fine: int = 120) -> NDArray[np.float64]:
    turn = np.linspace(0, 2 * np.pi, fine, endpoint=False)
    return radius * np.stack([np.cos(turn), np.sin(turn)], axis=-1)


def _turntable(room: Studio) -> Floats:
    image = Image.new("L", _COARSE, 0)
    ImageDraw.Draw(image).polygon(_on_floor(room, _circle(_TURNTABLE_M), _PER_COARSE), fill=255)
    return _unit(image.filter(ImageFilter.GaussianBlur(1.5)))


def _marks(car: Car, view: int, pen: ImageDraw.ImageDraw) -> None:
    """Draw the turntable's edge and seams; the seams turn with it."""
    room = car.studio
    shade = int(room.floor_level)
    edge = _on_floor(room, _circle(_TURNTABLE_M), 1.0)
    pen.line([*edge, edge[0]], fill=(shade - 48, shade - 48, shade - 50), width=3)
    for across in (-1.15, 1.15):
        reach = float(np.sqrt(_TURNTABLE_M**2 - across**2))
        ends = np.array([[-reach, across, 0.0], [reach, across, 0.0]])
        turned = camera.to_world(ends, view, 0.0)[:, :2].astype(np.float64)
        pen.line(_on_floor(room, turned, 1.0), fill=(shade - 30, shade - 31, shade - 35), width=2)


def _shadow(car: Car, parts: CarMeshes, view: int) -> Floats:
    """Return how much of the light the car takes from the floor, [320, 480], 0..1."""
    room = car.studio
    image = Image.new("L", _COARSE, 0)
    pen = ImageDraw.Draw(image)
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)

    def patch(middle: tuple[float, float], half: tuple[float, float], dark: int) -> None:
        box = [np.sign(f) * np.abs(f) ** 0.45 for f in (np.cos(turn), np.sin(turn))]
        spots = np.stack([m + h * b for m, h, b in zip(middle, half, box, strict=True)], axis=-1)
        at = np.concatenate([spots, np.zeros((48, 1))], axis=1)
        turned = camera.car_to_world(at, car, view)[:, :2].astype(np.float64)
        pen.polygon(_on_floor(room, turned, _PER_COARSE), fill=dark)

    half = (car.length_m / 2 - 0.08, car.width_m / 2)
    # The higher the sills, the more light reaches under them.
    deep = 1.0 - 0.5 * (car.clearance_m - 0.2)
    steps = ((0.85, 12), (0.62, 24), (0.42, 38), (0.27, 56), (0.14, 84), (0.03, 128), (-0.09, 160))
    for grow, dark in steps:
        patch((0, 0), (half[0] + grow, half[1] + grow), int(dark * deep))
    image = image.filter(ImageFilter.GaussianBlur(3.2))
    pen = ImageDraw.Draw(image)
    for end in (0, 1):
        for side in (1, -1):
            at = (car.length_m / 2 - car.axles_m[end], side * (car.width_m / 2 - 0.16))
            patch(at, (0.13, 0.09), 190)
    return _unit(image.filter(ImageFilter.GaussianBlur(1.6)))


def _reflection(car: Car, parts: CarMeshes, view: int) -> tuple[Floats, Floats]:
    """Return how strongly the floor mirrors [320, 480] and the blurred picture [320, 480, 3]."""
    image = Image.new("RGB", _COARSE, (0, 0, 0))
    mask = Image.new("L", _COARSE, 0)
    pen, cut = ImageDraw.Draw(image), ImageDraw.Draw(mask)
    red, green, blue = (int(225 * min(part, 1.0) ** 0.5) for part in car.paint)
    pieces = [(one.points[::5], (26, 26, 27)) for one in parts.wheels]
    low = parts.shell.points[:, 0, 2] < car.height_m * 0.42
    pieces.append((parts.shell.points[low][::2], (red, green, blue)))
    for points, colour in pieces:
        under = camera.car_to_world(points * [1, 1, -1], car, view)
        pixels, _ = camera.project(under, car.studio)
        for quad in (pixels / np.float32(_PER_COARSE)).reshape(-1, 8).tolist():
            pen.polygon(quad, fill=colour)
            cut.polygon(quad, fill=255)
    blur = ImageFilter.GaussianBlur(3.5)
    share = _unit(mask.filter(blur))
    colour_sum = np.asarray(image.filter(blur), dtype=np.float32)
    mirrored = colour_sum / np.maximum(share, 1e-2)[..., None]
    return share * np.float32(0.07), mirrored.astype(np.float32)


def _unit(image: Image.Image) -> Floats:
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def _image(levels: Floats) -> Image.Image:
    return Image.fromarray(np.clip(levels, 0, 254).astype(np.uint8))
