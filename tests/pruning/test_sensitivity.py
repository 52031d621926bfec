import math
import sys

import pytest
import torch
from torch import nn

import mutorch
from mutorch.channels import searchable, widths
from mutorch.errors import ConfigError, MissingExtraError, SpaceError
from mutorch.importance import rank_
from mutorch.mutables import OneShotMutableOP, choice_of
from mutorch.mutators import Mutator
from mutorch.pruning import Change, sensitivity, shrink
from mutorch.space import Decision, SearchSpace

X = torch.ones(1, 4)


def layers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


def searchable_layers():
    return searchable(layers(), X, rules=[widths(counts=range(1, 9), divisor=1)])


def num_parameters(model):
    return float(sum(parameter.numel() for parameter in model.parameters()))


def test_every_decision_is_changed_alone_from_the_whole_model():
    net = searchable_layers()
    seen = []

    def evaluate(model):
        assert not model.training
        assert type(model) is nn.Sequential
        seen.append((model[0].out_features, model[2].out_features))
        return num_parameters(model)

    found = sensitivity(net, evaluate, num_choices=None)
    assert seen[0] == (8, 8)
    assert sorted(seen[1:]) == sorted([(k, 8) for k in range(1, 8)] + [(8, k) for k in range(1, 8)])
    assert found.evaluations == len(seen) == 15
    assert found.score == num_parameters(layers())
    assert [(row.decision, row.choice) for row in found.rows] == [(name, k) for name in ("0", "2") for k in range(1, 8)]
    assert found.of("0")[3] == Change("0", 4, found.score - 4 * (5 + 8), 4.0 * (5 + 8))


def test_the_model_and_its_choices_stay_as_they_are():
    net = searchable_layers()
    mutator = Mutator(net)
    mutator.set_choices({"0": 3, "2": 5})
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = sensitivity(mutator, num_parameters, num_choices=1)
    assert mutator.current_choices == {"0": 3, "2": 5}
    assert found.base == {"0": 8, "2": 8}
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_it_says_what_ranked_channels_are_worth():
    net = searchable_layers()
    rank_(net, lambda net: {"0": torch.arange(8.0), "2": torch.zeros(8)})
    kept = []
    sensitivity(net, lambda model: kept.append(model[0].weight.clone()) or 0.0, only="0", num_choices=None)
    assert torch.equal(kept[2], net[0].weight[6:])


def test_candidates_of_blocks_are_measured_too():
    net = nn.Sequential(
        OneShotMutableOP({"wide": nn.Linear(4, 4), "skip": nn.Identity()}),
        OneShotMutableOP({"one": nn.Linear(4, 4), "two": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))}),
    )
    found = sensitivity(net, num_parameters)
    assert found.base == {"0": "wide", "1": "one"}
    assert found.rows == (Change("0", "skip", 20.0, 20.0), Change("1", "two", 60.0, -20.0))
    other = sensitivity(net, num_parameters, base={"0": "skip", "1": "two"})
    assert other.rows == (Change("0", "wide", 60.0, -20.0), Change("1", "one", 20.0, 20.0))


def test_a_space_alone_is_measured_by_architectures():
    inner = Decision("kernel", (3, 5), when=(("op", "conv"),))
    space = SearchSpace([Decision("op", ("skip", "conv")), inner])
    asked = []
    found = sensitivity(space, lambda architecture: asked.append(architecture) or float(len(asked)))
    assert asked == [{"op": "skip", "kernel": 3}, {"op": "conv", "kernel": 3}]
    assert found.of("kernel") == [Change("kernel", 5, 1.0, 0.0)]  # a kernel of nothing: not evaluated again


def test_what_constraints_rule_out_is_said():
    ops = [OneShotMutableOP({"conv": nn.Linear(2, 2), "skip": nn.Identity()}) for _ in range(2)]
    mutator = Mutator(nn.Sequential(*ops))
    mutator.require(choice_of(ops[0]).ne("skip"))
    found = sensitivity(mutator, num_parameters)
    assert found.ruled_out == (("0", "skip"),)
    assert [row.decision for row in found.rows] == ["1"]
    assert "constraints rule out: 0: skip" in str(found)


@pytest.mark.parametrize(("count", "choices"), [(1, [1]), (2, [1, 7]), (3, [1, 4, 7]), (9, [1, 2, 3, 4, 5, 6, 7])])
def test_choices_are_spread_evenly(count, choices):
    found = sensitivity(searchable_layers(), num_parameters, only=["2"], num_choices=count)
    assert [row.choice for row in found.rows] == choices


def test_evaluations_are_bounded_before_any_is_made():
    with pytest.raises(ConfigError, match="15 architectures would be evaluated, more than max_evaluations=14"):
        sensitivity(searchable_layers(), pytest.fail, num_choices=None, max_evaluations=14)


def test_norms_may_be_measured_again_for_each_model():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    net = searchable(model, torch.ones(2, 4), rules=[widths(counts=[4, 8])])
    means = []
    sensitivity(net, lambda one: means.append(one[1].running_mean) or 0.0, calibrate=[torch.ones(2, 4)])
    with torch.no_grad():
        expected = net[0](torch.ones(1, 4))[0]
    assert torch.allclose(means[0], expected, atol=1e-6)
    assert torch.allclose(means[1], expected[:4], atol=1e-6)


def test_units_that_can_do_with_less_say_how_much_for_shrink():
    scores = {(8, 8): 0.9, (1, 8): 0.2, (4, 8): 0.88, (7, 8): 0.9, (8, 1): 0.3, (8, 4): 0.5, (8, 7): 0.6}
    net = searchable_layers()
    found = sensitivity(net, lambda model: scores[model[0].out_features, model[2].out_features], num_choices=3)
    assert found.shares(tolerance=0.05) == {"0": 0.5, "2": 1.0}
    small = shrink(layers(), {}, [X], allocation=found.shares(tolerance=0.05), divisor=1)
    assert small.architecture == {"0": 4, "2": 8}


def test_the_table_has_a_line_a_decision_with_what_matters_most_first():
    scores = {(8, 8): 0.9, (1, 8): 0.2, (8, 1): 0.1}
    net = searchable_layers()
    found = sensitivity(net, lambda model: scores[model[0].out_features, model[2].out_features], num_choices=1)
    assert str(found).splitlines() == [
        "score of the base: 0.9; what one decision alone loses:",
        "2  1: +0.8",
        "0  1: +0.7",
    ]


def test_scores_that_are_no_numbers_lose_everything():
    found = sensitivity(searchable_layers(), lambda m: math.nan if m[0].out_features == 1 else 1.0, num_choices=1)
    assert found.of("0")[0].lost == math.inf
    assert found.shares(0.5) == {"0": 1.0, "2": 0.125}


def test_progress_is_told():
    told = []
    sensitivity(searchable_layers(), num_parameters, num_choices=1, progress=lambda *args: told.append(args[:3]))
    assert told == [("sensitivity", 1, 3), ("sensitivity", 2, 3), ("sensitivity", 3, 3)]


def test_the_picture_has_a_line_for_widths_and_bars_for_candidates(tmp_path):
    pytest.importorskip("matplotlib")
    mixed = nn.Sequential(OneShotMutableOP({"a": nn.ReLU(), "b": nn.GELU()}), *layers())
    net = searchable(mixed, X, rules=[widths(counts=[4, 8])])
    found = sensitivity(net, num_parameters)
    figure = found.plot(tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").read_text(encoding="utf-8").startswith("<?xml")
    lines, bars = figure.axes
    assert sorted(line.get_label() for line in lines.lines) == ["1", "3"]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["0: b"]


def test_the_picture_needs_an_extra(monkeypatch):
    found = sensitivity(searchable_layers(), num_parameters, num_choices=1)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="report"):
        found.plot()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda net: sensitivity(net, num_parameters, only="3*"),
            SpaceError,
            r"only names '3\*', which is no decision",
        ),
        (lambda net: sensitivity(net, num_parameters, num_choices=0), ConfigError, "num_choices must be at least 1"),
        (lambda net: sensitivity(net, num_parameters, base={"0": 8}), SpaceError, "'2'"),
        (lambda net: sensitivity("net", num_parameters), ConfigError, "a Mutator or a SearchSpace, got str"),
        (
            lambda net: sensitivity(net, num_parameters, only="2").of("3"),
            SpaceError,
            "nothing was measured of '3'; there is '2'|nothing was measured of '3'",
        ),
    ],
)
def test_mistakes_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call(searchable_layers())


def test_it_is_a_name_of_the_library():
    assert mutorch.sensitivity is sensitivity
