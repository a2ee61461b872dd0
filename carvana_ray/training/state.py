"""What learns: a network, its loss and scores in one piece, its optimizer, and the state of all.

torch alone, no Ray, no files. A network with normalization is trained in float16, with the loss
scaled: one H200, eager, batch of 16: 918 pictures/s, and 681 in bf16, for which cuDNN has no such
kernels (2026-11-22).
"""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from carvana_ray import images
from carvana_ray.config.recipes import Recipe
from carvana_ray.images.warp import apply_affine
from carvana_ray.unet import loss, metrics
from carvana_ray.unet.network import UNet, UNetConfig, compute_dtype, glorot_init_

Batch = dict[str, Tensor]
Row = dict[str, float]


def unet_config(base: int, recipe: Recipe) -> UNetConfig:
    """Return what the network of a recipe is made of."""
    return UNetConfig(base=base, norm=recipe.norm, fold=recipe.unshuffle)


def build_model(base: int, recipe: Recipe, seed: int) -> UNet:
    """Return a new network of a recipe, its weights drawn by `seed`."""
    torch.manual_seed(seed)
    model = unet_config(base, recipe).build()
    if recipe.init == "glorot":
        glorot_init_(model)
    # Channels last: what tensor cores want, and 1.4 to 1.7 times as fast as the default on a CPU.
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class ModelWithLoss(nn.Module):
    """A network, and the sums that loss and scores are made of: one piece to compile and to wrap.

    Its answer to ``image`` float [b, h, w], standardized, ``share`` [b, h, w], 0..255, and
    ``weight`` float [b] is `loss.batch_sums` [4] and `metrics.picture_sums` [3].
    """

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, share: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        picture = image.unsqueeze(1).contiguous(memory_format=torch.channels_last)
        target = share.unsqueeze(1).float() / 255
        dtype = compute_dtype(self.network, image.device)
        with torch.autocast(image.device.type, dtype, enabled=dtype != torch.float32):
            logits = self.network(picture)
        counted = metrics.metric_sums(logits.detach(), target, weight)
        return loss.loss_sums(logits, target, weight), counted


@dataclass
class TrainState:
    """All that training goes on from; `wrapped` is `scored` as it is called, bare or in DDP."""

    scored: ModelWithLoss
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    clip: float | None = None
    epoch: int = 0
    history: list[Row] = field(default_factory=list)

    @property
    def model(self) -> UNet:
        """The network."""
        return self.scored.network

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain Python alone, so that it loads with ``weights_only=True``."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "epoch": self.epoch,
            "history": self.history,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        if saved["scaler"]:  # empty where it was trained in float32
            self.scaler.load_state_dict(saved["scaler"])
        torch.set_rng_state(saved["random"])
        self.epoch, self.history = saved["epoch"], list(saved["history"])

    def finite(self) -> bool:
        """Return whether all weights are finite numbers."""
        return all(bool(torch.isfinite(one).all()) for one in self.model.state_dict().values())


def init_state(
    scored: ModelWithLoss, wrapped: nn.Module, recipe: Recipe, rate: float, total_steps: int
) -> TrainState:
    """Return the state before the first step: Adam, with the recipe's rate over `total_steps`."""
    device = next(scored.parameters()).device
    optimizer = torch.optim.Adam(scored.parameters(), lr=rate, fused=device.type == "cuda")
    schedule: torch.optim.lr_scheduler.LRScheduler
    if recipe.schedule == "one-cycle":
        # Smith and Topin 2017, https://arxiv.org/abs/1708.07120; torch's defaults: 30 % of the
        # steps up from rate / 25, then down to rate / 250,000.
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=rate, total_steps=total_steps
        )
    else:
        schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    # Gradients of float16 would vanish below 6e-8; the scale follows them up and down.
    half = compute_dtype(scored.network, device) == torch.float16
    scaler = torch.amp.GradScaler(device.type, enabled=half)
    return TrainState(
        scored=scored,
        wrapped=wrapped,
        optimizer=optimizer,
        schedule=schedule,
        scaler=scaler,
        clip=recipe.grad_clip_norm,
    )


def prepare_batch(batch: Batch, training: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the image, share and weight of a batch as `Scored` takes them.

    Args:
        batch: ``image`` float32 [b, h, w] that is standardized, or uint8 gray levels with ``warp``
            float32 [b, 2, 3], see `augment.draw`: only what has been moved can be standardized.
        training: move and size the pictures.
    """
    image, share = batch["image"], batch["share"]
    if "warp" in batch:
        if training:
            image, share = apply_affine(image, share, batch["warp"])
        image = images.standardize(image)
    return image, share, batch["weight"]


def warm_up(state: TrainState, batch: Batch) -> None:
    """Run a step that changes nothing: kernels are loaded, and compiled where that is asked for."""
    before = copy.deepcopy(state.model.state_dict())
    state.wrapped.train()
    own, _ = state.wrapped(*prepare_batch(batch, training=True))
    loss.loss_from_sums(own).backward()
    state.optimizer.zero_grad(set_to_none=True)
    state.model.load_state_dict(before)
