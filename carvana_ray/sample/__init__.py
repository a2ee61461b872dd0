"""A renderer of cars in a studio: the embedded sample data set, free of anyone's photographs.

`draw_car` makes up a car and its studio session. `photograph` renders one of its 16 images with the
exact mask. All randomness comes from the generators passed in; no state is kept between calls.
"""

from carvana_ray.sample.car import Car, make_and_model
from carvana_ray.sample.cars import Scenes, draw_car
from carvana_ray.sample.encode import JPEG_QUALITY, encode_jpeg, encode_mask
from carvana_ray.sample.render import photograph
from carvana_ray.sample.variety import Variety

__all__ = [
    "JPEG_QUALITY",
    "Car",
    "Scenes",
    "Variety",
    "draw_car",
    "encode_jpeg",
    "encode_mask",
    "make_and_model",
    "photograph",
]
