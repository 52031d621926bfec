import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mutorch.cost import Budget, CostTable
from mutorch.errors import BudgetError, ConfigError, InfeasibleBudgetError, ResumeError
from mutorch.models import chain_net
from mutorch.mutators import Mutator
from mutorch.search import Evolution, search
from mutorch.subnet import export
from mutorch.subnet.export import record_of
from mutorch.training import recalibrate_


def outcome(history):
    """Everything of a history but how long it took."""
    trials = [(t.index, t.architecture, t.score, dict(t.metrics), t.costs) for t in history]
    return repr((trials, history.exhausted))


def run(toy, evaluate=None, **options):
    options = {"table": toy.table, "num_trials": 40, **options}
    return search(toy.net, toy.mutator, evaluate or toy.evaluate, **options)


# ---- what a search returns -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["evolution", "random"])
def test_a_search_is_a_function_of_its_seed_and_meets_its_budget(toy, strategy):
    budget = {"macs": "50%", "params": ("5%", None)}
    one, same, other = (run(toy, strategy=strategy, budget=budget, seed=seed) for seed in (3, 3, 4))
    assert outcome(one) == outcome(same) != outcome(other)
    bounds = Budget.parse(budget, toy.table)
    assert all(bounds.allows(trial.costs) and trial.costs == toy.table(trial.architecture) for trial in one)
    assert len(set(toy.evaluated[:40])) == 40
    assert [toy.score(trial.architecture) for trial in one] == [trial.score for trial in one]


def test_candidates_are_plain_models_in_evaluation_mode_and_the_supernet_stays_as_it_is():
    net = chain_net()
    mutator = Mutator(net)
    mutator.set_choices(mutator.space.sample(1))
    choices = mutator.current_choices
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    data = [torch.randn(8, 1, 10, 10, generator=torch.Generator().manual_seed(n)) for n in range(2)]

    def evaluate(model):
        assert not any(module.training for module in model.modules())
        assert not any(type(module).__module__.startswith("mutorch") for module in model.modules())
        reference = export(net, record_of(model)["architecture"])
        recalibrate_(reference, data)
        assert torch.equal(model(data[0]), reference.eval()(data[0]))
        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor.zero_()
        return 0.0

    history = search(net, mutator, evaluate, example_inputs=data[0][:1], calibrate=data, num_trials=5)
    assert len(history) == 5
    assert mutator.current_choices == choices
    assert all(module.training for module in net.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())


def test_the_callers_random_states_are_untouched(toy):
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    run(toy, budget={"macs": "50%"})
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_a_space_that_is_used_up_ends_the_search(make_toy):
    toy = make_toy(blocks=2)
    history = run(toy, num_trials=100)
    assert (len(history), history.exhausted, history.interrupted) == (16, True, False)
    assert history.best.architecture == toy.goal


def test_a_result_that_is_not_a_number_ranks_last(toy):
    scores = iter([1.0, math.nan, -5.0])
    history = run(toy, lambda model: next(scores), num_trials=3)
    assert [trial.score for trial in history.top(3)] == [1.0, -5.0, -math.inf]


def test_a_result_may_be_a_tensor_with_a_gradient(toy):
    history = run(toy, lambda model: -model(toy.example_inputs + 1).square().sum(), num_trials=3)
    assert all(isinstance(trial.score, float) for trial in history)


def test_a_dict_of_results_is_kept_and_its_objective_maximised(toy):
    def evaluate(model):
        score = toy.evaluate(model)
        return {"acc": torch.tensor(score), "loss": np.float32(-score)}

    first = run(toy, evaluate, num_trials=5)
    chosen = run(toy, evaluate, num_trials=5, objective="loss")
    assert [t.score for t in first] == [t.metrics["acc"] for t in first]
    assert [t.score for t in chosen] == [t.metrics["loss"] for t in chosen]
    assert chosen.best.score == max(t.score for t in chosen)
    with pytest.raises(ConfigError, match="evaluate returned no 'accuracy'; did you mean 'acc'"):
        run(toy, evaluate, objective="accuracy")
    with pytest.raises(ConfigError, match="evaluate returned no"):
        run(toy, lambda model: {})


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (0.5, "the objective 'accuracy' names an entry of what evaluate returns, and that is no dict but a number"),
        ({}, "evaluate returned no entries, an empty dict; return what to maximise"),
        ({"acuracy": 1.0}, "evaluate returned no 'accuracy'; did you mean 'acuracy'"),
    ],
)
def test_an_objective_that_evaluate_does_not_return_is_an_error(toy, result, message):
    with pytest.raises(ConfigError, match=message):
        run(toy, lambda model: result, objective="accuracy")


def test_without_a_table_costs_are_left_out(toy):
    history = search(toy.net, toy.mutator, toy.evaluate, num_trials=3)
    assert [trial.costs for trial in history] == [None] * 3


def test_progress_is_told_after_each_trial(toy):
    told = []
    history = run(toy, num_trials=4, on_trial=lambda trial, total: told.append((trial, total)))
    assert told == [(trial, 4) for trial in history]


# ---- a strategy of one's own -----------------------------------------------------------------------------------------


class HillClimbing:
    """Neighbours of the best so far, in order; a random architecture when there are none left."""

    def __init__(self, feasible, seed):
        self.feasible, self.seed, self.told = feasible, seed, []

    def ask(self):
        if self.told:
            best = max(self.told, key=lambda told: told[1])[0]
            for neighbour in self.feasible.space.neighbours(best):
                accepted = self.feasible.accept(neighbour)
                if accepted is not None:
                    return accepted
        return self.feasible.draw(self.seed)

    def tell(self, trial):
        self.told.append((trial.architecture, trial.score))


def test_a_strategy_of_ones_own_searches_under_a_budget_and_resumes(toy, tmp_path):
    options = {"strategy": HillClimbing, "budget": {"params": "60%"}, "seed": 5}
    whole = run(toy, num_trials=100, **options)
    bounds = Budget.parse(options["budget"], toy.table)
    assert all(bounds.allows(trial.costs) for trial in whole)
    feasible_goal = [n for n in toy.space.neighbours(whole.best.architecture) if bounds.allows(toy.table(n))]
    assert all(toy.score(neighbour) <= whole.best.score for neighbour in feasible_goal)
    run(toy, num_trials=30, log=tmp_path / "run.jsonl", **options)
    assert outcome(run(toy, num_trials=100, log=tmp_path / "run.jsonl", **options)) == outcome(whole)


class Spendthrift(HillClimbing):
    def ask(self):
        return self.feasible.space.max


def test_a_strategy_that_leaves_the_budget_is_told_so_before_anything_is_evaluated(toy):
    with pytest.raises(BudgetError, match=r"the strategy asked for .* outside of params <= .* feasible.accept"):
        run(toy, strategy=Spendthrift, budget={"params": "60%"})
    assert not toy.evaluated


# ---- logs and resuming -----------------------------------------------------------------------------------------------


def test_more_trials_continue_a_search_and_fewer_read_its_beginning(toy, tmp_path):
    whole = run(toy, num_trials=50)
    run(toy, num_trials=30, log=tmp_path / "run.jsonl")
    toy.evaluated.clear()
    assert outcome(run(toy, num_trials=50, log=tmp_path / "run.jsonl")) == outcome(whole)
    assert len(toy.evaluated) == 20
    assert [t.score for t in run(toy, num_trials=10, log=tmp_path / "run.jsonl")] == [t.score for t in whole][:10]
    assert len(toy.evaluated) == 20


def test_an_interrupt_returns_what_was_found_and_the_log_goes_on(toy, tmp_path):
    def interrupted(model):
        if len(toy.evaluated) == 25:
            raise KeyboardInterrupt
        return toy.evaluate(model)

    part = run(toy, interrupted, log=tmp_path / "run.jsonl")
    assert (len(part), part.interrupted) == (25, True)
    assert part.best.score == max(trial.score for trial in part)
    assert outcome(run(toy, log=tmp_path / "run.jsonl")) == outcome(run(toy))


def test_an_error_in_evaluate_is_the_callers_and_the_log_goes_on(toy, tmp_path):
    def failing(model):
        if len(toy.evaluated) == 3:
            raise ValueError("out of data")
        return toy.evaluate(model)

    with pytest.raises(ValueError, match="out of data"):
        run(toy, failing, log=tmp_path / "run.jsonl")
    assert outcome(run(toy, log=tmp_path / "run.jsonl")) == outcome(run(toy))


@pytest.mark.parametrize("strategy", ["evolution", "random"])
def test_results_that_are_no_numbers_resume_too(toy, tmp_path, strategy):
    def evaluate(model):
        score = toy.evaluate(model)
        return {"score": math.nan if score < 1 else math.inf if score > 4 else score}

    options = {"num_trials": 60, "strategy": strategy}
    whole = outcome(run(toy, evaluate, **options))
    run(toy, evaluate, log=tmp_path / "run.jsonl", **{**options, "num_trials": 31})
    assert outcome(run(toy, evaluate, log=tmp_path / "run.jsonl", **options)) == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed: 0 there, 1 here"),
        ({"budget": {"macs": "70%"}}, "budget: .* there, .* here"),
        ({"strategy": "random"}, "strategy: 'evolution' there, 'random' here"),
        ({"objective": "acc"}, "objective: .* there, .*acc.* here"),
    ],
)
def test_the_log_of_another_search_is_refused_with_what_differs(toy, tmp_path, change, message):
    options = {"num_trials": 3, "log": tmp_path / "run.jsonl", "budget": {"macs": "60%"}}
    run(toy, **options)
    with pytest.raises(ResumeError, match=f"belongs to another search .*{message}"):
        run(toy, **{**options, **change})


def test_the_log_of_another_space_and_of_a_changed_strategy_are_refused(toy, make_toy, tmp_path):
    run(toy, num_trials=30, log=tmp_path / "run.jsonl")
    with pytest.raises(ResumeError, match="another search \\(space: "):
        run(make_toy(blocks=5), log=tmp_path / "run.jsonl")

    def evolution(feasible, seed):
        return Evolution(feasible, seed, population=5)

    evolution.__name__ = "evolution"
    with pytest.raises(ResumeError, match="the strategy now asks for .*: it, or its options, changed"):
        run(toy, strategy=evolution, log=tmp_path / "run.jsonl")


def test_resume_modes_ask_for_a_log_or_for_none(toy, tmp_path):
    path = tmp_path / "run.jsonl"
    with pytest.raises(ResumeError, match="there is no log .* to resume"):
        run(toy, log=path, resume="must")
    with pytest.raises(ConfigError, match="no resume mode 'always'; .*allowed: 'auto', 'never', 'must'"):
        run(toy, log=path, resume="always")
    assert not path.exists()
    first = run(toy, log=path, resume="never", num_trials=3)
    with pytest.raises(ResumeError, match="exists; delete it, or give another log or resume='auto'"):
        run(toy, log=path, resume="never", num_trials=3)
    assert outcome(run(toy, log=path, resume="must", num_trials=3)) == outcome(first)


# ---- what is refused before anything is evaluated --------------------------------------------------------------------


def never(model):
    raise AssertionError("nothing may be evaluated")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_trials": 0}, ConfigError, "num_trials must be a whole number of at least 1, got 0"),
        (
            {"budget": {"macs": "1%"}, "table": None},
            BudgetError,
            "a budget needs costs: give example_inputs, or a table",
        ),
        ({"budget": {"params": (10_000, None)}}, InfeasibleBudgetError, "no architecture has params of at least 10k"),
        ({"budget": {"latency": 3}}, BudgetError, "latency is measured, not counted"),
        ({"strategy": "evolved"}, ConfigError, "no strategy 'evolved'; did you mean 'evolution'"),
        ({"calibrate": iter([])}, ConfigError, "another iterable that can be read again, not an iterator"),
    ],
)
def test_mistakes_are_found_before_anything_is_evaluated_or_logged(toy, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        run(toy, never, log=tmp_path / "run.jsonl", **options)
    assert not (tmp_path / "run.jsonl").exists()


def test_batch_norm_without_calibration_is_warned_about():
    net = chain_net()
    mutator = Mutator(net)
    table = CostTable.from_model(mutator, torch.zeros(1, 1, 10, 10))
    options = {"num_trials": 1, "table": table}
    with pytest.warns(UserWarning, match="give calibrate=batches of training data, or calibrate=False") as warned:
        search(net, mutator, lambda model: 0.0, **options)
    assert Path(warned[0].filename) == Path(__file__)
    assert len(search(net, mutator, lambda model: 0.0, calibrate=False, **options)) == 1
    assert len(search(net, mutator, lambda model: 0.0, calibrate=[torch.zeros(2, 1, 10, 10)], **options)) == 1


def test_models_without_batch_norm_need_no_calibration(toy):
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in toy.net.modules())
    assert len(run(toy, num_trials=2)) == 2
