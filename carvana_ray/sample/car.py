"""The parameters of a car and of its studio session, sampled from a random generator.

`meshes` builds the geometry from them, `texture` the materials.
"""

from dataclasses import dataclass

import numpy as np

from carvana_ray.sample.body_styles import STYLES, Style
from carvana_ray.sample.variety import Variety

Rgb = tuple[float, float, float]
Finish = tuple[Rgb, float, float, float]
"""A material: albedo (linear light, 0..1), metalness, gloss, transmission."""

# Name, probability, albedo (linear light, 0..1) and metalness of each color. The probabilities
# follow the real images, where most cars are white, black, gray or silver.
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

# Made-up names: those of the real table are trademarks.
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
class Light:
    """Light on a car, as factors of the white wall's; the defaults are the studio's.

    Attributes:
        ambient, up, down: diffuse light on an upright surface, and its change per unit of the
            normal's upward part, for surfaces that look up and down.
        foot: fraction of the light that reaches a surface at the floor; all from 0.65 m.
        key: direction to a lamp, times its strength; (0, 0, 0) for none.
        front, behind: reflected light from behind the camera, and what is added in front of it.
        black: subtracted from the stored brightness; real black cars are darker than computed.
        lamps_seed: seed of the lamps that a car reflects; None for the studio's light panels.
        shadow, contact: darkness of the soft shadow and of the spots under the wheels.
        under: fraction of the light that is missing under the middle of the car, at least.
        cast: offset (x, y) of the hard shadow on the floor per meter of height, if any.
        cast_shade: darkness of that shadow, 0..1.
        cast_blur_px: its softness, in pixels of a 480 x 320 image.
    """

    ambient: float = 0.86
    up: float = 0.17
    down: float = 0.36
    foot: float = 0.72
    key: Rgb = (0.0, 0.0, 0.0)
    front: float = 0.64
    behind: float = 0.36
    black: float = 0.055
    lamps_seed: int | None = None
    shadow: float = 1.0
    contact: float = 1.0
    under: float = 0.0
    cast: tuple[float, float] | None = None
    cast_shade: float = 0.0
    cast_blur_px: float = 2.0


@dataclass(frozen=True)
class Studio:
    """A studio session: camera position and lighting.

    Attributes:
        distance_m, camera_height_m: position of the camera, relative to the turntable's center.
        horizon: row of the image at the camera's height.
        center_x: column of the image at the turntable's center.
        wall_level, floor_level: brightness, in gray values 0..255.
        warmth: shift from blue to red, in gray values.
        brightness_slope: change of brightness from the center to the right edge, in gray values.
        panel_phase: phase of the light panels' pattern, in radians.
        stain_seed: seed of the floor's stains.
        focal_px: focal length in pixels; the default is measured in the real images.
        tilt_deg, roll_deg: downward rotation of the camera, and its rotation about its axis.
        foot_px, foot_curve_px, foot_slope_px: distance of the wall's foot below the horizon at
            `center_x`, and what is added at the edges of the image, evenly and to the right.
        foot_blur_px: softness of the edge between floor and wall.
        turntable_m: radius of the turntable; 0 for none.
        gloss: reflectance of the floor.
        light: light on the car.
        calm: whether a varied scene is a plain studio, as most photographs of single cars are.
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
    focal_px: float = 2268.0
    tilt_deg: float = 0.0
    roll_deg: float = 0.0
    foot_px: float = 57.0
    foot_curve_px: float = 22.0
    foot_slope_px: float = 0.0
    foot_blur_px: float = 0.0
    turntable_m: float = 3.2  # 1930 px wide in the real images
    gloss: float = 0.07
    light: Light = Light()
    calm: bool = False


@dataclass(frozen=True)
class Car:
    """The parameters of a car that its 16 images share. Lengths are in meters.

    Attributes:
        style: name in `STYLES`.
        length_m, width_m, height_m, clearance_m, wheel_radius_m: dimensions.
        paint_name, paint, metallic: name, albedo (linear light, 0..1) and metalness of the paint.
        cloth: albedo of the seats.
        spokes, spoke_width, rim_albedo: number of spokes, their width as a fraction of their
            spacing, and reflectance of the rim.
        antenna, antenna_m: "mast", "fin" or "none"; length of the mast.
        rails, chrome, cladding, mirrors_black, privacy: roof rails, chrome trim, plastic cladding,
            black mirrors, dark rear glass.
        lamp_height: height of the head lamps, relative to the belt line.
        grille: shape of the grille, 0..2.
        offset_m, turn_deg: position (x, y) and rotation on the turntable.
        year, make, model, trim, package: row of the table of cars.
        studio: the session.
        variety: kinds of variety of the car's images; None in the studio.
        shape: proportions, if they are not those of the style.
        finishes: materials that differ from those of `materials.material_table`, by name.
        two_tone: whether roof and pillars have the finish "roof".
        decals_seed: seed of stickers and lettering on the body; None for none.
        extras_seed: seed of parts fixed to the body, such as spoilers and roof boxes.
        rim: radius of the rim by that of the wheel; 0 for the style's.
    """

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
    variety: Variety | None = None
    shape: Style | None = None
    finishes: tuple[tuple[str, Finish], ...] = ()
    two_tone: bool = False
    decals_seed: int | None = None
    extras_seed: int | None = None
    rim: float = 0.0

    @property
    def proportions(self) -> Style:
        """Proportions of the car's body."""
        return self.shape or STYLES[self.style]

    @property
    def axles_m(self) -> tuple[float, float]:
        """Positions of the front and the rear axle, in meters behind the nose."""
        front = self.proportions.overhang * self.length_m
        return front, front + self.proportions.wheelbase * self.length_m


def draw_studio_car(rng: np.random.Generator) -> Car:
    """Return a random car in a random studio session."""
    name = _draw_style(rng)
    style = STYLES[name]
    size = float(rng.uniform())  # shared, because large cars are long, wide and high

    def draw_dimension(limits: tuple[float, float]) -> float:
        low, high = limits
        return low + (high - low) * float(np.clip(size + rng.normal(0, 0.18), 0, 1))

    paint_name, paint, metallic = _draw_paint(rng)
    return Car(
        style=name,
        length_m=draw_dimension(style.length),
        width_m=draw_dimension(style.width),
        height_m=draw_dimension(style.height),
        clearance_m=draw_dimension(style.clearance),
        wheel_radius_m=draw_dimension(style.wheel_radius),
        paint_name=paint_name,
        paint=paint,
        metallic=metallic,
        cloth=_CLOTHS[int(rng.integers(len(_CLOTHS)))],
        spokes=int(rng.choice((5, 5, 6, 7, 9, 10))),
        spoke_width=float(rng.uniform(0.34, 0.62)),
        rim_albedo=float(rng.choice((0.50, 0.42, 0.34, 0.06), p=(0.4, 0.25, 0.2, 0.15))),
        antenna=str(rng.choice(("mast", "fin", "none"), p=(0.55, 0.30, 0.15))),
        antenna_m=float(rng.uniform(0.18, 0.62)),
        rails=bool(rng.uniform() < style.rails),
        chrome=bool(rng.uniform() < 0.5),
        cladding=bool(name not in ("sedan", "coupe") and rng.uniform() < 0.45),
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


def _draw_style(rng: np.random.Generator) -> str:
    names = tuple(STYLES)
    weights = np.array([STYLES[name].weight for name in names])
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


def _draw_paint(rng: np.random.Generator) -> tuple[str, Rgb, float]:
    """Return (name, albedo, metalness) of a paint, in a random shade of its color."""
    probabilities = np.array([paint[1] for paint in _PAINTS])
    index = int(rng.choice(len(probabilities), p=probabilities))
    name, _, albedo, metallic = _PAINTS[index]
    shade = float(rng.uniform(0.82, 1.12))
    return name, (albedo[0] * shade, albedo[1] * shade, albedo[2] * shade), metallic


def _draw_studio(rng: np.random.Generator) -> Studio:
    """Return a random session; means and spreads are measured in the real images.

    Cars of 3.70 m and 4.90 m length measure 315 px per meter in side views and 378 at their fronts.
    The camera is therefore 7.6 m from the center of the turntable, and `Studio.focal_px` follows.
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
    """Return the car's row of metadata.csv, with made-up names."""
    return {
        "year": str(car.year),
        "make": car.make,
        "model": car.model,
        "trim1": car.trim,
        "trim2": car.package,
    }
