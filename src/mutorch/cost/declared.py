"""What modules that are declared dynamic, or whose arguments are mutables, store, as amounts."""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from mutorch.errors import ChoiceError
from mutorch.mutables import BaseMutable, DerivedMutable, MutableChannelContainer, MutableModule
from mutorch.mutators import Mutator
from mutorch.ops import DynamicOp, DynamicSequential
from mutorch.ops.dynamic import STATE, DynamicState
from mutorch.ops.static import MUTABLES

from .amount import Amount
from .static import held


class DeclaredSizes:
    """How many elements of the tensors of such modules an exported model has.

    Args:
        mutator: of the model; its choices are moved, and put back.
    """

    def __init__(self, mutator: Mutator) -> None:
        self._mutator = mutator
        self._number = {name: number for number, name in enumerate(mutator.space.names)}
        self._decision: dict[int, str] = {}
        for name, mutables in mutator.search_groups.items():
            for mutable in mutables:
                if not isinstance(mutable, MutableModule):  # a unit holds its channel mutable
                    self._decision |= dict.fromkeys(map(id, mutable.modules()), name)
        self._parts: dict[int, tuple[int, Amount]] = {}
        self._kept: dict[int, Amount] = {}
        before = mutator.current_choices
        try:
            for module in mutator.model.modules():
                if isinstance(module, DynamicOp):
                    self._learn(module)
                else:
                    self._learn_values(module)
        finally:
            for name, choice in before.items():
                self._assign(name, choice)

    def of(self, tensor: Tensor, whole: int | Amount) -> Amount:
        """The elements of a tensor, of which `whole` are there while nothing declared is cut."""
        amount = Amount.of(whole)
        if id(tensor) in self._parts:
            elements, part = self._parts[id(tensor)]
            amount = Amount({key: table // elements for key, table in (amount * part).terms.items()})
        return amount * self._kept[id(tensor)] if id(tensor) in self._kept else amount

    def _learn(self, op: DynamicOp) -> None:
        state: DynamicState = op.__dict__[STATE]
        own = state if state.own is None else state.own
        for name, dims in own.tensors.items():
            tensor = held(op, name)
            if tensor is None:
                continue
            if name in own.rules:
                number = self._table(list(op.mutable_attrs.values()), _Elements(own, name, tensor))
                # The rule says how many there are, of all that there are.
                self._parts[id(tensor)] = (tensor.numel(), number)
                continue
            part = Amount.of(1)
            for _, extent in dims:
                sources = [getattr(extent, "value", None), *extent.channels]
                part = part * self._table([source for source in sources if source is not None], extent.count)
            self._parts[id(tensor)] = (math.prod(int(tensor.shape[dim]) for dim, _ in dims), part)
        for name in op.extras():
            child = op._modules.get(name)
            gone = _tensors(child) if child is not None and name != MUTABLES else []
            if not isinstance(op, DynamicSequential):
                gone += [
                    parameter for one, parameter in op._parameters.items() if one == name and parameter is not None
                ]
                self._keep(gone, Amount({}))
        if isinstance(op, DynamicSequential) and op.get_mutable_attr("depth") is not None:
            depth = op.get_mutable_attr("depth")
            for place, child in enumerate(op.pure_modules()):
                runs = self._table([depth], partial(_runs, op, place))
                self._keep(_tensors(child), runs)

    def _learn_values(self, module: nn.Module) -> None:
        """What values decide that are arguments of the module's class."""
        state = module.__dict__.get(STATE)
        if not isinstance(state, DynamicState):
            return
        own = state if state.own is None else state.own
        for name in () if own.twins is None else own.tensors:
            tensor = held(module, name)
            if tensor is not None:
                number = self._table(own.twins.arguments.sources, _Active(own, name, tensor))
                self._parts[id(tensor)] = (tensor.numel(), number)

    def _keep(self, tensors: Sequence[Tensor], amount: Amount) -> None:
        for tensor in tensors:
            known = self._kept.get(id(tensor))
            self._kept[id(tensor)] = amount if known is None else known * amount

    def _table(self, mutables: Sequence[Any], read: Callable[[], int]) -> Amount:
        """What `read` gives at all choices that these mutables come from."""
        names = {self._decision[id(source)] for source in _sources(mutables) if id(source) in self._decision}
        ordered = sorted(names, key=self._number.__getitem__)
        choices = [self._mutator.space[name].choices for name in ordered]
        table = np.zeros([len(each) for each in choices], dtype=np.int64)
        for codes in itertools.product(*(range(len(each)) for each in choices)):
            for name, each, code in zip(ordered, choices, codes, strict=True):
                self._assign(name, each[code])
            table[codes] = read()
        return Amount({tuple(self._number[name] for name in ordered): table})

    def _assign(self, name: str, choice: Any) -> None:
        for mutable in self._mutator.search_groups[name]:
            mutable.assign(choice)


def _runs(op: DynamicSequential, place: int) -> int:
    return int(op.depth > place)


class _Elements:
    """The number of elements that a rule leaves of a tensor."""

    def __init__(self, state: DynamicState, name: str, tensor: Tensor) -> None:
        self._state, self._name, self._tensor = state, name, tensor

    def __call__(self) -> int:
        part = self._state.part(self._name, self._tensor)
        return 0 if part is None else part.numel()


class _Active:
    """The number of active elements of a tensor that values decide."""

    def __init__(self, state: DynamicState, name: str, tensor: Tensor) -> None:
        self._state, self._name, self._tensor = state, name, tensor

    def __call__(self) -> int:
        dims = self._state.tensors[self._name]
        try:
            rule = self._state.rules.get(self._name)
            if rule is not None and rule.read(self._name, self._tensor, dims, "slice") is None:
                return 0
            gone = math.prod(extent.size for _, extent in dims)
            return self._tensor.numel() // gone * math.prod(extent.count() for _, extent in dims) if gone else 0
        except ChoiceError:  # choices that the class is not built from: nothing asks for these
            return 0


def is_declared(mutable: BaseMutable[Any, Any]) -> bool:
    """Whether a unit cuts modules that are declared dynamic."""
    return any(isinstance(channel.module, DynamicOp) for channel in getattr(mutable, "channels", ()))


def _sources(mutables: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for mutable in mutables:
        if isinstance(mutable, DerivedMutable):
            found += _sources(mutable.sources)
        elif isinstance(mutable, MutableChannelContainer):
            found += _sources(list(mutable.registered.values()))
        else:
            found.append(mutable)
    return found


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
