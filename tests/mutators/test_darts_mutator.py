"""Masks that are learned by gradient: the first-order DARTS of the specification (seed 004)."""

import copy
import math
import warnings

import pytest
import torch
from torch import nn

from mutorch.errors import StateError
from mutorch.mutables import InputChoice, LayerChoice, MutableScope
from mutorch.mutators import DartsMutator, apply_fixed_architecture
from mutorch.subnet import export

X = torch.linspace(-1, 1, 6).reshape(3, 2)


def op(key, **kwargs):
    return LayerChoice({"linear": nn.Linear(2, 2), "tanh": nn.Tanh(), "skip": nn.Identity()}, key=key, **kwargs)


class Net(nn.Module):
    """Three layers, of which a node takes some."""

    def __init__(self, n_chosen=2, second=None):
        super().__init__()
        self.layers = nn.ModuleDict({key: op(key) for key in "abc"})
        self.node = InputChoice(choose_from=["a", "b", "c"], n_chosen=n_chosen, key="node")
        if second is not None:
            self.other = InputChoice(choose_from=second, n_chosen=1, key="other")

    def forward(self, x):
        return self.node([layer(x) for layer in self.layers.values()])


def prefer(mutator, **logits):
    with torch.no_grad():
        for key, values in logits.items():
            mutator.alpha(key).copy_(torch.tensor(values))


def test_a_layer_has_one_parameter_for_each_candidate_and_one_for_nothing():
    mutator = DartsMutator(Net())
    assert list(mutator.choices) == ["a", "b", "c"]
    assert [tuple(p.shape) for p in mutator.parameters()] == [(4,)] * 3


def test_parameters_begin_small_random_and_seeded():
    one, same, other = DartsMutator(Net()), DartsMutator(Net()), DartsMutator(Net(), seed=1)
    values = torch.cat([p.detach() for p in one.parameters()])
    assert 0 < values.abs().max() < 5e-3
    assert all(map(torch.equal, one.parameters(), same.parameters()))
    assert not torch.equal(one.alpha("a"), other.alpha("a"))
    assert not torch.equal(one.alpha("a"), one.alpha("b"))


def test_equal_keys_share_a_parameter():
    mutator = DartsMutator(nn.Sequential(op("op"), op("op")))
    assert len(list(mutator.parameters())) == 1


def test_keys_with_dots_and_keys_that_are_methods_of_a_dict_work():
    net = nn.ModuleDict({"a": nn.ModuleDict({"b": op(None)}), "items_": op("items"), "keys_": op("keys")})
    mutator = DartsMutator(net)
    mutator.reset()
    assert list(mutator.export()) == ["a.b", "items", "keys"]
    assert net["a"]["b"](X).shape == X.shape


def test_while_searching_candidates_are_weighed_by_the_softmax_without_nothing():
    net = Net()
    mutator = DartsMutator(net)
    prefer(mutator, a=[1.0, 0.0, -1.0, 2.0])
    mutator.reset()
    weights = torch.tensor([1.0, 0.0, -1.0, 2.0]).softmax(0)
    layer = net.layers["a"]
    expected = weights[0] * layer["linear"](X) + weights[1] * X.tanh() + weights[2] * X
    assert torch.allclose(layer(X), expected)
    assert sum(mutator.status()["a"]) == pytest.approx(1 - weights[3].item())
    assert mutator.status()["node"] == [True, True, True]


def test_gradients_of_the_parameters_are_those_of_the_formula():
    net = nn.Sequential(op("op"))
    mutator = DartsMutator(net)
    mutator.reset()
    net(X).square().sum().backward()
    alpha = mutator.alpha("op").detach().clone().requires_grad_()
    weights = alpha.softmax(0)
    by_hand = sum(weight * candidate(X) for weight, candidate in zip(weights, net[0], strict=False))
    (expected,) = torch.autograd.grad(by_hand.square().sum(), alpha)
    assert torch.allclose(mutator.alpha("op").grad, expected)
    assert all(p.grad is not None for p in net.parameters())


def test_a_few_steps_of_search_find_what_fits():
    torch.manual_seed(0)
    net = nn.Sequential(LayerChoice({"tanh": nn.Tanh(), "skip": nn.Identity(), "relu": nn.ReLU()}, key="op"))
    mutator = DartsMutator(net)
    optimizer = torch.optim.Adam(mutator.parameters(), lr=0.1)
    for _ in range(60):
        mutator.reset()
        optimizer.zero_grad()
        (net(3 * X) - (3 * X).tanh()).square().mean().backward()
        optimizer.step()
    assert mutator.export() == {"op": "tanh"}


def test_minus_infinity_cuts_a_candidate_off():
    net = nn.Sequential(LayerChoice({"norm": nn.BatchNorm1d(2), "tanh": nn.Tanh()}, key="op"))
    mutator = DartsMutator(net)
    prefer(mutator, op=[-math.inf, 0.0, 0.0])
    mutator.reset()
    net(X)
    assert net[0]["norm"].num_batches_tracked == 0
    assert mutator.export() == {"op": "tanh"}


# ---- the final architecture ---------------------------------------------------------------------------------------------


def test_nothing_is_never_the_best_of_a_layer():
    mutator = DartsMutator(nn.Sequential(op("op")))
    prefer(mutator, op=[0.0, 0.1, 0.0, 9.0])
    assert mutator.export() == {"op": "tanh"}


def test_an_input_choice_takes_the_inputs_of_the_strongest_layers_and_the_rest_is_left_out():
    mutator = DartsMutator(Net())
    prefer(mutator, a=[3.0, 0, 0, 0], b=[0, 0.1, 0, 0], c=[0, 0, 2.0, 0])
    assert mutator.export() == {"a": "linear", "b": [], "c": "skip", "node": ["a", "c"]}


def test_what_another_input_choice_takes_is_not_left_out():
    mutator = DartsMutator(Net(second=["b", "b", InputChoice.NO_KEY]))
    prefer(mutator, a=[3.0, 0, 0, 0], b=[0, 0.1, 0, 0], c=[0, 0, 2.0, 0])
    with pytest.warns(UserWarning, match="InputChoice 'other' ranks its inputs .* input 2 has the key ''"):
        found = mutator.export()
    assert (found["b"], found["other"]) == ("tanh", 0)


def test_nothing_is_left_out_that_export_needs_if_asked():
    net = Net()
    mutator = DartsMutator(net, drop_unused=False)
    prefer(mutator, a=[3.0, 0, 0, 0], b=[0, 0.1, 0, 0], c=[0, 0, 2.0, 0])
    found = mutator.export()
    assert found == {"a": "linear", "b": "tanh", "c": "skip", "node": ["a", "c"]}
    assert torch.allclose(export(net, found)(X), net.layers["a"]["linear"](X) + X)


def test_any_number_of_inputs_is_all_of_them_without_a_warning():
    mutator = DartsMutator(Net(n_chosen=None))
    assert mutator.export()["node"] == ["a", "b", "c"]


def test_an_input_of_a_scope_comes_last_with_a_warning():
    class Cell(MutableScope):
        def forward(self, x):
            return x

    net = nn.ModuleDict({"cell": Cell("cell"), "a": op("a")})
    net["node"] = InputChoice(choose_from=["cell", "a"], n_chosen=1, key="node")
    mutator = DartsMutator(net)
    with pytest.warns(UserWarning, match="input 0 has the key 'cell', which is none: it comes last"):
        assert mutator.export()["node"] == "a"


def test_export_leaves_the_search_as_it_is():
    net = Net()
    mutator = DartsMutator(net)
    mutator.reset()
    before = net(X)
    mutator.export()
    assert torch.equal(net(X), before)
    before.sum().backward()
    assert mutator.alpha("a").grad is not None


def test_what_it_exports_can_be_applied_with_what_is_left_out():
    searched, net = Net(), Net()
    mutator = DartsMutator(searched)
    prefer(mutator, a=[3.0, 0, 0, 0], b=[0, 0.1, 0, 0], c=[0, 0, 2.0, 0])
    apply_fixed_architecture(net, mutator.export())
    assert torch.allclose(net(X), net.layers["a"](X) + X)
    assert [name for name, _ in net.named_parameters()] == ["layers.a.weight", "layers.a.bias"]


# ---- as a module --------------------------------------------------------------------------------------------------------


def test_a_search_goes_on_from_its_state_dict():
    mutator = DartsMutator(Net())
    prefer(mutator, a=[3.0, 0, 0, 0])
    other = DartsMutator(Net(), seed=7)
    other.load_state_dict(mutator.state_dict())
    assert other.export() == mutator.export()


def test_parameters_are_the_mutators_and_not_the_models():
    net = Net()
    mutator = DartsMutator(net)
    own, weights = {id(p) for p in mutator.parameters()}, {id(p) for p in net.parameters()}
    assert not own & weights
    assert not any("alpha" in key or "choices" in key for key in net.state_dict())


def test_it_is_not_copied_but_its_model_is_and_goes_on_alone():
    net = Net()
    mutator = DartsMutator(net)
    mutator.reset()
    with pytest.raises(StateError, match="DartsMutator belongs to its model"):
        copy.deepcopy(mutator)
    again = copy.deepcopy(net)
    other = DartsMutator(again)
    other.reset()
    assert torch.allclose(again(X), net(X))


def test_a_mixture_is_not_exported_as_a_default():
    net = nn.Sequential(op("op"))
    DartsMutator(net).reset()
    with pytest.raises(RuntimeError, match="'op' has no choice: a DartsMutator decides it"):
        export(net)


def test_keys_that_differ_only_by_a_slash_and_a_dot_have_parameters_of_their_own():
    net = nn.Sequential(LayerChoice([nn.ReLU()], key="a/b"), op("a.b"))
    mutator = DartsMutator(net)
    assert [len(mutator.alpha(key)) for key in ("a/b", "a.b")] == [2, 4]


def test_a_compiled_model_follows_the_weights():
    net = nn.Sequential(op("op"))
    mutator = DartsMutator(net)
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about the gradients of what is no leaf
        compiled = torch.compile(net, backend="eager")
        for values in ([1.0, 0, 0, 0], [0, 2.0, 0, 0], [-math.inf, 2.0, 0, 0]):
            prefer(mutator, op=values)
            mutator.reset()
            mutator.zero_grad()
            output = compiled(X)
            output.square().sum().backward()
            assert torch.allclose(output, net(X))
            assert mutator.alpha("op").grad.abs().sum() > 0
