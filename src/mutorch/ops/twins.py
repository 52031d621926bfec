"""A layer as its class builds it at each choice: shapes and attributes that say what of the largest one is active."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mutorch.errors import ChoiceError
from mutorch.mutables.clock import CLOCK
from mutorch.mutables.combinations import at_all_choices, number_of_combinations

from .arguments import Arguments
from .blueprint import Blueprint, Part, blueprint_of, differing, holds_module, positions

EAGER = 64
"""Combinations of choices up to which all that build nothing are known beforehand."""
KNOWN = 1024
"""Combinations of choices that are looked at beforehand."""


class Twins:
    """What a class builds at each combination of choices, made when it is asked for, without memory, and kept.

    Attributes:
        whole: the largest layer.
        attributes: by path, the attributes that choices change.
        dims: by path and tensor, the dimensions that choices change; `None` where some do without the tensor.
        faults: choices of the arguments' sources that are known to build nothing, and why.
    """

    def __init__(self, cls: Any, arguments: Arguments) -> None:
        self.cls = cls
        self.arguments = arguments
        self.whole: Blueprint = {}
        self.attributes: dict[str, set[str]] = {}
        self.dims: dict[str, dict[str, tuple[int, ...] | None]] = {}
        self.faults: list[tuple[tuple[Any, ...], str]] = []
        self._known: dict[tuple[Any, ...], Blueprint] = {}
        self._built: dict[str, Blueprint] = {}
        self._now, self._current = -1, self.whole

    def now(self) -> Blueprint:
        """What the class builds at the current choices.

        Errors:
            ChoiceError: nothing, or what is no part of the largest layer.
        """
        if torch.compiler.is_compiling():  # so that a graph is of the choices that it was compiled with
            known = self._known.get(self.arguments.chosen())
            return self._found() if known is None else known
        if self._now != CLOCK.now:
            self._current = self._found()
            self._now = CLOCK.now
        return self._current

    def build_largest(self) -> nn.Module:
        """The layer that all others are parts of.

        Errors:
            ChoiceError: something cannot be built, or no combination of arguments builds a layer large enough.
        """
        known = self._look()
        args, kwargs = self._largest(known)
        largest: nn.Module = self.cls(*args, **kwargs)
        self.whole = blueprint_of(largest)
        for one in known:
            self._compare(one)
        for one in known:
            self._check(one)
        if self.faults:  # whatever is read of the layer then tells them
            for path, part in self.whole.items():
                self.attributes[path].update(part.attributes)
        return largest

    # ---- what there is -----------------------------------------------------------------------------------------------

    def _look(self) -> list[Blueprint]:
        """The layers of all combinations, or of many."""
        sources = self.arguments.sources
        few = number_of_combinations(sources) <= EAGER
        errors: list[ChoiceError] = []

        def build() -> Blueprint | None:
            try:
                return self._at_choices()
            except ChoiceError as error:
                errors.append(error)
                if few:
                    self.faults.append((tuple(source.current_choice for source in sources), str(error)))
                return None

        found = at_all_choices(sources, build, limit=KNOWN)
        for source in sources if number_of_combinations(sources) > KNOWN else ():
            found += at_all_choices([source], build)
        known = {id(one): one for one in found if one is not None}
        if not known:
            raise errors[0]
        return list(known.values())

    def _largest(self, known: list[Blueprint]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        combinations = at_all_choices(self.arguments.sources, self.arguments.now, limit=KNOWN)
        for args, kwargs in itertools.chain(self.arguments.extremes(), combinations):
            try:
                blueprint = self._at(args, kwargs)
            except ChoiceError:
                continue
            if all(_fault(blueprint, one) is None for one in known):
                return args, kwargs
        raise ChoiceError(
            f"{self.cls.__name__} has no largest layer: no combination of the largest and smallest values of "
            f"{_listed(self.arguments.mutables)} builds one that all others are parts of; {self._unlike(known)}"
        )

    def _unlike(self, known: list[Blueprint]) -> str:
        """Two layers that are no parts of one another."""
        for one in known:
            faults = _fault(known[-1], one), _fault(one, known[-1])
            if None not in faults:
                return f"{self._text(one)} is no part of {self._text(known[-1])}: {faults[0]}"
        return "tensors have other shapes"

    def _compare(self, one: Blueprint) -> None:
        """Note what of the largest layer is not the same in another one."""
        for path, part in self.whole.items():
            other = one[path]
            changed = differing(part, other)
            for name in changed:
                if holds_module(other.attributes[name]):
                    raise ChoiceError(
                        f"{self.cls.__name__} holds modules in {name!r}, in something that differs from choice to choice; "
                        "hold them as child modules"
                    )
            self.attributes.setdefault(path, set()).update(changed)
            dims = self.dims.setdefault(path, {})
            for name, shape in part.shapes.items():
                small = other.shapes.get(name)
                if shape is not None and small is None:
                    dims[name] = None
                elif shape is not None and small is not None and shape != small and dims.get(name, ()) is not None:
                    more = {dim for dim, size in enumerate(shape) if size != small[dim]}
                    dims[name] = tuple(sorted({*(dims.get(name) or ()), *more}))

    # ---- one -------------------------------------------------------------------------------------------------------

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _found(self) -> Blueprint:
        chosen = self.arguments.chosen()
        if chosen not in self._known:
            one = self._at_choices()
            self._check(one)
            self._known[chosen] = one
        return self._known[chosen]

    def _at_choices(self) -> Blueprint:
        chosen = self.arguments.chosen()
        if chosen not in self._known:
            self._known[chosen] = self._at(*self.arguments.now())
        return self._known[chosen]

    def _at(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Blueprint:
        text = call_as_text(self.cls, args, kwargs)
        if text not in self._built:
            try:
                self._built[text] = self._build(args, kwargs)
            except Exception as error:
                cause = str(error) if isinstance(error, ChoiceError) else f"{type(error).__name__}: {error}"
                raise ChoiceError(
                    f"{text} cannot be built: {cause}; its arguments are decided by {_listed(self.arguments.mutables)}"
                    f"{_advice(self.arguments)}"
                ) from error
        return self._built[text]

    def _build(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Blueprint:
        """Without memory where that says all: buffers may be computed from arguments, and some classes read tensors."""
        with torch.random.fork_rng(devices=[]):
            try:
                with torch.device("meta"):
                    found = blueprint_of(self.cls(*args, **_on("meta", kwargs)))
            except ChoiceError:
                raise
            except Exception:  # it reads numbers of tensors, or its arguments are wrong: then the next line says so
                found = {}
            if found and not any(part.buffer_names for part in found.values()):
                return found
            with torch.device("cpu"):
                return blueprint_of(self.cls(*args, **_on("cpu", kwargs)))

    def _check(self, one: Blueprint) -> None:
        """Whether one is what the active part of the largest layer will be."""
        if one is self.whole:
            return
        fault = _fault(self.whole, one)
        for path, part in self.whole.items() if fault is None else ():
            fault = fault or self._fault_of_part(path, part, one[path])
        if fault is not None:
            raise ChoiceError(f"{self._text(one)} is no part of the largest {self.cls.__name__}: {fault}")

    def _fault_of_part(self, path: str, part: Part, other: Part) -> str | None:
        unknown = differing(part, other) - self.attributes[path]
        if unknown:
            return (
                f"{f'{path}.'.lstrip('.')}{sorted(unknown)[0]} differs, and did not in the first {KNOWN} combinations"
            )
        for name, shape in part.shapes.items():
            small, dims = other.shapes.get(name), self.dims[path].get(name, ())
            if small is None and shape is not None and dims is not None:
                return f"it goes without {name!r}, and none did in the first {KNOWN} combinations"
            unlike = [d for d, size in enumerate(shape or ()) if small is not None and size != small[d]]
            if dims is not None and not {*unlike} <= {*dims}:
                return f"{name!r} has the shape {small}, and the first {KNOWN} combinations changed dimensions {dims}"
        for name, buffer in other.buffers.items():
            if name in part.buffers and not _is_part(buffer, part.buffers[name], name, part):
                return (
                    f"the buffer {name!r} is computed from the arguments, and not as the first entries of a larger one; "
                    "compute it in the forward"
                )
        return None

    def _text(self, one: Blueprint) -> str:
        """The call that builds a layer."""
        return next(text for text, built in self._built.items() if built is one)

    # ---- copies ------------------------------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> Twins:
        copied = Twins(self.cls, copy.deepcopy(self.arguments, memo))
        memo[id(self)] = copied
        copied.whole, copied.attributes, copied.dims = self.whole, self.attributes, self.dims
        copied.faults = self.faults
        copied._known, copied._built = dict(self._known), dict(self._built)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        known = self._known if len(self._known) <= EAGER else {}
        return {**vars(self), "_known": known, "_built": {}, "_now": -1, "_current": {}}


def call_as_text(cls: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """The call that builds a layer, as one writes it."""
    given = [_shown(value) for value in args] + [f"{name}={_shown(value)}" for name, value in kwargs.items()]
    return f"{cls.__name__}({', '.join(given)})"


def _shown(value: Any) -> str:
    return f"{type(value).__name__}(...)" if isinstance(value, nn.Module) else repr(value)


def _on(device: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**kwargs, "device": device} if kwargs.get("device") is not None else kwargs


def _fault(whole: Blueprint, one: Blueprint) -> str | None:
    """Why one blueprint is no part of another; `None` if it is."""
    if list(whole) != list(one):
        other = sorted(set(whole) ^ set(one))
        return f"it has other modules{f', first {other[0]!r}' if other else ', in another order'}; let Repeat or LayerChoice decide them"
    for path, part in whole.items():
        small = one[path]
        where = f" in {path!r}" if path else ""
        if small.kind is not part.kind:
            return (
                f"a {small.kind.__name__} stands{where} in place of a {part.kind.__name__}; let LayerChoice decide that"
            )
        for name, shape in small.shapes.items():
            largest = part.shapes.get(name)
            if shape is None:
                continue
            if largest is None or len(largest) != len(shape) or any(a > b for a, b in zip(shape, largest, strict=True)):
                return f"{name!r}{where} has the shape {shape}, and {largest} in the largest"
    return None


def _is_part(buffer: torch.Tensor, whole: torch.Tensor, name: str, part: Part) -> bool:
    for dim, (size, count) in enumerate(zip(whole.shape, buffer.shape, strict=True)):
        middle = name in part.kernels and dim >= 2
        pieces = part.stacked.get(name, 1) if dim == 0 else 1
        places = list(positions(size, count, pieces=pieces, middle=middle))
        whole = whole.index_select(dim, torch.tensor(places, device="cpu"))
    return torch.equal(buffer, whole)


def _advice(arguments: Arguments) -> str:
    if len(arguments.sources) < 2:
        return ""
    return "; let one value be computed from the other, or choose pairs: v = ValueChoice([(a, b), ...]), then v[0] and v[1]"


def _listed(mutables: Mapping[str, Any]) -> str:
    return " and ".join(f"{name}={mutable!r}" for name, mutable in mutables.items())
