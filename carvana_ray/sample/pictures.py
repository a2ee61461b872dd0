"""Pictures that a varied scene has instead of a room: plain, graded, textured, crowded."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from carvana_ray.sample.camera import HEIGHT, WIDTH
from carvana_ray.sample.rooms import grain, gray, smooth_noise, to_image

Floats = np.ndarray
_SIZE = (240, 160)
_SHAPE = (160, 240)


def draw_picture(rng: np.random.Generator) -> Image.Image:
    """Return a random picture, RGB, 1918 x 1280."""
    kinds = (_plain, _gradient, _noise, _stripes, _scene, _shapes, _lights)
    kind = kinds[int(rng.choice(len(kinds), p=(0.14, 0.2, 0.16, 0.12, 0.2, 0.1, 0.08)))]
    picture = kind(rng)
    if rng.uniform() < 0.3:
        picture = grain(picture, rng, float(rng.uniform(2, 25)))
    return picture


def _color(rng: np.random.Generator) -> Floats:
    """Return a color: a pale, middle or dark gray with a tint."""
    level = rng.uniform(0, 255)
    tint = rng.normal(0, 1, 3) * float(rng.choice((3.0, 45.0)))
    return np.asarray(np.clip(level + tint, 0, 255), dtype=np.float32)


def _large(color: Floats) -> Image.Image:
    return to_image(color).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def _axes() -> tuple[Floats, Floats]:
    x = np.linspace(-1, 1, _SIZE[0], dtype=np.float32)[None, :]
    return x, np.linspace(-1, 1, _SIZE[1], dtype=np.float32)[:, None]


def _plain(rng: np.random.Generator) -> Image.Image:
    return Image.new("RGB", (WIDTH, HEIGHT), gray(float(rng.choice((254, 0, *_color(rng)))), rng))


def _gradient(rng: np.random.Generator) -> Image.Image:
    """Return a linear or a round gradient between two colors."""
    x, y = _axes()
    angle = rng.uniform(0, 6.28)
    along = 0.5 + 0.5 * (np.cos(angle) * x + np.sin(angle) * y)
    if rng.uniform() < 0.5:
        along = np.hypot(x - rng.uniform(-0.6, 0.6), y - rng.uniform(-0.6, 0.6))
    part = np.clip(along * rng.uniform(0.5, 1.6), 0, 1)[..., None]
    return _large(_color(rng) * (1 - part) + _color(rng) * part)


def _noise(rng: np.random.Generator) -> Image.Image:
    """Return clouds, stone or marble of several octaves."""
    cells, strength = int(rng.integers(2, 12)), rng.uniform(8, 60)
    color = np.zeros((*_SHAPE, 3), dtype=np.float32) + _color(rng)
    for octave in range(4):
        noise = smooth_noise(rng, _SHAPE, cells * 2**octave)
        color = color + (strength * 0.6**octave) * noise[..., None] * rng.uniform(0.7, 1.2, 3)
    return _large(color)


def _stripes(rng: np.random.Generator) -> Image.Image:
    """Return stripes, checks or a grid."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), gray(rng.uniform(0, 255), rng))
    pen, step = ImageDraw.Draw(picture), np.exp(rng.uniform(np.log(20), np.log(300)))
    fill, width = gray(rng.uniform(0, 255), rng), rng.uniform(0.05, 0.6)
    lean, both = float(rng.choice((0.0, rng.uniform(-800, 800)))), rng.uniform() < 0.5
    for at in np.arange(-1000, WIDTH + 1000, step).tolist():
        pen.line((at, 0, at + lean, HEIGHT), fill=fill, width=max(int(width * step), 1))
        if both:
            pen.line((0, at, WIDTH, at + lean), fill=fill, width=max(int(width * step), 1))
    return picture


def _scene(rng: np.random.Generator) -> Image.Image:
    """Return a landscape or a street: sky, blocks or trees, ground."""
    x, y = _axes()
    horizon = rng.uniform(-0.6, 0.3)
    sky, ground = _color(rng) * 0.4 + 150, _color(rng) * 0.7 + 30
    part = np.clip((y - horizon) * 40 + 0.5, 0, 1)[..., None]
    fade = rng.normal(0, 30) * (y - horizon)[..., None]
    rough = smooth_noise(rng, _SHAPE, 60)[..., None] * rng.uniform(1, 14)
    color = sky * (1 - part) + ground * part + fade + rough * part + 0 * x[..., None]
    picture = _large(color)
    pen, row = ImageDraw.Draw(picture), (horizon + 1) / 2 * HEIGHT
    trees = rng.uniform() < 0.5
    for _ in range(int(rng.integers(4, 40))):
        at, width, height = rng.uniform(0, WIDTH), rng.uniform(20, 380), rng.uniform(20, 420)
        fill = gray(rng.uniform(20, 220), rng)
        if trees:
            box = (at - width / 2, row - height, at + width / 2, row - 0.2 * height)
            pen.line((at, row, at, row - height / 2), fill=fill, width=int(width / 12) + 1)
            pen.ellipse(box, fill=fill)
        else:
            pen.rectangle((at, row - height, at + width, row), fill=fill)
            _windows(pen, rng, (at, row - height, at + width, row))
    return picture


def _windows(
    pen: ImageDraw.ImageDraw, rng: np.random.Generator, box: tuple[float, float, float, float]
) -> None:
    """Draw the windows of a house."""
    left, top, right, bottom = box
    step, fill = rng.uniform(25, 70), gray(rng.uniform(20, 250), rng)
    for x in np.arange(left + 10, right - step, step):
        for y in np.arange(top + 10, bottom - step, step):
            pen.rectangle((x, y, x + 0.6 * step, y + 0.6 * step), fill=fill)


def _shapes(rng: np.random.Generator) -> Image.Image:
    """Return a jumble of polygons, discs and lines."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), gray(rng.uniform(0, 255), rng))
    pen = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(10, 120))):
        x, y = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)
        reach = np.exp(rng.uniform(np.log(15), np.log(500)))
        corners = rng.normal((x, y), reach, (int(rng.integers(2, 6)), 2)).ravel().tolist()
        fill = gray(rng.uniform(0, 255), rng)
        if len(corners) == 4:
            pen.line(corners, fill=fill, width=int(rng.integers(2, 40)))
        elif rng.uniform() < 0.3:
            pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=fill)
        else:
            pen.polygon(corners, fill=fill)
    return picture


def _lights(rng: np.random.Generator) -> Image.Image:
    """Return blurred lights before a dark or a pale ground."""
    picture = Image.new("RGB", _SIZE, gray(rng.uniform(0, 200), rng))
    pen = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(5, 60))):
        x, y, r = rng.uniform(0, _SIZE[0]), rng.uniform(0, _SIZE[1]), rng.uniform(1, 14)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=gray(rng.uniform(60, 255), rng))
    picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 4))))
    return picture.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
