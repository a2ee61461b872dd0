"""The sheet of materials that is projected on a car, and how each material shines.

One sheet holds four drawings, each pixel the number of a material: the side (behind the nose by
height), the front and the rear (across by height) and a wheel. This file knows the sheet and the
materials, `markings` what is drawn on it. Knows no view and no light.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from carvana_ray.sample import body as shape
from carvana_ray.sample.car import Car

Floats = NDArray[np.float64]
Spots = list[tuple[float, float]]

PX_PER_M = 200.0  # a car takes 310 pixels a metre in the picture, which is blurred by one
ATLAS_TOP_M = 2.1
_SIDE_PX, _END_PX, _WHEEL_PX = 1300, 480, 280
_NOSE_PX = 20.0
_SHEET = (_SIDE_PX + 2 * _END_PX + _WHEEL_PX, 432)
_PLAIN_ROW = 427
WHEEL_AT_PX = (_SIDE_PX + 2 * _END_PX + _WHEEL_PX // 2, _WHEEL_PX // 2)
TYRE_PX = 130.0

MATERIALS = (
    "paint", "gap", "glass", "dark_glass", "trim", "plastic", "chrome", "head_lamp", "tail_lamp",
    "amber", "plate", "plate_print", "grille", "tyre", "rim", "rim_shade", "well", "bed",
    "cloth", "lining", "white_lamp",
)  # fmt: skip
_NUMBER = {name: number for number, name in enumerate(MATERIALS)}


@dataclass(frozen=True)
class MaterialTable:
    """How each material [M] shines: reflectance [M, 3], metal, gloss (0..1), light let through."""

    albedo: NDArray[np.float32]
    metal: NDArray[np.float32]
    gloss: NDArray[np.float32]
    transmission: NDArray[np.float32]

    @property
    def columns(self) -> NDArray[np.float32]:
        """Everything, [M, 6]: red, green, blue, clear, metal, gloss."""
        rest = np.stack([self.transmission, self.metal, self.gloss], axis=-1)
        return np.concatenate([self.albedo, rest], axis=-1)


class Texture:
    """The sheet with its materials' properties, their edges softened, ready to be looked up.

    Stored in bytes: the square root of reflectance, half the square root of the rest.
    """

    def __init__(self, sheet: Image.Image, finish: MaterialTable) -> None:
        """Colour a sheet of material numbers, mode L."""
        self.width, self.height = sheet.size
        columns = finish.columns
        self._scale = np.where(np.arange(6) < 3, 255.0, 200.0).astype(np.float32)
        codes = np.clip(np.sqrt(columns) * self._scale, 0, 255).astype(np.uint8)
        soft = ImageFilter.Kernel((3, 3), (1, 2, 1, 2, 4, 2, 1, 2, 1))
        self._layers = []
        for three in (codes[:, :3], codes[:, 3:]):
            coloured = sheet.convert("L")
            coloured.putpalette(np.pad(three, [(0, 256 - len(three)), (0, 0)]).tobytes())
            layer = coloured.convert("RGB").filter(soft).convert("RGBX")
            self._layers.append(np.asarray(layer).reshape(-1, 4).view(np.uint32)[:, 0])
        levels = np.arange(256, dtype=np.float32)
        self._values = [(levels / scale) ** 2 for scale in self._scale]

    def at(self, u: NDArray[np.float32], v: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return red, green, blue, clear, metal and gloss in places [N], each float32 [N]."""
        place = np.clip(u, 0, self.width - 1).astype(np.int32)
        place += np.clip(v, 0, self.height - 1).astype(np.int32) * self.width
        found = []
        for number, layer in enumerate(self._layers):
            codes = layer.take(place).view(np.uint8).reshape(-1, 4)
            found += [self._values[3 * number + k].take(codes[:, k]) for k in range(3)]
        return found


def material_table(car: Car) -> MaterialTable:
    """Return the car's materials, in the order of MATERIALS."""
    red, green, blue = (0.01 + 0.14 * part for part in car.paint)
    gap = (red, green, blue)
    table: dict[str, tuple[tuple[float, float, float], float, float, float]] = {
        "paint": (car.paint, car.metallic, 1.0, 0.0),
        "gap": (gap, 0.0, 0.2, 0.0),
        "glass": ((0.004, 0.006, 0.005), 0.0, 1.1, 0.74),
        "dark_glass": ((0.004, 0.004, 0.005), 0.0, 1.0, 0.16),
        "trim": ((0.010, 0.010, 0.011), 0.0, 0.7, 0.0),
        "plastic": ((0.022, 0.022, 0.024), 0.0, 0.25, 0.0),
        "chrome": ((0.55, 0.56, 0.57), 0.85, 1.0, 0.0),
        "head_lamp": ((0.22, 0.23, 0.24), 0.7, 1.4, 0.0),
        "tail_lamp": ((0.19, 0.006, 0.009), 0.25, 1.2, 0.0),
        "amber": ((0.50, 0.13, 0.01), 0.2, 1.0, 0.0),
        "plate": ((0.72, 0.73, 0.74), 0.0, 0.3, 0.0),
        "plate_print": ((0.10, 0.35, 0.62), 0.0, 0.3, 0.0),
        "grille": ((0.008, 0.008, 0.009), 0.0, 0.4, 0.0),
        "tyre": ((0.013, 0.013, 0.013), 0.0, 0.25, 0.0),
        "rim": ((car.rim_albedo, car.rim_albedo, car.rim_albedo * 1.01), 0.35, 0.9, 0.0),
        "rim_shade": ((0.020, 0.020, 0.021), 0.0, 0.3, 0.0),
        "well": ((0.004, 0.004, 0.004), 0.0, 0.0, 0.0),
        "bed": ((0.014, 0.014, 0.015), 0.0, 0.3, 0.0),
        "cloth": (car.cloth, 0.0, 0.0, 0.0),
        "lining": ((0.16, 0.155, 0.145), 0.0, 0.0, 0.0),
        "white_lamp": ((0.46, 0.46, 0.45), 0.3, 1.2, 0.0),
    }
    rows = [table[name] for name in MATERIALS]
    columns = [np.array([row[k] for row in rows], dtype=np.float32) for k in range(4)]
    return MaterialTable(*columns)


def material_id(material: str) -> int:
    """Return a material's number on the sheet."""
    return _NUMBER[material]


def plain_uv(material: str) -> tuple[float, float]:
    """Return a place (u, v) on the sheet that shows the material and nothing else."""
    return 8.0 * _NUMBER[material] + 4.0, float(_PLAIN_ROW)


def project_uv(car: Car, points: Floats, face: int) -> Floats:
    """Return where on the sheet points [..., 3] in car axes fall, [..., 2] in pixels."""
    if face == shape.SIDE:
        u = (car.length_m / 2 - points[..., 0]) * PX_PER_M + _NOSE_PX
    else:
        # As one stands before it: the car's left is on the right of its front.
        middle, right = (0.5, 1.0) if face == shape.FRONT else (1.5, -1.0)
        u = _SIDE_PX + _END_PX * middle + right * points[..., 1] * PX_PER_M
    return np.stack([u, (ATLAS_TOP_M - points[..., 2]) * PX_PER_M], axis=-1)


def wheel_uv(across: Floats, up: Floats) -> Floats:
    """Return where points of a wheel of radius 1 fall on the sheet, [..., 2] in pixels."""
    x, y = WHEEL_AT_PX
    return np.stack([x + across * TYRE_PX, y - up * TYRE_PX], axis=-1)


class Pen:
    """Draws in metres on one drawing of the sheet."""

    def __init__(self, sheet: ImageDraw.ImageDraw, left_px: float) -> None:
        self.sheet, self.left = sheet, left_px

    def _px(self, spots: Spots) -> Spots:
        return [(self.left + a * PX_PER_M, (ATLAS_TOP_M - z) * PX_PER_M) for a, z in spots]

    def fill(self, material: str, spots: Spots) -> None:
        self.sheet.polygon(self._px(spots), fill=_NUMBER[material])

    def line(self, material: str, spots: Spots, wide_m: float = 0.008) -> None:
        wide = max(1, round(wide_m * PX_PER_M))
        self.sheet.line(self._px(spots), fill=_NUMBER[material], width=wide, joint="curve")

    def disc(self, material: str, at: tuple[float, float], radius: float, tall: float = 1) -> None:
        (x, y), r = self._px([at])[0], radius * PX_PER_M
        self.sheet.ellipse((x - r, y - r * tall, x + r, y + r * tall), fill=_NUMBER[material])

    def box(self, material: str, a: float, z: float, a2: float, z2: float, bend: float = 0) -> None:
        (x, y), (x2, y2) = self._px([(min(a, a2), max(z, z2)), (max(a, a2), min(z, z2))])
        self.sheet.rounded_rectangle((x, y, x2, y2), bend * PX_PER_M, fill=_NUMBER[material])


def blank_atlas() -> tuple[Image.Image, Pen, Pen, Pen]:
    """Return an empty sheet and the pens of its side, front and rear drawing."""
    image = Image.new("L", _SHEET, _NUMBER["paint"])
    draw = ImageDraw.Draw(image)
    for one in range(len(MATERIALS)):
        draw.rectangle((8 * one, _PLAIN_ROW - 4, 8 * one + 7, _PLAIN_ROW + 3), fill=one)
    ends = (_SIDE_PX + _END_PX * 0.5, _SIDE_PX + _END_PX * 1.5)
    return image, Pen(draw, _NOSE_PX), Pen(draw, ends[0]), Pen(draw, ends[1])
