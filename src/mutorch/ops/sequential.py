"""A sequence of which the first so many modules run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from mutorch.errors import ChoiceError
from mutorch.mutables import DerivedMutable, MutableValue

from .op import Attr, DynamicOp

_NOT_RUN = (MutableValue, DerivedMutable, nn.ModuleDict)


class DynamicSequential(DynamicOp, nn.Sequential):
    """An `nn.Sequential` whose `depth` can be decided: the first `depth` modules run.

    Mutable values among the children are not run.

    Example:
        >>> from mutorch.mutables import OneShotMutableValue
        >>> blocks, depth = DynamicSequential(nn.ReLU(), nn.GELU(), nn.Tanh()), OneShotMutableValue([1, 3])
        >>> blocks.register_mutable_attr("depth", depth)
        >>> depth.fix_chosen(1)
        >>> blocks.to_static_op()
        Sequential(
          (0): ReLU()
        )
    """

    static_class = nn.Sequential
    attrs = {"depth": Attr(channels=False)}

    def pure_modules(self) -> list[nn.Module]:
        """The modules of the sequence, whatever the depth."""
        return [module for _, module in self._pure()]

    def running_modules(self) -> list[nn.Module]:
        """Those that run now."""
        return self.pure_modules()[: self.depth]

    @property
    def pure_module_nums(self) -> int:
        """How many there are."""
        return len(self._pure())

    @property
    def depth(self) -> int:
        """How many run now."""
        value = self.get_mutable_attr("depth")
        return self.pure_module_nums if value is None else int(self.get_current_choice(value))

    def check_mutable_attr(self, name: str, mutable: Any) -> None:
        super().check_mutable_attr(name, mutable)
        deepest = max(getattr(mutable, "choices", None) or [mutable.current_choice])
        if deepest > self.pure_module_nums:
            raise ChoiceError(f"a depth of {deepest} is more than the {self.pure_module_nums} modules of the sequence")

    def forward(self, input: Any) -> Any:
        for module in self.running_modules():
            input = module(input)
        return input

    def extras(self) -> tuple[str, ...]:
        run = {name for name, _ in self._pure()[: self.depth]}
        return tuple(name for name in self._modules if name not in run)

    def _pure(self) -> list[tuple[str, nn.Module]]:
        return [(name, module) for name, module in self._modules.items() if not isinstance(module, _NOT_RUN)]

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.pure_modules())

    def __len__(self) -> int:
        return self.pure_module_nums

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return nn.Sequential(*self.pure_modules()[index])
        return self.pure_modules()[index]
