"""Lettering on the wall: the studio's word, and the words, logos and posters of varied scenes."""

import functools
import importlib.util
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from carvana_ray.sample.camera import WIDTH
from carvana_ray.sample.car import Studio
from carvana_ray.sample.rooms import wall_foot

Ink = tuple[int, int, int]

_LETTER_PX = 240.0

# Strokes of each letter in a unit box, y upward. The word is made up; the real one is a trademark.
_WORD = "AUTOLANE"
_STROKES: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "A": (((0, 0), (0.5, 1), (1, 0)), ((0.8, 0.25), (0.55, 0.25))),
    "U": (((0, 1), (0, 0.3), (0.12, 0.08), (0.35, 0), (0.65, 0), (0.88, 0.08), (1, 0.3), (1, 1)),),
    "T": (((0, 1), (1, 1)), ((0.5, 1), (0.5, 0))),
    "O": (tuple((0.5 + 0.5 * math.sin(k / 6), 0.5 - 0.5 * math.cos(k / 6)) for k in range(39)),),
    "L": (((0, 1), (0, 0), (0.9, 0)),),
    "N": (((0, 0), (0, 1), (1, 0), (1, 1)),),
    "E": (((0.9, 1), (0, 1), (0, 0), (0.9, 0)), ((0, 0.5), (0.8, 0.5))),
    "C": (
        tuple((0.55 + 0.5 * math.sin(k / 6), 0.5 - 0.5 * math.cos(k / 6)) for k in range(24, 52)),
    ),
    "D": (((0, 0), (0, 1), (0.5, 1), (0.9, 0.75), (1, 0.5), (0.9, 0.25), (0.5, 0), (0, 0)),),
    "H": (((0, 0), (0, 1)), ((1, 0), (1, 1)), ((0, 0.5), (1, 0.5))),
    "I": (((0.5, 0), (0.5, 1)),),
    "K": (((0, 0), (0, 1)), ((0.9, 1), (0, 0.45)), ((0.25, 0.6), (0.95, 0))),
    "M": (((0, 0), (0, 1), (0.5, 0.3), (1, 1), (1, 0)),),
    "P": (((0, 0), (0, 1), (0.7, 1), (0.95, 0.85), (0.95, 0.6), (0.7, 0.45), (0, 0.45)),),
    "R": (((0, 0), (0, 1), (0.7, 1), (0.95, 0.75), (0.7, 0.5), (0, 0.5)), ((0.5, 0.5), (1, 0))),
    "S": (((0.95, 0.9), (0.6, 1), (0.1, 0.85), (0.1, 0.6), (0.9, 0.4), (0.9, 0.15), (0.5, 0),
           (0.05, 0.1)),),
    "V": (((0, 1), (0.5, 0), (1, 1)),),
    "W": (((0, 1), (0.25, 0), (0.5, 0.8), (0.75, 0), (1, 1)),),
    "X": (((0, 0), (1, 1)), ((0, 1), (1, 0))),
    "Z": (((0, 1), (1, 1), (0, 0), (1, 0)),),
}  # fmt: skip


def draw_word(studio: Studio, pen: ImageDraw.ImageDraw) -> None:
    """Draw the studio's word."""
    ink = tuple(int(studio.wall_level * 0.46) + shift for shift in (0, -2, 2))
    pitch = (WIDTH - 70) / len(_WORD)
    for number, letter in enumerate(_WORD):
        left = studio.center_x - WIDTH / 2 + 45 + number * pitch
        width = 24 if number < len(_WORD) / 2 else 50
        for stroke in _STROKES[letter]:
            letter_width = 0.86 * pitch - width
            x = np.array([left + width / 2 + across * letter_width for across, _ in stroke])
            # The outer letters are closer to the camera.
            height = _LETTER_PX * (1 + 0.06 * ((x - studio.center_x) / (WIDTH / 2)) ** 2)
            up = np.array([up for _, up in stroke])
            y = wall_foot(studio, x) - 4 - width / 2 - up * (height - width)
            points = list(zip(x.tolist(), y.tolist(), strict=True))
            pen.line(points, fill=ink, width=width, joint="curve")


def draw_signs(studio: Studio, wall: Image.Image, rng: np.random.Generator) -> None:
    """Draw any lettering, logos and posters on a wall, or leave it blank."""
    pen = ImageDraw.Draw(wall)
    often = (0.15, 0.65, 0.1, 0.05, 0.05) if studio.calm else (0.25, 0.2, 0.2, 0.2, 0.15)
    kind = int(rng.choice(5, p=often))
    if kind in (3, 4):
        for _ in range(int(rng.integers(1, 5))):
            _poster(wall, pen, rng)
    if kind == 1:
        _word(studio, pen, rng)
    if kind in (2, 4):
        for _ in range(int(rng.integers(1, 4))):
            _printed_line(studio, wall, pen, rng)
    if rng.uniform() < 0.12:
        _logo(studio, pen, rng)


def _draw_ink(rng: np.random.Generator, level: float) -> Ink:
    """Return an ink that is mostly darker than the wall."""
    factor = rng.uniform(0.1, 0.92)
    gray = level * factor if rng.uniform() < 0.75 else rng.uniform(20, 250)
    tint = rng.normal(0, 1, 3) * (3 if rng.uniform() < 0.6 else 40)
    red, green, blue = (int(value) for value in np.clip(gray + tint - tint.mean(), 0, 255))
    return red, green, blue


def _word(studio: Studio, pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draw large letters of two stroke widths along the wall."""
    letters = rng.choice(list(_STROKES), int(rng.integers(4, 11)))
    pitch = WIDTH * rng.uniform(0.65 if studio.calm else 0.35, 1.15) / len(letters)
    height = float(np.clip(pitch * rng.uniform(0.6, 1.7), 40, 420))
    left = studio.center_x - pitch * len(letters) / 2 + rng.normal(0, 60)
    up = rng.choice((4.0, rng.uniform(0, 160)), p=(0.7, 0.3))
    widths = np.sort(rng.uniform(0.05, 0.24, 2))
    first_bold = int(rng.integers(0, len(letters) + 1))
    ink, bent = _draw_ink(rng, studio.wall_level), rng.uniform(0, 0.1)
    for number, letter in enumerate(letters):
        width = max(int(height * widths[int(number >= first_bold)]), 3)
        for stroke in _STROKES[str(letter)]:
            across, upward = np.array(stroke).T
            x = left + number * pitch + width / 2 + across * (0.86 * pitch - width)
            tall = height * (1 + bent * ((x - studio.center_x) / (WIDTH / 2)) ** 2)
            y = wall_foot(studio, x) - up - width / 2 - upward * (tall - width)
            points = list(zip(x.tolist(), y.tolist(), strict=True))
            pen.line(points, fill=ink, width=width, joint="curve")


@functools.lru_cache
def _fonts() -> tuple[str, ...]:
    """Return the paths of the fonts that matplotlib ships; importing it would take long."""
    found = importlib.util.find_spec("matplotlib")
    folder = Path(found.origin or "").parent / "mpl-data" / "fonts" / "ttf" if found else Path()
    return tuple(str(path) for path in sorted(folder.glob("DejaVu*[!y].ttf")))


def _printed_line(
    studio: Studio, wall: Image.Image, pen: ImageDraw.ImageDraw, rng: np.random.Generator
) -> None:
    """Draw a word of a printed font anywhere on the wall."""
    size = int(np.exp(rng.uniform(np.log(24), np.log(300))))
    text = "".join(
        rng.choice(list("ABCDEFGHIKLMNOPRSTUVWXYZaeiourstln0123456789 .&")) for _ in range(8)
    )
    text = text[: int(rng.integers(2, 9))]
    font = ImageFont.truetype(_fonts()[int(rng.integers(len(_fonts())))], size)
    at = (rng.uniform(-0.1, 0.85) * WIDTH, rng.uniform(-0.05, 0.9) * wall.height)
    stroke = int(rng.choice((0, size // 14)))
    pen.text(at, text, fill=_draw_ink(rng, studio.wall_level), font=font, stroke_width=stroke)


def _logo(studio: Studio, pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draw a ring, a disc or a star."""
    x, y, r = rng.uniform(0, WIDTH), rng.uniform(0.1, 0.9) * studio.horizon, rng.uniform(30, 190)
    ink, width = _draw_ink(rng, studio.wall_level), int(r * rng.uniform(0.08, 0.4)) + 2
    if rng.uniform() < 0.6:
        pen.ellipse((x - r, y - r, x + r, y + r), outline=ink, width=width)
    else:
        corners = int(rng.integers(3, 8))
        radii = np.tile((r, r * rng.uniform(0.4, 1)), corners)
        angles = np.linspace(0, 2 * np.pi, 2 * corners, endpoint=False) + rng.uniform(0, 3)
        outline = zip(
            (x + radii * np.cos(angles)).tolist(),
            (y + radii * np.sin(angles)).tolist(),
            strict=True,
        )
        pen.polygon(list(outline), fill=ink)


def _poster(wall: Image.Image, pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draw a framed picture of a few shapes."""
    width, height = rng.uniform(60, 620), rng.uniform(60, 420)
    x, y = rng.uniform(-0.1, 0.95) * WIDTH, rng.uniform(-0.2, 0.8) * wall.height
    box = (x, y, x + width, y + height)
    pen.rectangle(
        box, fill=_draw_ink(rng, 250), outline=_draw_ink(rng, 200), width=int(rng.integers(1, 14))
    )
    for _ in range(int(rng.integers(0, 9))):
        a, b = np.sort(rng.uniform(0.05, 0.95, 2)) * width + x
        c, d = np.sort(rng.uniform(0.05, 0.95, 2)) * height + y
        if rng.uniform() < 0.4:
            pen.ellipse((a, c, b, d), fill=_draw_ink(rng, 230))
        elif rng.uniform() < 0.5:
            pen.rectangle((a, c, b, d), fill=_draw_ink(rng, 230))
        else:
            pen.line((a, c, b, d), fill=_draw_ink(rng, 230), width=int(rng.integers(2, 16)))
