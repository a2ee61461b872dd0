"""How networks are made and trained: the recipes that one asks for by name.

What each part of them brings is in docs/recipes.md. Standard library alone.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is made and trained.

    Attributes:
        norm: normalization layers, ``batch`` or ``none``.
        init: first weights, ``torch`` (its layers' own) or ``glorot``.
        schedule: learning rate over the run, ``one-cycle`` or ``flat``.
        learning_rate: of Adam; the highest of the cycle.
        flip: mirror every other training picture.
        clip: the longest gradient of all weights together; longer ones are cut. None: any.
        fold: pixels a side of the network's picture that share a place, see `unet.UNet`.
        jitter: move and size training pictures at random, see `augment.draw`.
        mirror: to predict, ask the network of the mirrored picture, too, and take the mean.
        downscale, epochs, batch_size: what the flags of these names are where they are not given.
    """

    norm: str = "batch"
    init: str = "torch"
    schedule: str = "one-cycle"
    learning_rate: float = 2e-3
    flip: bool = True
    clip: float | None = 1.0
    fold: int = 1
    jitter: bool = False
    mirror: bool = False
    downscale: int = 4
    epochs: int = 5
    batch_size: int = 8


RECIPES = {
    "default": Recipe(),
    "2017": Recipe(
        norm="none",
        init="glorot",
        schedule="flat",
        learning_rate=1e-3,
        flip=False,
        clip=None,
        batch_size=16,
    ),
    "best": Recipe(fold=4, jitter=True, mirror=True, downscale=1, epochs=60),
}
RECIPE_DEFAULTED = ("downscale", "epochs", "batch_size")

# What a network is made of where neither a flag nor a model to start from says it.
NEW_MODEL_DEFAULTS = {"recipe": "default", "base": 32}
