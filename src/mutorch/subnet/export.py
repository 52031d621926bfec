"""From a supernet and an architecture to a new plain model."""

import copy
import json
import types
import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, cast

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mutorch.channels.searchable import SEARCH
from mutorch.errors import ExportError
from mutorch.mutables import (
    BaseMutable,
    DerivedMutable,
    DiffMutableModule,
    Mutable,
    MutableModule,
    MutableScope,
    Require,
    find_sources,
)
from mutorch.mutables.base import HELD
from mutorch.mutators import BaseMutator, CustomGroups, Mutator, group, tell_paths, unwrap
from mutorch.ops import DynamicOp, DynamicSequential
from mutorch.ops.dynamic import dynamic_modules
from mutorch.ops.skippable import is_skipped, make_unskippable_
from mutorch.ops.static import enter_parts, leave_
from mutorch.space import Architecture, Choice, SearchSpace
from mutorch.training import recalibrate_

RECORD = "architecture_record"
"""The attribute of an exported model that remembers, as plain data, what it was exported from."""


def export(
    net: nn.Module,
    architecture: Mapping[str, Choice] | None = None,
    *,
    mutator: Mutator | None = None,
    calibrate: Iterable[Any] | None = None,
) -> nn.Module:
    """The subnet at `architecture` as a new plain model; `net` is left as it is.

    Where a block of candidates stood, the chosen candidate stands, at the same path. Where a value stood, a bare
    `nn.Module` stands, whose `current_choice` is the chosen value. No mutable, hook or mask is inside, so the model
    pickles, deep-copies, compiles and exports like any other; your classes stay your classes, and blocks that come from
    `mutorch.models` stay those. Only what the subnet keeps is copied, without gradients.

    `export(net, a)(x)` equals `net(x)` at `a`, bit for bit in evaluation mode.

    Args:
        net: the supernet, or a parallel wrapper of it.
        architecture: decision to choice; the current one unless given.
        mutator: needed only where it has custom groups, whose names the architecture uses.
        calibrate: batches to measure the subnet's own BatchNorm statistics on, as `search` does with its candidates; see
            `recalibrate_`. Without them it has those of the supernet, and computes what the supernet computes.

    Errors:
        SpaceError, ChoiceError: not an architecture of the net's space.
        ExportError: a mutable that cannot be made plain; it is named.

    Example:
        >>> from mutorch.mutables import OneShotMutableOP
        >>> net = nn.Sequential(OneShotMutableOP({"a": nn.ReLU(), "b": nn.GELU()}), nn.Flatten())
        >>> export(net, {"0": "b"})
        Sequential(
          (0): GELU(approximate='none')
          (1): Flatten(start_dim=1, end_dim=-1)
        )
    """
    model = unwrap(net)
    space, groups = (mutator.space, mutator.search_groups) if mutator is not None else group(model)
    if mutator is not None and mutator.model is not model:
        raise ExportError("the mutator belongs to another model; make one of this net, or leave it out")
    current = {name: mutables[0].current_choice for name, mutables in groups.items()}
    if architecture is None:
        learning = [name for name, members in groups.items() if _is_learning(members[0])]
        if learning:
            raise ExportError(f"{learning[0]!r} has no choice yet, it is being learned; give mutator.argmax()")
        masked = {name: _by_mask(members[0]) for name, members in groups.items() if _by_mask(members[0])}
        for name, decider in masked.items():
            raise ExportError(
                f"{name!r} has no choice: a {decider} decides it, by a mask that takes several candidates, or none yet; give "
                "an architecture, such as its export()"
            )
        architecture = {name: space[name].default if choice is None else choice for name, choice in current.items()}
    chosen = space.canonical(architecture)
    choices = {id(mutable): chosen[name] for name, mutables in groups.items() for mutable in mutables}
    exporter = _Exporter(choices, [mutable for mutables in groups.values() for mutable in mutables])
    exported = exporter.export(model)
    _check_plain(exported)
    record = _record(space, chosen, mutator.custom_groups if mutator is not None else None)
    record |= {"resized": exporter.resized} if exporter.resized else {}
    setattr(exported, RECORD, record | ({"removed": exporter.removed} if exporter.removed else {}))
    if calibrate is not None:
        recalibrate_(exported, calibrate)
    return exported


def record_of(model: nn.Module) -> Mapping[str, Any] | None:
    """What `export` wrote down about a model: architecture and fingerprint of the space; `None` for other models."""
    record = getattr(model, RECORD, None)
    return record if isinstance(record, Mapping) else None


def _record(space: SearchSpace, architecture: Architecture, custom_groups: CustomGroups | None) -> dict[str, Any]:
    record = {"architecture": architecture, "space": space.fingerprint}
    if isinstance(custom_groups, Mapping):
        return {**record, "custom_groups": {name: list(keys) for name, keys in custom_groups.items()}}
    return {**record, "custom_groups": [list(keys) for keys in custom_groups]} if custom_groups else record


def _is_learning(mutable: BaseMutable[Any, Any]) -> bool:
    return isinstance(mutable, DiffMutableModule) and mutable.current_choice is None and mutable.arch_param is not None


def _by_mask(mutable: BaseMutable[Any, Any]) -> str:
    """The class of the mutator with callbacks that decides something which is no choice; empty without one."""
    open_ = isinstance(mutable, Mutable) and mutable.mutator is not None and mutable.current_choice is None
    return type(mutable.mutator).__name__ if isinstance(mutable, Mutable) and open_ else ""


class _Exporter:
    """A deep copy in which every mutable is replaced by what it stands for.

    `copy.deepcopy` looks into its memo first: a mutable that is entered there with its replacement is never copied, and
    every reference to it, wherever it is held, becomes one to the replacement.
    """

    def __init__(self, choices: Mapping[int, Choice], decisions: Iterable[BaseMutable[Any, Any]]) -> None:
        self._choices = choices
        self._decisions = [mutable for mutable in decisions if not isinstance(mutable, MutableModule)]
        self._memo: dict[int, Any] = {}
        self._entered: set[int] = set()
        self.resized: dict[str, dict[str, Any]] = {}
        self.removed: dict[str, list[str]] = {}

    def export(self, model: nn.Module) -> nn.Module:
        before = [(decision, decision.current_choice) for decision in self._decisions]
        try:
            for decision, _ in before:
                decision.assign(self._choices[id(decision)])
            gone = self._leave_out_blocks(model)
            self._enter_channels(model)
        finally:
            for decision, choice in before:
                decision.assign(choice)
        self._enter_values(model)
        self._enter(model)
        exported: nn.Module = copy.deepcopy(model, self._memo)
        for module in exported.modules():
            for name in (SEARCH, HELD):
                module.__dict__.pop(name, None)
            make_unskippable_(module)
        leave_(exported)
        tell_paths(exported)  # scopes, which are called without a mutator from now on
        for row, name in gone:
            del self._memo[id(row)]._modules[name]
        return exported

    def _leave_out_blocks(self, model: nn.Module) -> list[tuple[nn.Module, str]]:
        """Blocks that this depth does not compute, with the rows that they are in; they are not copied."""
        gone: list[tuple[nn.Module, str]] = []
        for path, row in model.named_modules():
            for name, block in row.named_children():
                if is_skipped(block):
                    self._memo[id(block)] = None
                    self.removed.setdefault(path, []).append(name)
                    gone.append((row, name))
        return gone

    def _enter_channels(self, model: nn.Module) -> None:
        """The active part of every tensor, once however many modules hold it, and the sizes that follow."""
        for module in model.modules():
            for name in (SEARCH, HELD):
                if name in vars(module):
                    self._memo[id(vars(module)[name])] = None
        enter_parts(model.modules(), self._memo)
        for path, module, _ in dynamic_modules(model):
            if isinstance(module, DynamicSequential) and module.depth < len(module):
                self.removed[path] = [name for name in module.extras() if name.isdigit()]
        left_out = [f"{row}.{name}".lstrip(".") for row, names in self.removed.items() for name in names]
        for path, module, state in dynamic_modules(model):
            values = self._memo[id(state)].values
            changed = {
                name: value for name, value in values.items() if value != module.__dict__[name] and _is_plain(value)
            }
            if changed and not any(path == block or path.startswith(f"{block}.") for block in left_out):
                self.resized[path] = changed

    def _enter_values(self, model: nn.Module) -> None:
        """Values first: a candidate may hold on to one that stands elsewhere."""
        self._memo |= {id(module): nn.Module() for module in model.modules() if isinstance(module, Require)}
        values = [m for m in model.modules() if isinstance(m, BaseMutable) and not isinstance(m, (*_MODULES, Require))]
        sources = {id(s): s for m in values if isinstance(m, DerivedMutable) for s in m.sources}
        before = {id(m): m.current_choice for m in [*values, *sources.values()] if not isinstance(m, DerivedMutable)}
        plain = [m for m in [*values, *sources.values()] if not isinstance(m, DerivedMutable)]
        try:
            for mutable in plain:
                if id(mutable) in self._choices:
                    mutable.assign(self._choices[id(mutable)])
            for mutable in [*values, *sources.values()]:
                if not isinstance(mutable, _MODULES):
                    self._memo[id(mutable)] = _plain_value(mutable)
        finally:
            for mutable in plain:
                mutable.assign(before[id(mutable)])

    def _enter(self, module: nn.Module) -> None:
        """Innermost first, and only what this architecture keeps."""
        if id(module) in self._entered or id(module) in self._memo:
            return
        self._entered.add(id(module))
        self._enter_attributes(module)
        if isinstance(module, BaseMutator):
            self._memo[id(module)] = None
        elif isinstance(module, MutableModule):
            if id(module) not in self._choices:
                raise ExportError(
                    f"{type(module).__name__} with choices {list(module.choices)} takes none of them; leave it out"
                )
            if module._forward_hooks or module._forward_pre_hooks:
                warnings.warn(
                    f"the hooks on {type(module).__name__} with choices {list(module.choices)} do not go along: in the "
                    "exported model its candidate stands in its place; register them on the candidates",
                    stacklevel=2,
                )
            chosen = module.chosen_module(self._choices[id(module)])
            self._enter(chosen)
            self._memo[id(module)] = copy.deepcopy(chosen, self._memo)
        elif hasattr(module, "to_static_op") and not isinstance(module, DynamicOp):
            self._memo[id(module)] = cast("Any", module).to_static_op()
        else:
            for child in module.children():
                self._enter(child)

    def _enter_attributes(self, module: nn.Module) -> None:
        """What a module holds besides tensors and modules: no mutator goes along, kept outputs of a forward stay values."""
        held = [value for name, value in vars(module).items() if name not in _OF_EVERY_MODULE]
        held += [buffer for buffer in module._buffers.values() if buffer is not None]
        for leaf in tree_leaves(held) if held else ():
            if isinstance(leaf, Mutator):
                self._memo[id(leaf)] = None
            elif isinstance(leaf, Tensor) and not leaf.is_leaf:
                self._memo[id(leaf)] = leaf.detach().clone()


_MODULES = (MutableModule, MutableScope)
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def _plain_value(mutable: BaseMutable[Any, Any]) -> nn.Module:
    """A bare module with the attributes that forwards read of a value; it has no tensors and adds no keys."""
    plain = nn.Module()
    for name in ("current_choice", "choices", "num_choices", "max_choice", "min_choice", "current_mask"):
        if name == "choices" and isinstance(mutable, DerivedMutable):
            continue  # reading them would move the sources
        try:
            setattr(plain, name, getattr(mutable, name))
        except (AttributeError, RuntimeError):  # it has none
            continue
    return plain


def _is_plain(value: Any) -> bool:
    """Whether a file can hold a value."""
    try:
        json.dumps(value)
    except TypeError:  # the function that a choice of a name stands for, say
        return False
    return True


def _check_plain(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if isinstance(module, BaseMutable) and not isinstance(module, MutableScope):  # which is a class of the user's
            raise ExportError(
                f"{path!r} is still a {type(module).__name__} after export: it is held where export cannot see it; "
                "register it as a child module"
            )
        for name, held in vars(module).items():
            if isinstance(held, types.FunctionType | partial) and find_sources(held):
                raise ExportError(
                    f"{f'{path}.{name}'.lstrip('.')!r} is a function that reads a mutable, and would read the supernet's; "
                    "make it a method, or a DerivedMutable"
                )
