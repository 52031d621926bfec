"""What every width of a searchable model costs, for those who choose widths."""

import copy
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

from mutorch.cost import METRICS, Budget, Costs, CostTable, LatencyTable, count
from mutorch.errors import CostError, InfeasibleBudgetError
from mutorch.mutators import Mutator
from mutorch.space import Architecture
from mutorch.subnet.export import export
from mutorch.utils import ExampleInputs


class Prices:
    """The costs of widths, from a table where one can be built, else by counting the exported model.

    Args:
        mutator: of a searchable model.
        example_inputs: counted as given.
        min_ratio: the smallest share of its channels that a unit keeps.

    Attributes:
        metrics: what a budget can bound; nothing of it is `measured`.
        widths: unit to the numbers of channels that it may have, ascending.
        table: the table, if there is one.
        whole: unit to the number of its channels before anything was cut.
        share: how much of the cut is due now, where it is made in rounds.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from mutorch.channels import searchable, widths
        >>> net = searchable(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), torch.zeros(1, 4),
        ...     rules=[widths(counts=range(1, 9), divisor=1)])
        >>> prices = Prices(Mutator(net), torch.zeros(1, 4), min_ratio=0.5)
        >>> prices.widths, prices({"0": 6}).macs
        ({'0': [4, 5, 6, 7, 8]}, 36)
    """

    metrics = METRICS
    measured: Mapping[str, LatencyTable] = MappingProxyType({})

    def __init__(self, mutator: Mutator, example_inputs: ExampleInputs, *, min_ratio: float = 0.0) -> None:
        self._mutator = mutator
        self._example_inputs = example_inputs
        self._counted: dict[tuple[Any, ...], Costs] = {}
        self.widths: dict[str, list[int]] = {}
        for name, members in mutator.search_groups.items():
            if members[0].mutable_prefix == "channel":
                choices = sorted(members[0].choices)
                self.widths[name] = [choice for choice in choices if choice >= min_ratio * choices[-1]]
        self.whole = {name: choices[-1] for name, choices in self.widths.items()}
        self.share = 1.0
        self.table: CostTable | None
        try:
            self.table = CostTable.from_model(mutator, example_inputs)
        except CostError:
            self.table = None

    def __call__(self, architecture: Mapping[str, Any]) -> Costs:
        """What the widths cost; decisions that are left out are at their defaults."""
        whole = {**self._mutator.space.default, **architecture}
        if self.table is not None:
            return self.table(whole)
        key = tuple(whole.values())
        if key not in self._counted:
            self._counted[key] = count(export(self._mutator.model, whole), self._example_inputs)
        return self._counted[key]

    def towards(self, original: "Prices", share: float) -> Self:
        """The same prices, of a model that is left of another one, in a round that makes so much of the cut."""
        other = copy.copy(self)
        other.whole, other.share = original.whole, share
        return other

    def fixed(self, widths: Mapping[str, int]) -> Self:
        """The same prices, where units may only have these widths."""
        other = copy.copy(self)
        other.widths = {**self.widths, **{name: [width] for name, width in widths.items()}}
        return other

    def reachable(self, metric: str) -> tuple[float, float]:
        """The smallest and the largest value of a metric: that of the narrowest and of the widest model."""
        return self(self.at([0] * len(self.widths)))[metric], self({})[metric]

    def at(self, positions: Sequence[int]) -> Architecture:
        """The architecture in which each unit has the width at a position of its list."""
        return {name: choices[i] for (name, choices), i in zip(self.widths.items(), positions, strict=True)}

    def budget(self, spec: Any) -> Budget:
        """The budget that `spec` writes; shares are of the whole model.

        Errors:
            BudgetError: an unknown metric, an amount that cannot be read, or nothing to bound.
            InfeasibleBudgetError: bounds that the narrowest model exceeds; says what is reachable.
        """
        budget = Budget.parse(spec, self)
        if not self.fits(budget, self.at([0] * len(self.widths))):
            narrowest = self(self.at([0] * len(self.widths)))
            has = ", ".join(f"{metric} {narrowest[metric]:,.6g}" for metric in budget.bounds)
            raise InfeasibleBudgetError(f"the narrowest model has {has}, which is not within {budget}")
        return budget

    def fits(self, budget: Budget, architecture: Mapping[str, Any]) -> bool:
        """Whether the widths are within the upper bounds."""
        costs = self(architecture)
        return all(costs[metric] <= high for metric, (_, high) in budget.bounds.items())

    def check(self, budget: Budget, architecture: Mapping[str, Any]) -> None:
        """Refuse widths that are not within all bounds.

        Errors:
            InfeasibleBudgetError: says what they cost.
        """
        costs = self(architecture)
        if not budget.allows(costs):
            found = ", ".join(f"{metric} {costs[metric]:,.6g}" for metric in budget.bounds)
            raise InfeasibleBudgetError(f"no widths were found within {budget}; the nearest have {found}")
