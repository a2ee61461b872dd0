"""The texture atlas of a car: side, front, rear and wheel."""

import math

from PIL import Image, ImageDraw

from carvana_ray.sample import decals, front_rear, sides
from carvana_ray.sample.body import outline
from carvana_ray.sample.car import Car
from carvana_ray.sample.materials import TIRE_PX, WHEEL_CENTER_PX, blank_atlas, material_id


def draw_atlas(car: Car) -> Image.Image:
    """Return the car's atlas, mode L, 2540 x 432: each pixel is the number of a material."""
    image, side, front, rear = blank_atlas()
    lines = outline(car)
    decals.draw_under(car, lines, (side, front, rear))
    sides.draw(car, lines, side)
    front_rear.draw_front(car, lines, front)
    front_rear.draw_rear(car, lines, rear)
    decals.draw_over(car, lines, (side, front, rear))
    _wheel(car, image)
    return image


def _wheel(car: Car, image: Image.Image) -> None:
    draw = ImageDraw.Draw(image)
    x, y = WHEEL_CENTER_PX

    def disc(material: str, radius: float) -> None:
        r = radius * TIRE_PX
        draw.ellipse((x - r, y - r, x + r, y + r), fill=material_id(material))

    rim = car.rim or (0.64 if car.style == "pickup" else 0.70)
    for material, radius in (
        ("tire", 1.07), ("rim_shade", 0.87), ("tire", 0.855), ("gap", rim + 0.02),
        ("rim", rim), ("rim_shade", rim - 0.045),
    ):  # fmt: skip
        disc(material, radius)
    for spoke in range(car.spokes):
        middle = 2 * math.pi * spoke / car.spokes
        outer, inner = math.pi / car.spokes * car.spoke_width, 0.8 * math.pi / car.spokes
        corners = ((-outer, rim), (outer, rim), (inner, 0.16), (-inner, 0.16))
        polygon = [
            (
                x + TIRE_PX * radius * math.sin(middle + angle),
                y - TIRE_PX * radius * math.cos(middle + angle),
            )
            for angle, radius in corners
        ]
        draw.polygon(polygon, fill=material_id("rim"))
    disc("rim", 0.18)
    disc("rim_shade", 0.075)
    for bolt in range(5):
        angle = 2 * math.pi * bolt / 5
        bolt_x = x + TIRE_PX * 0.125 * math.sin(angle)
        bolt_y = y - TIRE_PX * 0.125 * math.cos(angle)
        draw.ellipse((bolt_x - 2, bolt_y - 2, bolt_x + 2, bolt_y + 2), fill=material_id("gap"))
