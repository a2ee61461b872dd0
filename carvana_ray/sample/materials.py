"""The materials of a car, and the layout of the texture atlas that is projected on it.

The atlas holds four drawings: the side (position behind the nose by height), the front and the rear
(position across by height) and a wheel. Each pixel is the number of a material. `texture` draws the
atlas.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from carvana_ray.sample.body import FRONT, SIDE
from carvana_ray.sample.car import Car, Finish

Floats = NDArray[np.float64]
Polygon = list[tuple[float, float]]

PX_PER_M = 200.0  # of the atlas; the image has 310 and is blurred
ATLAS_TOP_M = 2.1  # height at the upper edge of the atlas
_SIDE_PX, _END_PX, _WHEEL_PX = 1300, 480, 280
_NOSE_PX = 20.0
_ATLAS_SIZE = (_SIDE_PX + 2 * _END_PX + _WHEEL_PX, 432)
_PLAIN_ROW = 427  # below the drawings: a patch of each material
WHEEL_CENTER_PX = (_SIDE_PX + 2 * _END_PX + _WHEEL_PX // 2, _WHEEL_PX // 2)
TIRE_PX = 130.0  # radius of the wheel in the atlas

MATERIALS = (
    "paint", "gap", "glass", "dark_glass", "trim", "plastic", "chrome", "head_lamp", "tail_lamp",
    "amber", "plate", "plate_print", "grille", "tire", "rim", "rim_shade", "well", "bed",
    "cloth", "lining", "white_lamp", "roof", "lower", "print", "sticker",
)  # fmt: skip
_IDS = {name: number for number, name in enumerate(MATERIALS)}


@dataclass(frozen=True)
class MaterialTable:
    """Optical properties of the materials, float32.

    Attributes:
        albedo: reflectance of red, green and blue, linear light 0..1, [M, 3].
        metalness: fraction of the light that is reflected in the material's own color, [M].
        gloss: factor of the specular reflection, [M].
        transmission: fraction of the light that passes through, [M].
    """

    albedo: NDArray[np.float32]
    metalness: NDArray[np.float32]
    gloss: NDArray[np.float32]
    transmission: NDArray[np.float32]

    @property
    def columns(self) -> NDArray[np.float32]:
        """All properties, [M, 6]: red, green, blue, transmission, metalness, gloss."""
        others = np.stack([self.transmission, self.metalness, self.gloss], axis=-1)
        return np.concatenate([self.albedo, others], axis=-1)


class Texture:
    """The atlas with the properties of its materials, which may be blurred at their edges.

    Stored in bytes: 255 times the square root of the albedo, 200 times that of other properties.
    """

    def __init__(self, atlas: Image.Image, table: MaterialTable, *, blurred: bool = True) -> None:
        """Look up the properties of an atlas of material numbers, mode L."""
        self.width, self.height = atlas.size
        columns = table.columns
        self._scale = np.where(np.arange(6) < 3, 255.0, 200.0).astype(np.float32)
        codes = np.clip(np.sqrt(columns) * self._scale, 0, 255).astype(np.uint8)
        blur = ImageFilter.Kernel((3, 3), (1, 2, 1, 2, 4, 2, 1, 2, 1))
        self._layers = []
        for palette in (codes[:, :3], codes[:, 3:]):
            image = atlas.convert("L")
            image.putpalette(np.pad(palette, [(0, 256 - len(palette)), (0, 0)]).tobytes())
            layer = image.convert("RGB")
            layer = (layer.filter(blur) if blurred else layer).convert("RGBX")
            self._layers.append(np.asarray(layer).reshape(-1, 4).view(np.uint32)[:, 0])
        levels = np.arange(256, dtype=np.float32)
        self._values = [(levels / scale) ** 2 for scale in self._scale]

    def at(self, u: NDArray[np.float32], v: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return red, green, blue, transmission, metalness and gloss, each float32 [N].

        Args:
            u, v: texture coordinates in pixels, float32 [N].
        """
        index = np.clip(u, 0, self.width - 1).astype(np.int32)
        index += np.clip(v, 0, self.height - 1).astype(np.int32) * self.width
        values = []
        for number, layer in enumerate(self._layers):
            codes = layer.take(index).view(np.uint8).reshape(-1, 4)
            values += [self._values[3 * number + k].take(codes[:, k]) for k in range(3)]
        return values


def material_table(car: Car) -> MaterialTable:
    """Return the properties of the car's materials, in the order of MATERIALS."""
    red, green, blue = (0.01 + 0.14 * channel for channel in car.paint)
    # Albedo, metalness, gloss, transmission.
    table: dict[str, Finish] = {
        "paint": (car.paint, car.metallic, 1.0, 0.0),
        "gap": ((red, green, blue), 0.0, 0.2, 0.0),
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
        "tire": ((0.013, 0.013, 0.013), 0.0, 0.25, 0.0),
        "rim": ((car.rim_albedo, car.rim_albedo, car.rim_albedo * 1.01), 0.35, 0.9, 0.0),
        "rim_shade": ((0.020, 0.020, 0.021), 0.0, 0.3, 0.0),
        "well": ((0.004, 0.004, 0.004), 0.0, 0.0, 0.0),
        "bed": ((0.014, 0.014, 0.015), 0.0, 0.3, 0.0),
        "cloth": (car.cloth, 0.0, 0.0, 0.0),
        "lining": ((0.16, 0.155, 0.145), 0.0, 0.0, 0.0),
        "white_lamp": ((0.46, 0.46, 0.45), 0.3, 1.2, 0.0),
        "roof": (car.paint, car.metallic, 1.0, 0.0),
        "lower": (car.paint, car.metallic, 1.0, 0.0),
        "print": ((0.012, 0.012, 0.012), 0.0, 0.5, 0.0),
        "sticker": ((0.70, 0.70, 0.70), 0.0, 0.5, 0.0),
    }
    table |= dict(car.finishes)
    rows = [table[name] for name in MATERIALS]
    columns = [np.array([row[k] for row in rows], dtype=np.float32) for k in range(4)]
    return MaterialTable(*columns)


def material_id(material: str) -> int:
    """Return the number of a material in the atlas."""
    return _IDS[material]


def plain_uv(material: str) -> tuple[float, float]:
    """Return texture coordinates (u, v) of the material's patch."""
    return 8.0 * _IDS[material] + 4.0, float(_PLAIN_ROW)


def project_uv(car: Car, points: Floats, drawing: int) -> Floats:
    """Return the texture coordinates of points, [..., 2] in pixels.

    Args:
        car: the car.
        points: points in car axes, [..., 3].
        drawing: SIDE, FRONT or REAR.
    """
    if drawing == SIDE:
        u = (car.length_m / 2 - points[..., 0]) * PX_PER_M + _NOSE_PX
    else:
        # Seen from outside, the car's left is on the right of its front.
        middle, right = (0.5, 1.0) if drawing == FRONT else (1.5, -1.0)
        u = _SIDE_PX + _END_PX * middle + right * points[..., 1] * PX_PER_M
    return np.stack([u, (ATLAS_TOP_M - points[..., 2]) * PX_PER_M], axis=-1)


def wheel_uv(across: Floats, up: Floats) -> Floats:
    """Return the texture coordinates of points of a wheel with radius 1, [..., 2] in pixels."""
    x, y = WHEEL_CENTER_PX
    return np.stack([x + across * TIRE_PX, y - up * TIRE_PX], axis=-1)


class Pen:
    """Draws in one drawing of the atlas, with coordinates (across, up) in meters."""

    def __init__(self, atlas: ImageDraw.ImageDraw, origin_px: float) -> None:
        self._atlas, self._origin = atlas, origin_px

    def _px(self, polygon: Polygon) -> Polygon:
        return [(self._origin + a * PX_PER_M, (ATLAS_TOP_M - z) * PX_PER_M) for a, z in polygon]

    def fill(self, material: str, polygon: Polygon) -> None:
        """Fill a polygon."""
        self._atlas.polygon(self._px(polygon), fill=_IDS[material])

    def line(self, material: str, path: Polygon, width: float = 0.008) -> None:
        """Draw a line."""
        width_px = max(1, round(width * PX_PER_M))
        self._atlas.line(self._px(path), fill=_IDS[material], width=width_px, joint="curve")

    def disc(
        self, material: str, center: tuple[float, float], radius: float, aspect: float = 1
    ) -> None:
        """Fill an ellipse; `aspect` is its height by its width."""
        (x, y), r = self._px([center])[0], radius * PX_PER_M
        self._atlas.ellipse((x - r, y - r * aspect, x + r, y + r * aspect), fill=_IDS[material])

    def box(
        self, material: str, a: float, z: float, a2: float, z2: float, corner: float = 0
    ) -> None:
        """Fill a rectangle between two opposite points (a, z), with a radius of its corners."""
        (x, y), (x2, y2) = self._px([(min(a, a2), max(z, z2)), (max(a, a2), min(z, z2))])
        self._atlas.rounded_rectangle((x, y, x2, y2), corner * PX_PER_M, fill=_IDS[material])


def blank_atlas() -> tuple[Image.Image, Pen, Pen, Pen]:
    """Return an atlas of paint with the patches, and the pens of its side, front and rear."""
    image = Image.new("L", _ATLAS_SIZE, _IDS["paint"])
    draw = ImageDraw.Draw(image)
    for number in range(len(MATERIALS)):
        patch = (8 * number, _PLAIN_ROW - 4, 8 * number + 7, _PLAIN_ROW + 3)
        draw.rectangle(patch, fill=number)
    front, rear = _SIDE_PX + _END_PX * 0.5, _SIDE_PX + _END_PX * 1.5
    return image, Pen(draw, _NOSE_PX), Pen(draw, front), Pen(draw, rear)
