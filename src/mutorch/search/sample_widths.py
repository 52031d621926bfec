"""Widths drawn by their probabilities, within a budget."""

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
    """Different architectures within a budget, drawn by the probabilities of their widths, the most probable first.

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
    logs = np.zeros(draws)
    uniform = np.random.default_rng(random_at(seed, "widths").getrandbits(63)).random((len(markov.names), draws))
    for row, (name, probabilities) in zip(uniform, markov.probabilities().items(), strict=True):
        chances = probabilities.detach().cpu().numpy()
        drawn = np.minimum(np.searchsorted(chances.cumsum(), row, side="right"), int(np.flatnonzero(chances)[-1]))
        places = [space[name].choices.index(choice) for choice in markov.choices[name]]
        codes[:, space.names.index(name)] = np.array(places)[drawn]
        logs += np.log(chances[drawn])
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
    kept, order = codes[within], np.argsort(-logs[within], kind="stable")
    different = dict.fromkeys(tuple(int(code) for code in kept[i]) for i in order)
    return [space.decode(list(one)) for one in list(different)[:count]]
