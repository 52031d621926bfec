"""The loop of a participant of a shared search: look what others did, ask, claim, evaluate, write down."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mutorch.cost import Costs
from mutorch.errors import ConfigError
from mutorch.space import Architecture, random_at

from .feasible import Feasible
from .history import Trial
from .loop import Judge, OnTrial
from .pools import Pool
from .ranks import Ranks
from .shared import SharedStudy
from .strategies import Strategy

_LONGEST_WAIT = 1.0


@dataclass(slots=True)
class Participant:
    """One of those who share a search.

    Before it asks its strategy, it tells it what all have found, and marks what others evaluate as seen. Two that claim the same
    architecture at once need no lock: numbers of trials are given out once, and the lower one keeps it. The same decides who is
    beyond `num_trials`.

    Attributes:
        study: what is shared.
        feasible: what the strategy draws from.
        make: makes the strategy for a seed. The first participant has that of the search, others one of their own, so that they do
            not draw the same.
        seed: of the search.
        judge: makes trials of outcomes.
        num_trials: of all participants together.
    """

    study: SharedStudy
    feasible: Feasible
    make: Callable[[int], Strategy]
    seed: int
    judge: Judge
    num_trials: int
    finished: dict[int, Trial] = field(default_factory=dict)
    _chooser: Strategy | None = None
    _claims: int = 0
    _aim: str | None = None
    _seen: set[int] = field(default_factory=set)
    _trials: list[Any] = field(default_factory=list)
    _mine: dict[int, tuple[Architecture, Costs | None]] = field(default_factory=dict)

    def take_part(
        self, pool: Pool, on_trial: Sequence[OnTrial] = (), is_over: Callable[[], bool] = lambda: False
    ) -> bool:
        """Evaluate until all participants together have `num_trials`; whether it ended because no more can be found.

        Errors:
            ConfigError: a pool of the ranks of torch.distributed.
        """
        if isinstance(pool, Ranks):
            raise ConfigError(
                f"ranks of torch.distributed evaluate for one search, and share {self.study.address} with nobody: give a file as "
                "log, or start the processes each by itself"
            )
        width, wait = getattr(pool, "count", 1), 0.01
        self._look()
        self._strategy()  # which is told of everything, also where nothing is left to do
        while True:
            self._look()
            if len(self.finished) >= self.num_trials:
                return False
            is_last = is_over()
            while len(self._mine) < width and not is_last:
                number = self._claim()
                if number is None:
                    break
                pool.submit(number, self._mine[number][0])
                wait = 0.01
            if self._mine:
                self._evaluate(pool, on_trial)
            elif is_last:
                return False
            elif len(self.finished) == len(self._live()) < self.num_trials:
                return True  # nothing is under way anywhere, and nothing could be claimed
            else:
                time.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT, self.study.address.patience / 5)

    def trials(self) -> list[Trial]:
        """What was found, in the order of the numbers."""
        return [self.finished[number] for number in sorted(self.finished)][: self.num_trials]

    def _look(self) -> None:
        self._trials = self.study.trials()
        for trial in self._live():
            if trial.number not in self._seen:
                self._seen.add(trial.number)
                self.feasible.accept(self.study.architecture(trial))
            if trial.number not in self.finished and self.study.is_finished(trial):
                self.finished[trial.number] = self.study.result(trial)
                self._aim = self._aim or self.judge.same_aim(self.finished[trial.number], None)
                if self._chooser is not None:
                    self._chooser.tell(self.finished[trial.number])

    def _claim(self) -> int | None:
        """The number of a trial to evaluate here; `None` where there is nothing now."""
        while len(self._live()) < self.num_trials:
            architecture = self._free() or self._strategy().ask()
            if architecture is None:
                return None
            costs = self.judge.costs(architecture)
            number = self.study.claim(architecture, costs)
            self._claims += 1
            if self._claims == 1 and number > 0:
                self._start(random_at(self.seed, "participant", number).getrandbits(31))
            self._look()
            earlier = [trial for trial in self._live() if trial.number < number]
            same = [trial.number for trial in earlier if self.study.architecture(trial) == architecture]
            if same:
                self.study.withdraw(number, f"trial {same[0]} is the same")
            elif len(earlier) >= self.num_trials:
                self.study.withdraw(number, "there are enough")
            else:
                self._mine[number] = architecture, costs
                return number
            self._look()
        return None

    def _evaluate(self, pool: Pool, on_trial: Sequence[OnTrial]) -> None:
        outcome = pool.result()
        architecture, costs = self._mine.pop(outcome.index)
        try:
            trial = self.judge.trial(outcome, architecture, costs)
            self.judge.same_aim(trial, self._aim)
        except Exception as error:
            self.study.release(outcome.index, f"{type(error).__name__}: {error}")
            raise
        if not self.study.finish(trial):
            warnings.warn(
                f"trial {trial.index} gave no sign of life for {self.study.address.patience:g} seconds, and others took it over; "
                "its result here is dropped",
                stacklevel=2,
            )
            return
        for listener in on_trial:
            listener(trial, self.num_trials)

    def _free(self) -> Architecture | None:
        """What somebody began and did not end."""
        free = [self.study.architecture(trial) for trial in self._trials if self.study.is_free(trial)]
        live = [self.study.architecture(trial) for trial in self._live()] if free else []
        return next((architecture for architecture in free if architecture not in live), None)

    def _strategy(self) -> Strategy:
        if self._chooser is None:
            self._start(self.seed)
        assert self._chooser is not None
        return self._chooser

    def _start(self, seed: int) -> None:
        self._chooser = self.make(seed)
        for number in sorted(self.finished):
            self._chooser.tell(self.finished[number])

    def _live(self) -> list[Any]:
        return [trial for trial in self._trials if self.study.is_running(trial) or self.study.is_finished(trial)]
