import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mutorch.nn as nn
from mutorch import CostTable, Mutator, OneShotMutableOP, count, export, load, save, searchable
from mutorch.errors import ChoiceError
from mutorch.mutables import OneShotMutableValue
from mutorch.mutators import active_parameters, inactive_parameters
from mutorch.ops import static_copy, to_static_
from mutorch.space import random_at
from mutorch.testing import check_export
from mutorch.training import single_path_step

X = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    def __init__(self, label=None):
        super().__init__()
        hidden = nn.ValueChoice([2, 8], label=label)
        self.inner, self.outer = nn.Linear(4, hidden), nn.Linear(hidden, 4)

    def forward(self, x):
        return x + self.outer(self.inner(x).relu())


def net_of(*rows):
    return nn.Sequential(*rows, nn.Linear(4, 2)).eval()


@pytest.mark.parametrize(
    ("depth", "choices"),
    [((1, 3), [1, 2, 3]), ([1, 3], [1, 3]), ((0, 1), [0, 1]), (OneShotMutableValue([2, 3]), [2, 3])],
    ids=["both ends", "a list", "none", "a mutable"],
)
def test_a_depth_is_one_of_the_numbers_given(depth, choices):
    net = net_of(nn.Repeat(lambda _: nn.Linear(4, 4), depth))
    decision = Mutator(net).space["0.depth"]
    assert (list(decision.choices), len(net[0])) == (choices, max(choices))
    check_export(net, X)


def test_the_first_blocks_run():
    row = nn.Repeat([nn.Linear(4, 4) for _ in range(3)], (0, 3))
    net = net_of(row)
    for depth in range(4):
        Mutator(net).set_choices({"0.depth": depth})
        assert torch.equal(row(X), nn.Sequential(*row[:depth])(X))
    Mutator(net).set_choices({"0.depth": 0})
    assert row(X) is X


def test_export_leaves_a_plain_sequence_of_the_blocks_that_run():
    plain = export(net_of(nn.Repeat(lambda _: Block("h"), (0, 3))), {"0.depth": 2, "h": 8})
    assert (type(plain[0]), list(plain[0]._modules)) == (nn.Sequential, ["0", "1"])
    assert set(vars(plain[0])) == set(vars(nn.Sequential()))
    assert len(export(net_of(nn.Repeat(nn.ReLU(), (0, 2))), {"0.depth": 0})[0]) == 0


def test_a_number_as_depth_is_no_decision():
    row = nn.Repeat(lambda place: nn.Linear(4, 4) if place else nn.ReLU(), 2)
    assert (row.depth, [type(block).__name__ for block in row]) == (2, ["ReLU", "Linear"])
    net = nn.Sequential(row, OneShotMutableOP({"a": nn.ReLU(), "b": nn.GELU()}))
    assert Mutator(net).space.names == ("1",)
    assert type(export(net)[0]) is nn.Sequential


def test_a_depth_follows_an_expression():
    width = nn.ValueChoice([1, 2, 3], label="w")
    net = net_of(nn.Repeat(lambda _: Block(), 4 - width), nn.Linear(4, 4 * width), nn.Linear(4 * width, 4))
    mutator = Mutator(net)
    mutator.set_choices(mutator.space.default | {"w": 2})
    assert net[0].depth == 2
    assert mutator.space["0.2.inner.out_features"].when == (("w", 1),)
    assert mutator.space["0.1.inner.out_features"].when == (("w", 1), ("w", 2))
    assert mutator.space["0.0.inner.out_features"].when == ()
    check_export(net, X, num_architectures=10)


def test_a_depth_of_two_decisions_says_what_it_can():
    a, b = nn.ValueChoice([0, 1], label="a"), nn.ValueChoice([1, 2], label="b")
    net = net_of(nn.Repeat(lambda _: Block(), a + b))
    space = Mutator(net).space
    assert space["0.2.inner.out_features"].when == (("a", 1),)
    assert space["0.1.inner.out_features"].when == ()
    check_export(net, X, num_architectures=10)


def test_what_is_decided_in_blocks_that_do_not_run_does_not_matter():
    net = net_of(nn.Repeat(lambda place: Block(), (1, 3), label="d"))
    space = Mutator(net).space
    assert space.size == 2 + 4 + 8
    one = space.sample(0) | {"d": 1}
    other = one | {"0.2.inner.out_features": 10 - one["0.2.inner.out_features"]}
    assert space.canonical(one) == space.canonical(other)


def test_rows_in_rows_and_in_candidates_matter_where_they_stand():
    inner = nn.LayerChoice([nn.Repeat(lambda _: Block(), (1, 2)), nn.Identity()], label="op")
    net = net_of(nn.Repeat(lambda place: inner if place else nn.ReLU(), (1, 2), label="d"))
    space = Mutator(net).space
    assert space["op"].when == (("d", 2),)
    depth = next(name for name in space.names if name.endswith(".depth"))
    assert space[depth].when == (("op", 0),)
    block = next(name for name in space.names if name.endswith("1.inner.out_features"))
    assert space[block].when == ((depth, 2),)
    check_export(net, X, num_architectures=15)


def test_copies_of_a_block_read_the_same_value_and_made_blocks_their_own():
    assert Mutator(net_of(nn.Repeat(Block(), 3))).space.names == ("0.0.inner.out_features",)
    assert len(Mutator(net_of(nn.Repeat(lambda _: Block(), 3))).space.names) == 3
    assert Mutator(net_of(nn.Repeat(lambda _: Block("h"), 3))).space.names == ("h",)
    net = net_of(nn.Repeat(Block(), (1, 3)))
    first, second = net[0][0].inner._parameters["weight"], net[0][1].inner._parameters["weight"]
    assert first is not second
    check_export(net, X, num_architectures=10)


def test_one_block_may_stand_at_all_places():
    block = Block("h")
    net = net_of(nn.Repeat([block] * 3, (1, 3)))
    assert Mutator(net).space["h"].when == ()
    check_export(net, X, num_architectures=10)


def test_only_what_runs_is_trained():
    net = net_of(nn.Repeat(lambda _: nn.Linear(4, 4), (1, 3)))
    mutator = Mutator(net)
    mutator.set_choices({"0.depth": 1})
    assert {id(p) for p in net[0][0].parameters()} <= active_parameters(net)
    assert len(inactive_parameters(net)) == 4
    single_path_step(net, mutator, lambda m: m(X).sum(), seed=0, step=0)
    depth = net[0].depth
    assert [block.weight.grad is not None for block in net[0]] == [place < depth for place in range(3)]


def test_rows_copy_and_pickle():
    net = net_of(nn.Repeat(lambda _: Block(), (0, 3), label="d"))
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        Mutator(other).set_choices(Mutator(other).space.min)
        assert (other[0].depth, net[0].depth) == (0, 3)
        check_export(other, X)


def test_a_static_copy_and_a_net_made_static_hold_nothing_of_ours():
    net = net_of(nn.Repeat(lambda _: Block(), (1, 3), label="d"))
    Mutator(net).set_choices(Mutator(net).space.min)
    copied, made = static_copy(net), copy.deepcopy(net)
    to_static_(made)
    for plain in (copied, made, export(net)):
        assert (type(plain[0]), len(plain[0])) == (nn.Sequential, 1)
        assert set(vars(plain[0])) == set(vars(nn.Sequential()))
        assert set(vars(plain[0][0].inner)) == set(vars(torch.nn.Linear(1, 1)))
        assert torch.equal(plain(X), net(X))


def test_a_file_of_a_shorter_row_loads_into_the_searchable_and_into_the_whole_net(tmp_path):
    def build():
        torch.manual_seed(0)
        return net_of(nn.Repeat(lambda _: Block(), (1, 3), label="d"))

    net = build()
    plain = export(net, Mutator(net).space.min)
    path = save(plain, tmp_path / "net.safetensors")
    largest = export(net, Mutator(net).space.max)
    for model in (build, largest):
        assert torch.equal(load(path, model).eval()(X), plain(X))


def test_a_row_in_a_model_that_is_made_searchable_keeps_equal_widths_at_all_depths():
    net = nn.Sequential(
        nn.Linear(4, 8),
        nn.Repeat(lambda _: nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.ValueChoice([1, 2, 3], label="d")),
        nn.Repeat(lambda _: nn.Linear(8, 8), nn.ValueChoice([0, 1], label="e")),
        nn.Linear(8, 2),
    )
    found = searchable(net, X)
    space = Mutator(found).space
    assert set(space.names) == {"0", "d", "e"} or set(space.names) == {"1.0.0", "0", "d", "e"}
    assert space["d"].choices == (1, 2, 3)
    check_export(found.eval(), X, num_architectures=20)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_any_rows_compute_and_cost_what_their_export_does(data):
    def blocks():
        depths = st.sampled_from([(0, 2), (1, 3), [1, 2], 2])
        make = data.draw(st.sampled_from([lambda place: Block(), lambda place: nn.Linear(4, 4), "copies"]))
        return nn.Repeat(Block() if make == "copies" else make, data.draw(depths))

    net = net_of(
        *(blocks() for _ in range(data.draw(st.integers(1, 3)))), nn.Linear(4, nn.ValueChoice([4, 8])), _First()
    )
    mutator = Mutator(net)
    table = CostTable.from_model(mutator, X)
    for number in range(3):
        architecture = mutator.space.sample(random_at(data.draw(st.integers(0, 999)), number))
        plain = export(net, architecture)
        with mutator.at(architecture):
            assert torch.equal(net(X), plain(X))
        assert table(architecture) == count(plain, X)


class _First(nn.Module):
    def forward(self, x):
        return x[:, :4]


@pytest.mark.parametrize(
    ("blocks", "depth", "error", "message"),
    [
        (nn.ReLU(), (3, 1), ChoiceError, r"a tuple as depth is \(low, high\), both included, got \(3, 1\)"),
        (nn.ReLU(), (1, 2, 3), ChoiceError, r"got \(1, 2, 3\); a list may be of any length"),
        (nn.ReLU(), -1, ChoiceError, "a depth is a whole number from 0, got -1"),
        (nn.ReLU(), [1, -2], ChoiceError, "a depth is a whole number from 0, got -2"),
        (nn.ReLU(), nn.ValueChoice([1.5, 2.0]), ChoiceError, "a depth is a whole number from 0, got 1.5"),
        (nn.ReLU(), "2", ChoiceError, "a depth is a whole number from 0, got '2'"),
        ([nn.ReLU()], 2, ChoiceError, "a depth of at most 2 needs a list of 2 blocks, got 1"),
        ([nn.ReLU()] * 3, (1, 2), ChoiceError, "a depth of at most 2 needs a list of 2 blocks, got 3"),
        (3, 2, TypeError, "blocks are a module, a function of the place, or a list, got int"),
        (lambda place: place, 2, TypeError, "block 0 must be a module, got int"),
    ],
)
def test_bad_rows_say_what_is_wrong(blocks, depth, error, message):
    with pytest.raises(error, match=message):
        nn.Repeat(blocks, depth)


def test_a_label_beside_a_mutable_is_refused():
    with pytest.raises(ChoiceError, match="has its own name; leave label='d' out"):
        nn.Repeat(nn.ReLU(), nn.ValueChoice([1, 2]), label="d")
