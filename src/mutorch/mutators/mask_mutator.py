"""A mutator whose decisions are masks, made at `reset()`."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mutorch.errors import MissingDecisionError, MutorchError, UndecidedError, nearest
from mutorch.mutables import Chooser, InputChoice, LayerChoice, Mutable
from mutorch.mutables.inputs import value_of
from mutorch.mutables.masks import as_mask, one_hot, reduced, select

from .base_mutator import BaseMutator, CallbackError
from .mask_format import choice_of, encode, missing_and_unexpected

Masks = Mapping[str, Any]
"""Key to mask: a tensor, list or NumPy array with one entry for each candidate; bools take it or not, floats weigh it."""


class LeftoverError(MutorchError, ValueError):
    """Decisions for keys that the model does not have."""


class MaskMutator(BaseMutator):
    """Decides by masks: `Mutator` of the older one-shot API (seed 004). Write `sample_search` and `sample_final`.

    `reset()` takes what `sample_search()` gives as the decisions of all forwards until the next `reset()`. Candidates that a
    mask does not take are not computed; weights multiply outputs, and gradients flow into them. Equal keys get one mask.

    Args:
        model: see `BaseMutator`.

    Example:
        >>> import torch
        >>> class First(MaskMutator):
        ...     def sample_search(self):
        ...         return {choice.key: [True] + [False] * (len(choice.choices) - 1) for choice in self.choosers}
        ...     sample_final = sample_search
        >>> net = nn.Sequential(LayerChoice({"tanh": nn.Tanh(), "relu": nn.ReLU()}, key="act"))
        >>> mutator = First(net)
        >>> mutator.reset()
        >>> net(torch.zeros(1)), mutator.status(), mutator.export()
        (tensor([0.]), {'act': [True, False]}, {'act': 'tanh'})
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._cache: dict[str, Any] = {}

    @abstractmethod
    def sample_search(self) -> Masks:
        """The masks of one step of a search, for every key of `choosers`."""
        raise CallbackError(f"{type(self).__name__} needs sample_search()")

    @abstractmethod
    def sample_final(self) -> Masks:
        """The masks of the final architecture, for every key of `choosers`."""
        raise CallbackError(f"{type(self).__name__} needs sample_final()")

    @property
    def choosers(self) -> Iterator[Chooser]:
        """What is decided, each key once, in the order of the model."""
        return (mutable for mutable in self.mutables if isinstance(mutable, Chooser))

    def reset(self) -> None:
        """Decide anew."""
        self._cache = dict(self.sample_search())
        for mutable in self.undedup_mutables:
            if isinstance(mutable, Chooser) and mutable.mutator is self:
                mutable.leave_to_mutator(self._settled_choice(mutable))

    def _settled_choice(self, mutable: Chooser) -> Any:
        """What a mask of bools takes, which then computes without asking again; `None` where a subclass wants to be asked."""
        mask: Any = self._cache.get(str(mutable.key))
        if not _is_bool(mask) or len(mask) != len(mutable.choices) or self._asks(mutable):
            return None
        return choice_of(mutable, mask)

    def _asks(self, mutable: Chooser) -> bool:
        own, plain = type(self), MaskMutator
        if own.mask_of is not plain.mask_of:
            return True
        if isinstance(mutable, LayerChoice):
            return own.on_forward_layer_choice is not plain.on_forward_layer_choice
        return own.on_forward_input_choice is not plain.on_forward_input_choice

    def export(self) -> dict[str, Any]:
        """The final architecture: key to label, list of labels, or weights; see `encode`.

        With one candidate for each `LayerChoice` it is an architecture that `mutorch.export` takes.

        Errors:
            MissingDecisionError: `sample_final` left a key out (also `KeyError`).
            LeftoverError: it has a key that the model does not have (also `ValueError`).
            ChoiceError: a mask of the wrong length (also `AssertionError`).
        """
        masks = dict(self.sample_final())
        choosers = list(self.choosers)
        keys = [str(mutable.key) for mutable in choosers]
        missing, unexpected = missing_and_unexpected(masks, keys)
        if missing:
            raise MissingDecisionError(
                f"sample_final of {type(self).__name__} decides {list(masks)} and leaves out {missing[0]!r}; expected {keys}"
            )
        if unexpected:
            raise LeftoverError(
                f"sample_final of {type(self).__name__} decides {unexpected[0]!r}, which the model does not have; "
                f"{nearest(unexpected[0], keys)}"
            )
        for key, mutable in zip(keys, choosers, strict=True):
            if mutable.is_fixed:  # whatever the mask says
                masks[key] = one_hot(mutable.numbers(mutable.current_choice), len(mutable.choices))
        return {key: encode(mutable, masks[key]) for key, mutable in zip(keys, choosers, strict=True)}

    def status(self) -> dict[str, Any]:
        """The masks in force as plain lists."""
        return {key: mask.tolist() if hasattr(mask, "tolist") else list(mask) for key, mask in self._cache.items()}

    def choice_of(self, mutable: Mutable) -> Any:
        if not isinstance(mutable, Chooser):
            return None
        return choice_of(mutable, self._cache.get(str(mutable.key)))

    def decides(self, mutable: Mutable) -> bool:
        return mutable.key in self._cache

    def mask_of(self, mutable: Chooser) -> Tensor:
        """The mask in force.

        Errors:
            UndecidedError: none: `reset()` was not called, or `sample_search` left the key out (also `ValueError`).
            ChoiceError, MaskError: no mask, or one of the wrong length (also `AssertionError`, `TypeError`).
        """
        if mutable.key not in self._cache:
            got = f"decisions for {list(self._cache)}" if self._cache else "none; call reset() first"
            raise UndecidedError(
                f"{type(self).__name__} has no decision for {mutable._describe()}: expected one, got {got}"
            )
        return as_mask(self._cache[str(mutable.key)], len(mutable.choices), mutable._describe())

    def on_forward_layer_choice(self, mutable: LayerChoice, *args: Any, **kwargs: Any) -> tuple[Any, Tensor]:
        mask = self.mask_of(mutable)
        outputs = select([partial(_call, candidate, args, kwargs) for candidate in mutable], mask)
        return reduced(outputs, mutable.reduction, mutable._describe()), mask

    def on_forward_input_choice(self, mutable: InputChoice, tensor_list: list[Any]) -> tuple[Any, Tensor]:
        mask = self.mask_of(mutable)
        outputs = select([partial(value_of, one) for one in tensor_list], mask)
        return reduced(outputs, mutable.reduction, mutable._describe()), mask


def _is_bool(mask: Any) -> bool:
    if isinstance(mask, Tensor):
        return mask.dtype == torch.bool and mask.dim() == 1
    return isinstance(mask, list) and all(isinstance(entry, bool) for entry in mask)


def _call(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return module(*args, **kwargs)
