"""Greedy slimming on scores that are known: the walk of AutoSlim."""

import json
from functools import partial

import pytest
import torch
from torch import nn

from mutorch.channels import searchable, widths
from mutorch.cost import Budget, CostTable
from mutorch.errors import ConfigError, InfeasibleBudgetError, SpaceError
from mutorch.mutables import OneShotMutableOP
from mutorch.mutators import Mutator
from mutorch.search import Feasible, GreedySlimming, greedy_slim, repair, search
from mutorch.search.ladders import ladders
from mutorch.space import Decision, Ref, SearchSpace
from mutorch.subnet.export import record_of

INPUTS = torch.zeros(1, 4)
BUDGETS = [{"macs": "70%"}, {"macs": "40%"}, {"macs": "20%"}]


class Planted:
    """Four layers of 1 to 8 channels. Each channel above what a layer needs is worth next to nothing, each one below a lot."""

    needs = {"0": 3, "1": 6, "2": 2, "3": 5}

    def __init__(self):
        layers = [nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)]
        rules = [widths(counts=range(1, 9), divisor=1)]
        self.net = searchable(nn.Sequential(*layers), INPUTS, rules=rules)
        self.mutator = Mutator(self.net)
        self.table = CostTable.from_model(self.mutator, INPUTS)
        self.evaluated = []

    def score(self, architecture):
        lost = {name: max(0, need - architecture[name]) for name, need in self.needs.items()}
        return -sum(10 * lost[name] ** 2 + 0.01 * (8 - architecture[name]) for name in self.needs)

    def evaluate(self, model):
        self.evaluated.append(record_of(model)["architecture"])
        return self.score(self.evaluated[-1])

    def slim(self, budgets=BUDGETS, **options):
        return greedy_slim(self.net, self.mutator, self.table, self.evaluate, budgets, **options)

    def needed(self):
        return self.table(self.needs).macs


@pytest.fixture
def planted():
    return Planted()


def test_the_walk_leads_to_the_planted_widths(planted):
    (found,) = planted.slim([{"macs": planted.needed()}])
    assert found.architecture == planted.needs
    assert found.score == planted.score(planted.needs)
    assert found.costs.macs == planted.needed()


def test_it_finds_what_trying_everything_finds(planted):
    """Where a channel is worth the same wherever it is, the best of all architectures within a budget is on the way."""
    bound = planted.needed()
    codes = planted.mutator.space.grid()
    within = [a for a in codes if planted.table(a).macs <= bound]
    assert planted.slim([{"macs": bound}])[0].architecture == max(within, key=planted.score)


def test_every_budget_is_met_within_one_step(planted):
    for given, found in zip(BUDGETS, planted.slim(), strict=True):
        budget = Budget.parse(given, planted.table)
        assert budget.allows(found.costs)
        choices = planted.mutator.space["0"].choices
        wider = [
            {**found.architecture, name: count + 1}
            for name, count in found.architecture.items()
            if count + 1 in choices
        ]
        assert any(not budget.allows(planted.table(architecture)) for architecture in wider)


def test_budgets_are_recorded_in_their_order_and_tighter_ones_are_never_wider(planted):
    loose, middle, tight = planted.slim()
    again = Planted().slim(BUDGETS[::-1])
    assert [found.architecture for found in again] == [tight.architecture, middle.architecture, loose.architecture]
    for wide, narrow in ((loose, middle), (middle, tight)):
        assert all(narrow.architecture[name] <= width for name, width in wide.architecture.items())


def test_one_walk_serves_all_budgets(planted):
    planted.slim()
    together = len(planted.evaluated)
    alone = Planted()
    alone.slim(BUDGETS[-1:])
    assert together == len(alone.evaluated)


def test_the_same_walk_is_found_again(planted):
    assert planted.slim() == Planted().slim()
    assert planted.evaluated[0] == {"0": 8, "1": 8, "2": 8, "3": 8}


def test_a_budget_that_allows_everything_is_the_whole_network(planted):
    (found,) = planted.slim([{"macs": "100%"}])
    assert found.architecture == planted.mutator.space.max
    assert len(planted.evaluated) == 1


def test_bounds_on_several_metrics_all_hold(planted):
    (found,) = planted.slim([{"macs": "90%", "params": "30%"}])
    assert found.costs.params <= 0.3 * planted.table.reachable("params")[1]


def test_a_log_goes_on_where_it_was_stopped(planted, tmp_path):
    whole = planted.slim(log=tmp_path / "walk.jsonl")
    *lines, _ = (tmp_path / "walk.jsonl").read_text().splitlines()
    (tmp_path / "half.jsonl").write_text("\n".join(lines[: len(lines) // 2]) + "\n")
    repair(tmp_path / "half.jsonl")
    other = Planted()
    assert other.slim(log=tmp_path / "half.jsonl") == whole
    assert len(other.evaluated) == len(lines) - len(lines) // 2
    assert json.loads(lines[1])["architecture"] == planted.mutator.space.max


def test_a_walk_that_is_shared_goes_on_where_it_was_stopped(planted, tmp_path):
    def stopping(trial, total):
        if trial.index == 20:
            raise KeyboardInterrupt

    log, whole = f"journal:///{tmp_path}/walk.log", planted.slim()
    other = Planted()
    with pytest.raises(KeyboardInterrupt):
        other.slim(log=log, on_trial=stopping)
    assert other.slim(log=log) == whole
    assert other.slim(log=log) == whole
    assert len(other.evaluated) == len(planted.evaluated)


def test_scores_that_are_no_numbers_are_avoided(planted):
    real = planted.score
    planted.score = lambda architecture: float("nan") if architecture["0"] < 8 else real(architecture)
    (found,) = planted.slim([{"macs": "60%"}])
    assert found.architecture["0"] == 8


def test_it_is_a_strategy_of_search(planted):
    strategy = partial(GreedySlimming, budgets=[{"macs": planted.needed()}])
    history = search(
        planted.net, planted.mutator, planted.evaluate, table=planted.table, strategy=strategy, num_trials=1000
    )
    assert history.exhausted
    within = [trial for trial in history if trial.costs.macs <= planted.needed()]
    assert max(within, key=lambda trial: trial.score).architecture == planted.needs


def test_the_number_of_trials_is_bounded(planted):
    most = GreedySlimming(Feasible(planted.mutator.space, planted.table), budgets=BUDGETS).num_trials
    planted.slim()
    assert len(planted.evaluated) <= most == 1 + 4 * 28


def test_equal_scores_are_settled_by_cost():
    planted = Planted()
    planted.score = lambda architecture: 0.0
    planted.slim([{"macs": "99%"}])
    first = planted.evaluated[1:5]
    (found,) = planted.slim([{"macs": "99%"}])
    assert found.costs.macs == min(planted.table(architecture).macs for architecture in first)


def test_constraints_are_obeyed(planted):
    planted.mutator.require(Ref("0") >= Ref("1"))
    table = CostTable.from_model(planted.mutator, INPUTS)
    (found,) = greedy_slim(planted.net, planted.mutator, table, planted.evaluate, [{"macs": "40%"}])
    assert all(architecture["0"] >= architecture["1"] for architecture in planted.evaluated)
    assert found.architecture["0"] >= found.architecture["1"]


def test_constraints_that_end_the_walk_are_named(planted):
    planted.mutator.require((Ref("0") + Ref("1") + Ref("2") + Ref("3")).eq(32) | (Ref("0").eq(1)))
    table = CostTable.from_model(planted.mutator, INPUTS)
    with pytest.raises(InfeasibleBudgetError, match="constraints of the space forbid every step further"):
        greedy_slim(planted.net, planted.mutator, table, planted.evaluate, [{"macs": "40%"}])


def test_a_budget_out_of_reach_fails_before_anything_is_scored(planted):
    with pytest.raises(InfeasibleBudgetError):
        planted.slim([{"macs": "70%"}, {"macs": 3}])
    with pytest.raises(InfeasibleBudgetError, match="no architecture has macs of at most 3"):
        planted.slim([{"macs": 3}])
    assert not planted.evaluated


def test_a_range_that_a_step_leaps_over_is_named(planted):
    whole = planted.table.reachable("macs")[1]
    with pytest.raises(InfeasibleBudgetError, match="leads over"):
        planted.slim([{"macs": (whole - 2, whole - 1)}])


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ([], "budgets is a list of budgets"),
        ({"macs": "50%"}, "budgets is a list of budgets"),
        ([{"macs": (10, None)}], "needs an upper bound in each budget"),
        ([{}], "needs an upper bound in each budget"),
    ],
)
def test_budgets_that_mean_nothing_are_refused(planted, budgets, message):
    with pytest.raises(ConfigError, match=message):
        planted.slim(budgets)


def test_a_search_with_a_budget_or_without_costs_is_refused(planted):
    strategy = partial(GreedySlimming, budgets=BUDGETS)
    options = {"strategy": strategy, "calibrate": False}
    with pytest.raises(ConfigError, match="search no budget"):
        search(planted.net, planted.mutator, planted.evaluate, table=planted.table, budget={"macs": "50%"}, **options)
    with pytest.raises(ConfigError, match="needs to know costs"):
        search(planted.net, planted.mutator, planted.evaluate, **options)


def test_a_space_without_steps_is_refused():
    net = nn.Sequential(OneShotMutableOP({"a": nn.Linear(4, 4), "b": nn.Identity()}))
    mutator = Mutator(net)
    with pytest.raises(SpaceError, match="none has a smaller step"):
        greedy_slim(net, mutator, CostTable.from_model(mutator, INPUTS), lambda model: 0.0, [{"macs": "50%"}])


def test_sizes_have_steps_and_names_have_none():
    space = SearchSpace(
        [Decision("size", ([32, 32], [16, 16])), Decision("op", ("a", "b")), Decision("on", (False, True))]
    )
    assert ladders(space) == {"size": [[16, 16], [32, 32]]}
