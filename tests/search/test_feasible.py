from collections import Counter

import numpy as np
import pytest
import torch
from factor_spaces import cost_table, sum_table
from torch import nn

from mutorch.channels import searchable
from mutorch.cost import Budget, CostTable
from mutorch.cost.factors import Factors
from mutorch.errors import InfeasibleBudgetError
from mutorch.models import spos_shufflenet_setting
from mutorch.mutables import OneShotMutableOP
from mutorch.mutators import Mutator
from mutorch.registry import MODELS
from mutorch.search import Feasible, Trial
from mutorch.search.strategies import STRATEGIES
from mutorch.space import Decision, Ref, SearchSpace


def draw_all(feasible, limit=10_000):
    drawn = []
    for seed in range(limit):
        architecture = feasible.draw(seed)
        if architecture is None:
            return drawn
        drawn.append(tuple(architecture.values()))
    raise AssertionError(f"more than {limit} draws")


@pytest.mark.parametrize("spec", [None, {"macs": "40%"}, {"macs": ("45%", "55%"), "params": "50%"}])
def test_every_feasible_architecture_is_drawn_exactly_once(make_toy, spec):
    toy = make_toy(blocks=4)
    budget = Budget.parse(spec, toy.table)
    drawn = draw_all(Feasible(toy.space, toy.table, budget))
    expected = [tuple(a.values()) for a in toy.space.grid() if budget.allows(toy.table(a))]
    assert len(expected) > 0
    assert sorted(drawn) == sorted(expected)


def test_draws_depend_on_the_generator_alone(toy):
    budget = Budget.parse({"macs": "50%"}, toy.table)
    one, other = (Feasible(toy.space, toy.table, budget) for _ in range(2))
    assert [one.draw(seed) for seed in range(20)] == [other.draw(seed) for seed in range(20)]


def test_first_draws_are_uniform_over_what_is_feasible(make_toy):
    toy = make_toy(blocks=2)
    budget = Budget.parse({"macs": "50%"}, toy.table)
    drawn = Counter(tuple(Feasible(toy.space, toy.table, budget).draw(seed).values()) for seed in range(600))
    count = sum(budget.allows(toy.table(a)) for a in toy.space.grid())
    assert len(drawn) == count
    expected = 600 / count
    chi_square = sum((number - expected) ** 2 / expected for number in drawn.values())
    assert chi_square < 3 * count


def test_accept_takes_each_feasible_subnet_once_in_canonical_form():
    inner = OneShotMutableOP({"a": nn.Linear(2, 2), "b": nn.Identity()}, alias="inner")
    mutator = Mutator(nn.Sequential(OneShotMutableOP({"skip": nn.Identity(), "deep": inner}, alias="outer")))
    feasible = Feasible(mutator.space)
    assert feasible.accept({"outer": "skip", "inner": "b"}) == {"outer": "skip", "inner": "a"}
    assert feasible.accept({"outer": "skip", "inner": "a"}) is None
    assert len(draw_all(feasible)) == 2


def test_accept_refuses_what_the_budget_does_not_allow(toy):
    feasible = Feasible(toy.space, toy.table, Budget.parse({"macs": "50%"}, toy.table))
    assert feasible.accept(toy.table.largest()) is None
    assert feasible.accept(toy.table.cheapest()) == toy.table.cheapest()


def test_a_budget_at_the_smallest_quantile_of_a_huge_space_still_gives_candidates():
    with torch.device("meta"):
        net = MODELS.build(spos_shufflenet_setting())
    table = CostTable.from_model(Mutator(net), torch.zeros(1, 3, 64, 64, device="meta"), num_checks=1)
    rng = np.random.default_rng(0)
    sampled = table.evaluate(rng.integers(0, 4, size=(200_000, 20)), "macs")
    budget = Budget.parse({"macs": float(np.quantile(sampled, 0.0001))}, table)
    feasible = Feasible(table.space, table, budget)
    drawn = [feasible.draw(seed) for seed in range(30)]
    assert all(architecture is not None and budget.allows(table(architecture)) for architecture in drawn)
    assert len({tuple(architecture.values()) for architecture in drawn}) == 30


def test_a_tight_budget_on_widths_gives_its_first_candidates_from_few_evaluations():
    layers = [layer for n in range(20) for layer in (nn.Linear(64, 64), nn.ReLU())]
    net = searchable(nn.Sequential(*layers), torch.zeros(1, 64))
    table = CostTable.from_model(Mutator(net), torch.zeros(1, 64), num_checks=1)
    budget = Budget.parse({"macs": "10%"}, table)
    rng = np.random.default_rng(0)
    counts = [len(decision.choices) for decision in table.space]
    assert not budget.mask(table, rng.integers(0, counts, size=(100_000, len(counts)))).any()
    evaluated = []
    evaluate = Factors.evaluate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Factors, "evaluate", lambda self, codes: (evaluated.append(len(codes)), evaluate(self, codes))[1])
        feasible = Feasible(table.space, table, budget)
        drawn = [feasible.draw(seed) for seed in range(50)]
    assert all(budget.allows(table(architecture)) for architecture in drawn)
    assert len({tuple(architecture.values()) for architecture in drawn}) == 50
    assert sum(evaluated) < 60_000


def test_draws_of_one_in_billions_are_uniform():
    table = sum_table(60, 3)
    feasible = Feasible(table.space, table, Budget.parse({"params": 12}, table))
    sums = [sum(feasible.draw(seed).values()) for seed in range(500)]
    ways = np.polynomial.polynomial.polypow([1, 1, 1], 60)[:13]
    assert max(sums) <= 12
    assert np.mean(sums) == pytest.approx(ways @ np.arange(13) / ways.sum(), abs=0.1)


@pytest.mark.parametrize(
    "spec", [{"params": 2}, {"params": (118, None)}, {"params": (None, 3), "size_mb": (3e-6, None)}]
)
def test_every_feasible_architecture_of_a_space_too_large_to_list_is_drawn_once(spec):
    table = sum_table(60, 3, bytes=Factors((3,) * 60, {(n,): np.arange(3) for n in range(8)}))
    budget = Budget.parse(spec, table)
    drawn = draw_all(Feasible(table.space, table, budget), limit=20_000)
    sum_of_two = 1 + 60 + 60 + 60 * 59 // 2
    assert len(drawn) == len(set(drawn)) == (sum_of_two if len(spec) == 1 else 8 * 7 + 8 * 7 * 6 // 6)
    assert all(budget.allows(table(dict(zip(table.space.names, values, strict=True)))) for values in drawn)


@pytest.mark.parametrize("most", [2, 60])
def test_every_subnet_of_nested_choices_is_drawn_once_in_canonical_form(most):
    blocks = range(5)
    decisions = [Decision(f"op{n}", ("skip", "conv")) for n in blocks]
    decisions += [Decision(f"kernel{n}", (3, 5, 7), when=((f"op{n}", "conv"),)) for n in blocks]
    space = SearchSpace(decisions)
    price = np.array([[0, 0, 0], [1, 2, 3]])
    table = cost_table(space, params=Factors((2,) * 5 + (3,) * 5, {(n, 5 + n): price for n in blocks}))
    budget = Budget.parse({"params": most}, table)
    drawn = draw_all(Feasible(space, table, budget))
    expected = [tuple(a.values()) for a in space.grid() if budget.allows(table(a))]
    assert sorted(drawn) == sorted(expected)


def test_a_draw_depends_on_the_generator_and_on_what_was_accepted_not_on_how():
    # One has drawn what the other was given: both go on alike, while many are left and when few are.
    table = sum_table(60, 3)
    for most, draws in ((20, 30), (1, 55)):
        budget = Budget.parse({"params": most}, table)
        one, other = (Feasible(table.space, table, budget) for _ in range(2))
        for seed in range(draws):
            other.accept(one.draw(seed))
        assert [one.draw(seed) for seed in range(100, 110)] == [other.draw(seed) for seed in range(100, 110)]


def test_a_huge_space_with_one_feasible_architecture_is_exhausted_after_it(make_toy):
    toy = make_toy(blocks=12)
    smallest, _ = toy.table.reachable("macs")
    feasible = Feasible(toy.space, toy.table, Budget.parse({"macs": smallest}, toy.table))
    assert feasible.draw(0) == toy.table.cheapest()
    assert feasible.draw(1) is None


def test_a_window_that_holds_a_single_architecture_is_found():
    # Macs are sums of powers of two: every architecture has its own, and a change mostly moves past the window.
    bits = [OneShotMutableOP({"on": nn.Linear(1, 2**n, bias=False), "off": nn.Identity()}) for n in range(10)]
    mutator = Mutator(nn.ModuleList(bits))
    table = CostTable.from_model(mutator, lambda model: [bit(torch.zeros(1, 1)) for bit in model])
    for wanted in (0, 341, 682, 1023):
        feasible = Feasible(mutator.space, table, Budget.parse({"macs": (wanted, wanted)}, table))
        assert table(feasible.draw(0)).macs == wanted
        assert feasible.draw(1) is None


def test_bounds_that_no_architecture_meets_together_are_refused_with_the_closest(toy):
    # Many parameters come with many macs here.
    macs, params = toy.table.reachable("macs"), toy.table.reachable("params")
    budget = Budget.parse({"macs": (None, macs[0]), "params": (params[1], None)}, toy.table)
    with pytest.raises(
        InfeasibleBudgetError,
        match="no architecture is within .*, though each bound can be met alone; the closest has macs .*, params",
    ):
        Feasible(toy.space, toy.table, budget)


def test_bounds_of_a_huge_space_that_contradict_each_other_are_proven_to():
    table = sum_table(60, 3)
    budget = Budget.parse({"params": (None, 50), "size_mb": (60e-6, None)}, table)
    with pytest.raises(InfeasibleBudgetError, match="no architecture is within .*; the closest has params"):
        Feasible(table.space, table, budget)


def test_bounds_that_are_nearly_met_together_are_proven_not_to_be():
    # What costs fewer macs has fewer parameters, by about half; no trade between them is better than this one.
    random = np.random.default_rng(0)
    counts = (3,) * 40
    macs = {(n,): 2 * np.sort(random.integers(0, 10**6, size=3)) for n in range(40)}
    params = {key: table // 4 + random.integers(0, 10**5, size=3) for key, table in macs.items()}
    space = SearchSpace([Decision(f"d{n}", (0, 1, 2)) for n in range(40)])
    table = cost_table(space, flops=Factors(counts, macs), params=Factors(counts, params))
    best = table(space.decode(Factors(counts, {key: macs[key] - 4 * params[key] for key in macs}).minimum()))
    one = Feasible(space, table, Budget.parse({"macs": best.macs, "params": (best.params, None)}, table))
    assert table(one.draw(0)).macs == best.macs
    with pytest.raises(InfeasibleBudgetError, match="no architecture is within"):
        Feasible(space, table, Budget.parse({"macs": best.macs - 1, "params": (best.params, None)}, table))


# ---- constraints -----------------------------------------------------------------------------------------------------


def constrained(toy, *constraints):
    """The toy with constraints on its space."""
    toy.space = SearchSpace(toy.space.decisions, constraints)
    toy.table = CostTable(toy.space, {}, toy.table._factors)
    return toy


WIDE = Ref("b0").isin(["wide", "huge"]) | Ref("b1").eq("huge")


@pytest.mark.parametrize("spec", [None, {"macs": "60%"}, {"macs": ("45%", "55%"), "params": "55%"}])
def test_every_architecture_that_obeys_and_is_feasible_is_drawn_exactly_once(make_toy, spec):
    toy = constrained(make_toy(blocks=4), WIDE, Ref("b2").ne(Ref("b3")))
    budget = Budget.parse(spec, toy.table)
    drawn = draw_all(Feasible(toy.space, toy.table, budget))
    expected = [tuple(a.values()) for a in toy.space.grid() if budget.allows(toy.table(a))]
    assert len(expected) > 0
    assert sorted(drawn) == sorted(expected)


def test_accept_refuses_what_breaks_a_constraint(make_toy):
    toy = constrained(make_toy(blocks=2), WIDE)
    feasible = Feasible(toy.space)
    assert feasible.accept({"b0": "thin", "b1": "none"}) is None
    assert feasible.accept({"b0": "wide", "b1": "none"}) == {"b0": "wide", "b1": "none"}


def test_first_draws_are_uniform_over_what_obeys(make_toy):
    toy = constrained(make_toy(blocks=2), WIDE)
    drawn = Counter(tuple(Feasible(toy.space).draw(seed).values()) for seed in range(1000))
    assert len(drawn) == toy.space.size == 10
    assert all(65 < number < 140 for number in drawn.values())


def test_a_shared_budget_of_many_decisions_is_drawn_from():
    decisions = [Decision(f"depth{n}", (1, 2, 3, 4)) for n in range(30)]
    total = sum((Ref(d.name) for d in decisions[1:]), Ref("depth0"))
    space = SearchSpace(decisions, [total <= 45])  # of random ones, one in 10^8
    drawn = [Feasible(space).draw(seed) for seed in range(3)]
    assert all(sum(architecture.values()) <= 45 for architecture in drawn)
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_obeys(make_toy, strategy):
    toy = constrained(make_toy(blocks=4), WIDE, Ref("b2").ne(Ref("b3")))
    asking = STRATEGIES[strategy](Feasible(toy.space, toy.table, Budget.parse({"macs": "80%"}, toy.table)), 0)
    for number in range(60):
        architecture = asking.ask()
        assert architecture in toy.space
        asking.tell(Trial(number, architecture, toy.score(architecture)))
