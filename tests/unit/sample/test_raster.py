"""Rasterization: which face a pixel shows, and interpolation of vertex values."""

import numpy as np

from carvana_ray.sample.raster import PlaneInterpolator, far_first, is_front_facing, rasterize

SQUARE = np.array([[10, 10], [30, 10], [30, 20], [10, 20]], dtype=np.float32)
BOX = (5, 5, 45, 35)


def test_the_last_painted_face_covers_the_others() -> None:
    pixels = np.stack([SQUARE, SQUARE + 5])
    for order in ([0, 1], [1, 0]):
        face_ids = rasterize(pixels, np.array(order), BOX)
        assert face_ids.shape == (30, 40)
        assert face_ids[18 - 5, 20 - 5] == order[-1] + 1
        assert face_ids[12 - 5, 12 - 5] == 1
        assert face_ids[0, 0] == 0


def test_far_faces_come_first() -> None:
    depth = np.array([[1, 1, 1, 1], [3, 3, 3, 3], [2, 2, 2, 2]], dtype=np.float32)
    assert far_first(np.array([0, 1, 2]), depth).tolist() == [1, 2, 0]
    assert far_first(np.array([2, 0]), depth).tolist() == [2, 0]


def test_a_face_is_front_facing_if_its_normals_point_to_the_camera() -> None:
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]], dtype=np.float32)
    points = np.stack([square, square[::-1], square])
    toward, away = np.array([0, -1, 0]), np.array([0, 1, 0])
    normals = np.stack([np.tile(n, (4, 1)) for n in (toward, toward, away)]).astype(np.float32)
    camera = np.array([0.5, -5.0, 0.5], dtype=np.float32)
    assert is_front_facing(points, normals, camera).tolist() == [True, True, False]


def test_linear_values_are_interpolated() -> None:
    """The half pixel of regularization flattens slopes by less than 1 % on this face."""
    pixels = SQUARE[None]
    values = np.stack([SQUARE[:, 0], 2 * SQUARE[:, 1] + 7], axis=-1)[None]
    x, y = np.array([12, 20, 28], dtype=np.float32), np.array([11, 15, 19], dtype=np.float32)
    faces = np.array([1, 1, 1], dtype=np.int32)
    first, second = PlaneInterpolator(pixels, values).at(faces, x, y, (0, 1))
    assert np.allclose(first, x, atol=0.1)
    assert np.allclose(second, 2 * y + 7, atol=0.1)


def test_pixels_without_a_face_have_the_value_0() -> None:
    values = np.ones((1, 4, 1), dtype=np.float32)
    planes = PlaneInterpolator(SQUARE[None], values)
    (value,) = planes.at(np.array([0]), np.array([20.0]), np.array([15.0]), (0,))
    assert value.tolist() == [0.0]
