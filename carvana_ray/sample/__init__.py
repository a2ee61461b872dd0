"""A renderer of cars in a studio: the embedded sample data set, free of anyone's photographs.

`draw_car` makes up a car and its studio session. `photograph` renders one of its 16 images with the
exact mask. All randomness comes from the generators passed in; no state is kept between calls.
"""

from carvana_ray.sample.car import Car, draw_car, make_and_model
from carvana_ray.sample.encode import encode_jpeg, encode_mask
from carvana_ray.sample.render import photograph

__all__ = ["Car", "draw_car", "encode_jpeg", "encode_mask", "make_and_model", "photograph"]
