"""A layer that is one of several."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mutorch.errors import CandidateError, ChoiceError, MissingCandidateError, nearest

from .candidates import build_candidate
from .chooser import Chooser
from .chosen import ChosenLayer
from .clock import tick
from .diff_module import weighted_sum
from .masks import one_hot, reduced
from .relaxation import Relaxation

Label = str | int
"""How a choice spells a candidate: its name, or its position where the names are mere numbers."""


class LayerChoice(Chooser):
    """A layer of which one candidate computes (seed 004).

    Three kinds of mutator can decide it. `mutorch.Mutator` sets one choice at a time, as of every other mutable, and can
    learn choices by gradient. A mutator with callbacks gives a mask: bools take candidates, numbers weigh them. Who
    decided last is who counts. Candidates may be mutables themselves.

    In an architecture the choice is the candidate's name, or its position (an int) where all names are mere numbers, as
    those of a list are. Candidates are children under their names, so parameters are called `<choice>.<name>.weight`; a name
    that `nn.Module` cannot hold (`"forward"`, `"a.b"`) gets underscores there, and stays what it is everywhere else.

    Args:
        op_candidates: modules, or configs with `type`, in a list, tuple or `nn.ModuleList` (named `"0"`, `"1"`, …), or by
            name in a dict.
        reduction: what becomes of several outputs: `"sum"`, `"mean"` (over their number), `"concat"` (along dimension 1),
            or `"none"` (their list). One output stays as it is, and none gives `None`.
        return_mask: whether `forward` gives a pair, of which the second is the mask.
        key, label: see `Mutable`.
        relaxation: how candidates are mixed while the choice is learned; see `DiffMutableModule`.

    Errors:
        CandidateError: candidates that are no modules, or in no such container (also `TypeError`).
        ChoiceError: no candidates.
        ConfigError: another reduction (also `ValueError`).

    Example:
        >>> import torch, mutorch
        >>> net = nn.Sequential(LayerChoice({"relu": nn.ReLU(), "tanh": nn.Tanh()}, key="act"))
        >>> mutator = mutorch.Mutator(net)
        >>> mutator.set_choices({"act": "tanh"})
        >>> net(torch.zeros(1)), mutorch.export(net)
        (tensor([0.]), Sequential(
          (0): Tanh()
        ))
    """

    def __init__(
        self,
        op_candidates: Sequence[nn.Module] | Mapping[str, nn.Module] | nn.ModuleList | nn.ModuleDict,
        reduction: str = "sum",
        return_mask: bool = False,
        key: str | None = None,
        *,
        label: str | None = None,
        relaxation: Relaxation | None = None,
    ) -> None:
        super().__init__(reduction, return_mask, key, label, relaxation)
        self.names: list[str] = []
        self._children: dict[str, str] = {}
        self._fixed_mask: list[bool] | None = None
        self._by_label: dict[Label, str] = {}
        for name, module in _named(op_candidates, self._describe()):
            self._add(name, module)
        self._relabel()

    # ---- candidates ----------------------------------------------------------------------------------------------

    @property
    def candidates(self) -> Mapping[Any, nn.Module]:
        """Label to candidate, in order; those that were dropped left out."""
        found = {label: self._modules[child] for label, child in self._by_label.items()}
        return {label: module for label, module in found.items() if module is not None}

    @property
    def choices(self) -> list[Label]:
        """The labels of the candidates, in order; after fixing, of the one that is left."""
        return list(self._by_label)

    @property
    def decision_choices(self) -> list[Label]:
        """`choices`, those whose modules were dropped left out."""
        return list(self.candidates)

    @property
    def is_decision(self) -> bool:
        """Unless all candidates were dropped: then it gives `None`, for good."""
        return bool(self.candidates)

    @property
    def candidate_names(self) -> list[str]:
        """`names`."""
        return self.names

    def candidate_at(self, child: str) -> Any:
        return next((label for label, name in self._by_label.items() if name == child), None)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[nn.Module]:
        return iter([self[name] for name in self.names])

    def __contains__(self, candidate: object) -> bool:
        """Whether a name, or a module, is that of a candidate."""
        return candidate in self.names or any(candidate is module for module in self)

    def __getitem__(self, index: int | slice | str) -> Any:
        """A candidate by name or position, or a list of them.

        Errors:
            MissingCandidateError: no such name (also `KeyError`) or position (also `IndexError`).
        """
        if isinstance(index, slice):
            return [self[name] for name in self.names[index]]
        return self._modules[self._children[self._name_at(index)]]

    def __setitem__(self, index: int | str | slice, module: nn.Module) -> None:
        """Replace a candidate; candidates cannot be added."""
        if isinstance(index, slice):
            raise CandidateError(f"{self._describe()} replaces one candidate at a time, got the slice {index}")
        name = self._name_at(index)
        _check_module(name, module, self._describe())
        self._modules[self._children[name]] = module
        tick()

    def __delitem__(self, index: int | slice | str) -> None:
        """Remove candidates; the others keep their names.

        Errors:
            ChoiceError: no such name (also `ValueError`), or nothing left.
        """
        if isinstance(index, str) and index not in self.names:
            raise ChoiceError(f"{self._describe()} has no candidate {index!r}; {nearest(index, self.names)}")
        gone = self.names[index] if isinstance(index, slice) else [self._name_at(index)]
        if len(gone) == len(self.names):
            raise ChoiceError(f"{self._describe()} cannot lose all candidates: {', '.join(self.names)}")
        current = None if self._current_choice is None else self._by_label[self._current_choice]
        for name in gone:
            self.names.remove(name)
            del self._modules[self._children.pop(name)]
        self._relabel()
        self._current_choice = None if current is None else self.candidate_at(current)  # positions moved, it did not
        self.__dict__["_settled"] = None  # masks have another length now
        tick()

    def drop(self, names: Sequence[str]) -> None:
        """Remove the modules of candidates that are never taken; names, positions and masks stay as they are."""
        for name in names:
            self._modules[self._children[self._name_at(name)]] = None
        self.__dict__["_settled"] = None
        tick()

    def _add(self, name: str, module: nn.Module) -> None:
        child = name.replace(".", "_") or "_"
        while hasattr(type(self), child) or child in vars(self) or child in self._modules:
            child += "_"
        self._children[name] = child
        self._modules[child] = module
        self.names.append(name)

    def _relabel(self) -> None:
        """Names label candidates, unless they are mere numbers: then positions do."""
        numbered = all(name.isdigit() for name in self.names)
        labels: list[Label] = [*range(len(self.names))] if numbered else [*self.names]
        if self._kept is not None:
            labels = [self._kept]
        self._by_label = dict(zip(labels, (self._children[name] for name in self.names), strict=True))

    def _name_at(self, index: int | str) -> str:
        if isinstance(index, str):
            if index not in self.names:
                raise MissingCandidateError(
                    f"{self._describe()} has no candidate {index!r}; {nearest(index, self.names)}; candidates cannot be added"
                )
            return index
        try:
            return self.names[index]
        except IndexError:
            raise MissingCandidateError(
                f"{self._describe()} has {len(self.names)} candidates, got index {index}"
            ) from None

    # ---- choosing ------------------------------------------------------------------------------------------------

    def chosen_module(self, choice: Any) -> nn.Module:
        choice = self._own(choice)
        module: nn.Module = self._modules[self._by_label[choice]]  # type: ignore[assignment]
        if self.return_mask or self.reduction == "none":
            return ChosenLayer(module, self.reduction, self._mask(choice) if self.return_mask else None)
        return module

    def active_candidates(self) -> list[nn.Module]:
        """The candidates that the next `forward` computes; all, while a mutator with callbacks is asked."""
        if self._current_choice is None and self._settled is not None:
            return [self.chosen_module(self._settled)]
        if self._current_choice is None and (self.arch_param is None or self._draw is None):
            return list(self.candidates.values())
        return super().active_candidates()

    def fix_chosen(self, chosen: Label) -> None:
        """Keep only one candidate, for good and in place.

        Errors:
            FixedError: fixed before.
            ChoiceError: no such candidate; nothing is removed.
        """
        self._check_not_fixed()
        chosen = self._own(chosen)
        child = self._by_label[chosen]
        self._fixed_mask = self._mask(chosen).tolist()
        for name in [name for name in self.names if self._children[name] != child]:
            self.names.remove(name)
            del self._modules[self._children.pop(name)]
        self._kept = chosen
        self._relabel()
        self._current_choice = chosen
        self.is_fixed = True

    def _own(self, choice: Any) -> Label:
        """A choice as it is spelled here: `"1"` for the candidate of that name gives 1 where positions are labels."""
        labels = self.choices
        if isinstance(choice, str) and choice not in labels and choice in self._children:
            choice = labels[self.names.index(choice)]
        if isinstance(choice, bool) or choice not in labels:
            raise ChoiceError(f"{self._describe()} has no choice {choice!r}; {nearest(choice, labels)}")
        label = labels[labels.index(choice)]  # 1.0 finds 1
        if self._modules[self._by_label[label]] is None:
            raise ChoiceError(
                f"{self._describe()} has lost its candidate {label!r}: an architecture was applied that leaves it out; "
                f"left: {list(self.candidates)}"
            )
        return label

    def _mask(self, choice: Any) -> Tensor:
        if self._fixed_mask is not None:
            return torch.tensor(self._fixed_mask)
        return one_hot([self.choices.index(choice)], len(self.names))

    # ---- computing -----------------------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        # Written out, and straight to the dicts: a layer is dispatched once a step, and further frames would show.
        choice = self._current_choice
        if choice is None:
            choice = self._settled
            if choice is None:
                return self._forward_open(args, kwargs)
        output = self._modules[self._by_label[choice]](*args, **kwargs)  # type: ignore[misc]
        if self.reduction == "none":
            output = [output]
        return (output, self._mask(choice)) if self.return_mask else output

    def _forward_open(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.arch_param is not None:
            output, mask = self._mixed(self.arch_param, *args, **kwargs)
        elif self.mutator is not None:
            output, mask = self.mutator.on_forward_layer_choice(self, *args, **kwargs)
        else:
            raise self._undecided()
        return (output, mask) if self.return_mask else output

    def forward_arch_param(self, x: Any, arch_param: Tensor) -> Any:
        """The mixture by `arch_param`.

        Errors:
            ChoiceError: not one value for each candidate, or outputs that cannot be mixed.
        """
        return self._mixed(arch_param, x)[0]

    def forward_all(self, *args: Any, **kwargs: Any) -> Any:
        """What all candidates compute, reduced."""
        return reduced([candidate(*args, **kwargs) for candidate in self], self.reduction, self._describe())

    def forward_fixed(self, *args: Any, **kwargs: Any) -> Any:
        """What the candidate computes that was fixed."""
        return self(*args, **kwargs)

    def sample_choice(self, arch_param: Tensor) -> Label:
        """The most probable candidate."""
        self._check_arch_param(arch_param)
        return self.choices[int(arch_param.detach().argmax())]

    def _mixed(self, arch_param: Tensor, *args: Any, **kwargs: Any) -> tuple[Any, Tensor]:
        """The mixture, and the weights. As these sum to one, it is the sum and the mean alike."""
        check_mixable(self.reduction, self._describe())
        weights, paths = self._weighted(arch_param)
        outputs = [self._run(self[self.names[number]], *args, **kwargs) for number in paths]
        index = torch.tensor(list(paths), device=weights.device)
        return weighted_sum(weights, outputs), torch.zeros_like(arch_param).index_put((index,), weights)

    def extra_repr(self) -> str:
        return f"choices={self.choices}, current_choice={self._current_choice!r}"


def check_mixable(reduction: str, owner: str) -> None:
    """Nothing, if what is chosen by weights has the shape of what is chosen for good.

    Errors:
        ChoiceError: it has not.
    """
    if reduction in ("concat", "none"):
        raise ChoiceError(
            f"{owner} has reduction {reduction!r} and cannot be learned by gradient: what it gives depends on how many are "
            "chosen; use 'sum' or 'mean', or search it one architecture at a time"
        )


def _named(given: Any, owner: str) -> list[tuple[str, nn.Module]]:
    if isinstance(given, Mapping | nn.ModuleDict):
        named = list(given.items())
    elif isinstance(given, list | tuple | nn.ModuleList):
        named = [(str(number), module) for number, module in enumerate(given)]
    else:
        raise CandidateError(f"{owner} takes its candidates in a list or a dict of modules, got {type(given).__name__}")
    if not named:
        raise ChoiceError(f"{owner} got no candidates: it needs at least one")
    for name, _ in named:
        if not isinstance(name, str):
            raise CandidateError(f"{owner} names its candidates by strings, got {name!r}")
    return [(name, _built(name, module, owner)) for name, module in named]


def _built(name: str, candidate: Any, owner: str) -> nn.Module:
    """A candidate, built if it is a config."""
    if isinstance(candidate, Mapping) and "type" in candidate:
        return build_candidate(name, candidate, {})
    _check_module(name, candidate, owner)
    module: nn.Module = candidate
    return module


def _check_module(name: str, module: Any, owner: str) -> None:
    if not isinstance(module, nn.Module):
        raise CandidateError(f"candidate {name!r} of {owner} must be a module, got {type(module).__name__}")
