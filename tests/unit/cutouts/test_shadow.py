"""A shadow lies where a box on four tires covers the floor, in all views of a turntable."""

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageDraw

from carvana_ray.cutouts.shadow import cast_shadow

HEIGHT, WIDTH = 320, 480
KINDS = ["contact", "soft"]
LENGTH, BREADTH, SILL, ROOF = 4.4, 1.8, 0.22, 1.45  # meters
TIRE, TREAD, WHEELS = 0.33, 0.22, (-1.35, 1.35)


class View(NamedTuple):
    """What a camera sees of a box on four tires.

    Attributes:
        alpha: of the car, uint8 [H, W].
        covered: floor below the car, also where the car hides it, bool [H, W].
        near: floor less than half a meter from there.
        soles: image points (x, y) at which the tires touch the floor.
    """

    alpha: np.ndarray
    covered: np.ndarray
    near: np.ndarray
    soles: np.ndarray


def project(points: np.ndarray, turn: float) -> np.ndarray:
    """Return image points (x, y) of points [n, 3] of a turned car; 1.5 m high, 8 m away."""
    cos, sin = np.cos(turn), np.sin(turn)
    x, y = cos * points[:, 0] - sin * points[:, 1], sin * points[:, 0] + cos * points[:, 1]
    depth, focal = 8 + y, 700
    return np.stack([240 + focal * x / depth, 125 + focal * (1.5 - points[:, 2]) / depth], axis=1)


def rectangle(margin: float, z: float) -> np.ndarray:
    x, y = LENGTH / 2 + margin, BREADTH / 2 + margin
    return np.array([(x, y, z), (-x, y, z), (-x, -y, z), (x, -y, z)])


def rim(x: float, y: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    zeros = np.zeros_like(angle)
    return np.stack([x + TIRE * np.sin(angle), zeros + y, TIRE * (1 - np.cos(angle))], axis=1)


def prism(pen: ImageDraw.ImageDraw, one: np.ndarray, other: np.ndarray) -> None:
    """Draw what two polygons and the faces between them cover."""
    faces = [one, other]
    for k in range(len(one)):
        faces.append(np.array([one[k - 1], one[k], other[k], other[k - 1]]))
    for face in faces:
        pen.polygon([tuple(point) for point in face], fill=255)


@cache
def view(number: float) -> View:
    turn = 2 * np.pi * number / 16  # 0: from the side, 4: from an end
    sheets = [Image.new("L", (WIDTH, HEIGHT)) for _ in range(3)]
    pen = ImageDraw.Draw(sheets[0])
    prism(pen, project(rectangle(0, SILL), turn), project(rectangle(-0.1, ROOF), turn))
    soles = []
    for x in WHEELS:
        for side in (-1, 1):
            rims = [rim(x, side * (BREADTH / 2 - inset)) for inset in (0.02, 0.02 + TREAD)]
            prism(pen, *(project(one, turn) for one in rims))
            soles.append((rims[0][0] + rims[1][0]) / 2)
    for sheet, margin in zip(sheets[1:], (0.0, 0.5), strict=True):
        corners = project(rectangle(margin, 0), turn)
        ImageDraw.Draw(sheet).polygon([tuple(point) for point in corners], fill=255)
    alpha, covered, near = (np.asarray(sheet) for sheet in sheets)
    return View(alpha, covered > 0, near > 0, project(np.array(soles), turn))


def test_a_shadow_lies_on_the_floor_that_the_car_covers_in_all_views() -> None:
    for number in np.arange(0, 16, 0.5):
        alpha, covered, near, _ = view(float(number))
        shadow, free = cast_shadow(alpha, "contact"), alpha == 0
        seen, far = shadow[free & covered], shadow[free & ~near]
        assert seen.mean() > 85, number
        assert (seen > 0).mean() > 0.98, number
        assert (far > 0).mean() < 0.05, number
        assert far.mean() < 1, number
        assert shadow[free & near & ~covered].mean() < seen.mean() / 2, number


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_darker_than_the_floor_at_a_near_tire(kind: str) -> None:
    for number in range(16):
        alpha, _, _, soles = view(number)
        shadow = cast_shadow(alpha, kind) * (alpha == 0)
        for y, x in np.argwhere(shadow == shadow.max()):
            assert np.hypot(*(soles - (x, y)).T).min() < 10, number  # a tire is 56 pixels long
        assert shadow.max() > 150, number


@pytest.mark.parametrize("kind", KINDS)
def test_no_shadow_lies_above_the_floor_or_far_from_the_car(kind: str) -> None:
    reach = {"contact": 0.4, "soft": 1.3}[kind]  # of the car's height
    for number in range(16):
        alpha, covered, _, _ = view(number)
        rows, columns = (np.flatnonzero(alpha.any(axis=axis)) for axis in (1, 0))
        distance = reach * len(rows)
        shadow = cast_shadow(alpha, kind)
        lowest = np.flatnonzero(shadow.any(axis=1))
        sides = np.flatnonzero(shadow.any(axis=0))
        assert lowest[0] > np.flatnonzero(covered.any(axis=1))[0] - 0.5 * distance, number
        assert lowest[-1] < rows[-1] + 0.5 * distance, number
        assert sides[0] > columns[0] - distance, number
        assert sides[-1] < columns[-1] + distance, number


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [0, 3, 6])
def test_a_mirrored_car_has_the_mirrored_shadow(kind: str, number: int) -> None:
    alpha = view(number).alpha
    shadow = cast_shadow(alpha, kind).astype(int)
    mirrored = cast_shadow(np.ascontiguousarray(alpha[:, ::-1]), kind)[:, ::-1]
    assert np.abs(shadow - mirrored).max() <= 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [0, 3, 4])
def test_a_larger_car_has_the_larger_shadow(kind: str, number: int) -> None:
    alpha = view(number).alpha
    shadow = cast_shadow(alpha, kind).astype(int)
    tripled = cast_shadow(np.kron(alpha, np.ones((3, 3), np.uint8)), kind)
    difference = np.abs(shadow - tripled[1::3, 1::3])
    assert difference.max() <= 16
    assert difference.mean() < 0.2


@pytest.mark.parametrize("free", [0, 1, 30])
def test_the_edge_of_the_image_only_cuts_the_shadow(free: int) -> None:
    """Images that end at the car, or `free` pixels from it, show parts of one shadow."""
    large = np.pad(view(5).alpha, 300)
    rows, columns = (np.flatnonzero(large.any(axis=axis)) for axis in (1, 0))
    part = np.s_[rows[0] - free : rows[-1] + 1 + free, columns[0] - free : columns[-1] + 1 + free]
    cut = cast_shadow(np.ascontiguousarray(large[part]), "soft").astype(int)
    assert np.abs(cut - cast_shadow(large, "soft")[part]).max() <= 1
    assert cut.any()


def test_stray_pieces_holes_and_an_antenna_change_little() -> None:
    alpha = view(1).alpha
    shadow = cast_shadow(alpha, "contact").astype(int)
    spoilt = alpha.copy()
    spoilt[5:15, 5:25] = 255  # a letter on the wall
    spoilt[300:310, 430:460] = 255  # a spot on the floor
    spoilt[150:170, 200:260] = 0  # a window
    assert np.array_equal(cast_shadow(spoilt, "contact"), shadow)
    spoilt[40:100, 300:302] = 255
    assert np.abs(cast_shadow(spoilt, "contact") - shadow).max() < 12


def side_view(rise: int) -> np.ndarray:
    """Return alpha of a car of 100 x 300 pixels whose ends rise steeply by `rise` pixels."""
    sheet = Image.new("L", (400, 200))
    pen, run = ImageDraw.Draw(sheet), rise // 2
    ends = [(50, 135 - rise), (50, 50), (349, 50), (349, 135 - rise)]
    pen.polygon([*ends, (349 - run, 135), (50 + run, 135)], fill=255)
    for x in (105, 295):
        pen.ellipse((x - 20, 110, x + 20, 150), fill=255)
    return np.asarray(sheet)


def test_a_shadow_does_not_follow_the_outline_up_the_ends_of_a_car() -> None:
    upright, raised = (cast_shadow(side_view(rise), "contact") for rise in (0, 24))
    assert upright.any()
    assert np.flatnonzero(raised.any(axis=1))[0] >= np.flatnonzero(upright.any(axis=1))[0]
    assert raised[:, :50].sum() < upright[:, :50].sum() / 2


def test_floor_seen_through_a_hole_above_the_sill_is_in_the_shade() -> None:
    alpha = side_view(0).copy()
    alpha[126:131, 150:250] = 0  # between sill and step
    shadow = cast_shadow(alpha, "contact")
    assert shadow[126:131, 150:250].min() > 100


def test_a_shadow_is_that_of_the_mask() -> None:
    alpha = view(2).alpha
    soft = np.where(alpha, np.uint8(128), np.uint8(127))
    assert np.array_equal(cast_shadow(soft, "soft"), cast_shadow(alpha, "soft"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_mask_has_a_shadow(kind: str) -> None:
    shapes = [(1, 1), (1, 300), (300, 1), (2, 2), (40, 60), (3, 900)]
    noise = np.random.default_rng(0)
    for shape in shapes:
        for alpha in (np.zeros(shape), np.full(shape, 255), noise.integers(0, 256, shape)):
            shadow = cast_shadow(alpha.astype(np.uint8), kind)
            assert shadow.shape == shape
            assert shadow.dtype == np.uint8
            assert alpha.max() >= 128 or not shadow.any()
    point = np.zeros((50, 70), np.uint8)
    point[20, 30] = 255
    assert np.count_nonzero(cast_shadow(point, kind)) < 16


def test_a_car_cut_by_the_lower_edge_has_no_shadow_beside_it() -> None:
    alpha = view(0).alpha[:260]
    shadow = cast_shadow(alpha, "contact")
    assert alpha[-1].any()
    assert not shadow[:150].any()


def test_none_casts_no_shadow() -> None:
    assert not cast_shadow(view(0).alpha, "none").any()
