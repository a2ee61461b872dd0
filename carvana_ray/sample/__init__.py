"""A studio that draws cars: the embedded sample, made of no one's photographs.

`draw_car` invents a car and its session, `photograph` takes one of its 16 pictures and the mask
that belongs to it. Everything comes from the generators passed in; nothing is kept between calls.
"""

from carvana_ray.sample.car import Car, draw_car, make_and_model
from carvana_ray.sample.encode import encode_jpeg, encode_mask
from carvana_ray.sample.render import photograph

__all__ = ["Car", "draw_car", "encode_jpeg", "encode_mask", "make_and_model", "photograph"]
