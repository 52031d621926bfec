"""The one writer of a model's choices."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from torch import nn

from mutorch.errors import ChoiceError, StateError, nearest
from mutorch.mutables import BaseMutable
from mutorch.space import Architecture, Choice, RandomSource, SearchSpace
from mutorch.space.decision import key, plain

from .groups import CustomGroups, group

WRAPPERS = ("torch.nn.parallel", "torch.optim.swa_utils", "torch._dynamo", "lightning.fabric", "lightning_fabric")
Kind = Literal["random", "max", "min", "default"]


class Mutator:
    """Finds the mutables of any model, gives their search space, and sets, reads and fixes a whole architecture.

    Making a mutator gives every undecided module its first choice, so that the model runs. Decisions are named by
    custom group, alias, or the path of the module: building the model again gives the same names.

    Args:
        model: any `nn.Module`; a wrapper (DataParallel, DDP, AveragedModel, torch.compile) is looked through. May be
            given later to `prepare_from_supernet`, as configurations do.
        custom_groups: mutables to decide together, by path or alias: a list of lists (each named by its first member),
            or a dict from name to list.

    Errors:
        SpaceError: no mutables, or groups that do not fit; see `group`.

    Example:
        >>> from mutorch.mutables import OneShotMutableOP
        >>> model = nn.Sequential(OneShotMutableOP({"a": nn.ReLU(), "b": nn.GELU()}), nn.Flatten())
        >>> mutator = Mutator(model)
        >>> mutator.space.names, mutator.current_choices
        (('0',), {'0': 'a'})
        >>> mutator.set_choices({"0": "b"})
        >>> mutator.set_choices({"0": "c"})
        Traceback (most recent call last):
        ...
        mutorch.errors.ChoiceError: decision '0' has no choice 'c'; allowed: 'a', 'b'
    """

    def __init__(self, model: nn.Module | None = None, *, custom_groups: CustomGroups | None = None) -> None:
        self.custom_groups = custom_groups
        self._model: nn.Module | None = None
        if model is not None:
            self.prepare_from_supernet(model)

    def prepare_from_supernet(self, model: nn.Module) -> None:
        """Find and group the mutables of `model`, and give undecided ones their first choice."""
        model = unwrap(model)
        self._space, self._groups = group(model, self.custom_groups)
        self._model = model
        self._lookup = [(d.name, {key(choice): choice for choice in d.choices}) for d in self._space]
        self._assign: list[tuple[int, Callable[[Any], None]]] = []
        for number, (name, mutables) in enumerate(self._groups.items()):
            self._assign += [(number, mutable.assign) for mutable in mutables]
            current = next((m.current_choice for m in mutables if m.current_choice is not None), None)
            decision = self._space[name]
            for mutable in mutables:
                mutable.assign(decision.canonical(current) if decision.allows(current) else decision.default)

    @property
    def model(self) -> nn.Module:
        """The model, without a parallel wrapper."""
        if self._model is None:
            raise StateError("the mutator has no model yet; call prepare_from_supernet(model) first")
        return self._model

    @property
    def space(self) -> SearchSpace:
        """The decisions of the model."""
        _ = self.model
        return self._space

    @property
    def search_groups(self) -> dict[str, list[BaseMutable[Any, Any]]]:
        """Decision to the mutables that it sets."""
        _ = self.model
        return self._groups

    # ---- architectures -------------------------------------------------------------------------------------------

    def sample_choices(self, kind: Kind = "random", *, rng: RandomSource | None = None) -> Architecture:
        """An architecture: random (`rng`: a seed or a `random.Random`), the largest, the smallest or the default.

        Errors:
            NotImplementedError: another kind (the exception that the field's users know here).
        """
        match kind:
            case "random":
                if rng is None:
                    raise TypeError("a random architecture needs rng: an int seed or a random.Random")
                return self.space.sample(rng)
            case "max":
                return self.space.max
            case "min":
                return self.space.min
            case "default":
                return self.space.default
        raise NotImplementedError(f"no kind {kind!r}; {nearest(kind, ('random', 'max', 'min', 'default'))}")

    def set_choices(self, architecture: Mapping[str, Choice]) -> None:
        """Make `architecture` current. Everything is checked first: a bad architecture changes nothing.

        Errors:
            SpaceError: unknown or missing decisions.
            ChoiceError: a choice that its decision does not have.
        """
        try:
            chosen = [choices[architecture[name]] for name, choices in self._lookup]
        except (AttributeError, KeyError, TypeError):
            chosen = None
        if chosen is None or len(chosen) != len(architecture):
            # The slow way: it says what is wrong, and reads choices that are lists.
            self.space.validate(architecture)
            chosen = [decision.canonical(architecture[decision.name]) for decision in self.space]
        for number, assign in self._assign:
            assign(chosen[number])

    @property
    def current_choices(self) -> Architecture:
        """The architecture in force."""
        current = {name: mutables[0].current_choice for name, mutables in self.search_groups.items()}
        return {name: plain(c) if isinstance(c, list | tuple) else c for name, c in current.items()}

    @property
    def max_choices(self) -> Architecture:
        """Every value at its largest, every module at its candidate with the most parameters."""
        return self.space.max

    @property
    def min_choices(self) -> Architecture:
        """Every value at its smallest, every module at its candidate with the fewest parameters."""
        return self.space.min

    def set_max_choices(self) -> None:
        """Make the largest architecture current."""
        self.set_choices(self.max_choices)

    def set_min_choices(self) -> None:
        """Make the smallest architecture current."""
        self.set_choices(self.min_choices)

    @contextmanager
    def at(self, architecture: Mapping[str, Choice]) -> Iterator[nn.Module]:
        """The model at `architecture` inside the `with`, as it was afterwards."""
        before = [(m, m.current_choice) for mutables in self.search_groups.values() for m in mutables]
        self.set_choices(architecture)
        try:
            yield self.model
        finally:
            for mutable, choice in before:
                mutable.assign(choice)

    def fix_choices(self, architecture: Mapping[str, Choice] | None = None) -> None:
        """Fix every mutable for good and in place: to `architecture`, or to the current one.

        `mutorch.export` makes a new plain model instead, and leaves this one searchable.
        """
        chosen = self.space.canonical(self.current_choices if architecture is None else architecture)
        for name, mutables in self.search_groups.items():
            for mutable in mutables:
                if not mutable.is_fixed:
                    mutable.fix_chosen(chosen[name])
                elif mutable.export_chosen() != chosen[name]:
                    raise ChoiceError(f"decision {name!r} is fixed to {mutable.export_chosen()!r} already")
        self.prepare_from_supernet(self.model)

    def __repr__(self) -> str:
        return "Mutator(no model)" if self._model is None else f"Mutator({self._space!r})"


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DataParallel, DistributedDataParallel, AveragedModel, a compiled model or Fabric's wrapper."""
    while type(model).__module__.startswith(WRAPPERS):
        inner = getattr(model, "_orig_mod", getattr(model, "module", None))
        if not isinstance(inner, nn.Module):
            break
        model = inner
    return model
