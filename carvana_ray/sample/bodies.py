"""Bodies of varied scenes: styles beyond the studio's, mixed and bent."""

from dataclasses import fields, replace

import numpy as np

from carvana_ray.sample.body_styles import (
    COUPE,
    CROSSOVER,
    HATCHBACK,
    MINIVAN,
    PICKUP,
    SEDAN,
    Profile,
    Range,
    Style,
)

_GRID = np.linspace(0, 1, 81)

_WAGON = replace(
    SEDAN,
    top=(
        (0.0, 0.430), (0.012, 0.490), (0.05, 0.540), (0.15, 0.615), (0.275, 0.675), (0.345, 0.810),
        (0.42, 0.945), (0.48, 0.985), (0.56, 1.0), (0.72, 0.990), (0.86, 0.955), (0.90, 0.930),
        (0.955, 0.760), (0.980, 0.690), (0.993, 0.640), (1.0, 0.520),
    ),
    roof_rear=0.900,
    glass_end=0.970,
    privacy=0.4,
    rails=0.6,
)  # fmt: skip
_BOXY = replace(
    CROSSOVER,
    height=(1.68, 1.98),
    clearance=(0.24, 0.36),
    top=(
        (0.0, 0.500), (0.008, 0.600), (0.03, 0.635), (0.14, 0.650), (0.262, 0.665), (0.300, 0.800),
        (0.345, 0.945), (0.38, 0.985), (0.46, 1.0), (0.72, 1.0), (0.92, 0.990), (0.962, 0.975),
        (0.975, 0.800), (0.985, 0.680), (0.995, 0.600), (1.0, 0.500),
    ),
    lean=0.10,
    round_front=0.30,
    round_rear=0.24,
    cowl=0.262,
    roof_front=0.352,
    roof_rear=0.958,
    glass_end=0.984,
)  # fmt: skip
_VAN = replace(
    MINIVAN,
    length=(4.4, 5.9),
    height=(1.85, 2.09),
    top=(
        (0.0, 0.360), (0.012, 0.420), (0.04, 0.470), (0.10, 0.530), (0.150, 0.590), (0.21, 0.750),
        (0.28, 0.925), (0.33, 0.980), (0.42, 1.0), (0.74, 1.0), (0.92, 0.995), (0.972, 0.980),
        (0.983, 0.800), (0.990, 0.640), (0.996, 0.560), (1.0, 0.460),
    ),
    belt=(0.52, 0.55),
    lean=0.09,
    round_rear=0.20,
    cowl=0.155,
    roof_front=0.285,
    roof_rear=0.968,
    glass_end=0.990,
    doors=(0.210, 0.400, 0.640),
)  # fmt: skip
_CITY = replace(
    HATCHBACK,
    length=(2.8, 3.7),
    height=(1.46, 1.62),
    top=(
        (0.0, 0.400), (0.014, 0.480), (0.06, 0.560), (0.14, 0.630), (0.205, 0.680), (0.28, 0.800),
        (0.37, 0.930), (0.45, 0.985), (0.56, 1.0), (0.72, 0.985), (0.84, 0.945), (0.90, 0.900),
        (0.955, 0.740), (0.982, 0.650), (0.994, 0.590), (1.0, 0.480),
    ),
    wheelbase=0.66,
    overhang=0.17,
    cowl=0.205,
    roof_front=0.375,
    roof_rear=0.895,
    glass_end=0.975,
    doors=(0.245, 0.560, 0.800),
)  # fmt: skip
_SPORT = replace(
    COUPE,
    length=(4.0, 4.75),
    width=(1.78, 1.98),
    height=(1.18, 1.34),
    clearance=(0.11, 0.18),
    round_front=0.75,
    wheel_radius=(0.32, 0.36),
)
# Style, name of the studio's style whose details it has, and weight.
_STYLES = (
    (SEDAN, "sedan", 0.25),
    (COUPE, "coupe", 0.09),
    (HATCHBACK, "hatchback", 0.13),
    (CROSSOVER, "crossover", 0.17),
    (MINIVAN, "minivan", 0.05),
    (PICKUP, "pickup", 0.09),
    (_WAGON, "crossover", 0.05),
    (_BOXY, "crossover", 0.08),
    (_VAN, "minivan", 0.03),
    (_CITY, "hatchback", 0.04),
    (_SPORT, "coupe", 0.05),
)


def draw_shape(rng: np.random.Generator) -> tuple[str, Style]:
    """Return the name of a studio's style, whose details the car has, and its own proportions."""
    weights = np.array([weight for _, _, weight in _STYLES])
    index = int(rng.choice(len(_STYLES), p=weights / weights.sum()))
    style, name, _ = _STYLES[index]
    partners = [other for other, its_name, _ in _STYLES if its_name == name and other is not style]
    if partners and rng.uniform() < 0.5:
        style = _mix(style, partners[int(rng.integers(len(partners)))], float(rng.uniform(0, 0.6)))
    return name, _bend(style, rng)


def _mix(style: Style, other: Style, part: float) -> Style:
    """Return proportions between two styles; the doors are the first one's."""
    values: dict[str, object] = {}
    for field in fields(Style):
        one, two = getattr(style, field.name), getattr(other, field.name)
        if isinstance(one, float):
            values[field.name] = one + part * (two - one)
        elif field.name not in ("top", "doors"):
            values[field.name] = tuple(a + part * (b - a) for a, b in zip(one, two, strict=True))
    heights = [np.interp(_GRID, *np.array(each.top).T) for each in (style, other)]
    top = (1 - part) * heights[0] + part * heights[1]
    return replace(style, **values, top=_profile(_GRID, top / top.max()))  # type: ignore[arg-type]


def _bend(style: Style, rng: np.random.Generator) -> Style:
    """Return the style with other sizes, a shifted cabin, and a higher or lower hood and tail."""
    shift = float(rng.normal(0, 0.016))

    def moved(position: float) -> float:
        return position + shift * float(np.sin(np.pi * position))

    hood = float(np.clip(rng.normal(1.0, 0.12), 0.75, 1.3))
    tail = float(np.clip(hood + rng.normal(0, 0.08), 0.75, 1.3))

    def lifted(position: float, height: float) -> float:
        below = 1 - height
        factor = hood + (tail - hood) * position
        return max(1 - below * factor, 0.25)

    profile = tuple((moved(at), lifted(at, height)) for at, height in style.top)
    belt_lift = float(rng.normal(0, 0.018))
    belt = tuple(
        float(np.clip(lifted(at, height) + belt_lift, 0.45, 0.8))
        for at, height in zip((0.0, 1.0), style.belt, strict=True)
    )
    places = {
        name: moved(getattr(style, name))
        for name in ("cowl", "roof_front", "roof_rear", "glass_end", "overhang")
    }
    return replace(
        style,
        **places,
        top=profile,
        belt=(belt[0], belt[1]),
        doors=tuple(moved(door) for door in style.doors),
        wheelbase=float(style.wheelbase + np.clip(rng.normal(0, 0.018), -0.04, 0.04)),
        lean=float(style.lean * rng.uniform(0.7, 1.25)),
        round_front=float(style.round_front * rng.uniform(0.6, 1.4)),
        round_rear=float(style.round_rear * rng.uniform(0.6, 1.4)),
        length=_widened(style.length, 0.06),
        width=_widened(style.width, 0.03),
        height=_widened(style.height, 0.03),
        clearance=_widened(style.clearance, 0.25),
        wheel_radius=_widened(style.wheel_radius, 0.06),
    )


def _widened(limits: Range, fraction: float) -> Range:
    return limits[0] * (1 - fraction), limits[1] * (1 + fraction)


def _profile(positions: np.ndarray, heights: np.ndarray) -> Profile:
    return tuple(zip(positions.tolist(), heights.tolist(), strict=True))
