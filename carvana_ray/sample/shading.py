"""Light on a car: what each of its pixels looks like, and what its windows let through.

Brightness is computed as linear light, 1 being a white wall, and stored as its square root.
"""

import numpy as np
from numpy.typing import NDArray

from carvana_ray.sample import camera, raster
from carvana_ray.sample import materials as skin
from carvana_ray.sample import texture as markings
from carvana_ray.sample.car import Car, Studio
from carvana_ray.sample.raster import Box, FaceIds, Floats, PlaneInterpolator
from carvana_ray.sample.scene import Scene

_SKY = 128  # rows and columns of the table of what a body reflects
_BLACK = 0.055  # the real pictures' black cars are blacker than light alone would make them
_U, _V, _LIGHT = 0, 1, 5  # of what `_lighting` returns


def _lighting(car: Car, scene: Scene) -> Floats:
    """Return for all corners, [F, 4, 6]: the place on the sheet, what is mirrored, gloss, light."""
    normals = scene.normals
    away = camera.camera_position(car.studio) - scene.points
    away /= np.linalg.norm(away, axis=-1, keepdims=True)
    facing = np.einsum("fck,fck->fc", normals, away)
    mirrored = 2 * facing[..., None] * normals - away
    fresnel = 0.05 + 0.95 * np.clip(1 - facing, 0, 1) ** 4
    # Behind the camera the room is darker than before it.
    gloss = np.minimum(fresnel, 0.75) * (0.64 + 0.36 * np.clip(mirrored[..., 1] + 0.6, 0, 1))
    up = normals[..., 2]
    light = 0.86 + np.where(up > 0, 0.17, 0.36) * up
    light += 0.05 * normals[..., 0] * np.sign(car.studio.brightness_slope)
    light *= 0.72 + 0.28 * np.clip(scene.points[..., 2] / 0.65, 0, 1)
    half = (_SKY - 1) / 2
    values = [(mirrored[..., 0] + 1) * half, (mirrored[..., 2] + 1) * half, gloss, light]
    return np.concatenate([scene.uv, np.stack(values, axis=-1)], axis=-1, dtype=np.float32)


def _surroundings(room: Studio) -> Floats:
    """Return the light that arrives at a body, [up, right] of the direction, flattened."""
    up = np.linspace(-1, 1, _SKY, dtype=np.float32)[:, None]
    right = np.linspace(-1, 1, _SKY, dtype=np.float32)[None, :]

    def step(value: Floats) -> Floats:
        value = np.clip(value, 0, 1)
        return value * value * (3 - 2 * value)

    floor = np.float32((room.floor_level / 255) ** 2)
    # Downwards, a flank mirrors first the pale floor, then the shadow beside the car.
    below = floor * (0.30 + 0.70 * step((up + 0.62) / 0.5))
    wall = 0.86 - 0.22 * np.abs(up - 0.2)
    stripes = np.sin(9.0 * right + np.float32(room.panel_phase))
    panels = step((up - 0.52) / 0.12) * (0.3 + 2.2 * step(2.2 * stripes + 0.6))
    light = below + (wall - below) * step((up + 0.03) / 0.09) + panels
    return np.ascontiguousarray(light, dtype=np.float32).reshape(-1)


def shade(
    car: Car, scene: Scene, numbers: FaceIds, behind: NDArray[np.uint8], box: Box
) -> NDArray[np.uint8]:
    """Return the crop with the car in it: uint8 [h, w, 3]; `behind` is the studio there."""
    coat = skin.Texture(markings.draw_atlas(car), skin.material_table(car))
    slopes = PlaneInterpolator(scene.pixels, _lighting(car, scene))
    flat = np.flatnonzero(numbers)
    shown = numbers.reshape(-1)[flat]
    u, v, *env, gloss, light = slopes.at(shown, *_coordinates(flat, box), range(6))
    *albedo, clear, metal, polish = coat.at(u, v)
    top = np.float32(_SKY - 1)
    right, up = (np.clip(one, 0, top).astype(np.int32) for one in env)
    mirrored = _surroundings(car.studio).take(up * _SKY + right)
    gloss *= polish
    gloss *= mirrored
    # Metallic paint mirrors with its own colour instead of scattering.
    light += metal * (mirrored * np.float32(1.1) - light)
    through = np.flatnonzero(clear > 0)
    inner = _inside(car, scene, slopes, coat, behind, flat[through], box)
    result = behind.reshape(-1, 3).copy()
    colours = np.empty((len(flat), 3), dtype=np.uint8)
    for channel, value in enumerate(albedo):
        value *= light
        value[through] += clear[through] * inner[channel]
        value += gloss
        np.sqrt(np.maximum(value, 0, out=value), out=value)
        value *= np.float32(255 / (1 - _BLACK))
        value -= np.float32(255 * _BLACK / (1 - _BLACK))
        colours[:, channel] = np.clip(value, 2, 252, out=value)
    result[flat] = colours
    return result.reshape(behind.shape)


def _coordinates(flat: NDArray[np.int64], box: Box) -> tuple[Floats, Floats]:
    wide = box[2] - box[0]
    row = flat // wide
    x = (flat - row * wide + box[0]).astype(np.float32)
    return x, (row + box[1]).astype(np.float32)


def _inside(
    car: Car,
    scene: Scene,
    slopes: PlaneInterpolator,
    coat: skin.Texture,
    behind: NDArray[np.uint8],
    flat: NDArray[np.int64],
    box: Box,
) -> list[Floats]:
    """Return what pixels `flat` show through the near windows: linear light, three times [N].

    Behind them are the seats, the inner face of the shell, and through its windows the studio.
    """
    shell, seats = scene.faces_of("shell"), scene.parts["inside"]
    hollow = raster.far_first(shell[~scene.front_facing[shell]], scene.depth)
    order = np.concatenate([hollow, scene.front_faces("inside")])
    shown = raster.rasterize(scene.pixels, order, box).reshape(-1)[flat]
    u, v, light = slopes.at(shown, *_coordinates(flat, box), (_U, _V, _LIGHT))
    *albedo, clear, _, _ = coat.at(u, v)
    seat = (shown > seats.start) & (shown <= seats.stop)
    clear = np.where(seat | (shown == 0), np.float32(0), clear)
    # Above the waist daylight falls on the lining, below it the doors are dark.
    high = v < (skin.ATLAS_TOP_M - 0.66 * car.height_m) * skin.PX_PER_M
    lining = np.where(high, np.float32(0.11), np.float32(0.035)) * (shown > 0)
    studio = behind.reshape(-1, 3)[flat]
    found = []
    for channel, own in enumerate(albedo):
        solid = np.where(seat, own * light * np.float32(0.8), lining)
        seen = (studio[:, channel] / np.float32(255)) ** 2
        # Window panes are slightly green.
        seen *= np.float32((0.97, 1.03, 1.0)[channel])
        found.append((solid + clear * (seen - solid)).astype(np.float32))
    return found
