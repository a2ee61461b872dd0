"""The U-Net."""

from carvana_ray.unet.network import UNet

__all__ = ["UNet"]
