"""Light on a car: the color of each of its pixels, and the view through its windows.

Brightness is computed as linear light, where 1 is a white wall, and stored as its square root.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carvana_ray.sample import lights
from carvana_ray.sample.camera import camera_position
from carvana_ray.sample.car import Car, Studio
from carvana_ray.sample.materials import ATLAS_TOP_M, PX_PER_M, Texture, material_table
from carvana_ray.sample.raster import Box, FaceIds, Floats, PlaneInterpolator, far_first, rasterize
from carvana_ray.sample.scene import Scene
from carvana_ray.sample.texture import draw_atlas

Pixels = NDArray[np.int64]  # indices of pixels in the flattened crop, [N]

_ENVIRONMENT_SIZE = 128  # rows and columns of the environment map
_GLASS_TINT = (0.97, 1.03, 1.0)  # window panes are slightly green
_U, _V, _LIGHT = 0, 1, 5  # channels of `_vertex_values`


@dataclass(frozen=True)
class _Crop:
    """The part of the image that holds the car.

    Attributes:
        box: its place in the image.
        background: the empty studio, uint8 [h, w, 3].
    """

    box: Box
    background: NDArray[np.uint8]

    def coordinates(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """Return (x, y) in the image of some pixels, each float32 [N]."""
        left, top, right, _ = self.box
        row = pixels // (right - left)
        x = (pixels - row * (right - left) + left).astype(np.float32)
        return x, (row + top).astype(np.float32)


def shade(
    car: Car, scene: Scene, face_ids: FaceIds, background: NDArray[np.uint8], box: Box
) -> NDArray[np.uint8]:
    """Return the crop with the car in front of the studio, uint8 [h, w, 3].

    Args:
        car: the car.
        scene: its faces.
        face_ids: face that each pixel shows, [h, w]; see `rasterize`.
        background: the empty studio, uint8 [h, w, 3].
        box: place of the crop in the image.
    """
    crop = _Crop(box, background)
    # The blur is as wide as a pixel at a quarter of the size: varied cars are as sharp inside as at
    # their edges.
    is_sharp = car.variety is not None and car.variety.paints
    texture = Texture(draw_atlas(car), material_table(car), blurred=not is_sharp)
    planes = PlaneInterpolator(scene.pixels, _vertex_values(car, scene))
    pixels = np.flatnonzero(face_ids)
    faces = face_ids.reshape(-1)[pixels]
    u, v, *direction, specular, light = planes.at(faces, *crop.coordinates(pixels), range(6))
    *albedo, transmission, metalness, gloss = texture.at(u, v)
    limit = np.float32(_ENVIRONMENT_SIZE - 1)
    right, up = (np.clip(part, 0, limit).astype(np.int32) for part in direction)
    black = car.studio.light.black
    reflection = _environment_map(car.studio).take(up * _ENVIRONMENT_SIZE + right)
    specular *= gloss
    specular *= reflection
    # Metallic paint reflects in its own color instead of scattering light.
    light += metalness * (reflection * np.float32(1.1) - light)
    glass = np.flatnonzero(transmission > 0)
    inner = _through_windows(car, scene, planes, texture, crop, pixels[glass])
    result = background.reshape(-1, 3).copy()
    colors = np.empty((len(pixels), 3), dtype=np.uint8)
    for channel, value in enumerate(albedo):
        value *= light
        value[glass] += transmission[glass] * inner[channel]
        value += specular
        np.sqrt(np.maximum(value, 0, out=value), out=value)
        value *= np.float32(255 / (1 - black))
        value -= np.float32(255 * black / (1 - black))
        colors[:, channel] = np.clip(value, 2, 252, out=value)
    result[pixels] = colors
    return result.reshape(background.shape)


def _vertex_values(car: Car, scene: Scene) -> Floats:
    """Return the values to interpolate, float32 [F, 4, 6].

    Texture coordinates u and v, coordinates of the reflection in the environment map (right and
    up), specular reflectance, diffuse light.
    """
    normals, lamps = scene.normals, car.studio.light
    to_camera = camera_position(car.studio) - scene.points
    to_camera /= np.linalg.norm(to_camera, axis=-1, keepdims=True)
    cosine = np.einsum("fck,fck->fc", normals, to_camera)
    reflected = 2 * cosine[..., None] * normals - to_camera
    # Schlick's approximation of Fresnel reflectance (1994), with power 4 instead of 5.
    fresnel = 0.05 + 0.95 * np.clip(1 - cosine, 0, 1) ** 4
    # The studio is darker behind the camera than in front of it.
    toward_wall = np.clip(reflected[..., 1] + 0.6, 0, 1)
    specular = np.minimum(fresnel, 0.75) * (lamps.front + lamps.behind * toward_wall)
    up = normals[..., 2]
    light = lamps.ambient + np.where(up > 0, lamps.up, lamps.down) * up
    light += 0.05 * normals[..., 0] * np.sign(car.studio.brightness_slope)
    if any(lamps.key):
        light += np.maximum(normals @ np.array(lamps.key, dtype=np.float32), 0)
    if lamps.lamps_seed is not None:
        light *= lights.uneven(lamps, scene.points, normals)
    light *= lamps.foot + (1 - lamps.foot) * np.clip(scene.points[..., 2] / 0.65, 0, 1)
    half = (_ENVIRONMENT_SIZE - 1) / 2
    direction = [(reflected[..., 0] + 1) * half, (reflected[..., 2] + 1) * half]
    values = np.stack([*direction, specular, light], axis=-1)
    return np.concatenate([scene.uv, values], axis=-1, dtype=np.float32)


def _environment_map(studio: Studio) -> Floats:
    """Return the light from each direction, float32, [up, right] flattened."""
    if studio.light.lamps_seed is not None:
        return lights.environment(studio, _ENVIRONMENT_SIZE).reshape(-1)
    up = np.linspace(-1, 1, _ENVIRONMENT_SIZE, dtype=np.float32)[:, None]
    right = np.linspace(-1, 1, _ENVIRONMENT_SIZE, dtype=np.float32)[None, :]

    def smoothstep(value: Floats) -> Floats:
        value = np.clip(value, 0, 1)
        return value * value * (3 - 2 * value)

    floor_level = np.float32((studio.floor_level / 255) ** 2)
    # Steep reflections in a car's side show its shadow, flat ones the bright floor.
    floor = floor_level * (0.30 + 0.70 * smoothstep((up + 0.62) / 0.5))
    wall = 0.86 - 0.22 * np.abs(up - 0.2)
    stripes = np.sin(9.0 * right + np.float32(studio.panel_phase))
    panels = smoothstep((up - 0.52) / 0.12) * (0.3 + 2.2 * smoothstep(2.2 * stripes + 0.6))
    light = floor + (wall - floor) * smoothstep((up + 0.03) / 0.09) + panels
    return np.ascontiguousarray(light, dtype=np.float32).reshape(-1)


def _through_windows(
    car: Car,
    scene: Scene,
    planes: PlaneInterpolator,
    texture: Texture,
    crop: _Crop,
    pixels: Pixels,
) -> list[Floats]:
    """Return the light that window pixels let through: red, green and blue, each float32 [N].

    It comes from the seats, from the inside of the shell, and through the windows on the far side
    from the studio.
    """
    shell, interior = scene.faces_of("shell"), scene.parts["interior"]
    far_shell = far_first(shell[~scene.front_facing[shell]], scene.depth)
    order = np.concatenate([far_shell, scene.front_faces("interior")])
    faces = rasterize(scene.pixels, order, crop.box).reshape(-1)[pixels]
    u, v, light = planes.at(faces, *crop.coordinates(pixels), (_U, _V, _LIGHT))
    *albedo, transmission, _, _ = texture.at(u, v)
    is_interior = (faces > interior.start) & (faces <= interior.stop)
    transmission = np.where(is_interior | (faces == 0), np.float32(0), transmission)
    # Daylight reaches the lining above the belt line; the doors below it are dark.
    above_belt = v < (ATLAS_TOP_M - 0.66 * car.height_m) * PX_PER_M
    lining = np.where(above_belt, np.float32(0.11), np.float32(0.035)) * (faces > 0)
    studio = crop.background.reshape(-1, 3)[pixels]
    channels = []
    for channel, reflectance in enumerate(albedo):
        solid = np.where(is_interior, reflectance * light * np.float32(0.8), lining)
        seen = (studio[:, channel] / np.float32(255)) ** 2
        seen *= np.float32(_GLASS_TINT[channel])
        channels.append((solid + transmission * (seen - solid)).astype(np.float32))
    return channels
