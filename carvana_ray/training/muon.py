"""Muon: the convolutions of a U-Net take steps by orthogonal matrices, other weights Adam's steps.

Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. `torch.optim.Muon` takes
weights of two dimensions only, one after the other, and cannot skip a step without a wait for the
GPU.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.adam import adam

from carvana_ray.unet.network import UNet

if TYPE_CHECKING:
    from carvana_ray.training.graph import Recorder

MOMENTUM = 0.8
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the polynomial of a Newton-Schulz step
NEWTON_SCHULZ_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Muon for all convolutions but the first and the last, Adam for the other weights that learn.

    Gradients are unscaled before a step. The first parameter group is Adam's. Each other group
    holds the weights [m, n, k, k] of one m, whose matrices are computed together. The state of the
    first of them has the momentum of all.

    Args:
        rate: learning rate of Adam.
        ratio: learning rate of Muon as a multiple of Adam's.
    """

    def __init__(self, network: UNet, rate: float, ratio: float) -> None:
        parts = (network.down, network.enlarge, network.up)  # not the encoder, nor the head
        layers = [
            layer
            for part in parts
            for layer in part.modules()
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        ]
        groups: dict[int, list[Tensor]] = defaultdict(list)
        for layer in layers[1:]:
            groups[len(layer.weight)].append(layer.weight)
        chosen = {weight for weights in groups.values() for weight in weights}
        learning = (weight for weight in network.parameters() if weight.requires_grad)
        others = [weight for weight in learning if weight not in chosen]
        each = [{"params": weights} for weights in (others, *groups.values())]
        super().__init__(each, {"lr": rate, "betas": (0.9, 0.999), "fused": True})
        for weights in groups.values():
            width = max(weight[0].numel() for weight in weights)
            shape = len(weights), len(weights[0]), width  # [b, m, k k n], zeros in shorter rows
            self.state[weights[0]]["momentum"] = weights[0].new_zeros(shape)
        self._ratio = ratio
        # What changes from step to step, as tensors: a recorded step reads them.
        self._rate, self._taken = torch.zeros(2, device=others[0].device)
        self._run_muon: Callable[[], None] = self._step_by_muon
        # `GradScaler` then hands over `found_inf`, 1 if the step is to be skipped, and reads no
        # value back.
        self._step_supports_amp_scaling = True

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Take a step, or none if `found_inf` is 1."""
        found_inf = getattr(self, "found_inf", None)
        self._step_by_adam(self.param_groups[0], found_inf)
        self._rate.fill_(self._ratio * self.param_groups[1]["lr"])
        self._taken.fill_(1) if found_inf is None else self._taken.copy_(found_inf == 0)
        self._run_muon()

    @torch.no_grad()
    def record(self, recorder: "Recorder") -> None:
        """Let Muon's part of all further steps be replayed. Their gradients stay where they are."""
        self._taken.fill_(0)  # so that nothing changes now
        recorder.warm_up(self._step_by_muon)
        self._run_muon = recorder.record(self._step_by_muon)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state; momenta stay where they are, since a recorded step has their addresses."""
        momenta = [self.state[group["params"][0]]["momentum"] for group in self.param_groups[1:]]
        super().load_state_dict(state_dict)
        for group, momentum in zip(self.param_groups[1:], momenta, strict=True):
            state = self.state[group["params"][0]]
            state["momentum"] = momentum.copy_(state["momentum"])

    def _step_by_adam(self, group: dict[str, Any], found_inf: Tensor | None) -> None:
        weights, (beta1, beta2) = group["params"], group["betas"]
        adam(
            weights,
            [weight.grad for weight in weights],
            exp_avgs=self._states(weights, "exp_avg"),
            exp_avg_sqs=self._states(weights, "exp_avg_sq"),
            max_exp_avg_sqs=[],
            state_steps=self._states(weights, "step"),
            fused=True,
            found_inf=found_inf,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    def _step_by_muon(self) -> None:
        taken, pull = self._taken > 0, self._taken * (1 - MOMENTUM)
        factor = self._taken * -self._rate
        for group in self.param_groups[1:]:
            weights = group["params"]
            momentum = self.state[weights[0]]["momentum"]
            gradients = torch.zeros_like(momentum)
            for weight, row in zip(weights, gradients, strict=True):
                own = _part(row, weight)
                torch.where(taken, weight.grad, own, out=own)  # a skipped step has NaN
            momentum.lerp_(gradients, pull)
            steps = orthogonalize(gradients.lerp(momentum, MOMENTUM))  # Nesterov's
            for weight, row in zip(weights, steps, strict=True):
                weight.addcmul_(_part(row, weight), factor)

    def _states(self, weights: list[Tensor], name: str) -> list[Tensor]:
        """Return a value of the state of each weight: at first zeros of its shape, or 0 steps."""
        for weight in weights:
            if name not in self.state[weight]:
                like = weight[(0,) * weight.ndim] if name == "step" else weight
                self.state[weight][name] = torch.zeros_like(like)
        return [self.state[weight][name] for weight in weights]


def _part(matrix: Tensor, weight: Tensor) -> Tensor:
    """Return the part [m, n, k, k] of a matrix that stands for a weight; a view, channels-last."""
    _, n, *kernel = weight.shape
    return matrix[:, : weight[0].numel()].unflatten(1, (*kernel, n)).permute(0, 3, 1, 2)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return matrices [b, m, n] whose singular values are near 1, with the same singular vectors.

    Values of at least a hundredth of the Frobenius norm become 0.68 to 1.2, and 0 stays 0. Computed
    in bfloat16 on a GPU, and then returned so.
    """
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    x = F.normalize(x, dim=(1, 2))  # type: ignore[arg-type]
    return newton_schulz(x) if x.is_cuda else newton_schulz_factor(x @ x.mT) @ x


def newton_schulz(x: Tensor) -> Tensor:
    """Return x [b, m, n] after all steps."""
    a, b, c = COEFFICIENTS
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def newton_schulz_factor(gram: Tensor) -> Tensor:
    """Return the factor [b, m, m] by which all steps together multiply x; `gram` is x x^T.

    Products of m x m matrices take the place of those of m x n: 0.4 of the time on a CPU for
    n = 9 m. float32 is precise enough for it.
    """
    a, b, c = COEFFICIENTS
    factor = torch.eye(gram.shape[1])
    for _ in range(NEWTON_SCHULZ_STEPS):
        step = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        step.diagonal(dim1=1, dim2=2).add_(a)
        factor, gram = step @ factor, step @ gram @ step
    return factor
