"""What was not trained does not move: neither weights nor what the optimizer remembers of them.

Where a layer is cut, its weight still gets one gradient, with zeros for the channels that were left out. An optimizer moves
them all the same: by weight decay, and by the momentum of earlier steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer
from torch.utils.hooks import RemovableHandle

from mutorch.errors import ConfigError
from mutorch.mutables.clock import CLOCK
from mutorch.mutators import active_elements, active_readers, unwrap

PROTECTIONS = "mutorch_protections"
"""The attribute of an optimizer that lists its protections."""


@dataclass(slots=True)
class _Kept:
    """What a parameter, and the optimizer's state of it, must have again after the step where `used` is false."""

    parameter: nn.Parameter
    used: Tensor
    values: Tensor
    state: dict[str, Tensor]


class Protection:
    """What `protect` gives; `remove()` ends it."""

    def __init__(self, optimizer: Optimizer, model: nn.Module) -> None:
        self._model = model
        self._optimizer = optimizer
        self._ids = {id(parameter) for parameter in model.parameters()}
        self._hooks: dict[int, RemovableHandle] = {}
        self._used: dict[int, Tensor | None] = {}  # None: all of it
        self._now, self._readers = -1, active_readers(model)
        self._kept: list[_Kept] = []
        self._set_aside: list[tuple[nn.Parameter, Tensor]] = []
        self._watch()
        optimizer.__dict__.setdefault(PROTECTIONS, []).append(self)
        self._steps = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def remove(self) -> None:
        """Let the optimizer move everything again, as it did before."""
        for handle in (*self._steps, *self._hooks.values()):
            handle.remove()
        self._steps, self._hooks, self._used = [], {}, {}
        self._optimizer.__dict__[PROTECTIONS] = [one for one in protections_of(self._optimizer) if one is not self]

    def shares(self, ids: set[int]) -> bool:
        """Whether it protects one of these parameters."""
        return any(id(parameter) in ids for parameter in self._parameters())

    # ---- what is used ------------------------------------------------------------------------------------------------

    def _parameters(self) -> list[nn.Parameter]:
        every = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        return [parameter for parameter in every if id(parameter) in self._ids]

    def _watch(self) -> None:
        """See each backward that reaches a parameter; those that are thawed later are watched from then on."""
        for parameter in self._parameters():
            if parameter.requires_grad and parameter.is_leaf and id(parameter) not in self._hooks:
                hook = parameter.register_post_accumulate_grad_hook(self._reached)  # type: ignore[no-untyped-call]
                self._hooks[id(parameter)] = hook

    @torch.no_grad()
    def _reached(self, parameter: Any) -> None:
        known = self._used.get(id(parameter), False)
        if known is not None:  # all of it was used already
            now = self._active(parameter)
            self._used[id(parameter)] = now if known is False or now is None else known | now

    def _active(self, parameter: nn.Parameter) -> Tensor | None:
        """Which elements the current choices compute with; `None` for all."""
        if self._now != CLOCK.now:
            self._readers, self._now = active_readers(self._model), CLOCK.now
        readers = self._readers.get(id(parameter))
        return torch.zeros_like(parameter, dtype=torch.bool) if readers is None else active_elements(readers)

    def _used_of(self, parameter: nn.Parameter, gradient: Tensor) -> Tensor | None:
        """Which elements may move; `None` for all. What has a gradient was used, whoever computed it."""
        used = self._used.get(id(parameter), False)
        if used is None:
            return None
        has = (gradient.to_dense() if gradient.is_sparse else gradient) != 0
        if used is False:  # no backward: a gradient of zeros that was left there, or one written by hand
            used = self._active(parameter) if has.any() else has
        return None if used is None else used | has

    # ---- around a step -----------------------------------------------------------------------------------------------

    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._keep()
            return None

        def then_keep() -> Any:
            with torch.enable_grad():
                loss = closure()
            self._keep()
            return loss

        if "closure" in kwargs:
            return args, {**kwargs, "closure": then_keep}
        return (args[0], then_keep, *args[2:]), kwargs

    @torch.no_grad()
    def _keep(self) -> None:
        self._restore()  # what a step that failed left
        for parameter in self._parameters():
            if parameter.grad is None:
                continue
            used = self._used_of(parameter, parameter.grad)
            count = parameter.numel() if used is None else int(used.count_nonzero())
            if used is None or count == parameter.numel():
                continue
            if count:
                state = {name: value.clone() for name, value in self._elements(parameter)}
                self._kept.append(_Kept(parameter, used, parameter.detach().clone(), state))
            else:
                self._set_aside.append((parameter, parameter.grad))
        for parameter, _ in self._set_aside:
            parameter.grad = None  # the optimizer passes over it, and counts no step
        for one in self._kept:
            if not one.state:  # the optimizer's first step: it begins with nothing, and weight decay of nothing
                one.parameter.masked_fill_(~one.used, 0)

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._used = {}
        self._restore()
        self._watch()

    def _restore(self) -> None:
        (kept, set_aside), (self._kept, self._set_aside) = (self._kept, self._set_aside), ([], [])
        for parameter, gradient in set_aside:
            parameter.grad = gradient if parameter.grad is None else parameter.grad
        for one in kept:
            _put_back(one.parameter, one.used, one.values)
        for one in kept:
            for name, value in self._elements(one.parameter):
                if name in one.state:  # what is new is what the optimizer begins with
                    _put_back(value, one.used, one.state[name])

    def _elements(self, parameter: nn.Parameter) -> Iterator[tuple[str, Tensor]]:
        """What the optimizer remembers of each element."""
        for name, value in self._optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.dim():
                self._check(name, value, parameter)
                yield name, value

    def _check(self, name: str, value: Tensor, parameter: nn.Parameter) -> None:
        if value.shape != parameter.shape:
            raise ConfigError(
                f"{type(self._optimizer).__name__} remembers {name!r} of shape {tuple(value.shape)} for a parameter of shape "
                f"{tuple(parameter.shape)}: what it says of channels that were left out cannot be told apart; use SGD, Adam "
                "or another optimizer that remembers elements"
            )


def protect(optimizer: Optimizer, model: nn.Module) -> Protection:
    """From now on `optimizer.step()` moves only what was trained since the step before; the result's `remove()` ends that.

    Channels that were cut, borders of kernels, blocks and candidates that were left out keep their weights bit for bit, and
    so does what the optimizer remembers of them (momentum, averages of gradients and of their squares): no momentum, no
    weight decay. What is trained moves as always. The optimizer's `state_dict` stays as it is.

    An element counts as used if a backward since the last step reached its parameter while the choices computed with it, or
    if it has a gradient that is not zero. So several architectures a step (`sandwich_step`, `strict_fair_step`, gradient
    accumulation) move what any of them used. Set an architecture before its forward, and leave it set until its backward. If
    a scaler for mixed precision leaves out a step, what it used counts for the next one.

    Costs, for each parameter that is used in part, copies of it and of its state and writing these back: a fixed time, whatever
    the batch, of about a quarter of a second a step for 25 million parameters on one CPU core. Parameters that are used whole,
    as all are with `sandwich_step`, cost nearly nothing.

    Args:
        optimizer: any that remembers one number for each element: SGD, Adam, AdamW, RMSprop, Lion and so on, with
            `foreach`, `fused` or neither. Counts of steps are of whole parameters and go on.
        model: the supernet; a wrapper is looked through.

    Errors:
        ConfigError: an optimizer with none of the model's parameters, one that is protected already, or one whose steps
            cannot be taken apart: LBFGS, and, at its first step, one that remembers rows, such as Adafactor.

    Example:
        >>> from mutorch import Mutator, searchable
        >>> net = searchable(nn.Sequential(nn.Linear(2, 16), nn.Linear(16, 1)), torch.ones(1, 2))
        >>> Mutator(net).set_min_choices()
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
        >>> protection = protect(optimizer, net)
        >>> whole = dict(net.named_parameters())["0.weight"]
        >>> before = whole.detach().clone()
        >>> net(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()
        >>> (whole != before).any(dim=1).sum().item()  # of 16 rows
        8
    """
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(
            f"protect takes a torch optimizer, got {type(optimizer).__name__}; give the one that it wraps"
        )
    if isinstance(optimizer, LBFGS):
        raise ConfigError(
            "LBFGS moves all parameters along one direction, so no part of them can stay; use another optimizer"
        )
    model = unwrap(model)
    ids = {id(parameter) for parameter in model.parameters()}
    if not any(id(parameter) in ids for group in optimizer.param_groups for parameter in group["params"]):
        raise ConfigError(
            f"the optimizer has none of the parameters of this {type(model).__name__}; make it of model.parameters(), after "
            "searchable(...) and after the model is where it is trained"
        )
    if any(protection.shares(ids) for protection in protections_of(optimizer)):
        raise ConfigError(
            "the optimizer is protected already, for parameters of this model; remove() that protection first"
        )
    return Protection(optimizer, model)


def protections_of(optimizer: Optimizer) -> list[Protection]:
    """Those that have not been removed."""
    return list(optimizer.__dict__.get(PROTECTIONS, ()))


def _put_back(value: Tensor, used: Tensor, before: Tensor) -> None:
    torch.where(used, value, before, out=value)
