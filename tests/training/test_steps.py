import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from mutorch.errors import StateError
from mutorch.models import chain_net
from mutorch.mutables import MutableValue, OneShotMutableOP
from mutorch.mutators import Mutator
from mutorch.subnet import export
from mutorch.training import path_step, single_path, single_path_step, strict_fair, strict_fair_step

X = torch.randn(8, 1, 10, 10, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 10

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "SGD with momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "SGD with Nesterov momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "SGD foreach": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, foreach=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "AdamW foreach": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, foreach=True),
    "AdamW fused": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, fused=True),
}


def supernet(seed=0):
    torch.manual_seed(seed)
    net = chain_net()
    return net, Mutator(net)


def loss_fn(model):
    return functional.cross_entropy(model(X), Y)


def sampled(net, architecture):
    """The names of the parameters that a step at `architecture` is about."""
    kept = {tuple(f"{block}._candidates.{choice}".split(".")) for block, choice in architecture.items()}
    return {
        name for name, _ in net.named_parameters() if "_candidates" not in name or tuple(name.split(".")[:3]) in kept
    }


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ten_steps_of_one_architecture_move_nothing_else(name, set_to_none):
    net, mutator = supernet()
    optimizer = OPTIMIZERS[name](net.parameters())
    for step in range(5):  # gives every parameter momentum, which must not be spent later
        strict_fair_step(net, mutator, loss_fn, seed=0, step=step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=set_to_none)
    architecture = mutator.space.sample(3)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    states = copy.deepcopy({name: optimizer.state.get(parameter) for name, parameter in net.named_parameters()})
    for _ in range(10):
        path_step(net, mutator, loss_fn, [architecture])
        optimizer.step()
        optimizer.zero_grad(set_to_none=set_to_none)
    moved = {name for name, parameter in net.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == sampled(net, architecture)
    for name, parameter in net.named_parameters():
        if name not in moved and states[name]:
            assert all(
                torch.equal(value, states[name][key]) if isinstance(value, torch.Tensor) else value == states[name][key]
                for key, value in optimizer.state[parameter].items()
            )


@pytest.mark.parametrize("set_to_none", [True, False])
def test_layers_that_a_depth_leaves_out_do_not_drift(set_to_none):
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.depth = MutableValue([1, 2, 3])
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, x):
            for layer in self.layers[: self.depth.current_choice]:
                x = layer(x)
            return x

    torch.manual_seed(0)
    net = Deep()
    mutator = Mutator(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for depth in (3, 1, 1):
        before = [layer.weight.detach().clone() for layer in net.layers]
        path_step(net, mutator, lambda m: m(torch.ones(2, 4)).square().sum(), [{"depth": depth}])
        optimizer.step()
        optimizer.zero_grad(set_to_none=set_to_none)
        moved = [not torch.equal(layer.weight, old) for layer, old in zip(net.layers, before, strict=True)]
        assert moved == [number < depth for number in range(3)]


@pytest.mark.parametrize("seed", range(3))
def test_gradients_are_those_of_the_exported_subnet(seed):
    net, mutator = supernet(seed)
    architecture = single_path(mutator.space, seed, 5)
    subnet = export(net, architecture).train()
    loss_fn(subnet).backward()
    loss = single_path_step(net, mutator, loss_fn, seed=seed, step=5)
    assert mutator.current_choices == architecture
    assert not loss.requires_grad
    plain = {name: parameter.grad for name, parameter in subnet.named_parameters()}
    for name, parameter in net.named_parameters():
        if name in sampled(net, architecture):
            block = name.split(".")[0]
            path = name.replace(f"._candidates.{architecture.get(block)}", "")
            assert torch.equal(parameter.grad, plain.pop(path))
        else:
            assert parameter.grad is None
    assert plain == {}


def test_strictly_fair_gradients_are_the_sum_over_the_set_and_its_loss_the_mean():
    net, mutator = supernet()
    net.eval()  # so that running statistics do not tell the order
    expected, losses = {}, []
    for architecture in strict_fair(mutator.space, 0, 2):
        net.zero_grad()
        losses.append(path_step(net, mutator, loss_fn, [architecture]))
        for name, parameter in net.named_parameters():
            if parameter.grad is not None:
                expected[name] = expected.get(name, 0) + parameter.grad
    net.zero_grad()
    loss = strict_fair_step(net, mutator, loss_fn, seed=0, step=2)
    assert loss == torch.stack(losses).mean()
    assert expected.keys() == {name for name, _ in net.named_parameters()}
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], msg=name)


def test_strict_fairness_trains_every_choice_equally_often():
    net, mutator = supernet()
    calls = {}
    for block, (mutable,) in mutator.search_groups.items():
        for choice, candidate in mutable.candidates.items():
            candidate.register_forward_hook(lambda *_, at=(block, choice): calls.__setitem__(at, calls.get(at, 0) + 1))
    for step in range(6):
        strict_fair_step(net, mutator, loss_fn, seed=0, step=step)
    assert set(calls.values()) == {6}
    assert len(calls) == 16


@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_accumulate_over_steps_until_they_are_zeroed(set_to_none):
    net, mutator = supernet()
    net.eval()
    single_path_step(net, mutator, loss_fn, seed=1, step=0)
    net.zero_grad(set_to_none=set_to_none)
    architectures = [single_path(mutator.space, 0, step) for step in range(4)]
    expected = {}
    for architecture in architectures:
        subnet = copy.deepcopy(net)
        path_step(subnet, Mutator(subnet), loss_fn, [architecture])
        for name, parameter in subnet.named_parameters():
            if name in sampled(net, architecture):
                expected[name] = expected.get(name, 0) + parameter.grad
    for step in range(4):
        single_path_step(net, mutator, loss_fn, seed=0, step=step)
    found = {name: parameter.grad for name, parameter in net.named_parameters() if parameter.grad is not None}
    assert found.keys() == expected.keys() == set().union(*(sampled(net, a) for a in architectures))
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


def test_the_caller_decides_how_to_go_backward():
    net, mutator = supernet()
    loss = single_path_step(net, mutator, loss_fn, seed=0, step=0)
    gradient = net.head[2].weight.grad.clone()
    net.zero_grad()
    given = []

    def backward(loss):
        given.append(loss.item())
        (loss * 8).backward()

    single_path_step(net, mutator, loss_fn, seed=0, step=0, backward=backward)
    assert given == [loss.item()]
    torch.testing.assert_close(net.head[2].weight.grad, 8 * gradient)


def test_frozen_parameters_and_sparse_gradients_are_fine():
    net = nn.Sequential(
        nn.Embedding(5, 4, sparse=True), OneShotMutableOP({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)}, alias="op")
    )
    net[1].candidates["a"].weight.requires_grad_(False)
    mutator = Mutator(net)
    for choice in "abab":
        path_step(net, mutator, lambda m: m(torch.tensor([1, 2])).square().sum(), [{"op": choice}])
    assert net[0].weight.grad.is_sparse
    assert net[1].candidates["a"].weight.grad is None
    assert net[1].candidates["a"].bias.grad is not None


def test_the_architecture_does_not_depend_on_what_happened_before():
    net, mutator = supernet()
    seen = []
    for step in (9, 3, 9):
        single_path_step(net, mutator, loss_fn, seed=0, step=step)
        seen.append(mutator.current_choices)
        torch.rand(step)
    assert seen[0] == seen[2] == single_path(mutator.space, 0, 9) != seen[1]


def test_a_path_without_parameters_is_a_step_without_gradients():
    net = nn.Sequential(OneShotMutableOP({"linear": nn.Linear(3, 3), "skip": nn.Identity()}))
    mutator = Mutator(net)
    loss = path_step(net, mutator, lambda model: model(torch.ones(2, 3)).sum(), [{"0": "skip"}])
    assert loss == 6
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("step", [single_path_step, strict_fair_step])
def test_a_model_that_the_mutator_does_not_belong_to_is_refused_and_nothing_is_computed(step):
    _, mutator = supernet()
    net, _ = supernet()
    before = mutator.current_choices
    with pytest.raises(StateError, match="the mutator belongs to another model; make one of this net"):
        step(net, mutator, loss_fn, seed=0, step=0)
    assert mutator.current_choices == before
    assert all(parameter.grad is None for parameter in net.parameters())


def test_the_model_may_hold_the_mutators_or_be_a_part_of_it():
    net, mutator = supernet()
    single_path_step(nn.ModuleList([net]), mutator, lambda both: loss_fn(both[0]), seed=0, step=0)
    whole = Mutator(nn.Sequential(net))
    single_path_step(net, whole, loss_fn, seed=0, step=0)
