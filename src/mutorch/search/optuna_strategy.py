"""Samplers of Optuna as strategies: they propose, and what is evaluated is feasible, new, and what they are told of."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from mutorch.errors import ConfigError, StateError
from mutorch.space import Architecture, random_at
from mutorch.utils import require

from .feasible import Feasible
from .history import Trial
from .optuna_space import Ordered, distributions, from_params, make_sampler, quiet, set_violation, to_params

SamplerFactory = Callable[[int, int], Any]
"""Makes a sampler of Optuna of a seed and the number of objectives."""

_MUTATIONS = 16
_ANCHORS = 4


class OptunaStrategy:
    """A sampler of Optuna as a strategy.

    What the sampler proposes is evaluated if it is within the budget and new. Otherwise something near it is: a mutation of it;
    or what is met first on the way to one of the architectures that were evaluated; or else a random one. The sampler is told of
    what was evaluated: a proposal that was not is a failed trial of the study, and what came instead a trial of its own.

    All objectives are maximised; missed constraints are what Optuna calls constraints, except for `"cmaes"`, which is told a value
    behind the worst that keeps to them. A trial that failed, or gave no number, is a failed one. A search resumes by asking
    the sampler again, so it must be seeded, and made anew for each search, as a study must be: none that has trials already.

    Args:
        feasible, seed: see `StrategyFactory`.
        sampler: `"nsga2"`, `"nsga3"`, `"tpe"`, `"cmaes"` (see `make_sampler`), a sampler of Optuna, or a function of seed and
            number of objectives that makes one. The study's own if there is a study, else `"tpe"`, unless given.
        study: an Optuna study with all directions `"maximize"`, where trials are to be kept; one in memory unless given. Nothing else
            may add trials to it meanwhile.
        num_objectives: unless given, what is told first says how many there are; what is asked until then is random.
        ordered: see `distributions`; `"all"` for `"cmaes"`, which knows only numbers, else true unless given.

    Errors:
        MissingExtraError: Optuna is not installed.
        ConfigError: an unknown sampler; a study that minimises; CMA-ES and several objectives.

    Attributes:
        study: the Optuna study; `None` before there is one.

    Example:
        >>> from mutorch.search import search_space
        >>> from mutorch.space import Decision, SearchSpace
        >>> space = SearchSpace([Decision("depth", (1, 2, 3)), Decision("width", (8, 16, 24, 32))])
        >>> tpe = lambda feasible, seed: OptunaStrategy(feasible, seed, sampler="tpe")
        >>> search_space(space, lambda a: a["depth"] * a["width"], strategy=tpe, num_trials=12).best.architecture
        {'depth': 3, 'width': 32}
    """

    def __init__(
        self,
        feasible: Feasible,
        seed: int,
        *,
        sampler: Any = None,
        study: Any = None,
        num_objectives: int | None = None,
        ordered: Ordered | None = None,
    ) -> None:
        self._optuna = require("optuna", extra="optuna")
        self._feasible = feasible
        self._seed = seed
        self._sampler = sampler if sampler is not None or study is not None else "tpe"
        self._is_penalised = sampler == "cmaes"
        self._ordered: Ordered = ordered if ordered is not None else "all" if sampler == "cmaes" else True
        self._distributions = distributions(feasible.space, ordered=self._ordered)
        if isinstance(self._sampler, str):
            make_sampler(self._sampler, 0)  # a wrong name is an error here
        self._asked = 0
        self._early: list[Architecture] = []
        self._known: list[Architecture] = []
        self._running: deque[Any] = deque()
        self._worst = math.inf
        self.study = study
        if study is not None:
            self._adopt(study, num_objectives)
        elif num_objectives is not None:
            self._open(num_objectives)

    def ask(self) -> Architecture | None:
        random = random_at(self._seed, "optuna", self._asked)
        self._asked += 1
        if self.study is None:
            architecture = self._feasible.draw(random)
            if architecture is not None:
                self._early.append(architecture)
            return architecture
        with quiet():
            return self._proposed(random)

    def tell(self, trial: Trial) -> None:
        with quiet():
            if self.study is None:
                self._open(len(trial.values))
                self._running.extend(self._started(architecture) for architecture in self._early)
            self._known.append(trial.architecture)
            self._finish(self._running_of(trial.architecture), trial)

    def _proposed(self, random: Random) -> Architecture | None:
        trial = self.study.ask(self._distributions)
        proposal = from_params(self._feasible.space, trial.params, ordered=self._ordered)
        for candidate in self._near(proposal, random):
            accepted = self._feasible.accept(candidate)
            if accepted is not None:
                break
        else:
            accepted = self._feasible.draw(random)
        if accepted is not None and self._params(accepted) == trial.params:
            self._running.append(trial)
            return accepted
        self._fail(trial)
        if accepted is not None:
            self._running.append(self._started(accepted))
        return accepted

    def _near(self, proposal: Architecture, random: Random) -> Iterator[Architecture]:
        """The proposal, then architectures ever further from it."""
        space = self._feasible.space
        yield proposal
        start = space.repair(proposal) if space.broken(proposal) else proposal
        for attempt in range(_MUTATIONS):
            yield space.mutate(start, random, prob=attempt / _MUTATIONS / 4)
        for anchor in random.sample(self._known, min(_ANCHORS, len(self._known))):
            way = dict(start)
            for name in random.sample(space.names, len(space)):
                way[name] = anchor[name]
                yield way
            for attempt in range(_MUTATIONS):
                yield space.mutate(anchor, random, prob=attempt / _MUTATIONS / 4)

    def _running_of(self, architecture: Architecture) -> Any:
        """The trial that runs with this architecture; a new one for what another machine asked for."""
        params = self._params(architecture)
        for running in self._running:
            if running.params == params:
                self._running.remove(running)
                return running
        return self._started(architecture)

    def _started(self, architecture: Architecture) -> Any:
        """A running trial of the study with these parameters."""
        params = self._params(architecture)
        self.study.enqueue_trial(params)
        trial = self.study.ask(self._distributions)
        if trial.params != params:
            raise StateError(
                f"the study gave trial {trial.number} to another search; each search needs a study of its own"
            )
        return trial

    def _finish(self, running: Any, trial: Trial) -> None:
        running.set_user_attr("index", trial.index)
        if trial.error is not None or not all(map(math.isfinite, (*trial.values, trial.violation))):
            self._fail(running)
            return
        values = list(trial.values)
        if not self._is_penalised:
            set_violation(running, trial.violation)
        elif trial.violation:
            values = [min(self._worst, values[0]) - trial.violation]
        else:
            self._worst = min(self._worst, values[0])
        self.study.tell(running, values)

    def _fail(self, running: Any) -> None:
        self.study.tell(running, state=self._optuna.trial.TrialState.FAIL)

    def _params(self, architecture: Architecture) -> dict[str, Any]:
        return to_params(self._feasible.space, architecture, ordered=self._ordered)

    def _open(self, num_objectives: int) -> None:
        """A study in memory."""
        sampler = self._made(num_objectives)
        with quiet():
            self.study = self._optuna.create_study(sampler=sampler, directions=["maximize"] * num_objectives)

    def _adopt(self, study: Any, num_objectives: int | None) -> None:
        directions = [direction.name.lower() for direction in study.directions]
        if directions != ["maximize"] * (num_objectives or len(directions)):
            raise ConfigError(
                f"the directions of the study must all be 'maximize', one for each objective; they are {directions}"
            )
        if study.get_trials(deepcopy=False):
            raise ConfigError(
                f"the study {study.study_name!r} has trials already, so a search in it could not be resumed; give an empty one"
            )
        if self._sampler is not None:
            study.sampler = self._made(len(directions))

    def _made(self, num_objectives: int) -> Any:
        if isinstance(self._sampler, str):
            return make_sampler(self._sampler, random_at(self._seed, "sampler").getrandbits(32), num_objectives)
        if isinstance(self._sampler, self._optuna.samplers.BaseSampler):
            return self._sampler
        made = self._sampler(self._seed, num_objectives) if callable(self._sampler) else self._sampler
        if not isinstance(made, self._optuna.samplers.BaseSampler):
            raise ConfigError(f"a sampler is a name, an Optuna sampler or a function that makes one, got {made!r}")
        return made
