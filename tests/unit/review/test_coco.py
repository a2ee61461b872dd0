"""Masks for annotation tools: what COCO's own reader makes of them is the mask."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from carvana_ray.review import coco

Mask = NDArray[np.bool_]


def masks() -> list[Mask]:
    """Random masks, and those that begin or end with a pixel, one-pixel images, full ones."""
    rng = np.random.default_rng(0)
    found = [rng.random((h, w)) < 0.4 for h, w in ((1, 1), (1, 9), (9, 1), (7, 5), (64, 64))]
    corners = np.zeros((6, 4), dtype=bool)
    corners[0, 0] = corners[-1, -1] = True
    return [*found, corners, np.ones((3, 8), dtype=bool), np.zeros((3, 8), dtype=bool)]


def decode(segmentation: dict[str, Any]) -> Mask:
    """Return the mask of run lengths: background and mask in turn, along columns."""
    height, width = segmentation["size"]
    values = np.arange(len(segmentation["counts"])) % 2 == 1
    return np.repeat(values, segmentation["counts"]).reshape(width, height).T


@pytest.mark.parametrize("mask", masks(), ids=lambda mask: str(mask.shape))
def test_run_lengths_give_the_mask(mask: Mask) -> None:
    counts = coco.count_runs(mask)
    assert all(count > 0 for count in counts[1:])
    assert sum(counts) == mask.size
    assert np.array_equal(decode({"size": mask.shape, "counts": counts}), mask)


@pytest.mark.parametrize("mask", masks(), ids=lambda mask: str(mask.shape))
def test_area_and_box_are_those_of_the_pixels(mask: Mask) -> None:
    image, annotation = coco.entry(7, "a.jpg", mask)
    size = {"height": mask.shape[0], "width": mask.shape[1]}
    assert image == {"id": 7, "file_name": "a.jpg", **size}
    if not mask.any():
        assert annotation is None
        return
    assert annotation
    assert annotation["image_id"] == 7
    assert annotation["iscrowd"] == 1
    assert annotation["area"] == mask.sum()
    left, top, width, height = annotation["bbox"]
    box = np.s_[top : top + height, left : left + width]
    inside = mask[box]
    assert inside.sum() == mask.sum()
    for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
        assert side.any()


@pytest.mark.parametrize("mask", masks(), ids=lambda mask: str(mask.shape))
def test_pycocotools_reads_the_same_mask(mask: Mask) -> None:
    tools = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    _, annotation = coco.entry(1, "a.jpg", mask)
    if annotation is None:
        return
    packed = tools.frPyObjects(annotation["segmentation"], *mask.shape)
    assert np.array_equal(tools.decode(packed).astype(bool), mask)
    assert tools.area(packed) == annotation["area"]
    assert tools.toBbox(packed).tolist() == annotation["bbox"]


def test_the_file_holds_all_images_and_the_annotations_of_their_masks() -> None:
    entries = [coco.entry(n, f'ü "{n}".jpg', mask) for n, mask in enumerate(masks(), start=1)]
    body = json.loads(b"".join(coco.to_json(entries)))
    assert body["images"] == [image for image, _ in entries]
    assert body["annotations"] == [annotation for _, annotation in entries if annotation]
    assert body["categories"] == [{"id": 1, "name": "car"}]
    assert {a["category_id"] for a in body["annotations"]} == {1}


def test_a_file_without_masks_is_valid() -> None:
    entries = [coco.entry(1, "a.jpg", np.zeros((2, 2), dtype=bool))]
    assert json.loads(b"".join(coco.to_json(entries)))["annotations"] == []
    assert json.loads(b"".join(coco.to_json([])))["images"] == []


def test_pycocotools_opens_the_file(tmp_path: Path) -> None:
    tools = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    entries = [coco.entry(n, f"{n}.jpg", mask) for n, mask in enumerate(masks(), start=1)]
    path = tmp_path / "coco.json"
    path.write_bytes(b"".join(coco.to_json(entries)))
    opened = tools.COCO(str(path))
    for number, mask in enumerate(masks(), start=1):
        (*found,) = opened.loadAnns(opened.getAnnIds(imgIds=[number]))
        assert len(found) == bool(mask.any())
        for annotation in found:
            assert np.array_equal(opened.annToMask(annotation).astype(bool), mask)
