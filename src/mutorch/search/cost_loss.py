"""How far an expected cost is from its target, as a loss."""

import torch
from torch import Tensor

from mutorch.errors import ConfigError, nearest

KINDS = ("log_l1", "l1", "l2", "inverted_log_l1")


def cost_loss(expected: Tensor, target: float, kind: str = "log_l1", *, slack: float = 0.05) -> Tensor:
    """A loss that brings an expected cost just below a target (DMCP, Guo et al. 2020, arXiv 2005.03354, equation 9).

    With the distance d = expected - target:

    - `'log_l1'`: log|d| below `(1 - slack) * target`, nothing from there to the target, and above it the log of the distance
      to `(1 - slack) * target`. Its gradient is that of relative distances, whatever the unit of the cost.
    - `'l1'`: |d|. `'l2'`: d squared. `'inverted_log_l1'`: -log(1 / (|d| + 1e-5)).

    Args:
        expected: a scalar, as `expected_cost` gives it times the largest cost.
        target: the cost that is wanted, in the same unit.
        kind: one of the above.
        slack: how far below the target is as good as the target.

    Errors:
        ConfigError: another kind, a target that is not positive, or a slack that is no share.

    Example:
        >>> expected = torch.tensor(120.0, requires_grad=True)
        >>> cost_loss(expected, 100.0).backward()
        >>> round(float(expected.grad), 4), float(cost_loss(torch.tensor(98.0), 100.0))  # 1 / (120 - 95)
        (0.04, 0.0)
    """
    if kind not in KINDS:
        raise ConfigError(f"no kind {kind!r} of a cost loss; {nearest(kind, KINDS)}")
    if not target > 0:
        raise ConfigError(f"the target of a cost loss must be positive, got {target!r}")
    if not 0 < slack < 1:
        raise ConfigError(f"the slack of a cost loss is a share above 0 and below 1, got {slack!r}")
    distance = expected - target
    if kind == "l1":
        return distance.abs()
    if kind == "l2":
        return distance.square()
    if kind == "inverted_log_l1":
        return torch.log(distance.abs() + 1e-5)
    lower = (1 - slack) * target
    if float(expected.detach()) < lower:
        return torch.log(distance.abs())
    if distance.detach() <= 0:
        return 0 * expected
    return torch.log(expected - lower)
