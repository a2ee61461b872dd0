"""The floors of varied scenes: concrete, tiles, boards, painted lines, turntables, stains."""

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from carvana_ray.sample.camera import HEIGHT, WIDTH
from carvana_ray.sample.car import Studio
from carvana_ray.sample.rooms import circle, fraction_image, grain, gray, smooth_noise, to_image
from carvana_ray.sample.shadows import COARSE_SIZE, Floats, project_floor

Points = np.ndarray


def draw_floor(studio: Studio, rng: np.random.Generator) -> Image.Image:
    """Return a floor without shadows over the whole image, RGB, 1918 x 1280."""
    tint = rng.normal(0, 1, 3) * float(rng.choice((3.0, 20.0), p=(0.75, 0.25)))
    color = _levels(studio, rng)[..., None] + (tint - tint.mean()).astype(np.float32)
    floor = to_image(color).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(floor)
    often = (0.88, 0.1, 0.01, 0.01) if studio.calm else (0.4, 0.25, 0.2, 0.15)
    covering = int(rng.choice(4, p=often))
    if covering == 1:
        _grid(studio, pen, rng)
    elif covering == 2:
        _boards(studio, pen, rng)
    elif covering == 3:
        _checks(studio, pen, rng)
    if studio.turntable_m:
        _turntable(studio, pen, rng)
    for draw, likely in ((_paint_lines, 0.1), (_cracks, 0.35), (_stains, 0.4), (_rug, 0.04)):
        if rng.uniform() < likely:
            draw(studio, pen, rng)
    if rng.uniform() < (0.15 if studio.calm else 0.4):
        floor = grain(floor, rng, float(rng.uniform(1, 6 if studio.calm else 16)))
    if rng.uniform() < 0.15:
        _front_edge(floor, rng)
    return floor


def shaded(
    floor: Image.Image, reflectance: Floats, reflection: Floats, light: Floats
) -> Image.Image:
    """Return the floor with a car's reflection and shadow.

    Args:
        floor: RGB, 1918 x 1280.
        reflectance, light: fractions, [320, 480].
        reflection: gray values, [320, 480, 3].
    """
    size = floor.size
    if reflectance.max() > 0.01:
        mirrored = to_image(reflection).resize(size, Image.Resampling.BILINEAR)
        part = fraction_image(reflectance).resize(size, Image.Resampling.BILINEAR)
        floor.paste(mirrored, (0, 0), part)
    shade = fraction_image(light).resize(size, Image.Resampling.BILINEAR)
    return ImageChops.multiply(floor, Image.merge("RGB", (shade, shade, shade)))


def _levels(studio: Studio, rng: np.random.Generator) -> Floats:
    """Return the floor's gray values, smooth, float32 [320, 480]."""
    y = np.linspace(0, 1, COARSE_SIZE[1], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, COARSE_SIZE[0], dtype=np.float32)[None, :]
    often = (0.4, 0.57, 0.03) if studio.calm else (0.3, 0.4, 0.3)
    strong = float(rng.choice((0.5, 1.0, 2.5), p=often))
    level = studio.floor_level + strong * rng.normal(4, 12) * (y - 0.62) / 0.38
    level = level + strong * (rng.normal(0, 7) * x - abs(rng.normal(0, 7)) * x**2)
    for _ in range(int(rng.integers(0, 4))):  # pools of light
        across, down, size = rng.uniform(-1, 1), rng.uniform(0.2, 1), rng.uniform(0.1, 0.7)
        away = ((x - across) ** 2 + (2 * (y - down)) ** 2) / size**2
        level = level + rng.normal(0, 14) * strong * np.exp(-away)
    uneven = float(rng.choice((1.0, 3.0, 9.0), p=often))
    for cells in (8, 40, 150):
        noise = smooth_noise(rng, (COARSE_SIZE[1], COARSE_SIZE[0]), cells)
        level = level + uneven * rng.uniform(0.1, 1.0) * noise
    return np.asarray(level, dtype=np.float32)


def _shade(studio: Studio, rng: np.random.Generator, spread: float) -> tuple[int, int, int]:
    return gray(studio.floor_level + rng.normal(0, spread), rng)


def _turned(points: Points, angle: float) -> Points:
    sine, cosine = np.sin(angle), np.cos(angle)
    return points @ np.array([[cosine, sine], [-sine, cosine]])


def _segment(studio: Studio, start: Points, end: Points) -> list[tuple[float, float]]:
    """Return the pixels of the part of a line on the floor that is in front of the camera."""
    near = 0.6 - studio.distance_m
    steps = np.linspace(0, 1, 9)[:, None]
    points = start + steps * (end - start)
    points = points[points[:, 1] > near]
    return project_floor(studio, points, 1.0) if len(points) > 1 else []


def _grid(studio: Studio, pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draw the joints of tiles or slabs."""
    step, angle = float(np.exp(rng.uniform(np.log(0.3), np.log(3.0)))), rng.uniform(0, np.pi)
    if rng.uniform() < 0.4:
        angle = 0.0
    fill, width = _shade(studio, rng, 28), int(rng.integers(1, 6))
    reach = 12.0 if step > 0.6 else 7.0
    for at in np.arange(-reach, reach, step) + rng.uniform(0, step):
        for one, two in (((at, -reach), (at, reach)), ((-reach, at), (reach, at))):
            ends = _turned(np.array([one, two]), angle)
            line = _segment(studio, ends[0], ends[1])
            if line:
                pen.line(line, fill=fill, width=width)


def _boards(studio: Studio, pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draw wooden boards, each in its own shade."""
    step, angle = rng.uniform(0.12, 0.5), rng.choice((0.0, np.pi / 2, rng.uniform(0, np.pi)))
    spread, warm = rng.uniform(2, 14), rng.uniform(0, 40)
    for at in np.arange(-8, 8, step):
        corners = np.array([(at, -9.0), (at, 9.0), (at + step, 9.0), (at + step, -9.0)])
        world = _turned(corners, angle)
        world[:, 1] = np.maximum(world[:, 1], 0.8 - studio.distance_m)
        red, green, blue = _shade(studio, rng, spread)
        fill = (min(red + int(warm / 2), 254), green, max(blue - int(warm), 0))
        pen.polygon(project_floor(studio, world, 1.0), fill=fill)


def _checks(studio: Studio, pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draw tiles in two shades."""
    step, angle = rng.uniform(0.4, 1.5), rng.uniform(0, np.pi / 2)
    other = _shade(studio, rng, 35)
    cells = int(8 / step)
    for row in range(-cells, cells):
        for column in range(-cells, cells):
            if (row + column) % 2:
                corner = np.array([row, column])
                square = (np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) + corner) * step
                world = _turned(square, angle)
                if world[:, 1].min() > 0.6 - studio.distance_m:
                    pen.polygon(project_floor(studio, world, 1.0), fill=other)


def _turntable(studio: Studio, pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draw a turntable: its edge, its seams, and often another shade."""
    disc = circle(studio.turntable_m)
    disc[:, 1] = np.maximum(disc[:, 1], 0.4 - studio.distance_m)
    edge = project_floor(studio, disc, 1.0)
    if rng.uniform() < 0.25:
        pen.polygon(edge, fill=_shade(studio, rng, 14))
    fill = gray(studio.floor_level * rng.choice((rng.uniform(0.3, 0.95), 1.15)), rng)
    pen.line([*edge, edge[0]], fill=fill, width=int(rng.integers(1, 9)))
    angle, seam = rng.uniform(0, np.pi), _shade(studio, rng, 22)
    for across in rng.uniform(-0.9, 0.9, int(rng.integers(0, 5))) * studio.turntable_m:
        half = float(np.sqrt(studio.turntable_m**2 - across**2))
        turn = angle + float(rng.choice((0.0, np.pi / 2), p=(0.8, 0.2)))
        ends = _turned(np.array([(-half, across), (half, across)]), turn)
        line = _segment(studio, ends[0], ends[1])
        if line:
            pen.line(line, fill=seam, width=int(rng.integers(1, 5)))


def _paint_lines(studio: Studio, pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draw the lines of a parking lot or a workshop."""
    fill, width, angle = _shade(studio, rng, 60), rng.uniform(0.06, 0.25), rng.uniform(0, np.pi)
    for at in np.cumsum(rng.uniform(1.5, 3.5, int(rng.integers(1, 5)))) - 4:
        corners = np.array([(at, -4.0), (at, 5.0), (at + width, 5.0), (at + width, -4.0)])
        world = _turned(corners, angle)
        world[:, 1] = np.maximum(world[:, 1], 0.6 - studio.distance_m)
        pen.polygon(project_floor(studio, world, 1.0), fill=fill)


def _cracks(studio: Studio, pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draw cracks, scratches and cables."""
    for _ in range(int(rng.integers(1, 8))):
        steps = rng.normal(0, rng.uniform(0.02, 0.4), (int(rng.integers(2, 12)), 2))
        path = np.cumsum(steps, axis=0) + rng.uniform((-4, -3), (4, 6))
        path = path[path[:, 1] > 0.6 - studio.distance_m]
        if len(path) > 1:
            line = project_floor(studio, path, 1.0)
            pen.line(line, fill=_shade(studio, rng, 35), width=int(rng.integers(1, 7)))


def _stains(studio: Studio, pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draw stains, drains and plates."""
    for _ in range(int(rng.integers(1, 12))):
        size = np.exp(rng.uniform(np.log(0.02), np.log(0.5)))
        shape = circle(1.0)[:: int(rng.choice((1, 30)))] * rng.uniform(0.4, 1, 2) * size
        shape = shape + rng.uniform((-4, -3), (4, 5))
        if shape[:, 1].min() > 0.6 - studio.distance_m:
            pen.polygon(project_floor(studio, shape, 1.0), fill=_shade(studio, rng, 16))


def _rug(studio: Studio, pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draw a rug or a platform under the car."""
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * rng.uniform(1.5, 4.5, 2)
    world = _turned(corners, rng.uniform(0, np.pi))
    world[:, 1] = np.maximum(world[:, 1], 0.6 - studio.distance_m)
    outline = project_floor(studio, world, 1.0)
    pen.polygon(outline, fill=_shade(studio, rng, 45))


def _front_edge(floor: Image.Image, rng: np.random.Generator) -> None:
    """Draw the front edge of the studio's floor along the lower edge of the image."""
    top, slope = HEIGHT - rng.uniform(6, 150), rng.normal(0, 12)
    strip = Image.new("L", floor.size, 0)
    outline = [(0, top), (WIDTH, top + slope), (WIDTH, HEIGHT), (0, HEIGHT)]
    ImageDraw.Draw(strip).polygon(outline, fill=255)
    floor.paste(gray(rng.choice((250, 90, 30)), rng), (0, 0), strip.filter(ImageFilter.BoxBlur(1)))
