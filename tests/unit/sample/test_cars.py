"""Varied scenes: each kind changes the image, and all switched off is the studio."""

import functools
import hashlib
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from support.drawn_car import SEED, Mask, Pair, rng

from carvana_ray import sample
from carvana_ray.sample.cars import pose
from carvana_ray.sample.meshes import build_meshes
from carvana_ray.sample.scene import build_scene

KINDS = [field.name for field in fields(sample.Variety)]
OFF = dict.fromkeys(KINDS, False)
VIEW = 3
CROWDED = 15  # seed of a scene with clutter and a picture


def digest(pair: Pair) -> str:
    return hashlib.sha256(pair[0].tobytes() + pair[1].tobytes()).hexdigest()


@functools.cache
def varied(variety: sample.Variety, seed: int = SEED) -> Pair:
    car = sample.draw_car(rng(seed), scenes="varied", variety=variety)
    return sample.photograph(car, VIEW, rng(seed, VIEW))


@pytest.fixture(scope="module")
def studio() -> Pair:
    return sample.photograph(sample.draw_car(rng(SEED)), VIEW, rng(SEED, VIEW))


def test_without_any_variety_an_image_is_that_of_the_studio(studio: Pair) -> None:
    assert digest(varied(sample.Variety(**OFF))) == digest(studio)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_changes_an_image_of_a_scene_that_is_not_calm(kind: str) -> None:
    only = sample.Variety(**OFF | {kind: True})
    assert digest(varied(only, CROWDED)) != digest(varied(sample.Variety(**OFF), CROWDED))


@pytest.mark.parametrize("kind", ["walls", "lettering", "floors", "clutter", "color", "noise"])
def test_kinds_of_the_background_leave_the_mask(kind: str) -> None:
    masks = [varied(sample.Variety(**OFF | more), CROWDED)[1] for more in ({}, {kind: True})]
    assert (masks[0] == masks[1]).all()


def test_the_generators_determine_the_image() -> None:
    once = varied(sample.Variety())
    varied.cache_clear()
    assert digest(varied(sample.Variety())) == digest(once)
    assert digest(varied(sample.Variety())) != digest(varied(sample.Variety(), SEED + 1))


def silhouette(car: sample.Car, view: int, seed: int) -> tuple[Mask, Mask]:
    """Return the pixels that all faces of a posed car cover for sure, and those that they may.

    It needs no painting order: a silhouette is the union of all faces.
    """
    posed, _ = pose(car, view, rng(seed, view))
    scene = build_scene(posed, build_meshes(posed), view)
    image = Image.new("L", (1918, 1280), 0)
    pen = ImageDraw.Draw(image)
    for part, faces in scene.parts.items():
        if part != "interior":
            for polygon in scene.pixels[list(faces)].reshape(-1, 8).tolist():
                pen.polygon(polygon, fill=255)
    closed = image.filter(ImageFilter.MaxFilter(3)).filter(ImageFilter.MinFilter(3))
    inner = np.asarray(closed.filter(ImageFilter.MinFilter(5))) > 0
    return inner, np.asarray(image.filter(ImageFilter.MaxFilter(5))) > 0


@pytest.mark.parametrize("seed", range(4))
def test_the_mask_is_the_silhouette_of_the_car(seed: int) -> None:
    view = 1 + 3 * seed
    car = sample.draw_car(rng(seed), scenes="varied")
    _, mask = sample.photograph(car, view, rng(seed, view))
    inner, outer = silhouette(car, view, seed)
    # The far edges of wheel arches are seen from behind only.
    assert (inner & ~mask).sum() < 0.001 * mask.sum()
    thin = mask & ~outer  # only the mast of an antenna
    assert thin.sum() < 0.01 * mask.sum()
    assert thin.any(axis=0).sum() < 200
    assert 0.01 < mask.mean() < 0.85


def test_some_scenes_are_calm_and_the_car_is_mostly_in_the_image() -> None:
    cars = [sample.draw_car(rng(seed), scenes="varied") for seed in range(40)]
    posed = [pose(car, 1 + seed % 16, rng(seed, 1))[0] for seed, car in enumerate(cars)]
    assert 8 < sum(car.studio.calm for car in posed) < 32
    for seed, car in enumerate(posed):
        points = build_scene(car, build_meshes(car), 1 + seed % 16).pixels.reshape(-1, 2)
        inside = (points >= 0).all(axis=1) & (points < (1918, 1280)).all(axis=1)
        assert inside.mean() > 0.85, f"car {seed}"


def test_paints_are_pale_most_often_and_cover_all_shades() -> None:
    shades = np.array(
        [np.sqrt(max(sample.draw_car(rng(seed), scenes="varied").paint)) for seed in range(300)]
    )
    counts = [((shades >= low) & (shades < low + 0.25)).mean() for low in (0, 0.25, 0.5, 0.75)]
    assert min(counts) > 0.08
    assert counts[3] == max(counts)
