"""Widths by their probabilities, within a budget."""

from collections.abc import Mapping

import numpy as np

from mutorch.cost import Budget, CostTable
from mutorch.errors import InfeasibleBudgetError
from mutorch.mutators import MarkovWidths, Mutator
from mutorch.space import Architecture, random_at


def sample_widths(
    mutator: Mutator,
    markov: MarkovWidths,
    table: CostTable,
    budget: Budget,
    *,
    count: int = 10,
    draws: int = 10_000,
    seed: int = 0,
) -> list[Architecture]:
    """Different architectures within a budget, drawn by the probabilities of their widths, in the order in which they are.

    Decisions that are no widths are as they are set. Thousands are drawn and priced at once, so that many are within a budget
    that the probabilities were trained for.

    Args:
        table: of the mutator's space.
        count: how many at most.
        draws: how many are drawn.
        seed: decides what is drawn.

    Errors:
        InfeasibleBudgetError: none that was drawn is within the budget; says what those cost that were.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from mutorch.channels import searchable
        >>> net = searchable(nn.Sequential(nn.Linear(2, 32), nn.Linear(32, 4)), torch.zeros(1, 2))
        >>> mutator, markov = Mutator(net), MarkovWidths(Mutator(net))
        >>> table = CostTable.from_model(mutator, torch.zeros(1, 2))
        >>> _ = markov["0"].data.fill_(0.5)
        >>> sample_widths(mutator, markov, table, Budget.parse({"macs": "80%"}, table))
        [{'0': 8}, {'0': 16}, {'0': 24}]
    """
    space = mutator.space
    codes = np.tile(np.array(space.encode(mutator.current_choices), dtype=np.intp), (draws, 1))
    uniform = np.random.default_rng(random_at(seed, "widths").getrandbits(63)).random((len(markov.names), draws))
    for row, (name, probabilities) in zip(uniform, markov.probabilities().items(), strict=True):
        chances = probabilities.detach().cpu().numpy()
        drawn = np.minimum(np.searchsorted(chances.cumsum(), row, side="right"), int(np.flatnonzero(chances)[-1]))
        places = [space[name].choices.index(choice) for choice in markov.choices[name]]
        codes[:, space.names.index(name)] = np.array(places)[drawn]
    within = budget.mask(table, codes)
    if not within.any():
        found = []
        for metric in budget.bounds:
            values = table.evaluate(codes, metric)
            found.append(f"{metric} from {values.min():,.6g} to {values.max():,.6g}")
        raise InfeasibleBudgetError(
            f"none of {draws:,} architectures drawn by their probabilities is within {budget}; they have {', '.join(found)}: "
            "train the probabilities longer, or with a larger weight of the cost"
        )
    different = dict.fromkeys(tuple(int(code) for code in one) for one in codes[within])
    return [space.decode(list(one)) for one in list(different)[:count]]


def expected_widths(mutator: Mutator, markov: MarkovWidths, table: CostTable, budget: Budget) -> Architecture:
    """The widths that are nearest to the expected ones within the upper bounds of a budget.

    Where these are exceeded, the unit that is widest in comparison with what is expected of it gives way, step by step; where
    there is room left, the narrowest one in comparison is widened. Decisions that are no widths are as they are set.

    Errors:
        InfeasibleBudgetError: the narrowest widths exceed the budget.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from mutorch.channels import searchable
        >>> net = searchable(nn.Sequential(nn.Linear(2, 32), nn.Linear(32, 4)), torch.zeros(1, 2))
        >>> mutator, markov = Mutator(net), MarkovWidths(Mutator(net))
        >>> table = CostTable.from_model(mutator, torch.zeros(1, 2))
        >>> expected_widths(mutator, markov, table, Budget.parse({"macs": "80%"}, table))
        {'0': 24}
    """
    expected = {name: float(value.detach()) for name, value in markov.expected().items()}
    current, nearest = mutator.current_choices, markov.nearest()
    places = {name: choices.index(nearest[name]) for name, choices in markov.choices.items()}

    def share(name: str, place: int) -> float:
        return markov.counts[name][place] / expected[name]

    def at(places: Mapping[str, int]) -> Architecture:
        return {**current, **{name: markov.choices[name][place] for name, place in places.items()}}

    def fits(places: Mapping[str, int]) -> bool:
        costs = table(at(places))
        return all(costs[metric] <= high for metric, (_, high) in budget.bounds.items())

    while not fits(places):
        wide = [name for name, place in places.items() if place]
        if not wide:
            raise InfeasibleBudgetError(f"the narrowest widths exceed {budget}")
        places[max(wide, key=lambda name: share(name, places[name]))] -= 1
    open_ = set(places)
    while open_:
        name = min(sorted(open_), key=lambda name: share(name, places[name]))
        wider = {**places, name: places[name] + 1}
        if wider[name] < len(markov.counts[name]) and fits(wider):
            places = wider
        else:
            open_.discard(name)
    return at(places)
