"""Files of images and masks: of the formats of the real data set."""

import io

import numpy as np
from PIL import Image
from support.drawn_car import Pair

from carvana_ray import sample


def test_a_jpeg_is_like_the_real_ones(pairs: dict[int, Pair]) -> None:
    for image, _ in pairs.values():
        data = sample.encode_jpeg(image)
        assert 60_000 < len(data) < 160_000
        with Image.open(io.BytesIO(data)) as file:
            assert (file.format, file.mode) == ("JPEG", "RGB")
            assert file.size == (1918, 1280)
            assert [part[1:3] for part in file.layer] == [(2, 2), (1, 1), (1, 1)]
            decoded = np.asarray(file).astype(int)
        assert np.abs(decoded - image).mean() < 4


def test_a_mask_survives_a_round_trip_through_its_gif(pairs: dict[int, Pair]) -> None:
    for mask in (pairs[1][1], pairs[5][1], np.ones((7, 5), dtype=np.bool_)):
        data = sample.encode_mask(mask)
        with Image.open(io.BytesIO(data)) as file:
            assert (file.format, file.mode, file.n_frames) == ("GIF", "P", 1)
            assert file.getpalette()[:6] == [0, 0, 0, 255, 255, 255]
            assert (np.asarray(file) == mask).all()
            gray = np.asarray(file.convert("L"))
        assert set(np.unique(gray)) <= {0, 255}
        assert ((gray == 255) == mask).all()
