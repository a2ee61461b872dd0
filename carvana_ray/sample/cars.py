"""Cars of the sample: those of one studio, and those of varied scenes."""

from dataclasses import replace
from typing import Literal

import numpy as np

from carvana_ray.sample import bodies, camera, lights, paints
from carvana_ray.sample.camera import HEIGHT, WIDTH
from carvana_ray.sample.car import Car, Studio, draw_studio_car
from carvana_ray.sample.variety import Dice, Variety

Scenes = Literal["studio", "varied"]
_ALL = Variety()
_CALM = 0.5  # fraction of varied images in a plain studio


def draw_car(rng: np.random.Generator, scenes: Scenes = "studio", variety: Variety = _ALL) -> Car:
    """Return a random car.

    Args:
        rng: generator of the car.
        scenes: "studio": all images of a car show one studio. "varied": each image has its own
            room, camera and light.
        variety: kinds of variety of varied scenes.
    """
    car = draw_studio_car(rng)
    if scenes == "studio":
        return car
    dice = variety.dice(rng)
    car = replace(car, variety=variety)
    if "bodies" in dice:
        car = _with_body(car, dice["bodies"])
    return paints.paint(car, dice["paints"]) if "paints" in dice else car


def _with_body(car: Car, rng: np.random.Generator) -> Car:
    """Return the car with other proportions, wheels and parts."""
    name, shape = bodies.draw_shape(rng)
    size = rng.uniform()

    def draw(limits: tuple[float, float]) -> float:
        low, high = limits
        return low + (high - low) * float(np.clip(size + rng.normal(0, 0.25), 0, 1))

    return replace(
        car,
        style=name,
        shape=shape,
        length_m=draw(shape.length),
        width_m=draw(shape.width),
        height_m=draw(shape.height),
        clearance_m=draw(shape.clearance),
        wheel_radius_m=draw(shape.wheel_radius),
        spokes=int(rng.choice((3, 5, 5, 6, 7, 8, 10, 12, 15, 20))),
        spoke_width=float(rng.uniform(0.15, 0.9)),
        rim=float(rng.uniform(0.5, 0.84)),
        antenna=str(rng.choice(("mast", "fin", "none"), p=(0.45, 0.3, 0.25))),
        antenna_m=float(rng.uniform(0.1, 0.75)),
        rails=bool(rng.uniform() < 0.35) and name not in ("pickup", "coupe"),
        privacy=bool(rng.uniform() < max(shape.privacy, 0.25)),
        lamp_height=float(rng.uniform(0.86, 1.08)),
        extras_seed=int(rng.integers(2**31)),
    )


def pose(car: Car, view: int, rng: np.random.Generator) -> tuple[Car, Dice]:
    """Return a car in the room, the light and the pose of one image, and what is left to draw.

    The car of a studio returns unchanged, with no dice. The state of `rng` does not change.
    """
    if car.variety is None:
        return car, {}
    dice = car.variety.dice(rng)
    studio = replace(car.studio, calm=bool(rng.spawn(1)[0].uniform() < _CALM))
    if "walls" in dice:
        studio = _with_wall(studio, dice["walls"])
    if "floors" in dice:
        studio = _with_floor(studio, dice["floors"], has_wall="walls" in dice)
    if "light" in dice:
        studio = replace(studio, light=lights.draw_light(dice["light"], studio.calm))
    car = replace(car, studio=studio)
    return (_aimed(car, view, dice["camera"]) if "camera" in dice else car), dice


def _with_wall(studio: Studio, rng: np.random.Generator) -> Studio:
    """Return the studio with a wall of another brightness; most are pale, some overexposed."""
    often = (0.85, 0.13, 0.02) if studio.calm else (0.45, 0.35, 0.2)
    limits = ((224, 262), (150, 228), (35, 150))[int(rng.choice(3, p=often))]
    soft = rng.uniform() < (0.12 if studio.calm else 0.3)
    return replace(
        studio,
        wall_level=float(rng.uniform(*limits)),
        warmth=float(rng.uniform(-4, 8)),
        foot_curve_px=float(rng.choice((0.0, rng.normal(15, 25)))),
        foot_slope_px=float(rng.choice((0.0, rng.normal(0, 20)))),
        foot_blur_px=float(rng.uniform(4, 130)) if soft else 0.0,
        foot_px=float(rng.choice((rng.normal(60, 25), rng.uniform(20, 260)))),
    )


def _with_floor(studio: Studio, rng: np.random.Generator, has_wall: bool) -> Studio:
    """Return the studio with another floor: near the wall's brightness, or any."""
    often = 0.85 if studio.calm else 0.5
    level = float(rng.choice((rng.uniform(140, 225), rng.uniform(45, 252)), p=(often, 1 - often)))
    if has_wall and studio.foot_blur_px:  # a cove: wall and floor are one
        level = studio.wall_level + float(rng.normal(-8, 14))
    has_turntable = rng.uniform() < (0.75 if studio.calm else 0.35)
    return replace(
        studio,
        floor_level=float(np.clip(level, 30, 258)),
        turntable_m=float(rng.uniform(2.6, 4.6)) if has_turntable else 0.0,
        gloss=float(rng.choice((rng.uniform(0, 0.1), rng.uniform(0.1, 0.45)), p=(0.75, 0.25))),
        stain_seed=int(rng.integers(2**31)),
    )


def _aimed(car: Car, view: int, rng: np.random.Generator) -> Car:
    """Return the car before another camera, turned by up to half the angle between two views."""
    usual = rng.uniform() < (0.8 if car.studio.calm else 0.3)  # near the camera of the real images
    distance = rng.normal(7.6, 0.8) if usual else np.exp(rng.uniform(np.log(5.0), np.log(15.0)))
    height = rng.normal(1.5, 0.15) if usual else rng.uniform(0.6, 2.9)
    toward_car = np.degrees(np.arctan2(height - 0.7, distance))
    studio = replace(
        car.studio,
        distance_m=float(distance),
        camera_height_m=float(height),
        tilt_deg=float(toward_car * rng.uniform(-0.2, 1.1)),
        center_x=0.0,
        horizon=0.0,
        focal_px=1000.0,
    )
    turn = car.turn_deg + float(rng.uniform(-11, 11))
    offset = (car.offset_m[0] + float(rng.normal(0, 0.15)), car.offset_m[1])
    car = replace(car, studio=studio, turn_deg=turn, offset_m=offset)
    return _framed(car, view, rng, usual)


def _framed(car: Car, view: int, rng: np.random.Generator, usual: bool) -> Car:
    """Return the car with the focal length and the lens shift that place it in the image."""
    left, top, right, bottom = _extent(car, view)
    of_width = rng.uniform(0.6, 0.95) if usual else rng.uniform(0.35, 1.1)
    focal = of_width * WIDTH * car.studio.distance_m / car.length_m
    largest = min(1.02 * WIDTH / (right - left), 0.93 * HEIGHT / (bottom - top)) * 1000
    focal = float(np.clip(focal, 0.25 * WIDTH / (right - left) * 1000, largest))
    scale = focal / 1000
    free_x = max(WIDTH - scale * (right - left), 0)
    free_y = max(HEIGHT - scale * (bottom - top), 0)
    place = rng.normal(0, 0.1, 2) if usual else rng.uniform(-0.55, 0.55, 2)
    x = WIDTH / 2 + place[0] * free_x - scale * (left + right) / 2
    y = HEIGHT / 2 + place[1] * free_y - scale * (top + bottom) / 2
    roll = float(rng.normal(0, 0.5)) if usual else float(np.clip(rng.normal(0, 1.5), -4, 4))
    studio = replace(
        car.studio,
        focal_px=focal,
        center_x=float(x),
        horizon=float(y),
        roll_deg=roll if rng.uniform() < 0.6 else 0.0,
    )
    return replace(car, studio=_with_foot(studio, rng, car))


def _extent(car: Car, view: int) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of the car's box in the image."""
    half = np.array([car.length_m / 2, car.width_m / 2])
    corners = [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (0, 1)]
    points = np.array(corners) * [*half, car.height_m]
    pixels, _ = camera.project(camera.car_to_world(points, car, view), car.studio)
    (left, top), (right, bottom) = pixels.min(axis=0).tolist(), pixels.max(axis=0).tolist()
    return left, top, right, bottom


def _with_foot(studio: Studio, rng: np.random.Generator, car: Car) -> Studio:
    """Return the studio with a wall that stands behind the car."""
    nearest = 5.0 if studio.calm else 0.5 * car.length_m + 0.4
    away = float(np.exp(rng.uniform(np.log(nearest), np.log(60.0))))
    upright = replace(studio, roll_deg=0.0)
    pixels, _ = camera.project(np.array([[0.0, away, 0.0]], dtype=np.float32), upright)
    return replace(studio, foot_px=float(pixels[0, 1]) - studio.horizon)
