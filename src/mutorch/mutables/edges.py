"""The edges of the 0.x API (seed 003): other constructors for routes. New code uses the routes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mutorch.errors import ChoiceError

from .diff_route import DiffChoiceRoute
from .relaxation import Gumbel, Relaxation, Softmax


class MutableEdge(DiffChoiceRoute):
    """A node that adds up its inputs, each through a module of its own; nothing is learned.

    `choices` here are the names; the modules are `choice_modules`. `export` is the older name of `fix_chosen`.

    Args:
        choices: name to built module.
        space_id: the older name of an alias.
        num_chosen: how many edges are kept.
        init_cfg: see `BaseMutable`.

    Errors:
        ChoiceError: choices that are no `nn.ModuleDict` (also `AssertionError`); the message has the space id.

    Example:
        >>> edge = MutableEdge(nn.ModuleDict({"a": nn.Identity(), "b": nn.Tanh()}), space_id="node0")
        >>> edge.export(["b"])
        >>> edge.choice_names, edge.full_choice_names
        (('b',), ('a', 'b'))
    """

    def __init__(
        self,
        choices: nn.ModuleDict,
        space_id: str | None = None,
        num_chosen: int = 1,
        init_cfg: dict[str, Any] | None = None,
        *,
        with_arch_param: bool = False,
        relaxation: Relaxation | None = None,
    ) -> None:
        super().__init__(choices, num_chosen, with_arch_param, space_id, init_cfg, relaxation=relaxation)

    @property
    def space_id(self) -> str | None:
        """The alias."""
        return self.alias

    @property
    def choice_names(self) -> tuple[str, ...]:
        """The names of the edges that are left."""
        return tuple(self.choices)

    @property
    def choice_modules(self) -> tuple[nn.Module, ...]:
        """The modules of the edges that are left."""
        return tuple(self.candidates.values())

    @property
    def full_choice_names(self) -> tuple[str, ...]:
        """The names of all edges there were: the order of the inputs."""
        return self._edge_names

    def build_choice_mask(self) -> Tensor:
        """A bool tensor with a True for each edge."""
        return torch.ones(self.num_choices, dtype=torch.bool)

    def export(self, chosen: list[str]) -> None:
        """Keep only the edges `chosen`; see `fix_chosen`."""
        self.fix_chosen(chosen)


class DifferentiableEdge(MutableEdge):
    """A `MutableEdge` that weighs its edges by a parameter.

    Args:
        with_arch_param: whether there is such a parameter; without, the edges are added up.
        choices, space_id, num_chosen, init_cfg: as for `MutableEdge`.

    Errors:
        ChoiceError: no parameter given or bound where there should be one (also `AssertionError`).

    Example:
        >>> edge = DifferentiableEdge(True, choices=nn.ModuleDict({"a": nn.Identity(), "b": nn.Identity()}))
        >>> parameter = edge.build_arch_param(torch.Generator().manual_seed(0))
        >>> edge([torch.ones(1), torch.ones(1)], parameter)
        tensor([1.], grad_fn=<AddBackward0>)
    """

    def __init__(
        self,
        with_arch_param: bool,
        choices: nn.ModuleDict,
        space_id: str | None = None,
        num_chosen: int = 1,
        init_cfg: dict[str, Any] | None = None,
        *,
        relaxation: Relaxation | None = None,
    ) -> None:
        super().__init__(
            choices,
            space_id,
            num_chosen,
            init_cfg,
            with_arch_param=with_arch_param,
            relaxation=relaxation or Softmax(),
        )

    def build_arch_param(self, generator: torch.Generator) -> nn.Parameter | None:
        """A new architecture parameter, small random numbers; `None` without `with_arch_param`."""
        if not self.with_arch_param:
            return None
        return nn.Parameter(torch.randn(self.num_choices, generator=generator) * 1e-3)

    def forward(self, x: Sequence[Tensor], arch_param: Tensor | None = None) -> Any:
        undecided = self._current_choice is None and not self._is_fixed
        if self.with_arch_param and arch_param is None and self.arch_param is None and undecided:
            raise ChoiceError(f"{self._describe()} has with_arch_param=True, so forward needs arch_param")
        return super().forward(x, arch_param)


class GumbelEdge(DifferentiableEdge):
    """A `DifferentiableEdge` that weighs by Gumbel-softmax samples.

    Args:
        with_arch_param, choices, space_id, num_chosen, init_cfg: as for `DifferentiableEdge`.
        tau, hard: see `Gumbel`.

    Example:
        >>> edge = GumbelEdge(True, choices=nn.ModuleDict({"a": nn.Identity(), "b": nn.Identity()}), tau=5.0)
        >>> edge.set_temperature(0.1)
        >>> edge.tau
        0.1
    """

    def __init__(
        self,
        with_arch_param: bool,
        choices: nn.ModuleDict,
        space_id: str | None = None,
        num_chosen: int = 1,
        init_cfg: dict[str, Any] | None = None,
        *,
        tau: float = 1.0,
        hard: bool = True,
    ) -> None:
        super().__init__(
            with_arch_param, choices, space_id, num_chosen, init_cfg, relaxation=Gumbel(tau=tau, hard=hard)
        )

    @property
    def tau(self) -> float:
        """The temperature."""
        return self.relaxation.tau if isinstance(self.relaxation, Gumbel) else 1.0

    @property
    def hard(self) -> bool:
        """Whether the weights' value is one-hot."""
        return isinstance(self.relaxation, Gumbel) and self.relaxation.hard

    def set_temperature(self, temperature: float) -> None:
        """Change the temperature."""
        self.relaxation = Gumbel(tau=temperature, hard=self.hard)
