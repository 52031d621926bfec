"""Which of several inputs are taken."""

from collections.abc import Mapping, Sequence
from itertools import chain, combinations
from math import comb
from typing import Any, ClassVar

import torch
from torch import Tensor

from mutorch.errors import ChoiceError, nearest
from mutorch.space.decision import key as spelled

from .chooser import Chooser
from .chosen import ChosenInputs
from .diff_module import weighted_sum
from .diff_route import MAX_DECISION_CHOICES
from .inputs import NO_KEY, in_order, value_of
from .layer_choice import check_mixable
from .masks import one_hot, reduced
from .picks import AnyNumber, Picks, Some
from .relaxation import Relaxation


class InputChoice(Chooser):
    """Some of several inputs: what connects the layers of a network (seed 004).

    `forward` takes a list with one input for each candidate, or a dict by the names of `choose_from`, which may have more.
    An input may be a function without arguments, which is called only if the input is taken: what is not needed is not
    computed, neither here nor in the exported model.

    In an architecture the choice is the label of the input taken, or a list of labels if `n_chosen` is not 1 (of any number
    of inputs a single one is spelled alone, too). Labels are the names of `choose_from` if there are any and no two are equal, else positions.

    Args:
        n_candidates: how many inputs there are; as many as `choose_from` has, unless given.
        choose_from: for each input the key of what makes it, an earlier `LayerChoice`, `InputChoice` or `MutableScope`, or
            `NO_KEY`. Mutators may use it; a dict of inputs is read by it.
        n_chosen: how many are taken. `None`: any number, and none of them too, which gives `None`.
        reduction, return_mask, key, label, relaxation: as of a `LayerChoice`.

    Attributes:
        is_read_elsewhere: set it where the model does other things than use the output, by what is chosen; costs of what
            depends on it are then found by running every choice.

    Errors:
        ChoiceError: numbers that do not fit together (also `AssertionError`).
        ConfigError: another reduction (also `ValueError`).

    Example:
        >>> import mutorch
        >>> from torch import nn
        >>> choice = InputChoice(choose_from=["a", "b", InputChoice.NO_KEY], n_chosen=1)
        >>> mutorch.Mutator(choice).set_choices({"root": "b"})
        >>> choice([torch.zeros(1), torch.ones(1), torch.zeros(1)])
        tensor([1.])
        >>> InputChoice(n_candidates=3, n_chosen=2).decision_choices
        [(0, 1), (0, 2), (1, 2)]
    """

    NO_KEY: ClassVar[str] = NO_KEY

    def __init__(
        self,
        n_candidates: int | None = None,
        choose_from: Sequence[str] | None = None,
        n_chosen: int | None = None,
        reduction: str = "sum",
        return_mask: bool = False,
        key: str | None = None,
        *,
        label: str | None = None,
        relaxation: Relaxation | None = None,
    ) -> None:
        super().__init__(reduction, return_mask, key, label, relaxation)
        self.choose_from = _sources(n_candidates, choose_from, self._describe())
        self.n_candidates = len(self.choose_from)
        if n_chosen is not None and not (_is_count(n_chosen) and n_chosen <= self.n_candidates):
            raise ChoiceError(
                f"{self._describe()} has {self.n_candidates} candidates, so n_chosen is None or 0 to "
                f"{self.n_candidates}; got {n_chosen!r}"
            )
        self.n_chosen = n_chosen
        self.is_read_elsewhere = False
        self._positions: dict[Any, tuple[int, ...]] = {}

    # ---- choices -------------------------------------------------------------------------------------------------

    @property
    def choices(self) -> list[str | int]:
        """The labels of the inputs, in order."""
        distinct = len(set(self.choose_from)) == self.n_candidates and self.choose_from != [NO_KEY]
        return [*self.choose_from] if distinct else [*range(self.n_candidates)]

    @property
    def candidate_names(self) -> list[str]:
        """`choose_from`."""
        return self.choose_from

    @property
    def decision_choices(self) -> list[Any]:
        """What may be taken: labels, or tuples of them; after fixing, the one that is left.

        Errors:
            ChoiceError: more than `MAX_DECISION_CHOICES`, which no search space lists.
        """
        if self._is_fixed:
            return [self._kept]
        counts = range(self.n_candidates + 1) if self.n_chosen is None else [self.n_chosen]
        number = sum(comb(self.n_candidates, count) for count in counts)
        if number > MAX_DECISION_CHOICES:
            raise ChoiceError(
                f"{self._describe()} can be chosen in {number} ways, more than the {MAX_DECISION_CHOICES} that a search "
                "space lists; give n_chosen, or fewer candidates"
            )
        taken = chain.from_iterable(combinations(range(self.n_candidates), count) for count in counts)
        return [self.decided(numbers) for numbers in taken]

    @property
    def default_choice(self) -> Any:
        """The first `n_chosen` inputs; all, where any number is taken."""
        if self._is_fixed:
            return self._kept
        return self.decided(range(self.n_candidates if self.n_chosen is None else self.n_chosen))

    @property
    def extreme_choices(self) -> tuple[Any, Any]:
        """All inputs and none, where any number is taken; otherwise no choice is larger than another."""
        if self._is_fixed or self.n_chosen is not None:
            return self.default_choice, self.default_choice
        return self.decided(range(self.n_candidates)), self.decided([])

    @property
    def covering_choices(self) -> list[Any]:
        """As few choices as together take each input."""
        if self._is_fixed or self.n_chosen is None:
            return [self.default_choice]
        step = max(1, self.n_chosen)
        starts = [min(start, self.n_candidates - step) for start in range(0, self.n_candidates, step)]
        return [self.decided(range(start, start + self.n_chosen)) for start in starts]

    @property
    def runs_anywhere(self) -> bool:
        """Whether nothing but its output tells what it takes; then every choice can be made of the same inputs."""
        return not self.is_read_elsewhere

    def allows(self, choice: Any) -> bool:
        """Whether `choice` is the labels of as many inputs as are taken, each once."""
        try:
            numbers = self.numbers(choice)
        except ChoiceError:
            return False
        right = self.n_chosen is None or len(numbers) == self.n_chosen
        return right and (not self._is_fixed or self.decided(numbers) == self._kept)

    @property
    def picks(self) -> Picks:
        """`n_chosen` inputs, or any number."""
        return AnyNumber() if self.n_chosen is None else Some(self.n_chosen)

    def decided(self, numbers: Sequence[int]) -> Any:
        every = self.choices
        labels = tuple(every[number] for number in sorted(numbers))
        alone = self.n_chosen == 1 or (self.n_chosen is None and len(labels) == 1)
        return labels[0] if alone else labels

    def numbers(self, choice: Any) -> list[int]:
        """Which inputs a choice takes.

        Errors:
            ChoiceError: a label that no input has, or one twice.
        """
        every = self.choices
        labels = list(choice) if isinstance(choice, list | tuple) else [choice]
        for label in labels:
            if isinstance(label, bool) or label not in every or labels.count(label) > 1:
                raise ChoiceError(f"{self._describe()} has no choice {choice!r}; {nearest(label, every)}")
        return sorted(every.index(label) for label in labels)

    def chosen_module(self, choice: Any) -> ChosenInputs:
        self._check_choice(choice)
        return ChosenInputs(self.numbers(choice), self.choose_from, self.reduction, self.return_mask)

    def fix_chosen(self, chosen: Any) -> None:
        """Make `chosen` final. `forward` goes on taking all inputs.

        Errors:
            FixedError: fixed before.
            ChoiceError: no such choice.
        """
        self._check_not_fixed()
        self.current_choice = chosen
        self._kept = self._current_choice
        self.is_fixed = True

    def _own(self, choice: Any) -> Any:
        self._check_choice(choice)
        return self.decided(self.numbers(choice))

    def _check_choice(self, choice: Any) -> None:
        if not self.allows(choice):
            self.numbers(choice)
            expected = "its fixed choice" if self._is_fixed else f"{self.n_chosen} inputs"
            raise ChoiceError(f"{self._describe()} has no choice {choice!r}; it takes {expected} of {self.choices}")

    # ---- computing -----------------------------------------------------------------------------------------------

    def forward(self, x: Sequence[Any] | Mapping[str, Any], arch_param: Tensor | None = None) -> Any:
        # A list of the right length needs no words for an error; a connection is made in every step.
        right = type(x) is list and len(x) == self.n_candidates
        inputs: list[Any] = x if right else in_order(x, self.choose_from, self._describe())  # type: ignore[assignment]
        choice = self._settled if self._current_choice is None else self._current_choice
        if choice is None or arch_param is not None:
            return self._forward_open(inputs, self.arch_param if arch_param is None else arch_param)
        known = spelled(choice)
        taken = self._positions.get(known)
        if taken is None:
            taken = self._positions[known] = tuple(self.numbers(choice))
        output = reduced([value_of(inputs[number]) for number in taken], self.reduction, "InputChoice")
        return (output, one_hot(taken, self.n_candidates)) if self.return_mask else output

    def _forward_open(self, inputs: list[Any], arch_param: Tensor | None) -> Any:
        if arch_param is not None:
            output, mask = self._mixed(arch_param, inputs)
        elif self.mutator is not None:
            output, mask = self.mutator.on_forward_input_choice(self, inputs)
        else:
            raise self._undecided()
        return (output, mask) if self.return_mask else output

    def forward_arch_param(self, x: Any, arch_param: Tensor) -> Any:
        """The mixture of the inputs by `arch_param`.

        Errors:
            ChoiceError: not one value for each input, or inputs that cannot be mixed.
        """
        return self._mixed(arch_param, in_order(x, self.choose_from, self._describe()))[0]

    def forward_all(self, x: Any) -> Any:
        """All inputs, reduced."""
        inputs = in_order(x, self.choose_from, self._describe())
        return reduced([value_of(one) for one in inputs], self.reduction, self._describe())

    def forward_fixed(self, x: Any) -> Any:
        """The inputs that were fixed, reduced."""
        return self(x)

    def sample_choice(self, arch_param: Tensor) -> Any:
        """The most probable inputs."""
        self._check_arch_param(arch_param)
        return self.decided(self.picks.best(self.picks.probabilities(arch_param.detach()).tolist()))

    def _mixed(self, arch_param: Tensor, inputs: list[Any]) -> tuple[Any, Tensor]:
        """The mixture and the weights; these sum to one, unless any number is taken: then each has a gate of its own."""
        check_mixable(self.reduction, self._describe())
        self._check_arch_param(arch_param)
        paths: Sequence[int] = range(len(inputs))
        if self.n_chosen is None:
            weights = self._gates(arch_param)
        else:
            weights, paths = self._weighted(arch_param)
        output = weighted_sum(weights, [value_of(inputs[number]) for number in paths])
        if self.n_chosen is None and self.reduction == "mean":
            output = output / weights.sum().clamp_min(torch.finfo(weights.dtype).eps)
        index = torch.tensor(list(paths), device=weights.device)
        return output, torch.zeros_like(arch_param).index_put((index,), weights)

    def _gates(self, arch_param: Tensor) -> Tensor:
        """sigmoid(a); for random relaxations the 0-or-1 sample with the gradient of its relaxation (straight through)."""
        if not self.relaxation.is_random:
            return torch.sigmoid(arch_param)
        # Of Gumbel noise g, exp(-exp(-g)) is uniform; the difference of two Gumbel variables is its logit.
        noise = (self._draw or self._drawn(arch_param)).noise.to(arch_param)
        uniform = torch.exp(-torch.exp(-noise)).clamp(1e-6, 1 - 1e-6)
        logits = arch_param + torch.logit(uniform)
        soft = torch.sigmoid(logits / getattr(self.relaxation, "tau", 1.0))
        return (
            soft if getattr(self.relaxation, "hard", True) is False else (logits > 0).to(soft) + (soft - soft.detach())
        )

    def extra_repr(self) -> str:
        return f"choose_from={self.choose_from}, n_chosen={self.n_chosen}, current_choice={self._current_choice!r}"


def _sources(n_candidates: int | None, choose_from: Sequence[str] | None, owner: str) -> list[str]:
    if choose_from is None and n_candidates is None:
        raise ChoiceError(f"{owner} needs n_candidates or choose_from, got neither")
    if isinstance(choose_from, str | set | frozenset):
        raise ChoiceError(f"{owner} takes choose_from as a list of keys, in order; got {choose_from!r}")
    if n_candidates is not None and not _is_count(n_candidates):
        raise ChoiceError(f"{owner} has a number of candidates, got n_candidates={n_candidates!r}; expected at least 1")
    found = [NO_KEY] * (n_candidates or 0) if choose_from is None else list(choose_from)
    if n_candidates is not None and n_candidates != len(found):
        raise ChoiceError(f"{owner} has n_candidates={n_candidates}, expected the {len(found)} of choose_from")
    if not found:
        raise ChoiceError(f"{owner} has n_candidates=0, expected at least 1")
    return found


def _is_count(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0
