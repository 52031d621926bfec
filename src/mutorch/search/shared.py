"""A search that several machines share: an Optuna study in a database or a file."""

import hashlib
import importlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from mutorch.cost import Costs
from mutorch.errors import ConfigError, MissingExtraError, ResumeError, StorageError, nearest
from mutorch.space import Architecture, SearchSpace
from mutorch.utils import differences, require

from .address import Address
from .history import Trial
from .lines import entry_of, trial_of
from .optuna_space import distributions, from_params, quiet, to_params

FORMAT = 1
PAUSES = (0.2, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between attempts to reach a storage; then it is an error."""
_FIRST_PAUSES = (0.2, 0.5, 1.0)
_HEADER, _RUN, _BY, _BEAT, _WITHDRAWN = "mutorch", "run", "by", "beat", "withdrawn"
_COSTS = ("macs", "params", "act_mem_mb", "size_mb", "measured")
_NAMES_OF_METRICS = "study:metric_names"

P = ParamSpec("P")
R = TypeVar("R")


class SharedStudy:
    """The study of a search: its trials, those that others evaluate among them.

    A participant claims an architecture by making a trial that runs, and gives signs of life while it evaluates it. Trials whose
    participant gave none for `patience` seconds are failed; what was running then is free again. Participants need no clocks that
    agree: each looks how long a sign of life stays the same.

    Args:
        address: of the storage.
        space: what is searched.
        objectives: names, with a minus for those to be minimised; none for a single one without a name.
        run: what makes the search what it is; only equal runs share a study.
        resume: as for `search`.

    Errors:
        ResumeError: the study of another search (says in what they differ), or of something else.
        StorageError: the storage cannot be reached.
        ConfigError, MissingExtraError: a kind of storage that is unknown, or whose library is not installed.
    """

    def __init__(
        self,
        address: Address,
        space: SearchSpace,
        objectives: Sequence[str],
        run: Mapping[str, Any],
        resume: str = "auto",
    ) -> None:
        self.address = address
        self._space = space
        self._signs = [-1.0 if name.startswith("-") else 1.0 for name in objectives] or [1.0]
        self._run = json.loads(json.dumps(run))
        self._digest = hashlib.blake2b(json.dumps(self._run, sort_keys=True).encode(), digest_size=4).hexdigest()
        self.name = address.study or f"mutorch-{self._digest}"
        self._by = f"{secrets.token_hex(4)} {_place()} {os.getpid()} {_birth(os.getpid())}"
        self._optuna: Any = require("optuna", extra="postgres" if address.scheme.startswith("postgres") else "optuna")
        self._distributions = distributions(space)
        self._architectures: dict[int, Architecture] = {}
        self._beats: dict[int, tuple[int, float]] = {}
        self._held: dict[int, int] = {}  # number to id
        self._pauses: Sequence[float] = PAUSES
        self._is_over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="mutorch signs of life", daemon=True)
        with quiet():
            self._storage, self._dispose = _patiently(address, _FIRST_PAUSES, _open, self._optuna, address)
            self._study = _patiently(
                address, _FIRST_PAUSES, self._join, [name.removeprefix("-") for name in objectives], resume
            )

    def trials(self) -> list[Any]:
        """All trials of the study, in order of their numbers; those whose participant died are failed on the way.

        Errors:
            ResumeError: another search writes to the study.
        """
        found: list[Any] = self._call(self._storage.get_all_trials, self._study, deepcopy=False)
        for trial in found:
            if trial.user_attrs.get(_RUN) != self._digest:
                raise ResumeError(
                    f"trial {trial.number} of study {self.name!r} in {self.address} is not of this search"
                )
        dead = [trial for trial in found if self._is_dead(trial)]
        for trial in dead:
            self._end(trial._trial_id, "FAIL")
        return self._call(self._storage.get_all_trials, self._study, deepcopy=False) if dead else found

    def architecture(self, trial: Any) -> Architecture:
        """What a trial of the study evaluates."""
        if trial.number not in self._architectures:
            self._architectures[trial.number] = from_params(self._space, trial.params)
        return self._architectures[trial.number]

    def result(self, trial: Any) -> Trial:
        """A finished trial of the study as one of ours."""
        attributes = trial.user_attrs
        values = [sign * value for sign, value in zip(self._signs, trial.values, strict=True)]
        costs = attributes.get("costs")
        return trial_of(
            {
                "index": trial.number,
                "architecture": self.architecture(trial),
                "score": values[0],
                "metrics": attributes.get("metrics", {}),
                "costs": None if costs is None else [costs[name] for name in _COSTS],
                "seconds": attributes.get("seconds", 0.0),
                "values": values,
                "violation": attributes.get("violation", 0.0),
                "error": attributes.get("error"),
            }
        )

    def is_running(self, trial: Any) -> bool:
        """Whether somebody evaluates it."""
        return bool(trial.state == self._optuna.trial.TrialState.RUNNING)

    def is_finished(self, trial: Any) -> bool:
        """Whether it has a result."""
        return bool(trial.state == self._optuna.trial.TrialState.COMPLETE)

    def is_free(self, trial: Any) -> bool:
        """Whether who evaluated it did not get to the end of it."""
        return bool(trial.state == self._optuna.trial.TrialState.FAIL) and _WITHDRAWN not in trial.user_attrs

    def claim(self, architecture: Architecture, costs: Costs | None = None) -> int:
        """Make a trial that runs; its number."""
        known = {} if costs is None else {"costs": {name: _plain(getattr(costs, name)) for name in _COSTS}}
        template = self._optuna.trial.create_trial(
            state=self._optuna.trial.TrialState.RUNNING,
            params=to_params(self._space, architecture),
            distributions=self._distributions,
            user_attrs={_RUN: self._digest, _BY: self._by, _BEAT: 0, **known},
        )
        trial_id = self._call(self._storage.create_new_trial, self._study, template_trial=template)
        number = int(self._call(self._storage.get_trial_number_from_id, trial_id))
        self._held[number] = trial_id
        if not self._heart.is_alive():
            self._heart.start()
        return number

    def finish(self, trial: Trial) -> bool:
        """Write a result down; whether it counts, which it does not where others took the participant for dead."""
        trial_id = self._held.pop(trial.index)
        entry = entry_of(trial)
        attributes = {"metrics": entry["metrics"], "seconds": entry["seconds"]}
        attributes |= {name: entry[name] for name in ("violation", "error") if entry[name]}
        values = [sign * value for sign, value in zip(self._signs, trial.values, strict=True)]
        return self._end(trial_id, "COMPLETE", values, attributes)

    def withdraw(self, number: int, why: str) -> None:
        """End a trial that nobody needs."""
        self._end(self._held.pop(number), "FAIL", None, {_WITHDRAWN: why})

    def release(self, number: int, error: str | None = None) -> None:
        """End a trial that somebody else is to evaluate."""
        self._end(self._held.pop(number), "FAIL", None, {} if error is None else {"error": error})

    def close(self) -> None:
        """Give back what is not finished, and give no more signs of life."""
        self._is_over.set()
        if self._heart.is_alive():
            self._heart.join()
        self._pauses = _FIRST_PAUSES
        with suppress(StorageError):  # what cannot be given back is taken after a while
            for number in list(self._held):
                self.release(number)
        self._storage.remove_session()
        self._dispose()

    def __enter__(self) -> "SharedStudy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _join(self, names: Sequence[str], resume: str) -> int:
        exceptions, study = self._optuna.exceptions, self._optuna.study
        directions = [
            study.StudyDirection.MAXIMIZE if sign > 0 else study.StudyDirection.MINIMIZE for sign in self._signs
        ]
        try:
            study_id = int(self._storage.get_study_id_from_name(self.name))
            if resume == "never":
                raise ResumeError(f"{self.address} has the study {self.name!r}; take another name, or resume='auto'")
        except KeyError:
            if resume == "must":
                raise ResumeError(f"there is no study {self.name!r} in {self.address} to resume") from None
            try:
                study_id = int(self._storage.create_new_study(directions, self.name))
            except exceptions.DuplicatedStudyError:  # somebody else made it just now
                study_id = int(self._storage.get_study_id_from_name(self.name))
        header = self._storage.get_study_user_attrs(study_id).get(_HEADER)
        if header is None and not self._storage.get_all_trials(study_id, deepcopy=False):
            self._storage.set_study_user_attr(study_id, _HEADER, {"format": FORMAT, "run": self._run})
            if names:
                self._storage.set_study_system_attr(study_id, _NAMES_OF_METRICS, list(names))
            header = self._storage.get_study_user_attrs(study_id)[_HEADER]
        self._check(header)
        return study_id

    def _check(self, header: Mapping[str, Any] | None) -> None:
        where = f"study {self.name!r} in {self.address}"
        if header is None:
            raise ResumeError(f"{where} was not made by mutorch; give another name")
        if header["format"] != FORMAT:
            raise ResumeError(f"{where} has format {header['format']!r}; this version reads format {FORMAT}")
        different = differences(header["run"], self._run)
        if different:
            raise ResumeError(f"{where} belongs to another search ({different}); give another name to start anew")

    def _end(
        self,
        trial_id: int,
        state: str,
        values: Sequence[float] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> bool:
        """Put a trial into its last state, once; whether it was this participant that did."""
        try:
            for name, value in (attributes or {}).items():
                self._call(self._storage.set_trial_user_attr, trial_id, name, value)
            self._call(
                self._storage.set_trial_state_values, trial_id, getattr(self._optuna.trial.TrialState, state), values
            )
        except self._optuna.exceptions.UpdateFinishedTrialError:
            # An attempt whose answer was lost may have done it.
            ended = self._call(self._storage.get_trial, trial_id)
            return bool(ended.state.name == state and ended.user_attrs.get(_BY) == self._by)
        return True

    def _is_dead(self, trial: Any) -> bool:
        if not self.is_running(trial) or trial.number in self._held:
            return False
        beat, now = trial.user_attrs[_BEAT], time.monotonic()
        known, since = self._beats.get(trial.number, (None, now))
        if known != beat:
            self._beats[trial.number] = beat, now
            since = now
        return now - since > self.address.patience or _is_gone(trial.user_attrs[_BY])

    def _beat(self) -> None:
        beat = 0
        while not self._is_over.wait(self.address.patience / 5):
            beat += 1
            for trial_id in list(self._held.values()):
                try:
                    self._storage.set_trial_user_attr(trial_id, _BEAT, beat)
                except Exception:  # finished meanwhile; or the storage is away, which the search itself notices
                    continue
        self._storage.remove_session()

    def _call(self, function: Callable[P, R], *args: P.args, **options: P.kwargs) -> R:
        return _patiently(self.address, self._pauses, function, *args, **options)


def _patiently(
    address: Address, pauses: Sequence[float], function: Callable[P, R], *args: P.args, **options: P.kwargs
) -> R:
    """Call a function of a storage, again where the storage does not answer.

    Errors:
        StorageError: it never did.
    """
    for pause in (*pauses, None):
        try:
            return function(*args, **options)
        except Exception as error:
            if not _is_of_storage(error):
                raise
            if pause is None:
                cause = getattr(error.__cause__ or error, "orig", None) or error.__cause__ or error
                what = address.scrub(cause).strip().partition("\n")[0]
                raise StorageError(
                    f"the storage {address} gave an error in each of {len(pauses) + 1} attempts, the last one "
                    f"{type(cause).__name__}: {what}"
                ) from None
            time.sleep(pause)
    raise AssertionError("unreachable")


def _is_of_storage(error: Exception) -> bool:
    """Whether it is an error of a database or its connection, by the library it comes from."""
    if isinstance(error, StorageError | MissingExtraError | ResumeError):
        return False
    library = type(error).__module__.partition(".")[0]
    return (
        isinstance(error, OSError)
        or library in ("sqlalchemy", "redis")
        or type(error).__name__ == "StorageInternalError"
    )


def _open(optuna: Any, address: Address) -> tuple[Any, Callable[[], object]]:
    """The storage, and what closes its connections."""
    journal = optuna.storages.journal
    if address.scheme == "journal":
        path = Path(address.rest)
        path.parent.mkdir(parents=True, exist_ok=True)
        return optuna.storages.JournalStorage(journal.JournalFileBackend(str(path))), lambda: None
    if address.scheme == "redis":
        _check_library(address, "redis")
        return optuna.storages.JournalStorage(journal.JournalRedisBackend(address.url)), lambda: None
    errors = require("sqlalchemy.exc", extra="optuna")
    driver = address.url.partition("://")[0]
    waits = {"sqlite": {"timeout": 60}, "postgresql+psycopg": {"connect_timeout": 10}}
    engine = {"pool_pre_ping": True, "connect_args": waits.get(driver, {})}
    try:
        database = optuna.storages.RDBStorage(address.url, engine_kwargs=engine)
    except errors.NoSuchModuleError:
        known = ("postgresql", "mysql", "sqlite", "redis", "journal")
        raise ConfigError(f"{address}: no storage {address.scheme!r}; {nearest(address.scheme, known)}") from None
    except (errors.ArgumentError, ValueError) as error:
        raise ConfigError(f"{address} is no address of a storage: {address.scrub(error)}") from None
    except ImportError as error:
        raise _missing(address, getattr(error.__cause__, "name", None) or driver) from None
    return optuna.storages.get_storage(database), database.engine.dispose


def _check_library(address: Address, library: str) -> None:
    try:
        importlib.import_module(library)
    except ImportError:
        raise _missing(address, library) from None


def _missing(address: Address, library: str) -> MissingExtraError:
    return MissingExtraError(f"{address} needs the library {library!r}, which is not installed: pip install {library}")


def _plain(cost: Any) -> Any:
    return dict(cost) if isinstance(cost, Mapping) else cost


def _place() -> str:
    """What processes that can see each other have in common; empty where that cannot be known."""
    try:
        parts = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"), os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return hashlib.blake2b("".join((socket.gethostname(), *parts)).encode(), digest_size=6).hexdigest()


def _birth(pid: int) -> str:
    """When a process began, in ticks; empty where it has ended, or cannot be seen."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _is_gone(by: str) -> bool:
    """Whether a participant was a process of this machine that is no more."""
    _, place, pid, birth = by.split(" ")
    if not place or place != _place() or _birth(int(pid)) == birth:
        return False
    try:
        os.kill(int(pid), 0)
    except OSError as error:  # without permission: it is there, and another user's, of whom nothing is seen
        return isinstance(error, ProcessLookupError)
    return True  # it waits to be buried, or is a later process with the same number
