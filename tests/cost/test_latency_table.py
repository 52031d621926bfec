"""Latencies that are a sum of choices are predicted exactly; of others, the table says that it does not know."""

import json
from dataclasses import replace

import numpy as np
import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st

from mutorch.cost import Accuracy, LatencyTable
from mutorch.cost.factors import Factors
from mutorch.cost.latency_design import design
from mutorch.errors import CostError, LoadError
from mutorch.space import Decision, Ref, SearchSpace, random_at

BLOCKS = SearchSpace([Decision(f"block{number}", ("conv3", "conv5", "skip")) for number in range(6)])
WIDTHS = SearchSpace([Decision(f"width{number}", tuple(range(8, 136, 8))) for number in range(6)])


class Board:
    """A device that takes a while for each choice that matters, and nothing else: no noise, no interaction."""

    def __init__(self, space, seed=0):
        self.space = space
        random = random_at(seed, "board")
        self.base = random.uniform(0.1, 5)
        self.cost = {d.name: [random.uniform(0, 2) for _ in d.choices] for d in space}

    def __call__(self, architecture):
        own = [d for d in self.space if self.space.is_active(d.name, architecture)]
        return self.base + sum(self.cost[d.name][d.index(architecture[d.name])] for d in own)


def interacting(architecture):
    """Every block is the slower, the more of the blocks before it are convolutions of 5x5."""
    total, before = 1.0, 0
    for choice in architecture.values():
        total += 2.0**before * {"conv3": 1.0, "conv5": 2.0, "skip": 0.1}[choice]
        before += choice == "conv5"
    return total


def fitted(space, board, num_samples, seed=0, **options):
    architectures = design(space, num_samples, seed)
    return LatencyTable.fit(space, architectures, [board(a) for a in architectures], measured_on="a board", **options)


def codes_of(space, limit=300):
    return np.array([space.encode(space.sample(random_at(7, number))) for number in range(limit)])


# ---- what is additive is recovered -----------------------------------------------------------------------------------


@given(strategies.spaces(max_decisions=6), st.integers(0, 5))
@settings(max_examples=20)
def test_an_additive_device_is_recovered_exactly_at_every_architecture(space, seed):
    board = Board(space, seed)
    table = fitted(space, board, min(2 * space.size, 80) if space.size > 1 else 2, seed)
    for codes in codes_of(space, 60):
        architecture = space.decode(codes)
        assert table(architecture) == pytest.approx(board(architecture), abs=1e-7)


@given(strategies.constrained_spaces(max_decisions=4))
@settings(max_examples=20)
def test_constraints_are_kept_and_what_they_allow_is_predicted(space):
    board = Board(space)
    architectures = design(space, 2 * space.size if space.size > 1 else 2, seed=0)
    assert all(architecture in space for architecture in architectures)
    table = LatencyTable.fit(space, architectures, [board(a) for a in architectures], measured_on="a board")
    for architecture in space.grid():
        assert table(architecture) == pytest.approx(board(architecture), abs=1e-7)


@given(strategies.spaces(max_decisions=4))
@settings(max_examples=20)
def test_what_is_hidden_changes_no_prediction_and_the_fastest_is_the_fastest(space):
    table = fitted(space, Board(space), max(2, min(2 * space.size, 80)))
    codes = np.indices([len(decision.choices) for decision in space]).reshape(len(space), -1).T
    canonical = [space.encode(space.canonical(space.decode(row))) for row in codes]
    assert table.evaluate(codes).tolist() == table.evaluate(np.array(canonical)).tolist()
    assert table(table.fastest) == table.evaluate(codes).min()


def test_whole_microseconds_are_recovered_to_the_last_bit():
    costs = {"conv3": 0.25, "conv5": 0.75, "skip": 0.125}
    table = fitted(BLOCKS, lambda a: 0.5 + sum(costs[choice] for choice in a.values()), 60)
    for codes in codes_of(BLOCKS):
        architecture = BLOCKS.decode(codes)
        assert table(architecture) == 0.5 + sum(costs[choice] for choice in architecture.values())


def test_a_table_of_an_additive_device_says_that_it_is_exact():
    table = fitted(BLOCKS, Board(BLOCKS), 60)
    assert table.accuracy == Accuracy(0.0, 0.0, 1.0, 60)
    assert table.refusal is None
    assert str(table) == (
        "latency of 6 decisions, measured on a board: off by 0.0% (median) and 0.0% (nine of ten are better), rank correlation "
        "1.000, cross-validated over 60 measurements (a sum of: each choice)"
    )


def test_widths_that_were_not_measured_lie_between_those_that_were():
    table = fitted(WIDTHS, lambda a: 1 + 0.01 * sum(a.values()), 60)
    predicted = table.evaluate(codes_of(WIDTHS))
    wanted = [1 + 0.01 * sum(WIDTHS.decode(codes).values()) for codes in codes_of(WIDTHS)]
    assert np.abs(predicted / wanted - 1).max() < 0.02


# ---- what is not, is said --------------------------------------------------------------------------------------------


def test_a_device_with_interactions_gives_a_table_that_says_so():
    table = fitted(BLOCKS, interacting, 100)
    assert table.accuracy.large_error > 0.2
    assert "its tolerance is 10.0% for nine of ten" in table.refusal
    assert table.with_tolerance(100.0).refusal is None


def test_what_a_table_says_of_itself_is_what_others_find():
    table = fitted(BLOCKS, interacting, 150)
    fresh = [BLOCKS.sample(random_at(99, number)) for number in range(300)]
    found = Accuracy.of(np.array([table(a) for a in fresh]), np.array([interacting(a) for a in fresh]))
    assert table.accuracy.median_error == pytest.approx(found.median_error, rel=0.4)
    assert table.accuracy.rank_correlation == pytest.approx(found.rank_correlation, abs=0.05)


def test_neighbours_that_act_on_each_other_are_found():
    def board(architecture):
        chosen = list(architecture.values())
        return 5 + sum(1.0 for a, b in zip(chosen, chosen[1:], strict=False) if a == b == "conv5")

    table = fitted(BLOCKS, board, 150)
    assert table.terms == "each choice, neighbouring decisions together"
    assert table.accuracy.large_error < 0.001
    assert fitted(BLOCKS, board, 150, costs={}).accuracy == table.accuracy


def test_costs_that_are_counted_are_used_where_they_help():
    products = Factors((16,) * 6, {(n, n + 1): np.multiply.outer(*[np.arange(8, 136, 8)] * 2) for n in range(5)})
    board = lambda a: 1 + 1e-4 * products.evaluate([WIDTHS.encode(a)])[0]  # noqa: E731
    alone, helped = fitted(WIDTHS, board, 80), fitted(WIDTHS, board, 80, costs={"macs": products})
    assert helped.terms == "each choice, macs"
    assert helped.accuracy.large_error < 1e-4 < alone.accuracy.large_error


def test_noise_is_not_taken_for_interactions():
    board, random = Board(BLOCKS), random_at(0, "noise")
    table = fitted(BLOCKS, lambda a: board(a) * random.gauss(1, 0.02), 150)
    fresh = [BLOCKS.sample(random_at(99, number)) for number in range(200)]
    found = Accuracy.of(np.array([table(a) for a in fresh]), np.array([board(a) for a in fresh]))
    assert found.median_error < 0.01
    assert 0.005 < table.accuracy.median_error < 0.03


# ---- what is measured ------------------------------------------------------------------------------------------------


def test_every_choice_is_measured_about_equally_often():
    chosen = design(BLOCKS, 60, seed=0)
    for decision in BLOCKS:
        counts = [sum(a[decision.name] == choice for a in chosen) for choice in decision.choices]
        assert min(counts) >= 12


def test_what_is_measured_is_decided_by_the_seed_alone():
    assert design(BLOCKS, 30, seed=1) == design(BLOCKS, 30, seed=1)
    assert design(BLOCKS, 30, seed=1) != design(BLOCKS, 30, seed=2)


def test_a_rare_inner_choice_is_measured_too():
    outer = [Decision("outer0", tuple("abcdefgh"))]
    outer += [Decision(f"outer{n}", tuple("abcdefgh"), when=((f"outer{n - 1}", "h"),)) for n in range(1, 5)]
    space = SearchSpace(outer)
    chosen = design(SearchSpace([*outer, *BLOCKS]), 120, seed=0)
    seen = {a["outer4"] for a in chosen if space.is_active("outer4", {d.name: a[d.name] for d in outer})}
    assert seen == set("abcdefgh")


def test_too_few_measurements_to_see_every_choice_are_refused():
    with pytest.raises(
        CostError, match="2 measurements do not see decision 'block0' at '.*'; give a larger num_samples"
    ):
        design(BLOCKS, 2, seed=0)
    with pytest.raises(CostError, match="num_samples must be at least 2, got 1"):
        design(BLOCKS, 1, seed=0)


def test_choices_that_constraints_rule_out_need_no_measurement():
    space = SearchSpace(BLOCKS.decisions, [Ref("block0").ne("conv5")])
    chosen = design(space, 40, seed=0)
    assert {a["block0"] for a in chosen} == {"conv3", "skip"}


@pytest.mark.parametrize(
    ("milliseconds", "message"),
    [
        ([1.0], "got 2 architectures and 1 latencies"),
        ([1.0, 0.0], "a latency is a positive number"),
        ([1.0, np.nan], "got nan"),
    ],
)
def test_latencies_that_are_none_are_refused(milliseconds, message):
    with pytest.raises(CostError, match=message):
        LatencyTable.fit(BLOCKS, [BLOCKS.default] * 2, milliseconds, measured_on="a board")


# ---- files -----------------------------------------------------------------------------------------------------------


def test_a_saved_table_is_the_same_table(tmp_path):
    table = fitted(BLOCKS, interacting, 60, tolerance=0.3)
    loaded = LatencyTable.load(table.save(tmp_path / "new" / "board.json"), SearchSpace.from_json(BLOCKS.to_json()))
    assert loaded.evaluate(codes_of(BLOCKS)).tolist() == table.evaluate(codes_of(BLOCKS)).tolist()
    assert str(loaded) == str(table)
    assert json.loads(json.dumps(loaded.to_dict())) == table.to_dict()
    assert loaded.tolerance == 0.3


def test_a_table_of_another_space_is_not_loaded(tmp_path):
    path = fitted(BLOCKS, interacting, 60).save(tmp_path / "board.json")
    with pytest.raises(LoadError, match="measured for another space .* its decisions or choices differ"):
        LatencyTable.load(path, WIDTHS)


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"version": 2}', '{"version": 1, "space": 3}'])
def test_what_is_no_table_says_so(tmp_path, text):
    path = tmp_path / "board.json"
    path.write_text(text)
    with pytest.raises(LoadError, match="table of latencies|another space"):
        LatencyTable.load(path, BLOCKS)


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan")])
def test_a_tolerance_is_above_zero(tolerance):
    with pytest.raises(CostError, match="a tolerance is a relative error above 0"):
        replace(fitted(BLOCKS, interacting, 60), tolerance=tolerance)
