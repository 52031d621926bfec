"""The one writer of a model's choices."""

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mutorch.errors import ChoiceError, SpaceError, StateError, nearest
from mutorch.mutables import BaseMutable, Chooser, Gumbel, Relaxation
from mutorch.space import Architecture, Choice, RandomSource, SearchSpace, as_random
from mutorch.space.decision import key, plain

from .arch_params import ArchParams, NoArchParamsError
from .buildable import check_buildable
from .groups import CustomGroups, group, tell_paths
from .most_probable import most_probable
from .requirements import Rule, as_constraint
from .wrappers import unwrap

_DRAWS = 1000
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
        constraints: rules between choices besides the model's own (`Require`): expressions over its mutables
            (`choice_of(mutable)`, `ValueChoice`), or over names of decisions (`mutorch.space.Ref(name)`).

    Errors:
        SpaceError: no mutables, or groups or constraints that do not fit; see `group`.

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

    def __init__(
        self,
        model: nn.Module | None = None,
        *,
        custom_groups: CustomGroups | None = None,
        constraints: Iterable[Rule] = (),
    ) -> None:
        self.custom_groups = custom_groups
        self._constraints = tuple(constraints)
        self._model: nn.Module | None = None
        if model is not None:
            self.prepare_from_supernet(model)

        self._arch: ArchParams | None = None

    def prepare_from_supernet(self, model: nn.Module) -> None:
        """Find and group the mutables of `model`, and give undecided ones their first choice."""
        model = unwrap(model)
        self._space, self._groups = group(model, self.custom_groups, self._constraints)
        tell_paths(model)
        self._model = model
        self._lookup = [(d.name, {key(choice): choice for choice in d.choices}) for d in self._space]
        self._assign: list[tuple[int, Callable[[Any], None]]] = []
        for number, (name, mutables) in enumerate(self._groups.items()):
            self._assign += [(number, mutable.assign) for mutable in mutables]
            current = next((m.current_choice for m in mutables if m.current_choice is not None), None)
            decision = self._space[name]
            for mutable in mutables:
                if not (isinstance(mutable, Chooser) and mutable.is_masked):  # which is decided
                    mutable.assign(decision.canonical(current) if decision.allows(current) else decision.default)
        self._obey()
        check_buildable(model, self._space, {id(m): name for name, members in self._groups.items() for m in members})

    def require(self, rule: Rule) -> None:
        """Add a constraint to the space. Where the current choices break it, the default architecture becomes current.

        Do so before anything is made of the space: cost tables and searches keep the space that they were made with.

        Errors:
            SpaceError: a rule about something else than decisions of the model, or one that no architecture obeys.

        Example:
            >>> from mutorch.mutables import OneShotMutableOP, choice_of
            >>> ops = [OneShotMutableOP({"conv": nn.Linear(2, 2), "skip": nn.Identity()}) for _ in range(2)]
            >>> mutator = Mutator(nn.Sequential(*ops))
            >>> mutator.require(choice_of(ops[0]).ne("skip") | choice_of(ops[1]).ne("skip"))
            >>> mutator.space.size
            3
        """
        names = {id(mutable): name for name, mutables in self.search_groups.items() for mutable in mutables}
        constraints = [*self.space.constraints, as_constraint(rule, names)]
        self._space = SearchSpace(self._space.decisions, constraints)
        self._constraints = (*self._constraints, rule)
        self._obey()

    def _obey(self) -> None:
        """Make the default architecture current where the current choices break a constraint."""
        decided = all(members[0].current_choice is not None for members in self._groups.values())
        if decided and self._space.constraints and self._space.broken(self._decided()):
            self.set_choices(self._space.default)

    def _decided(self) -> Architecture:
        """The current choices, and the default where there is none."""
        current = {name: members[0].current_choice for name, members in self._groups.items()}
        return {name: self._space[name].default if c is None else c for name, c in current.items()}

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

    # ---- architecture parameters ---------------------------------------------------------------------------------

    def prepare_arch_params(self, *, seed: int = 0, relaxation: Relaxation | None = None) -> None:
        """Make an architecture parameter for each decision of a `DiffMutableModule`, and let these compute mixtures.

        The parameters belong to the mutator: they are not among the model's, and a checkpoint of the model does not have
        them. Decisions of other mutables stay as they are. New parameters replace older ones.

        Args:
            seed: of the initial values, 1e-3 times normal noise.
            relaxation: replaces that of every mutable; see `mutorch.mutables.Relaxation`.

        Errors:
            StateError: no decision can be learned by gradient.

        Example:
            >>> from mutorch.mutables import DiffMutableOP
            >>> mutator = Mutator(nn.Sequential(DiffMutableOP({"a": nn.ReLU(), "b": nn.GELU()})))
            >>> mutator.prepare_arch_params()
            >>> [tuple(p.shape) for p in mutator.arch_parameters()], mutator.current_choices
            ([(2,)], {'0': None})
        """
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        arch = ArchParams(self.search_groups, seed=seed, device=device)
        if not arch.learned:
            raise StateError(
                "no decision of this model can be learned by gradient: it has no DiffMutableOP, and no route with "
                "with_arch_param=True"
            )
        self._arch = arch
        for mutables in arch.mutables.values():
            for mutable in mutables:
                mutable.set_draw(None)
                mutable.relaxation = relaxation or mutable.relaxation
        arch.relax()

    @property
    def arch(self) -> ArchParams:
        """The architecture parameters, and what can be read off them.

        Errors:
            NoArchParamsError: `prepare_arch_params` was not called (also `AttributeError`).
        """
        if self._arch is None:
            raise NoArchParamsError("there are no architecture parameters yet; call prepare_arch_params() first")
        return self._arch

    @property
    def arch_params(self) -> nn.ParameterDict:
        """The parameters by decision; dots of a name are slashes here. `mutator.arch[name]` takes the name itself."""
        return self.arch.parameters

    def arch_parameters(self) -> list[nn.Parameter]:
        """The architecture parameters, for an optimizer of their own."""
        return [parameter for _, parameter in self.arch.items()]

    def weight_parameters(self) -> list[nn.Parameter]:
        """The model's parameters, for the other optimizer."""
        return list(self.model.parameters())

    def relax(self) -> None:
        """Undo the choices of learned decisions, so that they compute mixtures again."""
        self.arch.relax()

    def draw(self, *, seed: int, step: int, relaxation: Relaxation | None = None) -> None:
        """Draw noise and paths of all learned decisions: a pure function of seed, step and parameters, on every rank.

        Args:
            relaxation: replaces that of every mutable from now on.
        """
        self.arch.draw(seed, step, relaxation)

    def probabilities(self) -> dict[str, Tensor]:
        """Decision to the probabilities of its candidates, on the CPU."""
        return self.arch.probabilities()

    def entropy(self) -> dict[str, float]:
        """Decision to the entropy of its probabilities, in shares of the largest: 1 is undecided, 0 decided."""
        return self.arch.entropy()

    def argmax(self, *, exclude: Collection[str] = ("zero", "none")) -> Architecture:
        """The architecture of the most probable choices, in the spelling of the space.

        Routes keep the edges with the largest parameters or, without parameters of their own, those whose best operation
        is most probable (DARTS). Decisions that are not learned keep their choices.

        Args:
            exclude: candidates that are never chosen.

        Where that breaks constraints, the most probable choices that obey them; those of decisions that are not learned, and
        of routes, are then kept where they can be.

        Errors:
            SpaceError: nothing left to choose, or constraints tie too many decisions together to find the most probable.
        """
        best = self.arch.argmax(self.space, exclude, self._decided())
        if not self.space.constraints:
            return best
        log_probabilities = {name: self.arch.log_probabilities(self.space[name]) for name in self.arch.learned}
        return most_probable(self.space, best, log_probabilities, exclude)

    def settle(self, threshold: float) -> list[str]:
        """Decide what is clear: decisions whose most probable candidate leads the second by at least `threshold`.

        They compute that candidate alone from now on, as in a one-shot supernet; `relax` undoes it. Nothing is removed, so
        optimizers and DDP go on.

        Returns:
            The names of the decisions that are decided now, those before included.
        """
        if not 0 <= threshold <= 1:
            raise ChoiceError(f"a threshold must be between 0 and 1, got {threshold}")
        settled = [name for name, lead in self.arch.leads().items() if lead >= threshold]
        best = self.argmax(exclude=())
        for name in settled:
            for mutable in self.arch.mutables[name]:
                mutable.assign(best[name])
        return [name for name in self.arch.learned if self.arch.mutables[name][0].current_choice is not None]

    def set_temperature(self, tau: float) -> None:
        """Set the temperature of every Gumbel relaxation.

        Errors:
            ConfigError: not positive.
            StateError: no learned decision has one.
        """
        found = False
        for mutables in self.arch.mutables.values():
            for mutable in mutables:
                if isinstance(mutable.relaxation, Gumbel):
                    mutable.relaxation = replace(mutable.relaxation, tau=tau)
                    found = True
        if not found:
            raise StateError("no learned decision has a Gumbel relaxation, so none has a temperature")

    def state_dict(self) -> dict[str, Any]:
        """Architecture parameters and choices: with the model's `state_dict`, all that a search needs to go on."""
        parameters = {} if self._arch is None else {name: p.detach().clone() for name, p in self._arch.items()}
        return {"arch_params": parameters, "choices": self.current_choices}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Errors:
            LoadError: parameters of another space.
        """
        if state["arch_params"]:
            self.arch.load(state["arch_params"])
        for name, choice in state["choices"].items():
            decision = self.space[name]
            for mutable in self.search_groups[name]:
                mutable.assign(None if choice is None else decision.canonical(choice))

    # ---- architectures -------------------------------------------------------------------------------------------

    def sample_choices(self, kind: Kind = "random", *, rng: RandomSource | None = None) -> Architecture:
        """An architecture: random (`rng`: a seed or a `random.Random`), the largest, the smallest or the default.

        Once there are architecture parameters, learned decisions get their most probable choice, whatever the kind; draw
        by probability with `sample_probable`, uniformly with `space.sample`.

        Errors:
            NotImplementedError: another kind (the exception that the field's users know here).
        """
        learned = {} if self._arch is None else self.argmax(exclude=())
        learned = {name: learned[name] for name in learned if self._arch is not None and name in self._arch.learned}
        match kind:
            case "random":
                if rng is None:
                    if len(learned) == len(self.space):
                        return learned
                    raise TypeError("a random architecture needs rng: an int seed or a random.Random")
                return self._with_learned(self.space.sample(rng), learned)
            case "max":
                return self._with_learned(self.space.max, learned)
            case "min":
                return self._with_learned(self.space.min, learned)
            case "default":
                return self._with_learned(self.space.default, learned)
        raise NotImplementedError(f"no kind {kind!r}; {nearest(kind, ('random', 'max', 'min', 'default'))}")

    def sample_probable(self, rng: RandomSource) -> Architecture:
        """A random architecture: learned decisions by their probabilities, the others uniformly.

        Under constraints, what breaks them is drawn again.

        Args:
            rng: a seed or a `random.Random`; with equal parameters, all ranks get the same.

        Errors:
            SpaceError: a thousand draws that all break the constraints.
        """
        random = as_random(rng)
        for _ in range(_DRAWS if self.space.constraints else 1):
            drawn = self.arch.sample(self.space.sample(random), random)
            if not self.space.constraints or drawn in self.space:
                return drawn
        learned = {name: drawn[name] for name in self.arch.learned}
        raise SpaceError(
            f"none of {_DRAWS} architectures drawn by probability obeys the constraints, the last has {learned}; take "
            "argmax(), or space.repair(...) of one"
        )

    def _with_learned(self, architecture: Architecture, learned: Architecture) -> Architecture:
        return self.space.repair(architecture, learned) if learned else architecture

    def set_choices(self, architecture: Mapping[str, Choice], *, obey: bool = True) -> None:
        """Make `architecture` current. Everything is checked first: a bad architecture changes nothing.

        Args:
            obey: whether it has to obey the constraints of the space.

        Errors:
            SpaceError: unknown or missing decisions.
            ChoiceError: a choice that its decision does not have.
            ConstraintError: a constraint of the space that does not hold.
        """
        try:
            chosen = [choices[architecture[name]] for name, choices in self._lookup]
        except (AttributeError, KeyError, TypeError):
            chosen = None
        if chosen is None or len(chosen) != len(architecture):
            # The slow way: it says what is wrong, and reads choices that are lists.
            self.space.validate_choices(architecture)
            chosen = [decision.canonical(architecture[decision.name]) for decision in self.space]
        if obey and self._space.constraints:
            self._space.validate(architecture)
        for number, assign in self._assign:
            assign(chosen[number])

    @property
    def current_choices(self) -> Architecture:
        """The architecture in force."""
        current = {name: mutables[0].current_choice for name, mutables in self.search_groups.items()}
        return {name: plain(c) if isinstance(c, list | tuple) else c for name, c in current.items()}

    @property
    def max_choices(self) -> Architecture:
        """Every value at its largest, every module at its candidate with the most parameters; learned ones at their best."""
        self._warn_if_learned()
        return self.sample_choices("max")

    @property
    def min_choices(self) -> Architecture:
        """Every value at its smallest, every module at its smallest candidate; learned ones at their best."""
        self._warn_if_learned()
        return self.sample_choices("min")

    def set_max_choices(self) -> None:
        """Make the largest architecture current."""
        self.set_choices(self.max_choices)

    def set_min_choices(self) -> None:
        """Make the smallest architecture current."""
        self.set_choices(self.min_choices)

    @contextmanager
    def at(self, architecture: Mapping[str, Choice]) -> Iterator[nn.Module]:
        """The model at `architecture` inside the `with`, as it was afterwards."""
        before = [(m, m.assigned_choice) for mutables in self.search_groups.values() for m in mutables]
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

    def _warn_if_learned(self) -> None:
        if self._arch is not None:
            warnings.warn(
                "mutables with `arch param` detected: learned decisions have no largest and smallest choice, and get their "
                "most probable one",
                stacklevel=3,
            )

    def __repr__(self) -> str:
        return "Mutator(no model)" if self._model is None else f"Mutator({self._space!r})"
