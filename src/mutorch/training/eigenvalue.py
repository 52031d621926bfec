"""How sharp the loss is around an architecture: the dominant eigenvalue of its Hessian, and when to stop for it."""

import torch
from torch import Tensor, nn

from mutorch.errors import ConfigError
from mutorch.mutables import Relaxation
from mutorch.mutators import Mutator
from mutorch.space import random_at

from .differentiable import _averaged, _buffers_kept, _constant
from .steps import LossFunction


def dominant_eigenvalue(
    mutator: Mutator,
    loss_fn: LossFunction,
    *,
    seed: int,
    step: int,
    relaxation: Relaxation | None = None,
    iterations: int = 10,
    tolerance: float = 1e-3,
) -> float:
    """The eigenvalue of largest magnitude of the Hessian of a loss in the architecture parameters, weights as they are.

    By power iteration with products of the Hessian and a vector: each costs a backward through a backward, which works for
    mixtures (`Softmax`, soft `Gumbel`). In a search that collapses it grows (RobustDARTS, arXiv 1909.09656); it should be that of
    validation data. Gradients and statistics stay as they are. Averaged
    over the processes of torch.distributed, so that all stop at once.

    Args:
        loss_fn: takes the model, returns the scalar loss of one batch.
        seed, step: determine noise, and the vector that it begins with.
        iterations: products at most.
        tolerance: stops earlier where the estimate changes by less than this share of itself.

    Example:
        >>> from mutorch.mutables import DiffMutableOP
        >>> net = nn.Sequential(DiffMutableOP({"a": nn.Identity(), "b": nn.Tanh()}))
        >>> mutator = Mutator(net)
        >>> mutator.prepare_arch_params()
        >>> round(dominant_eigenvalue(mutator, lambda m: m(torch.ones(1)).square().sum(), seed=0, step=0), 3)
        0.014
    """
    mutator.draw(seed=seed, step=step, relaxation=relaxation)
    parameters = mutator.arch_parameters()
    generator = torch.Generator().manual_seed(random_at(seed, "eigenvalue", step).getrandbits(63))
    vector = [torch.randn(p.shape, generator=generator).to(p) for p in parameters]
    model: nn.Module = mutator.model
    found = 0.0
    with _constant(mutator.weight_parameters()), _buffers_kept(model), torch.enable_grad():
        loss = loss_fn(model)
        gradients = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
        pairs = [
            (g, v) for g, v in zip(gradients, range(len(vector)), strict=True) if g is not None and g.requires_grad
        ]
        for _ in range(iterations if pairs else 0):
            vector = _normalised(vector)
            product = torch.stack([(gradient * vector[number]).sum() for gradient, number in pairs]).sum()
            moved = torch.autograd.grad(product, parameters, retain_graph=True, allow_unused=True)
            products = (
                torch.zeros_like(p) if m is None else m.detach() for m, p in zip(moved, parameters, strict=True)
            )
            after = _averaged(products)
            before, found = found, float(sum((a * v).sum() for a, v in zip(after, vector, strict=True)))
            vector = after
            if abs(found - before) <= tolerance * abs(found):
                break
    return found


class SharpnessGuard:
    """Says when to stop a search whose dominant eigenvalue grows: early stopping of RobustDARTS (arXiv 1909.09656, section 4.2).

    It compares the mean of the last `window` values with that of the `window` values before these.

    Args:
        ratio: stop when the earlier mean is below this share of the later one; 0.75 in the paper.
        window: how many values a mean is over; 5 in the paper.

    Errors:
        ConfigError: a ratio outside 0 to 1, or a window below 1.

    Example:
        >>> guard = SharpnessGuard(window=1)
        >>> [guard.should_stop(value) for value in (1.0, 1.1, 2.0)]
        [False, False, True]
    """

    def __init__(self, *, ratio: float = 0.75, window: int = 5) -> None:
        if not 0 < ratio <= 1:
            raise ConfigError(f"ratio must be above 0 and at most 1, got {ratio}")
        if window < 1:
            raise ConfigError(f"window must be at least 1, got {window}")
        self.ratio, self.window = ratio, window
        self.values: list[float] = []

    def should_stop(self, value: float) -> bool:
        """Take the next value; whether the search should stop now."""
        self.values.append(abs(value))
        if len(self.values) < 2 * self.window:
            return False
        later = sum(self.values[-self.window :])
        earlier = sum(self.values[-2 * self.window : -self.window])
        return earlier < self.ratio * later


def _normalised(vector: list[Tensor]) -> list[Tensor]:
    size = torch.stack([v.square().sum() for v in vector]).sum().sqrt().clamp_min(1e-30)
    return [v / size for v in vector]
