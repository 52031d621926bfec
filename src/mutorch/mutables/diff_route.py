"""Which of several inputs a node takes, learned by gradient."""

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import Any

from torch import Tensor, nn

from mutorch.errors import ChoiceError, nearest

from .diff_module import DiffMutableModule
from .dump import DumpChosen
from .one_shot_op import sum_of_outputs
from .picks import Picks, Some
from .relaxation import Gumbel, Relaxation
from .summed_modules import SummedModules

MAX_DECISION_CHOICES = 20_000
"""The most sets of edges that a route lists as the choices of its decision."""


class DiffChoiceRoute(DiffMutableModule[str, list[str]]):
    """A node that adds up some of its inputs, each through an edge of its own: the cells of DARTS (seed 001).

    `forward` takes a list or tuple with one input for each edge, in the order of `edges`, before fixing and after. In a
    search space the decision's choices are the sets of `num_chosen` edges, as lists of names in the order of `edges`;
    one that was decided computes the plain sum of its edges. Exported, it is a `SummedModules`.

    Args:
        edges: name to module; the modules may be mutables.
        num_chosen: how many edges are kept; all, where there are fewer.
        with_arch_param: whether `forward` weighs the edges by an architecture parameter. Without it, it adds up all
            edges until some are chosen.
        alias, init_cfg: see `BaseMutable`.
        relaxation: how the edges are weighed; `Softmax()` unless given.

    Errors:
        ChoiceError: edges that are no `nn.ModuleDict`, no edges, or a `num_chosen` below 1.

    Example:
        >>> import torch
        >>> route = DiffChoiceRoute(nn.ModuleDict({"a": nn.Identity(), "b": nn.Tanh(), "c": nn.Identity()}))
        >>> route.decision_choices
        [('a', 'b'), ('a', 'c'), ('b', 'c')]
        >>> route.sample_choice(torch.tensor([0.1, 0.5, 0.3]))
        ['b', 'c']
        >>> route.fix_chosen(["a", "c"])
        >>> route([torch.ones(1), torch.ones(1), torch.ones(1)])
        tensor([2.])
    """

    def __init__(
        self,
        edges: nn.ModuleDict,
        num_chosen: int = 2,
        with_arch_param: bool = False,
        alias: str | None = None,
        init_cfg: dict[str, Any] | None = None,
        *,
        relaxation: Relaxation | None = None,
    ) -> None:
        super().__init__(alias=alias, init_cfg=init_cfg, relaxation=relaxation)
        if not isinstance(edges, nn.ModuleDict):
            raise ChoiceError(f"{self._describe()}: edges must be an nn.ModuleDict, got {type(edges).__name__}")
        if len(edges) == 0:
            raise ChoiceError(f"{self._describe()}: edges is empty: a route needs at least one")
        if num_chosen < 1:
            raise ChoiceError(f"{self._describe()}: num_chosen must be at least 1, got {num_chosen}")
        self.num_chosen = num_chosen
        self.with_arch_param = with_arch_param
        self._candidates = edges
        self._chosen: list[str] | None = None
        self._edge_names = tuple(edges)  # the inputs' order, for good

    @property
    def choices(self) -> list[str]:
        """The names of the edges, in order; after fixing, of those that are left."""
        return list(self._candidates.keys())

    @property
    def decision_choices(self) -> list[Any]:
        """The sets of `num_chosen` edges, as tuples of names in the order of the edges; after fixing, the one."""
        if self._chosen is not None:
            return [tuple(self._chosen)]
        count = min(self.num_chosen, len(self._candidates))
        number = comb(len(self._candidates), count)
        if number > MAX_DECISION_CHOICES:
            raise ChoiceError(
                f"{self._describe()} chooses {count} of {len(self._candidates)} edges in {number} ways, more than "
                f"{MAX_DECISION_CHOICES}; give fewer edges, or several routes whose outputs you add"
            )
        return list(combinations(self._candidates.keys(), count))

    @property
    def is_learned(self) -> bool:
        """Whether it has `with_arch_param`; else its edges are ranked by the operations on them."""
        return self.with_arch_param

    @property
    def picks(self) -> Picks:
        """`num_chosen` edges; all, where there are fewer."""
        return Some(min(self.num_chosen, len(self._candidates)))

    def decided(self, numbers: Sequence[int]) -> list[str]:
        """The names of these edges, in the order of the edges."""
        return [self.choices[number] for number in sorted(numbers)]

    def numbers(self, choice: Sequence[str]) -> list[int]:
        """The numbers of the edges named by `choice`."""
        return [self.choices.index(name) for name in choice]

    def allows(self, choice: Any) -> bool:
        """Whether `choice` is a list of edges, each once; any number, in any order."""
        return isinstance(choice, list | tuple) and len(choice) == len(set(choice)) > 0 and self._has(choice)

    def keeps(self, choice: Any, candidate: str) -> bool:
        return candidate in choice

    def forward(self, x: Any, arch_param: Tensor | None = None) -> Any:
        if arch_param is not None and not self.with_arch_param:
            arch_param = None
        return super().forward(x, arch_param)

    def set_forward_args(self, arch_param: Tensor | None) -> None:
        """Bind the architecture parameter; one without `with_arch_param` ignores it.

        Errors:
            ChoiceError: not one value for each edge.
        """
        super().set_forward_args(arch_param if self.with_arch_param else None)

    def forward_arch_param(self, x: Sequence[Any], arch_param: Tensor) -> Any:
        """The edges' outputs, weighed by `arch_param` and added up.

        Errors:
            ChoiceError: not one input, or not one value of `arch_param`, for each edge.
        """
        self._check_inputs(x)
        return self._mixture(arch_param, list(self._candidates.values()), x)

    def forward_choice(self, x: Sequence[Any], choice: Sequence[str]) -> Any:
        """The plain sum of the edges named by `choice`."""
        self._check_inputs(x)
        self._check_choice(choice)
        return self._sum(x, choice)

    def forward_fixed(self, inputs: Sequence[Any]) -> Any:
        """The plain sum of the edges that were fixed; `inputs` has the places of all edges there were.

        Errors:
            ChoiceError: not fixed yet, or an input of a fixed edge missing.
        """
        if self._chosen is None:
            raise ChoiceError(f"{self._describe()} is not fixed yet; call fix_chosen with some of {self.choices}")
        needed = 1 + max(self._edge_names.index(name) for name in self._chosen)
        if not needed <= len(inputs) <= len(self._edge_names):
            raise ChoiceError(
                f"{self._describe()} has the edges {', '.join(self._edge_names)} and takes one input for each; "
                f"got {len(inputs)}"
            )
        return self._sum(inputs, self._chosen)

    def forward_all(self, x: Sequence[Any]) -> Any:
        """The plain sum of all edges.

        Errors:
            ChoiceError: not one input for each edge.
        """
        self._check_inputs(x)
        return self._sum(x, self.choices)

    def sample_choice(self, arch_param: Tensor) -> list[str]:
        """The names of the `num_chosen` largest parameters, largest first; `Mutator.argmax` gives them in edge order."""
        self._check_arch_param(arch_param)
        count = min(self.num_chosen, len(self._candidates))
        names = self.choices
        return [names[number] for number in arch_param.detach().topk(count).indices.tolist()]

    def chosen_module(self, choice: Any) -> nn.Module:
        self._check_choice(choice)
        names = [name for name in self._edge_names if name in choice]
        return SummedModules(
            {name: self._candidates[name] for name in names}, [self._edge_names.index(name) for name in names]
        )

    def active_candidates(self) -> list[nn.Module]:
        if self._current_choice is not None:
            return [self._candidates[name] for name in self.choices if name in self._current_choice]
        return super().active_candidates()

    def fix_chosen(self, chosen: list[str]) -> None:
        """Keep only the edges `chosen`, for good and in place; inputs keep their places.

        Errors:
            FixedError: fixed before.
            ChoiceError: no list of edges of this route; nothing is removed.
        """
        self._check_not_fixed()
        self._check_choice(chosen)
        self._candidates = nn.ModuleDict({name: self._candidates[name] for name in self.choices if name in chosen})
        self._chosen = self.choices
        self._current_choice = self.choices
        self.is_fixed = True

    def dump_chosen(self) -> DumpChosen:
        """The names of the chosen edges, with all edges as meta.

        Errors:
            ChoiceError: no choice was made.
        """
        if self._current_choice is None:
            raise ChoiceError(f"{self._describe()} has no current choice to dump; choices: {self.choices}")
        return DumpChosen(chosen=list(self._current_choice), meta={"all_choices": self.choices})

    def extra_repr(self) -> str:
        return f"edges={self.choices}, num_chosen={self.num_chosen}, current_choice={self._current_choice!r}"

    def _sum(self, x: Sequence[Any], names: Sequence[str]) -> Any:
        chosen = [(number, name) for number, name in enumerate(self._edge_names) if name in names]
        return sum_of_outputs(self, [self._candidates[name](x[number]) for number, name in chosen])

    def _has(self, names: Sequence[Any]) -> bool:
        return all(isinstance(name, str) and name in self._candidates for name in names)

    def _check_choice(self, choice: Any) -> None:
        if not self.allows(choice):
            named = choice if isinstance(choice, list | tuple) else [choice]
            unknown = next((name for name in named if not self._has([name])), choice)
            raise ChoiceError(
                f"{self._describe()} has no edges {choice!r}; a choice is a list of edges, each once; "
                f"{nearest(unknown, self.choices)}"
            )

    def _check_inputs(self, x: Any) -> None:
        if not isinstance(x, list | tuple) or len(x) != len(self._edge_names):
            got = f"{len(x)} inputs" if isinstance(x, list | tuple) else type(x).__name__
            raise ChoiceError(
                f"{self._describe()} takes a list with one input for each of its {len(self._edge_names)} edges "
                f"({', '.join(self._edge_names)}), got {got}"
            )


class GumbelChoiceRoute(DiffChoiceRoute):
    """A `DiffChoiceRoute` of two edges that weighs by Gumbel-softmax samples.

    Args:
        edges, with_arch_param, alias, init_cfg: as for `DiffChoiceRoute`.
        tau, hard: see `Gumbel`.

    Example:
        >>> import torch
        >>> route = GumbelChoiceRoute(nn.ModuleDict({"a": nn.Identity(), "b": nn.Identity()}), with_arch_param=True)
        >>> route.set_temperature(0.5)
        >>> route.tau, sorted(route.compute_arch_probs(torch.zeros(2)).tolist())
        (0.5, [0.0, 1.0])
    """

    def __init__(
        self,
        edges: nn.ModuleDict,
        tau: float = 1.0,
        hard: bool = True,
        with_arch_param: bool = False,
        alias: str | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            edges, 2, with_arch_param, alias=alias, init_cfg=init_cfg, relaxation=Gumbel(tau=tau, hard=hard)
        )

    @property
    def tau(self) -> float:
        """The temperature."""
        return self.relaxation.tau if isinstance(self.relaxation, Gumbel) else 1.0

    @property
    def hard(self) -> bool:
        """Whether the weights' value is one-hot."""
        return isinstance(self.relaxation, Gumbel) and self.relaxation.hard

    def set_temperature(self, tau: float) -> None:
        """Change the temperature."""
        self.relaxation = Gumbel(tau=tau, hard=self.hard)
