"""What one car is and what its session in the studio fixes, drawn from a random generator.

A car is numbers alone, small enough to send anywhere; `shape` makes a mesh of it and `skin` its
markings. Knows no pixel and no view.
"""

from dataclasses import dataclass

import numpy as np

from carvana_ray.sample.body_styles import STYLES, Style

Rgb = tuple[float, float, float]

# How often a colour comes, its reflectance (linear light, 0..1) and how metallic it is. The shares
# follow the real lots, where most cars are white, black, gray or silver.
_PAINTS: tuple[tuple[str, float, Rgb, float], ...] = (
    ("white", 0.22, (0.80, 0.80, 0.79), 0.0),
    ("silver", 0.17, (0.42, 0.43, 0.44), 0.55),
    ("gray", 0.16, (0.105, 0.108, 0.115), 0.45),
    ("black", 0.22, (0.010, 0.010, 0.011), 0.10),
    ("blue", 0.08, (0.020, 0.042, 0.130), 0.30),
    ("red", 0.07, (0.230, 0.012, 0.016), 0.25),
    ("beige", 0.05, (0.330, 0.285, 0.220), 0.50),
    ("green", 0.03, (0.040, 0.075, 0.050), 0.35),
)
_CLOTHS: tuple[Rgb, ...] = ((0.03, 0.03, 0.032), (0.12, 0.12, 0.12), (0.34, 0.28, 0.20))

# Invented; the brands of the real table are others' marks.
_MAKES = ("Arvane", "Belmora", "Corvex", "Dorado Motor", "Elvaro", "Norvik", "Ostrava", "Tellus")
_MODELS = {
    "sedan": ("Meridian", "Lyra", "S40", "Consul"),
    "coupe": ("Falke", "Rapide C", "GTV", "Vento"),
    "hatchback": ("Pico", "Jot", "H3", "Nimbo"),
    "crossover": ("Terrano X", "Summit", "X7", "Alpen"),
    "minivan": ("Voyant", "Familia", "V9", "Caravel"),
    "pickup": ("Hauler", "Mesa", "P150", "Drover"),
}
_TRIMS = ("Base", "LS", "Sport", "Touring", "Limited")
_PACKAGES = ("", "w/Tech", "w/Winter", "AWD", "i Grand")


@dataclass(frozen=True)
class Studio:
    """A session in the studio: where the camera stands and how it is lit.

    Lengths are metres, angles degrees, levels gray values 0..255. `horizon` is the row of the
    picture at the camera's own height, `pan` the column of the turntable's centre.
    """

    distance_m: float
    camera_height_m: float
    horizon: float
    center_x: float
    wall_level: float
    floor_level: float
    warmth: float
    brightness_slope: float
    panel_phase: float
    stain_seed: int


@dataclass(frozen=True)
class Car:
    """One car: everything that its 16 pictures have in common. Lengths are metres."""

    style: str
    length_m: float
    width_m: float
    height_m: float
    clearance_m: float
    wheel_radius_m: float
    paint_name: str
    paint: Rgb
    metallic: float
    cloth: Rgb
    spokes: int
    spoke_width: float
    rim_albedo: float
    antenna: str
    antenna_m: float
    rails: bool
    chrome: bool
    cladding: bool
    mirrors_black: bool
    privacy: bool
    lamp_height: float
    grille: int
    offset_m: tuple[float, float]
    turn_deg: float
    year: int
    make: str
    model: str
    trim: str
    package: str
    studio: Studio

    @property
    def proportions(self) -> Style:
        """The body style that the car is one of."""
        return STYLES[self.style]

    @property
    def axles_m(self) -> tuple[float, float]:
        """Where the front and the rear axle are, in metres behind the nose."""
        front = self.proportions.overhang * self.length_m
        return front, front + self.proportions.wheelbase * self.length_m


def draw_car(rng: np.random.Generator) -> Car:
    """Return a car in a session of its own, drawn from `rng`."""
    names = tuple(STYLES)
    shares = np.array([STYLES[name].weight for name in names])
    name = names[int(rng.choice(len(names), p=shares / shares.sum()))]
    style = STYLES[name]
    # Large cars are long, wide and high together.
    size = float(rng.uniform())

    def within(low_high: tuple[float, float]) -> float:
        low, high = low_high
        return low + (high - low) * float(np.clip(size + rng.normal(0, 0.18), 0, 1))

    chances = np.array([paint[1] for paint in _PAINTS])
    paint_name, _, albedo, metallic = _PAINTS[int(rng.choice(len(chances), p=chances))]
    shade = float(rng.uniform(0.82, 1.12))
    plain = name in ("sedan", "coupe")
    return Car(
        style=name,
        length_m=within(style.length),
        width_m=within(style.width),
        height_m=within(style.height),
        clearance_m=within(style.clearance),
        wheel_radius_m=within(style.wheel_radius),
        paint_name=paint_name,
        paint=(albedo[0] * shade, albedo[1] * shade, albedo[2] * shade),
        metallic=metallic,
        cloth=_CLOTHS[int(rng.integers(len(_CLOTHS)))],
        spokes=int(rng.choice((5, 5, 6, 7, 9, 10))),
        spoke_width=float(rng.uniform(0.34, 0.62)),
        rim_albedo=float(rng.choice((0.50, 0.42, 0.34, 0.06), p=(0.4, 0.25, 0.2, 0.15))),
        antenna=str(rng.choice(("mast", "fin", "none"), p=(0.55, 0.30, 0.15))),
        antenna_m=float(rng.uniform(0.18, 0.62)),
        rails=bool(rng.uniform() < style.rails),
        chrome=bool(rng.uniform() < 0.5),
        cladding=bool(not plain and rng.uniform() < 0.45),
        mirrors_black=bool(rng.uniform() < 0.2),
        privacy=bool(rng.uniform() < style.privacy),
        lamp_height=float(rng.uniform(0.95, 1.05)),
        grille=int(rng.integers(3)),
        offset_m=(float(rng.normal(0, 0.10)), float(rng.normal(0, 0.05))),
        turn_deg=float(rng.normal(0, 1.0)),
        year=int(rng.integers(2007, 2018)),
        make=str(rng.choice(_MAKES)),
        model=str(rng.choice(_MODELS[name])),
        trim=str(rng.choice(_TRIMS)),
        package=str(rng.choice(_PACKAGES)),
        studio=_draw_studio(rng),
    )


def _draw_studio(rng: np.random.Generator) -> Studio:
    """Return a session; the means and spreads are read off the real pictures.

    A 3.70 m and a 4.90 m car measure 315 px a metre side on, their fronts 378: the camera stands
    7.6 m from the middle of the turntable, and `camera.FOCAL_PX` is what follows.
    """
    return Studio(
        distance_m=float(np.clip(rng.normal(7.60, 0.35), 6.8, 8.4)),
        camera_height_m=float(np.clip(rng.normal(1.50, 0.05), 1.38, 1.62)),
        horizon=float(np.clip(rng.normal(395, 42), 320, 480)),
        center_x=float(rng.normal(957, 14)),
        wall_level=float(rng.uniform(236, 249)),
        floor_level=float(
            rng.choice((158.0, 186.0, 205.0), p=(0.3, 0.45, 0.25)) + rng.normal(0, 4)
        ),
        warmth=float(rng.uniform(-2.0, 5.0)),
        brightness_slope=float(rng.normal(0, 5.0)),
        panel_phase=float(rng.uniform(0, 6.28)),
        stain_seed=int(rng.integers(2**31)),
    )


def make_and_model(car: Car) -> dict[str, str]:
    """Return year, make, model, trim1 and trim2 for a table of cars; the names are invented."""
    return {
        "year": str(car.year),
        "make": car.make,
        "model": car.model,
        "trim1": car.trim,
        "trim2": car.package,
    }
