import pytest
import torch
from torch import nn

from mutorch.cost import CostTable, count
from mutorch.errors import ChoiceError
from mutorch.mutables import (
    DiffChoiceRoute,
    DifferentiableEdge,
    DiffMutableOP,
    DumpChosen,
    GumbelChoiceRoute,
    GumbelEdge,
    MutableEdge,
)
from mutorch.mutators import Mutator
from mutorch.registry import MODELS
from mutorch.subnet import export, export_fix_subnet, load_fix_subnet
from mutorch.testing import check_export

INPUTS = [torch.full((2, 2), float(number)) for number in (1, 10, 100)]
LOGITS = torch.tensor([0.1, 0.5, 0.3])


def edges():
    return nn.ModuleDict({name: nn.Identity() for name in "abc"})


def route(**kwargs):
    return DiffChoiceRoute(edges(), **kwargs)


def test_all_edges_add_up_until_some_are_chosen():
    assert torch.equal(route()(INPUTS), torch.full((2, 2), 111.0))
    assert torch.equal(route()(INPUTS, arch_param=LOGITS), torch.full((2, 2), 111.0))


def test_with_arch_param_the_edges_are_weighted():
    probs = torch.softmax(LOGITS, -1)
    expected = sum(p * x for p, x in zip(probs, INPUTS, strict=True))
    torch.testing.assert_close(route(with_arch_param=True)(INPUTS, arch_param=LOGITS), expected)
    torch.testing.assert_close(route().forward_arch_param(tuple(INPUTS), LOGITS), expected)


def test_the_chosen_edges_add_up():
    r = route()
    r.current_choice = ["a", "c"]
    assert torch.equal(r(INPUTS), torch.full((2, 2), 101.0))


def test_the_sampled_choice_has_the_largest_parameters_first():
    assert route().sample_choice(LOGITS) == ["b", "c"]
    assert route(num_chosen=5).sample_choice(LOGITS) == ["b", "c", "a"]


def test_fixing_keeps_the_places_of_the_inputs():
    r = route()
    r.fix_chosen(["c", "a"])
    assert r.choices == ["a", "c"]
    assert torch.equal(r(INPUTS), torch.full((2, 2), 101.0))
    assert r.dump_chosen() == DumpChosen(["a", "c"], {"all_choices": ["a", "c"]})
    with pytest.raises(AttributeError, match="already fixed"):
        r.fix_chosen(["a"])


def test_a_missing_tail_of_inputs_is_tolerated_where_nothing_takes_it():
    r = route()
    r.fix_chosen(["a", "b"])
    assert torch.equal(r(INPUTS[:2]), torch.full((2, 2), 11.0))
    with pytest.raises(ChoiceError, match="takes one input for each; got 1"):
        r(INPUTS[:1])


@pytest.mark.parametrize("forward", ["forward", "forward_all"])
def test_one_input_for_each_edge_is_needed(forward):
    with pytest.raises(AssertionError, match=r"one input for each of its 3 edges \(a, b, c\), got 2 inputs"):
        getattr(route(), forward)(INPUTS[:2])
    with pytest.raises(AssertionError, match="got Tensor"):
        getattr(route(), forward)(INPUTS[0])


def test_what_is_no_list_of_edges_is_refused():
    for chosen in ("a", ["a", "d"], [], ["a", "a"], [1]):
        with pytest.raises(ChoiceError, match="a choice is a list of edges, each once; .*allowed: 'a', 'b', 'c'"):
            route().fix_chosen(chosen)
    with pytest.raises(AssertionError, match="is not fixed yet"):
        route().forward_fixed(INPUTS)
    with pytest.raises(AssertionError, match="no current choice"):
        route().dump_chosen()


def test_what_is_no_route_is_refused():
    with pytest.raises(AssertionError, match="edges must be an nn.ModuleDict, got dict"):
        DiffChoiceRoute({"a": nn.Identity()})
    with pytest.raises(AssertionError, match="edges is empty"):
        DiffChoiceRoute(nn.ModuleDict())
    with pytest.raises(ChoiceError, match="num_chosen must be at least 1, got 0"):
        route(num_chosen=0)
    wide = DiffChoiceRoute(nn.ModuleDict({f"e{i}": nn.Identity() for i in range(40)}), num_chosen=20)
    with pytest.raises(ChoiceError, match="chooses 20 of 40 edges in 137846528820 ways"):
        _ = wide.decision_choices


class Node(nn.Module):
    """A node of a cell: each edge is an operation of its own choice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)

        def op():
            return DiffMutableOP({"linear": nn.Linear(4, 4), "tanh": nn.Tanh(), "skip": nn.Identity()})

        self.stem = nn.Linear(4, 4)
        self.route = DiffChoiceRoute(nn.ModuleDict({name: op() for name in "abc"}), with_arch_param=True)

    def forward(self, x):
        return self.route([x, self.stem(x), x * 2])


X = torch.linspace(-1, 1, 8).reshape(2, 4)


def test_a_route_is_a_decision_among_sets_of_edges():
    space = Mutator(Node()).space
    assert space.names == ("route", *(f"route._candidates.{name}" for name in "abc"))
    assert space["route"].choices == (["a", "b"], ["a", "c"], ["b", "c"])
    assert space.size == 3 * 3 * 3
    assert space.from_json(space.to_json()) == space


def test_exported_routes_compute_what_the_supernet_computes():
    check_export(Node(), X, num_architectures=10)


def test_an_exported_route_is_an_ordinary_module():
    net = Node()
    exported = export(net, Mutator(net).space.sample(3))
    assert type(exported.route).__name__ == "SummedModules"
    assert not any("utable" in type(m).__name__ for m in exported.modules())
    program = torch.export.export(exported, (X,))
    torch.testing.assert_close(program.module()(X), exported(X))


def test_costs_of_routes_are_those_of_the_exported_model():
    net = Node()
    mutator = Mutator(net)
    table = CostTable.from_model(mutator, X[:1])
    for architecture in mutator.space.grid():
        found, expected = table(architecture), count(export(net, architecture), X[:1])
        assert (found.macs, found.params) == (expected.macs, expected.params)


def test_subnets_of_routes_go_around_as_plain_data():
    net, other = Node(), Node()
    mutator = Mutator(net)
    mutator.set_choices(mutator.space.sample(3))
    subnet, _ = export_fix_subnet(net)
    load_fix_subnet(other, {name: {"chosen": entry.chosen} for name, entry in subnet.items()})
    assert torch.equal(net(X), other(X))
    load_fix_subnet(third := Node(), {**{n: e.chosen for n, e in subnet.items()}, "route": ["c", "a"]})
    assert third.route.choices == ["a", "c"]


class TestGumbelChoiceRoute:
    def test_hard_samples_take_one_edge(self):
        r = GumbelChoiceRoute(edges(), with_arch_param=True)
        assert {r(INPUTS, arch_param=LOGITS)[0, 0].item() for _ in range(40)} == {1, 10, 100}

    def test_the_temperature_is_used(self):
        r = GumbelChoiceRoute(edges(), tau=1e-3, hard=False, with_arch_param=True)
        assert r.compute_arch_probs(LOGITS).max().item() == pytest.approx(1)
        r.set_temperature(1e3)
        assert r.tau == 1e3
        assert not r.hard
        torch.testing.assert_close(r.compute_arch_probs(LOGITS), torch.full((3,), 1 / 3), atol=0.01, rtol=0)

    def test_it_is_built_by_name(self):
        assert isinstance(MODELS.build({"type": "GumbelChoiceRoute", "edges": edges()}), GumbelChoiceRoute)


class TestEdgesOfTheOlderApi:
    def test_a_mutable_edge_adds_up_what_is_left(self):
        edge = MutableEdge(edges(), space_id="node")
        assert torch.equal(edge(INPUTS), torch.full((2, 2), 111.0))
        edge.export(["c"])
        assert torch.equal(edge(INPUTS), INPUTS[2])
        assert edge.full_choice_names == ("a", "b", "c")
        assert edge.choice_names == ("c",)
        assert len(edge.choice_modules) == 1
        assert edge.alias == edge.space_id == "node"

    def test_edges_that_are_no_module_dict_are_refused_by_space_id(self):
        with pytest.raises(AssertionError, match="MutableEdge 'node': edges must be an nn.ModuleDict"):
            MutableEdge({"a": nn.Identity()}, space_id="node")

    def test_a_differentiable_edge_needs_its_parameter(self):
        edge = DifferentiableEdge(True, choices=edges(), space_id="node")
        with pytest.raises(AssertionError, match="'node' has with_arch_param=True, so forward needs arch_param"):
            edge(INPUTS)
        parameter = edge.build_arch_param(torch.Generator().manual_seed(0))
        assert parameter.abs().max() < 0.01
        edge(INPUTS, parameter).sum().backward()
        assert parameter.grad is not None

    def test_without_arch_param_the_edges_add_up(self):
        edge = DifferentiableEdge(False, choices=edges())
        assert edge.build_arch_param(torch.Generator()) is None
        assert torch.equal(edge(INPUTS), torch.full((2, 2), 111.0))

    def test_the_temperature_of_a_gumbel_edge_is_used(self):
        edge = GumbelEdge(True, choices=edges(), hard=False)
        edge.set_temperature(1e-3)
        assert edge.compute_arch_probs(LOGITS).max().item() == pytest.approx(1)
