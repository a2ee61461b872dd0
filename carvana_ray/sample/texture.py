"""A car's sheet of materials, put together: its two ends, its side and its wheel.

Knows no view and no light.
"""

import math

from PIL import Image, ImageDraw

from carvana_ray.sample import body as shape
from carvana_ray.sample import front_rear as ends
from carvana_ray.sample import materials as skin
from carvana_ray.sample import sides
from carvana_ray.sample.car import Car


def draw_atlas(car: Car) -> Image.Image:
    """Return the car's sheet: the number of a material in each pixel, L, 2540 x 432."""
    image, side, front, rear = skin.blank_atlas()
    lines = shape.outline(car)
    sides.draw(car, lines, side)
    ends.draw_front(car, lines, front)
    ends.draw_rear(car, lines, rear)
    _wheel(car, image)
    return image


def _wheel(car: Car, image: Image.Image) -> None:
    draw = ImageDraw.Draw(image)
    (x, y), tyre = skin.WHEEL_AT_PX, skin.TYRE_PX

    def disc(material: str, radius: float) -> None:
        r = radius * tyre
        draw.ellipse((x - r, y - r, x + r, y + r), fill=skin.material_id(material))

    low = 0.64 if car.style == "pickup" else 0.70
    for material, radius in (
        ("tyre", 1.07), ("rim_shade", 0.87), ("tyre", 0.855), ("gap", low + 0.02),
        ("rim", low), ("rim_shade", low - 0.045),
    ):  # fmt: skip
        disc(material, radius)
    for spoke in range(car.spokes):
        middle = 2 * math.pi * spoke / car.spokes
        outer, inner = math.pi / car.spokes * car.spoke_width, 0.8 * math.pi / car.spokes
        turns = ((-outer, low), (outer, low), (inner, 0.16), (-inner, 0.16))
        spots = [
            (x + tyre * far * math.sin(middle + turn), y - tyre * far * math.cos(middle + turn))
            for turn, far in turns
        ]
        draw.polygon(spots, fill=skin.material_id("rim"))
    disc("rim", 0.18)
    disc("rim_shade", 0.075)
    for bolt in range(5):
        turn = 2 * math.pi * bolt / 5
        at = (x + tyre * 0.125 * math.sin(turn), y - tyre * 0.125 * math.cos(turn))
        draw.ellipse((at[0] - 2, at[1] - 2, at[0] + 2, at[1] + 2), fill=skin.material_id("gap"))
