"""Named recipes: how a network is built and trained. docs/recipes.md gives the effect of each part.

Standard library alone.
"""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is built and trained.

    Attributes:
        norm: normalization layers, ``batch`` or ``none``.
        init: initial weights, ``torch`` (PyTorch's defaults) or ``glorot``.
        schedule: learning rate schedule, ``one-cycle`` or ``flat``.
        learning_rate: learning rate of Adam; with ``one-cycle`` the peak.
        muon_ratio: learning rate of the convolutions, which then take the steps of Muon, as a
            multiple of Adam's, see `training.muon`; None: all weights take those of Adam.
        flip: mirror every other training image.
        grad_clip_norm: upper limit of the gradient's L2 norm over all weights; None: no clipping.
        edge_weight: how many times the cross entropy of a pixel near the mask's boundary counts in
            training, see `unet.loss.edge_weights`; 1: as often as any other.
        unshuffle: pixels per side of the block that becomes the channels of one input pixel, see
            `unet.UNet`.
        affine_augment: shift and scale training images at random, see `images.augment`.
        max_shift, max_log_scale: its limits: fraction of height and width, natural logarithm of
            the size. Cars hardly vary in position and size, because camera and turntable do not
            move; five times as much needs more than 20 epochs.
        tta_flip: predict each image and its mirror image, and average the probabilities.
        downscale, epochs, batch_size: defaults of these flags.
    """

    norm: str = "batch"
    init: str = "torch"
    schedule: str = "one-cycle"
    learning_rate: float = 2e-3
    muon_ratio: float | None = None
    flip: bool = True
    grad_clip_norm: float | None = 1.0
    edge_weight: float = 1.0
    unshuffle: int = 1
    affine_augment: bool = False
    max_shift: float = 0.03
    max_log_scale: float = 0.08
    tta_flip: bool = False
    downscale: int = 4
    epochs: int = 5
    batch_size: int = 8

    def hash_fields(self) -> dict[str, Any]:
        """Return the fields for the hash that is a run's id, under their original names.

        Other names or another order change the ids, so that interrupted runs start anew. A field
        that is newer than the first ids counts when its value is no longer that of `_ADDED`.
        """
        fields = {_HASH_KEYS.get(name, name): value for name, value in asdict(self).items()}
        return {k: value for k, value in fields.items() if k not in _ADDED or value != _ADDED[k]}


_HASH_KEYS = {
    "grad_clip_norm": "clip",
    "unshuffle": "fold",
    "affine_augment": "jitter",
    "tta_flip": "mirror",
}
_ADDED = {  # the values before these were fields
    "muon_ratio": None,
    "edge_weight": 1.0,
    "max_shift": 0.03,
    "max_log_scale": 0.08,
}
RECIPES = {
    "default": Recipe(muon_ratio=25.0, edge_weight=5.0),
    "2017": Recipe(
        norm="none",
        init="glorot",
        schedule="flat",
        learning_rate=1e-3,
        flip=False,
        grad_clip_norm=None,
        batch_size=16,
    ),
    "best": Recipe(
        muon_ratio=25.0,
        edge_weight=5.0,
        unshuffle=4,
        affine_augment=True,
        tta_flip=True,
        downscale=1,
        epochs=60,
    ),
    # For drawn cars in many scenes: a wide view of the image, cars of any size and place.
    "starter": Recipe(
        unshuffle=2,
        affine_augment=True,
        max_shift=0.12,
        max_log_scale=0.4,
        tta_flip=True,
        epochs=30,
        batch_size=32,
    ),
}
RECIPE_DEFAULTED = ("downscale", "epochs", "batch_size")  # flags whose default the recipe sets
