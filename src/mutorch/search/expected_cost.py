"""What an architecture costs on average over the probabilities of a differentiable search, with a gradient."""

import numpy as np
import torch
from torch import Tensor

from mutorch.cost.table import CostTable
from mutorch.mutators import Mutator


def expected_cost(mutator: Mutator, table: CostTable, metric: str = "macs") -> Tensor:
    """The mean cost of architectures drawn by the probabilities, exactly: a scalar to add to a loss, in shares of the largest.

    A cost table is a sum of small tables, each over a few decisions, and decisions are drawn independently: the expectation
    is the sum of the tables' expectations, as DSNAS (arXiv 2002.09128, section 3.4) and ProxylessNAS (arXiv 1812.00332) have it
    for operations that do not act on each other, and here for those that do. Decisions that are not learned, and routes,
    count as the choice that `Mutator.argmax` gives them. Constraints are left aside: drawn independently, decisions break them.

    Args:
        table: of the same space.
        metric: see `mutorch.Budget`.

    Example:
        >>> from torch import nn
        >>> from mutorch.mutables import DiffMutableOP
        >>> net = nn.Sequential(DiffMutableOP({"conv": nn.Conv2d(4, 4, 1, bias=False), "skip": nn.Identity()}))
        >>> mutator = Mutator(net)
        >>> table = CostTable.from_model(mutator, torch.zeros(1, 4, 2, 2))
        >>> mutator.prepare_arch_params()
        >>> round(float(expected_cost(mutator, table).detach()), 2)
        0.5
    """
    space, arch = mutator.space, mutator.arch
    codes = space.encode(mutator.argmax(exclude=()))
    weights: list[Tensor] = []
    device = mutator.arch_parameters()[0].device
    for decision, code in zip(space, codes, strict=True):
        name = decision.name
        if arch.takes_one(name):
            weights.append(torch.softmax(arch[name].double(), dim=-1))
        else:
            weights.append(
                torch.nn.functional.one_hot(torch.tensor(code, device=device), len(decision.choices)).double()
            )
    source, divisor = table._metric(metric)
    total = torch.zeros((), dtype=torch.float64, device=device)
    for decisions, entries in table._factors[source].tables.items():
        part = torch.as_tensor(entries, dtype=torch.float64, device=device)
        for number in reversed(decisions):
            part = part @ weights[number]
        total = total + part
    largest = table.evaluate(np.array([space.encode(table.largest(metric))]), metric)[0]
    return total / (divisor * float(largest))
