"""What an architecture costs on average over the probabilities of a differentiable search, with a gradient."""

import numpy as np
import torch
from torch import Tensor

from mutorch.cost.table import CostTable
from mutorch.mutators import MarkovWidths, Mutator


def expected_cost(
    mutator: Mutator, table: CostTable, metric: str = "macs", *, markov: MarkovWidths | None = None
) -> Tensor:
    """The mean cost of architectures drawn by the probabilities, exactly: a scalar to add to a loss, in shares of the largest.

    A cost table is a sum of small tables, each over a few decisions, and decisions are drawn independently: the expectation
    is the sum of the tables' expectations, as DSNAS (arXiv 2002.09128, section 3.4) and ProxylessNAS (arXiv 1812.00332) have it
    for operations that do not act on each other, and here for those that do. Decisions that are not learned, and routes,
    count as the choice that `Mutator.argmax` gives them. Constraints are left aside: drawn independently, decisions break them.

    Args:
        table: of the same space.
        metric: see `mutorch.Budget`.
        markov: the probabilities of widths, which are taken instead of those of the mutator; other decisions count as they
            are set. Expected widths multiply where units are independent, and only there.

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
    weights = _of_arch(mutator) if markov is None else _of_widths(mutator, markov)
    space, device = mutator.space, weights[0].device
    source, divisor = table._metric(metric)
    total = torch.zeros((), dtype=torch.float64, device=device)
    for decisions, entries in table._factors[source].tables.items():
        part = torch.as_tensor(entries, dtype=torch.float64, device=device)
        for number in reversed(decisions):
            part = part @ weights[number]
        total = total + part
    largest = table.evaluate(np.array([space.encode(table.largest(metric))]), metric)[0]
    return total / (divisor * float(largest))


def _of_arch(mutator: Mutator) -> list[Tensor]:
    """The probabilities of every decision's choices, by the architecture parameters of the mutator."""
    space, arch = mutator.space, mutator.arch
    codes = space.encode(mutator.argmax(exclude=()))
    device = mutator.arch_parameters()[0].device
    return [
        torch.softmax(arch[decision.name].double(), dim=-1)
        if arch.takes_one(decision.name)
        else _certain(code, len(decision.choices), device)
        for decision, code in zip(space, codes, strict=True)
    ]


def _of_widths(mutator: Mutator, markov: MarkovWidths) -> list[Tensor]:
    """The same, by the probabilities of widths."""
    space, probabilities = mutator.space, markov.probabilities()
    device = next(iter(probabilities.values())).device
    weights = []
    for decision, code in zip(space, space.encode(mutator.current_choices), strict=True):
        own = probabilities.get(decision.name)
        if own is None:
            weights.append(_certain(code, len(decision.choices), device))
        else:
            places = [decision.choices.index(choice) for choice in markov.choices[decision.name]]
            weights.append(torch.zeros_like(own).index_copy(0, torch.tensor(places, device=device), own))
    return weights


def _certain(code: int, count: int, device: torch.device) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(code, device=device), count).double()
