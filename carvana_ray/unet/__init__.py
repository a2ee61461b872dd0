"""The network, its loss and its metrics."""

from carvana_ray.unet.network import UNet

__all__ = ["UNet"]
