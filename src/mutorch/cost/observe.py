"""One forward, observed: what each operation costs, in which module, inside which candidates."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from mutorch.errors import CostError, nearest
from mutorch.mutables import MutableModule
from mutorch.space.decision import key
from mutorch.utils import ExampleInputs, call, removing, unchanged

from .conventions import mmr_extra
from .formulas import formula_of
from .live import LiveSizes

Convention = Literal["mac", "mmr"]
Context = tuple[tuple[str, Hashable], ...]
"""The `(decision, choice)` pairs that must hold for an operation to run, outermost first."""


@dataclass(slots=True)
class Observation:
    """What one forward costs: integers, or `Amount`s where live sizes are read.

    Attributes:
        flops: by context and innermost module, two per multiply-add.
        activation_bytes: by context and innermost module, the bytes of the tensors that operations made.
        uncounted: operations without a formula, and how often they ran; they count as no operations.
        reshaping: decisions whose candidates' outputs differ in shape or type, so that what follows depends on the
            choice; what each choice gave, in a form that is equal where that is.
    """

    flops: Counter[tuple[Context, str]] = field(default_factory=Counter)
    activation_bytes: Counter[tuple[Context, str]] = field(default_factory=Counter)
    uncounted: Counter[str] = field(default_factory=Counter)
    reshaping: dict[str, dict[Hashable, Any]] = field(default_factory=dict)


def observe(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    convention: Convention = "mac",
    decisions: Mapping[int, str] | None = None,
    alone: frozenset[str] = frozenset(),
    live: LiveSizes | None = None,
) -> Observation:
    """Run the model once and count. Modes, buffers, gradients and random states are as before afterwards.

    Every candidate of a one-shot module runs, each on the input that the block really gets, so one forward counts all.

    Args:
        decisions: the `id` of each module mutable to its decision's name; none for a plain model.
        alone: decisions of which only the current choice runs.
        live: reads how the sizes of tensors depend on the widths of the model, which is `whole`.

    Errors:
        CostError: an unknown convention.
    """
    if convention not in ("mac", "mmr"):
        raise CostError(f"no counting convention {convention!r}; {nearest(convention, ('mac', 'mmr'))}")
    observation = Observation()
    where = _Where()
    with ExitStack() as stack:
        stack.enter_context(unchanged(model))
        stack.enter_context(_unfused_attention())
        for path, module in model.named_modules():
            stack.enter_context(_tracked(module, path, where))
            decision = (decisions or {}).get(id(module))
            if decision is not None and decision not in alone and isinstance(module, MutableModule):
                stack.enter_context(_all_candidates(module, decision, where, observation))
            if convention == "mmr":
                stack.enter_context(_extra_counted(module, where, observation, live))
        if live is not None:
            stack.enter_context(live.reading())
        stack.enter_context(_Meter(where, observation, live))
        call(model, example_inputs)
    return observation


@dataclass(slots=True)
class _Where:
    context: Context = ()
    modules: list[str] = field(default_factory=list)

    @property
    def key(self) -> tuple[Context, str]:
        return self.context, self.modules[-1] if self.modules else ""


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts every operation that reaches torch's kernels; see `formula_of`."""

    def __init__(self, where: _Where, observation: Observation, live: LiveSizes | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._where = where
        self._live = live
        self._observation = observation

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        formula = formula_of(packet)
        if formula is None and func is not torch.ops.prim.device.default:
            # As torch's own counter does: composite operations are counted by their parts.
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                if self._live is not None:
                    self._live.see(func, args, kwargs, parts)
                return parts
        out = func(*args, **kwargs)
        live, numel = self._live, _numel(self._live)
        if live is not None:
            live.see(func, args, kwargs, out)
        if formula is None:
            self._observation.uncounted[str(packet)] += 1
        elif live is None:
            self._observation.flops[self._where.key] += formula(*args, **kwargs, out_val=out)
        else:
            self._observation.flops[self._where.key] += live.evaluate(formula, args, kwargs, out)
        self._observation.activation_bytes[self._where.key] += _new_bytes(out, (args, kwargs), numel)
        return out


def _numel(live: LiveSizes | None) -> Callable[[Tensor], Any]:
    return Tensor.numel if live is None else live.numel


def _new_bytes(out: Any, inputs: Any, numel: Callable[[Tensor], Any]) -> Any:
    """The bytes of the tensors in `out` that are no views of inputs."""
    old = {x.untyped_storage()._cdata for x in tree_flatten(inputs)[0] if isinstance(x, Tensor)}
    new = [x for x in tree_flatten(out)[0] if isinstance(x, Tensor)]
    return sum(numel(x) * x.element_size() for x in new if x.untyped_storage()._cdata not in old)


@contextmanager
def _unfused_attention() -> Iterator[None]:
    """Without the fast path of `nn.MultiheadAttention`, a single kernel that hides its matrix products."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _tracked(module: nn.Module, path: str, where: _Where) -> Iterator[None]:
    def enter(*_: Any) -> None:
        where.modules.append(path)

    def leave(*_: Any) -> None:
        where.modules.pop()

    handles = [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    with removing(handles):
        yield


@contextmanager
def _all_candidates(
    module: MutableModule[Any, Any], decision: str, where: _Where, observation: Observation
) -> Iterator[None]:
    outer: list[Context] = []
    shapes: list[dict[Hashable, Any]] = []

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        here = where.context
        outer.append(here)
        shapes.append({})
        for choice in module.decision_choices:
            if key(choice) != key(module.current_choice):
                where.context = (*here, (decision, key(choice)))
                shapes[-1][key(choice)] = _shape(_run(module, decision, choice, args, kwargs))
        where.context = (*here, (decision, key(module.current_choice)))

    def after(_: nn.Module, __: Any, ___: Any, out: Any) -> None:
        where.context = outer.pop()
        seen = shapes.pop() | {key(module.current_choice): _shape(out)}
        if len(set(seen.values())) > 1:
            known = observation.reshaping.get(decision, {})
            observation.reshaping[decision] = {choice: (known.get(choice), shape) for choice, shape in seen.items()}

    handles = [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, with_kwargs=True),
    ]
    with removing(handles):
        yield


def _run(
    module: MutableModule[Any, Any], decision: str, choice: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    try:
        return module.chosen_module(choice)(*args, **kwargs)
    except Exception as error:
        error.add_note(f"while counting choice {choice!r} of decision {decision!r}")
        raise


def _shape(value: Any) -> Any:
    leaves, spec = tree_flatten(value)
    return str(spec), tuple((tuple(x.shape), x.dtype) if isinstance(x, Tensor) else _plain(x) for x in leaves)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else type(value).__name__


@contextmanager
def _extra_counted(
    module: nn.Module, where: _Where, observation: Observation, live: LiveSizes | None
) -> Iterator[None]:
    def after(path: Callable[[], tuple[Context, str]], _: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        observation.flops[path()] += 2 * mmr_extra(module, args, out, _numel(live))

    with removing([module.register_forward_hook(partial(after, lambda: where.key))]):
        yield
