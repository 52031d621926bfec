import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import build, inputs, recipes
from torch import nn

from mutorch import Mutator, export
from mutorch.mutables import OneShotMutableOP
from mutorch.mutators import active_modules, inactive_parameters


def net_of_two():
    inner = OneShotMutableOP({"x": nn.Linear(2, 2), "y": nn.Linear(2, 2)})
    return nn.Sequential(OneShotMutableOP({"deep": nn.Sequential(inner), "skip": nn.Identity()}), nn.Linear(2, 2))


def test_the_active_modules_are_those_on_the_path():
    net = net_of_two()
    mutator = Mutator(net)
    mutator.set_choices({"0": "deep", "0._candidates.deep.0": "y"})
    inner = net[0].candidates["deep"][0]
    assert inner.candidates["y"] in set(active_modules(net))
    assert inner.candidates["x"] not in set(active_modules(net))
    assert {id(p) for p in inactive_parameters(net)} == {id(p) for p in inner.candidates["x"].parameters()}
    mutator.set_choices({"0": "skip", "0._candidates.deep.0": "y"})
    assert len(inactive_parameters(net)) == 4


def test_without_a_choice_all_candidates_are_active():
    net = net_of_two()
    assert inactive_parameters(net) == []
    assert set(active_modules(net)) >= set(net[0].candidates.values())


def test_a_parameter_that_is_tied_to_the_path_is_active():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    net = nn.Sequential(OneShotMutableOP({"first": first, "second": second}))
    Mutator(net)
    assert [id(p) for p in inactive_parameters(net)] == [id(second.bias)]


@given(recipes(), st.integers(0, 2**16))
def test_inactive_parameters_are_those_that_an_export_leaves_out(recipe, seed):
    net = build(recipe)
    mutator = Mutator(net)
    mutator.set_choices(mutator.space.sample(seed))
    inactive = inactive_parameters(net)
    assert len(list(net.parameters())) - len(inactive) == len(list(export(net).parameters()))
    out = net.train()(inputs(seed))
    if out.requires_grad:
        out.sum().backward()
    assert all(parameter.grad is None for parameter in inactive)
    with torch.no_grad():
        for parameter in inactive:
            parameter.fill_(torch.nan)
    assert not net.eval()(inputs(seed)).isnan().any()
