"""Searches shared in storages of Optuna: SQLite and journal files here, PostgreSQL in test_shared_postgres.py."""

import math
import threading

import optuna
import pytest

from mutorch.errors import ConfigError, MissingExtraError, ResumeError, StorageError
from mutorch.search import Feasible, InProcess, RandomSearch, Trial, search, search_space
from mutorch.search import shared as shared_module
from mutorch.search.address import Address
from mutorch.search.evaluation import Evaluation
from mutorch.search.loop import Judge
from mutorch.search.objectives import Objectives
from mutorch.search.ranks import Ranks
from mutorch.search.shared import SharedStudy
from mutorch.search.shared_loop import Participant
from mutorch.search.strategies import STRATEGIES
from mutorch.space import Decision, SearchSpace

SPACE = SearchSpace(
    [
        Decision("depth", (1, 2, 3, 4)),
        Decision("size", ([3, 3], [5, 5], [7, 9])),
        Decision("op", ("conv", "skip", "pool")),
    ]
)
SMALL = SearchSpace([Decision("depth", (1, 2, 3, 4))])
RUN = {"space": SPACE.fingerprint, "seed": 0}


def evaluate(architecture):
    return {"accuracy": architecture["depth"] / 7 + len(architecture["op"]), "seconds": architecture["size"][0] / 3}


def run(log, function=evaluate, **options):
    return search_space(SPACE, function, log=log, **{"num_trials": 12, "seed": 3, **options})


def found(history):
    """Everything of a history but how long it took."""
    return [(t.index, t.architecture, t.score, t.values, dict(t.metrics), t.costs, t.error) for t in history]


@pytest.fixture
def storage(request, tmp_path):
    kind = getattr(request, "param", "journal")
    return f"{kind}:///{tmp_path}/trials.{kind}"


both_kinds = pytest.mark.parametrize("storage", ["sqlite", "journal"], indirect=True)


def study_of(storage, name):
    """What Optuna itself, or its dashboard, sees."""
    address = Address.parse(storage)
    with shared_module.quiet():
        return optuna.load_study(study_name=name, storage=shared_module._open(optuna, address)[0])


def join(storage, run=RUN, objectives=("accuracy",), **options):
    return SharedStudy(Address.parse(storage), SPACE, objectives, run, **options)


def participant(study, seed=0, num_trials=10, strategy=RandomSearch):
    feasible = Feasible(SPACE)
    judge = Judge(Objectives.parse("accuracy"))
    return Participant(study, feasible, lambda seed: strategy(feasible, seed), seed, judge, num_trials)


def pool(function=evaluate):
    return InProcess(Evaluation(function, 0))


# ---- one participant -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_learns_from_what_others_evaluate(tmp_path, strategy):
    log = f"journal:///{tmp_path}/trials.log"
    with join(log) as one, join(log) as two:
        both = [participant(study, num_trials=24, strategy=STRATEGIES[strategy]) for study in (one, two)]
        for who in [both[0], both[1]] * 5:
            who._look()
            number = who._claim()
            evaluation = pool()
            evaluation.submit(number, who._mine[number][0])
            who._evaluate(evaluation, ())
        assert not any(who.take_part(pool()) for who in both)
        assert found(both[0].trials()) == found(both[1].trials())
    assert len({str(trial.architecture) for trial in both[0].trials()}) == 24


def test_a_search_of_one_participant_is_a_function_of_its_seed(storage):
    one, same = (run(f"{storage}{n}") for n in (1, 2))
    other = run(f"{storage}3", seed=4)
    assert found(one) == found(same) != found(other)
    assert [trial.index for trial in one] == list(range(12))
    assert [trial.metrics for trial in one] == [evaluate(trial.architecture) for trial in one]


@both_kinds
def test_calling_the_same_line_again_shows_the_same_and_a_larger_number_goes_on(storage):
    calls = []

    def counted(architecture):
        calls.append(architecture)
        return evaluate(architecture)

    first = run(storage, counted)
    again = run(storage, counted)
    assert (found(again), len(calls)) == (found(first), 12)
    more = run(storage, counted, num_trials=20)
    assert (found(more)[:12], len(more), len(calls)) == (found(first), 20, 20)
    assert len({tuple(map(str, trial.architecture.values())) for trial in more}) == 20
    assert found(run(storage, counted, num_trials=5)) == found(first)[:5]


def test_a_space_that_is_used_up_ends_the_search(storage):
    history = search_space(SMALL, lambda a: a["depth"], num_trials=100, log=storage)
    assert (len(history), history.exhausted) == (4, True)


@both_kinds
def test_optuna_sees_decisions_as_parameters_objectives_as_values_and_the_rest_as_attributes(storage):
    history = run(f"{storage}#digits", objective=["accuracy", "-seconds"], constraints={"seconds": 2.0})
    study = study_of(storage, "digits")
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["accuracy", "seconds"]
    assert study.user_attrs["mutorch"]["run"]["space"] == SPACE.fingerprint
    for trial, theirs in zip(history, study.trials, strict=True):
        assert theirs.state.name == "COMPLETE"
        assert theirs.values == [trial.metrics["accuracy"], trial.metrics["seconds"]]
        assert trial.values == (trial.metrics["accuracy"], -trial.metrics["seconds"])
        assert (theirs.params["depth"], theirs.params["op"]) == (trial.architecture["depth"], trial.architecture["op"])
        assert theirs.user_attrs["metrics"] == trial.metrics
        assert theirs.user_attrs["seconds"] == trial.seconds
        assert theirs.user_attrs.get("violation", 0.0) == trial.violation
    assert any(trial.violation for trial in history)
    assert {trial.number for trial in study.best_trials} >= {trial.index for trial in history.pareto()}


def test_a_supernet_is_searched_with_its_costs(toy, storage):
    history = search(
        toy.net, toy.mutator, toy.evaluate, table=toy.table, budget={"macs": "50%"}, num_trials=10, log=storage
    )
    assert all(trial.costs == toy.table(trial.architecture) for trial in history)
    again = search(
        toy.net, toy.mutator, toy.evaluate, table=toy.table, budget={"macs": "50%"}, num_trials=10, log=storage
    )
    assert found(again) == found(history)
    assert len(toy.evaluated) == 10


def test_workers_evaluate_several_at_once(storage):
    history = run(storage, workers=2)
    assert len(history) == 12
    assert [trial.metrics for trial in history] == [evaluate(trial.architecture) for trial in history]


def test_results_that_are_no_numbers_and_errors_come_back(storage):
    def strange(architecture):
        if architecture["depth"] == 4:
            raise ValueError("out of memory")
        return math.nan if architecture["depth"] == 1 else 1e-30

    first = run(storage, strange, on_error="record", num_trials=24)
    assert repr(found(run(storage, strange, on_error="record", num_trials=24))) == repr(found(first))
    assert {trial.score for trial in first} == {-math.inf, 1e-30}
    assert {trial.error for trial in first} == {None, "ValueError: out of memory"}


def test_a_search_may_end_after_a_time_and_go_on(storage):
    assert len(run(storage, max_seconds=1e-9)) == 0
    assert len(run(storage)) == 12


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "seed: 3 there, 4 here"),
        ({"strategy": "random"}, "strategy: 'evolution' there, 'random' here"),
        ({"objective": "seconds"}, "objective: .* there, .*seconds.* here"),
    ],
)
def test_the_study_of_another_search_is_refused_with_what_differs(storage, change, message):
    run(f"{storage}#digits")
    with pytest.raises(ResumeError, match=f"study 'digits' in .* belongs to another search .*{message}"):
        run(f"{storage}#digits", **change)


def test_without_a_name_every_search_has_its_own_study(storage):
    first, other = run(storage), run(storage, seed=4)
    assert found(first) == found(run(storage)) != found(other)


def test_a_study_of_something_else_is_refused(storage):
    address = Address.parse(storage)
    with shared_module.quiet():
        study = optuna.create_study(study_name="mine", storage=shared_module._open(optuna, address)[0])
        study.tell(study.ask(), 1.0)
    with pytest.raises(ResumeError, match="study 'mine' in .* was not made by mutorch; give another name"):
        run(f"{storage}#mine")


def test_resume_modes_ask_for_a_study_or_for_none(storage):
    with pytest.raises(ResumeError, match="there is no study 'digits' in .* to resume"):
        run(f"{storage}#digits", resume="must")
    first = run(f"{storage}#digits", resume="never")
    with pytest.raises(ResumeError, match="has the study 'digits'; take another name, or resume='auto'"):
        run(f"{storage}#digits", resume="never")
    assert found(run(f"{storage}#digits", resume="must")) == found(first)


def test_a_trial_of_another_search_in_the_study_is_noticed(storage):
    with join(storage, {**RUN, "seed": 1}) as other:
        name = other.name
    with join(f"{storage}#{name}", {**RUN, "seed": 1}) as study:
        study_of(storage, name).enqueue_trial({"depth": 1})
        with pytest.raises(ResumeError, match=f"trial 0 of study '{name}' in .* is not of this search"):
            study.trials()


@pytest.mark.parametrize(
    ("log", "error", "message"),
    [
        (
            "postgresql://me:hush@127.0.0.1:9/db",
            StorageError,
            r"the storage postgresql://me:\*\*\*@127.0.0.1:9/db gave",
        ),
        ("postgres+nothing://me:hush@host/db", ConfigError, r"no storage 'postgres'; did you mean 'postgresql'"),
        ("postgressql://me:hush@host/db", ConfigError, r"no storage 'postgressql'; did you mean 'postgresql'"),
        ("mysql://me:hush@host/db", MissingExtraError, r"mysql://me:\*\*\*@host/db needs the library 'MySQLdb'"),
        ("redis://me:hush@host/0", MissingExtraError, r"redis://me:\*\*\*@host/0 needs the library 'redis'"),
        ("postgresql://me:hush@host:port/db", ConfigError, r"postgresql://me:\*\*\*@host:port/db is no address"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_an_error_without_its_password(log, error, message, monkeypatch):
    monkeypatch.setattr(shared_module, "_FIRST_PAUSES", (0.0, 0.0))
    with pytest.raises(error, match=message) as caught:
        run(log)
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_ranks_cannot_share(storage):
    with join(storage) as study, pytest.raises(ConfigError, match="ranks of torch.distributed evaluate for one search"):
        participant(study).take_part(object.__new__(Ranks))


# ---- several participants --------------------------------------------------------------------------------------------


@both_kinds
def test_participants_in_turns_learn_from_each_other_and_evaluate_nothing_twice(storage):
    told, calls = [], []

    class Listening(RandomSearch):
        def tell(self, trial):
            told.append((id(self), trial.index))

    with join(storage) as one, join(storage) as two:
        both = [participant(one, strategy=Listening), participant(two, strategy=Listening)]
        for turn in range(10):
            who = both[turn % 2]
            who._look()
            number = who._claim()
            calls.append(str(who._mine[number][0]))
            evaluation = pool()
            evaluation.submit(number, who._mine[number][0])
            who._evaluate(evaluation, ())
        for who in both:
            assert who.take_part(pool()) is False
        assert both[0].trials() == both[1].trials()
    assert len(set(calls)) == len(calls) == 10
    assert [trial.index for trial in both[0].trials()] == list(range(10))
    for who in both:
        assert [index for chooser, index in told if chooser == id(who._chooser)] == list(range(10))


@both_kinds
def test_of_two_that_claim_the_same_at_once_the_lower_number_keeps_it(storage):
    wanted = SPACE.sample(0)
    with join(storage) as one, join(storage) as two:
        first, second = participant(one), participant(two)
        first._look()
        second._look()

        class Stubborn(RandomSearch):
            asked = 0

            def ask(self):
                self.asked += 1
                return wanted if self.asked == 1 else super().ask()

        first._chooser, second._chooser = Stubborn(first.feasible, 0), Stubborn(second.feasible, 0)
        first._claims = second._claims = 1  # so that they keep these strategies
        kept, other = first._claim(), second._claim()
        trials = one.trials()
    assert (kept, other) == (0, 2)
    assert trials[1].user_attrs["withdrawn"] == "trial 0 is the same"
    assert first._mine[0][0] == wanted != second._mine[2][0]


def test_those_that_start_at_once_do_not_draw_the_same(storage):
    with join(storage) as one, join(storage) as two:
        first, second = participant(one), participant(two)
        claims = [who._claim() for _ in range(4) for who in (first, second) if who._look() is None]
        assert claims == list(range(8))


def test_no_more_are_evaluated_than_asked_for(storage):
    with join(storage) as one, join(storage) as two:
        first, second = participant(one, num_trials=1), participant(two, seed=1, num_trials=1)
        first._look()
        second._look()
        assert first._claim() == 0
        assert second._claim() is None
        assert one.trials()[1].user_attrs["withdrawn"] == "there are enough"


def test_a_trial_that_its_participant_ends_is_free_again(storage):
    with join(storage) as one:
        first = participant(one)
        first._look()
        assert first._claim() == 0
    with join(storage) as two:
        second = participant(two)
        second._look()
        assert second._claim() == 1
        assert second._mine[1][0] == first._mine[0][0]


def test_an_error_in_evaluate_is_the_callers_and_its_trial_is_evaluated_again(storage):
    def failing(architecture):
        calls.append(architecture)
        if len(calls) == 4:
            raise ValueError("out of data")
        return evaluate(architecture)

    calls = []
    with pytest.raises(ValueError, match="out of data"):
        run(f"{storage}#digits", failing)
    history = run(f"{storage}#digits", failing)
    assert len(history) == 12
    assert calls[3] == calls[4] == history.trials[3].architecture
    assert study_of(storage, "digits").trials[3].user_attrs["error"] == "ValueError: out of data"


def test_ctrl_c_returns_what_was_found_and_frees_the_rest(storage):
    def interrupted(architecture):
        calls.append(architecture)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return evaluate(architecture)

    calls = []
    part = run(storage, interrupted)
    assert (len(part), part.interrupted) == (4, True)
    whole = run(storage, interrupted)
    assert (len(whole), whole.interrupted, len(calls)) == (12, False, 13)
    assert calls[4] == calls[5]


@both_kinds
def test_who_gives_no_sign_of_life_is_taken_for_dead_and_its_late_result_dropped(storage):
    patient = f"{storage}#study=digits&patience=0.3"
    with join(patient) as one, join(patient) as two:
        one._heart = threading.Thread(target=lambda: None)  # a participant that hangs
        first, second = participant(one), participant(two, num_trials=3)
        first._look()
        assert first._claim() == 0
        assert second.take_part(pool()) is False
        evaluated = [trial.architecture for trial in second.trials()]
        assert evaluated.count(first._mine[0][0]) == 1
        late = Trial(0, first._mine[0][0], 1.0)
        assert one.finish(late) is False
        assert [trial.index for trial in second.trials()] == [1, 2, 3]


def test_who_gives_signs_of_life_may_take_long(storage):
    patient = f"{storage}#study=digits&patience=0.3"
    with join(patient) as one, join(patient) as two:
        first = participant(one)
        first._look()
        assert first._claim() == 0
        waited = threading.Event()
        for _ in range(8):
            waited.wait(0.1)
            (trial,) = two.trials()
            assert two.is_running(trial)
        assert trial.user_attrs["beat"] > 1
        assert one.finish(Trial(0, first._mine[0][0], 1.0)) is True


# ---- connections -----------------------------------------------------------------------------------------------------


def test_a_lost_connection_is_tried_again_and_then_an_error_that_names_the_storage(storage, monkeypatch):
    failures = []

    class Broken:
        def __init__(self, real, times):
            self.real, self.times = real, times

        def __getattr__(self, name):
            def call(*args, **options):
                if self.times > 0 and name != "remove_session":
                    self.times -= 1
                    failures.append(name)
                    raise OSError("hush: connection lost")
                return getattr(self.real, name)(*args, **options)

            return call

    with join(storage) as study:
        study.address = Address(f"{study.address}", "sqlite", "secret", secrets=("hush",))
        study._pauses = (0.0, 0.0, 0.0)
        study._storage = Broken(study._storage, 3)
        assert study.trials() == []
        assert len(failures) == 3
        study._storage.times = 4
        with pytest.raises(
            StorageError, match=r"gave an error in each of 4 attempts, the last one OSError: \*\*\*: connection"
        ):
            study.trials()


def test_an_answer_that_was_lost_does_not_make_a_result_be_dropped(storage):
    with join(storage) as study:
        number = study.claim(SPACE.sample(0))
        real, trial = study._storage.set_trial_state_values, Trial(number, SPACE.sample(0), 1.0)
        answers = iter([True])

        def lost(*args):
            real(*args)
            if next(answers, False):
                raise OSError("connection lost")

        study._pauses = (0.0,)
        study._storage.set_trial_state_values = lost
        assert study.finish(trial) is True
        assert study.result(study.trials()[0]).score == 1.0
