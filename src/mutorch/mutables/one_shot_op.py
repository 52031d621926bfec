"""A block that is one of several operations."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from torch import nn

from mutorch.errors import ChoiceError
from mutorch.space import RandomSource, as_random

from .candidates import build_candidates
from .dump import DumpChosen
from .module import MutableModule
from .one_shot_module import OneShotMutableModule


class OneShotMutableOP(OneShotMutableModule[str, str]):
    """A block of a single-path supernet: the current choice computes, the others rest (arXiv 1904.00420; seed 001).

    Inputs and outputs are whatever the candidates take and give: tensors, tuples, dicts, several arguments.

    Args:
        candidates: an `nn.ModuleDict`, or a dict from name to a built module or to a config with `type`. May nest.
        module_kwargs: arguments added to every config; see `build_candidates`.
        alias: mutables with one alias make one decision.
        init_cfg: see `BaseMutable`.

    Example:
        >>> import torch
        >>> op = OneShotMutableOP({"conv3x3": nn.Conv2d(8, 8, 3, padding=1), "skip": nn.Identity()})
        >>> op.choices
        ['conv3x3', 'skip']
        >>> op.current_choice = "skip"
        >>> x = torch.ones(1, 8, 4, 4)
        >>> bool((op(x) == x).all())
        True
        >>> op.current_choice = "conv33"
        Traceback (most recent call last):
        ...
        mutorch.errors.ChoiceError: ... has no choice 'conv33'; did you mean 'conv3x3'? allowed: 'conv3x3', 'skip'
    """

    def __init__(
        self,
        candidates: Mapping[str, nn.Module | Mapping[str, Any]] | nn.ModuleDict,
        module_kwargs: dict[str, Any] | None = None,
        alias: str | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(module_kwargs=module_kwargs, alias=alias, init_cfg=init_cfg)
        self._candidates = self._build_ops(candidates, module_kwargs)
        self._chosen: str | None = None

    @staticmethod
    def _build_ops(
        candidates: Mapping[str, nn.Module | Mapping[str, Any]] | nn.ModuleDict,
        module_kwargs: dict[str, Any] | None = None,
    ) -> nn.ModuleDict:
        return build_candidates(candidates, module_kwargs)

    @property
    def choices(self) -> list[str]:
        """The names of the candidates, in order; after fixing, of the one that is left."""
        return list(self._candidates.keys())

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.forward_choice, cls.forward_fixed
        inherited = OneShotMutableOP.forward_choice, OneShotMutableOP.forward_fixed
        if own != inherited and cls.forward is OneShotMutableOP.forward:
            cls.forward = OneShotMutableModule.forward  # type: ignore[method-assign]  # the one that calls them

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        # Written out, and straight to the dicts: a block is dispatched once a step, and further frames and
        # nn.Module.__getattr__ would double its price.
        choice = self._current_choice
        if choice is None:
            return self.forward_all(*args, **kwargs)
        return self._modules["_candidates"]._modules[choice](*args, **kwargs)  # type: ignore[union-attr,misc]

    def sample_choice(self, rng: RandomSource | None = None) -> str:
        """A choice, uniformly.

        Args:
            rng: a seed or a `random.Random`; `None` draws from a new generator, so the result cannot be repeated.
        """
        return as_random(rng).choice(self.choices)

    def forward_choice(self, x: Any, choice: str, *args: Any, **kwargs: Any) -> Any:
        """What candidate `choice` computes.

        Errors:
            ChoiceError: no candidate of that name.
        """
        self._check_choice(choice)
        return self._candidates[choice](x, *args, **kwargs)

    def forward_fixed(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """What the candidate computes that was fixed."""
        return self.forward_choice(x, self._chosen or "", *args, **kwargs)

    def forward_all(self, *args: Any, **kwargs: Any) -> Any:
        """The sum of all candidates' outputs (seed 001). Costs are counted per candidate instead, by `mutorch.cost`.

        Errors:
            ChoiceError: outputs that cannot be added; make a choice, or a `Mutator`, which makes one.
        """
        return sum_of_outputs(self, [candidate(*args, **kwargs) for candidate in self._candidates.values()])

    def fix_chosen(self, chosen: str) -> None:
        """Keep only candidate `chosen`, for good and in place.

        Errors:
            FixedError: fixed before.
            ChoiceError: no candidate of that name; nothing is removed.
        """
        self._check_not_fixed()
        self._check_choice(chosen)
        # A new dict: the one that was given may be another mutable's too.
        self._candidates = nn.ModuleDict({chosen: self._candidates[chosen]})
        self._chosen = chosen
        self._current_choice = chosen
        self.is_fixed = True

    def dump_chosen(self) -> DumpChosen:
        """The current choice, with all choices as meta.

        Errors:
            ChoiceError: no choice was made.
        """
        if self._current_choice is None:
            raise ChoiceError(f"{self._describe()} has no current choice to dump; choices: {self.choices}")
        return DumpChosen(chosen=self._current_choice, meta={"all_choices": self.choices})

    def extra_repr(self) -> str:
        return f"choices={self.choices}, current_choice={self._current_choice!r}"


def sum_of_outputs(mutable: MutableModule[Any, Any], outputs: Sequence[Any]) -> Any:
    """The sum of what candidates gave.

    Errors:
        ChoiceError: outputs that cannot be added.
    """
    try:
        return reduce(_added, outputs)
    except (TypeError, RuntimeError) as error:
        raise ChoiceError(
            f"{mutable._describe()} has no current choice, and its candidates' outputs cannot be added ({error}); "
            f"set current_choice to one of {mutable.choices}, or make a Mutator of the model"
        ) from error


def _added(first: Any, second: Any) -> Any:
    if isinstance(first, tuple | list):  # + would put one after the other
        raise TypeError(f"{type(first).__name__}s of tensors")
    return first + second
