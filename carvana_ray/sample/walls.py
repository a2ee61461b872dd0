"""The walls of varied scenes: their brightness, and what is built into them."""

import numpy as np
from PIL import Image, ImageDraw

from carvana_ray.sample.camera import WIDTH
from carvana_ray.sample.car import Studio
from carvana_ray.sample.rooms import grain, gray, smooth_noise, to_image

Floats = np.ndarray


def draw_wall(studio: Studio, height: int, rng: np.random.Generator) -> Image.Image:
    """Return a wall without lettering, RGB, 1918 x `height`."""
    level = _levels(studio, rng)
    tint = rng.normal(0, 1, 3) * float(rng.choice((2.0, 20.0), p=(0.7, 0.3)))
    color = level[..., None] + (tint - tint.mean()).astype(np.float32)
    wall = to_image(color).resize((WIDTH, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(wall)
    for draw, likely in (
        (_panels, 0.22), (_boards, 0.08), (_bricks, 0.08), (_ceiling, 0.15), (_openings, 0.28),
        (_pipes, 0.15), (_frame, 0.3), (_plinth, 0.15),
    ):  # fmt: skip
        if rng.uniform() < likely * (0.35 if studio.calm and draw is not _frame else 1.0):
            draw(studio, height, pen, rng)
    if rng.uniform() < (0.1 if studio.calm else 0.25):
        wall = grain(wall, rng, float(rng.uniform(1, 12)))
    return wall


def _levels(studio: Studio, rng: np.random.Generator) -> Floats:
    """Return the wall's gray values, smooth, float32 [80, 240]."""
    x = np.linspace(-1, 1, 240, dtype=np.float32)[None, :]
    y = np.linspace(0, 1, 80, dtype=np.float32)[:, None]
    often = (0.4, 0.55, 0.05) if studio.calm else (0.2, 0.45, 0.35)
    strong = float(rng.choice((0.3, 1.0, 3.0), p=often))
    level = studio.wall_level + strong * rng.normal(0, 8) * (y - 0.7)
    level = level + strong * rng.normal(0, 7) * x - strong * abs(rng.normal(0, 6)) * x**2
    for _ in range(int(rng.integers(0, 4))):  # spots of lamps, and shadows
        across, up, size = rng.uniform(-1, 1), rng.uniform(-0.2, 1), rng.uniform(0.1, 0.9)
        away = ((x - across) ** 2 + (0.4 * (y - up)) ** 2) / size**2
        level = level + rng.normal(0, 14) * strong * np.exp(-away)
    if rng.uniform() < (0.05 if studio.calm else 0.25):  # a corner of the room
        level = level + rng.normal(0, 20) * (x > rng.uniform(-0.95, 0.95))
    if rng.uniform() < (0.02 if studio.calm else 0.15):  # curtains
        folds = np.sin(rng.uniform(20, 120) * x + 3 * smooth_noise(rng, (80, 240), 4))
        level = level + rng.uniform(2, 25) * folds
    blotches = float(
        rng.choice((0.4, 2.0, 7.0), p=(0.6, 0.38, 0.02) if studio.calm else (0.4, 0.35, 0.25))
    )
    noise = smooth_noise(rng, (80, 240), int(rng.integers(3, 30)))
    return np.asarray(level + blotches * noise, dtype=np.float32)


def _shade(studio: Studio, rng: np.random.Generator, spread: float) -> tuple[int, int, int]:
    return gray(studio.wall_level + rng.normal(0, spread), rng)


def _panels(
    studio: Studio, height: int, pen: ImageDraw.ImageDraw, rng: np.random.Generator
) -> None:
    """Draw seams between panels."""
    step, x = rng.uniform(60, 500), rng.uniform(0, 200)
    fill, width = _shade(studio, rng, 30), int(rng.integers(1, 8))
    while x < WIDTH:
        pen.line((x, 0, x + rng.normal(0, 3), height), fill=fill, width=width)
        x += step
    if rng.uniform() < 0.5:
        for y in rng.uniform(0, height, int(rng.integers(1, 4))):
            pen.line((0, y, WIDTH, y + rng.normal(0, 4)), fill=fill, width=width)


def _boards(
    studio: Studio, height: int, pen: ImageDraw.ImageDraw, rng: np.random.Generator
) -> None:
    """Draw horizontal boards, like those of a roller door."""
    step, spread = rng.uniform(14, 110), rng.uniform(3, 18)
    edge = _shade(studio, rng, 40)
    left, right = np.sort(rng.uniform(-0.4, 1.4, 2)) * WIDTH
    for y in np.arange(rng.uniform(-50, 0), height, step):
        pen.rectangle((left, y, right, y + step), fill=_shade(studio, rng, spread))
        pen.line((left, y, right, y), fill=edge, width=int(rng.integers(1, 4)))


def _bricks(
    studio: Studio, height: int, pen: ImageDraw.ImageDraw, rng: np.random.Generator
) -> None:
    """Draw bricks or tiles."""
    brick_height = rng.uniform(26, 130)
    brick_width, offset = brick_height * rng.uniform(1, 3.2), float(rng.choice((0.0, 0.5)))
    spread, joint = rng.uniform(2, 22), int(rng.integers(1, 6))
    for row, y in enumerate(np.arange(-20, height, brick_height)):
        for x in np.arange(-brick_width * (1 + offset * (row % 2)), WIDTH, brick_width):
            box = (x, y, x + brick_width - joint, y + brick_height - joint)
            pen.rectangle(box, fill=_shade(studio, rng, spread))


def _ceiling(
    studio: Studio, height: int, pen: ImageDraw.ImageDraw, rng: np.random.Generator
) -> None:
    """Draw the lower edge of a ceiling, with lamps."""
    low, slope = rng.uniform(0.05, 0.5) * height, rng.normal(0, 40)
    outline = [(0, -1), (WIDTH, -1), (WIDTH, low + slope), (0, low)]
    pen.polygon(outline, fill=_shade(studio, rng, 60))
    for _ in range(int(rng.integers(0, 9))):
        x, y = rng.uniform(0, WIDTH), rng.uniform(0, low)
        across, down = rng.uniform(20, 320), rng.uniform(6, 40)
        pen.rectangle((x, y, x + across, y + down), fill=(253, 253, 252))


def _openings(
    studio: Studio, height: int, pen: ImageDraw.ImageDraw, rng: np.random.Generator
) -> None:
    """Draw windows and doors."""
    for _ in range(int(rng.integers(1, 5))):
        x, width = rng.uniform(-0.1, 1) * WIDTH, rng.uniform(50, 700)
        is_door = rng.uniform() < 0.5
        top = rng.uniform(-0.1, 0.7) * height
        bottom = height if is_door else top + rng.uniform(0.15, 0.6) * height
        fill = gray(rng.uniform(15, 255), rng)
        edge, line = gray(rng.uniform(10, 250), rng), int(rng.integers(1, 22))
        pen.rectangle((x, top, x + width, bottom), fill=fill, outline=edge, width=line)
        for part in range(int(rng.integers(0, 4))):
            at = x + width * (part + 1) / 4
            pen.line((at, top, at, bottom), fill=edge, width=max(line // 2, 1))
        if rng.uniform() < 0.4:
            middle = (top + bottom) / 2
            pen.line((x, middle, x + width, middle), fill=edge, width=max(line // 2, 1))


def _pipes(studio: Studio, height: int, pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draw pipes, cables and sockets."""
    for _ in range(int(rng.integers(1, 6))):
        fill, width = gray(rng.uniform(20, 250), rng), int(rng.integers(2, 26))
        x, y = rng.uniform(0, WIDTH), rng.uniform(0, height)
        kind = int(rng.integers(3))
        if kind == 0:
            pen.line((x, 0, x + rng.normal(0, 5), height), fill=fill, width=width)
        elif kind == 1:
            pen.line((0, y, WIDTH, y + rng.normal(0, 30)), fill=fill, width=width)
        else:
            pen.rectangle((x, y, x + rng.uniform(8, 90), y + rng.uniform(8, 90)), fill=fill)


def _frame(studio: Studio, height: int, pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draw the thin outline of a door in the color of the wall."""
    left, top = rng.uniform(0, 0.9) * WIDTH, rng.uniform(0, 0.8) * height
    right, fill = left + rng.uniform(100, 700), _shade(studio, rng, 35)
    outline = [(left, height), (left, top), (right, top), (right, height)]
    pen.line(outline, fill=fill, width=int(rng.integers(1, 6)))


def _plinth(
    studio: Studio, height: int, pen: ImageDraw.ImageDraw, rng: np.random.Generator
) -> None:
    """Draw a strip in another color along the lower part of the wall."""
    top = height - rng.uniform(20, 260)
    pen.rectangle((0, top, WIDTH, height), fill=_shade(studio, rng, 35))
