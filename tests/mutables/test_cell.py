"""A cell chooses, for every node, earlier states and operations on them."""

import pytest
import torch
from torch import nn

import mutorch
from mutorch.errors import ChoiceError, ConfigError
from mutorch.mutables import Cell
from mutorch.mutators import RandomMutator
from mutorch.testing import check_export

X = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))


def operations() -> dict[str, nn.Module]:
    return {"conv": nn.Conv2d(4, 4, 3, padding=1), "tanh": nn.Tanh(), "pool": nn.AvgPool2d(3, 1, 1)}


class Net(nn.Module):
    """Two cells of one kind, and a third that merges loose ends, whose channels nobody counts."""

    def __init__(self) -> None:
        super().__init__()
        settings = {"num_nodes": 3, "num_ops_per_node": 2, "num_predecessors": 2}
        self.one = Cell(operations(), **settings, key="normal", postprocessor=self.narrow)
        self.two = Cell(operations(), **settings, key="normal", postprocessor=self.narrow)
        self.loose = Cell(operations(), 2, num_predecessors=2, key="loose", merge_op="loose_end")

    @staticmethod
    def narrow(output: torch.Tensor, inputs: list[torch.Tensor]) -> torch.Tensor:
        return output[:, :4] + inputs[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.one(x, x.tanh())
        return self.loose([first, self.two(x, first)]).mean(1)


def test_an_exported_cell_computes_what_the_cell_computed_and_costs_what_the_table_says() -> None:
    net = Net().eval()
    check_export(net, X)
    mutator = mutorch.Mutator(net)
    table = mutorch.CostTable.from_model(mutator, X[:1])
    for seed in range(5):
        architecture = mutator.space.sample(seed)
        counted = mutorch.count(mutorch.export(net, architecture), X[:1])
        assert (table(architecture).macs, table(architecture).params) == (counted.macs, counted.params)


def test_cells_with_one_key_make_the_same_decisions() -> None:
    space = mutorch.Mutator(Net()).space
    assert len(space) == 2 * 3 * 2 + 2 * 2
    assert space["normal/input_1_0"].choices == (0, 1, 2)
    assert space["normal/op_2_1"].choices == ("conv", "tanh", "pool")


def test_operations_are_made_anew_for_every_place_and_functions_are_told_which() -> None:
    asked: list[tuple[int, int]] = []

    def made(node: int, place: int) -> nn.Module:
        asked.append((node, place))
        return nn.Conv2d(4, 4, 1)

    shared = nn.Conv2d(4, 4, 1)
    cell = Cell([made, shared], num_nodes=2, num_ops_per_node=2, key="cell")
    assert asked == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert len(list(cell.parameters())) == 2 * 8


def test_the_output_holds_the_nodes_that_no_other_takes() -> None:
    cell = Cell({"same": nn.Identity(), "tanh": nn.Tanh()}, num_nodes=3, key="cell", merge_op="loose_end")
    mutator = mutorch.Mutator(cell)
    ops = {f"cell/op_{node}_0": "same" for node in range(3)}
    mutator.set_choices({**ops, "cell/input_0_0": 0, "cell/input_1_0": 1, "cell/input_2_0": 1})
    assert cell.output_node_indices == [1, 2]
    assert cell(X).shape[1] == 8


def test_a_mutator_with_callbacks_decides_a_cell() -> None:
    net = Net()
    mutator = RandomMutator(net, seed=3)
    mutator.reset()
    computed = net.eval()(X)
    assert torch.equal(computed, mutorch.export(net)(X))


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"key": None}, ChoiceError, "needs a key"),
        ({"num_nodes": 0}, ChoiceError, "'cell': num_nodes must be at least 1, got 0"),
        ({"merge_op": "loose"}, ConfigError, "'cell' has no merge_op 'loose'; did you mean 'loose_end'"),
        ({"op_candidates": []}, ChoiceError, "'cell/op_0_0' got no candidates"),
    ],
)
def test_what_makes_no_cell_is_named(changed: dict[str, object], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Cell(**{"op_candidates": operations(), "num_nodes": 1, "key": "cell", **changed})


def test_another_number_of_inputs_is_an_error() -> None:
    cell = Cell(operations(), 1, num_predecessors=2, key="cell")
    with pytest.raises(ChoiceError, match="2 predecessors, got 1 inputs"):
        cell(X)
