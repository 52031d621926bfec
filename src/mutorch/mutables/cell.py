"""The cell of NASNet and its successors: nodes that each apply a few operations to earlier nodes."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mutorch.errors import ChoiceError, ConfigError, nearest

from .chosen import ChosenInputs
from .input_choice import InputChoice
from .layer_choice import LayerChoice

Operation = nn.Module | Callable[[int, int], nn.Module]
"""A module, which is copied for every place, or a function of the node's and the operation's number that makes one."""
MergeOp = Literal["all", "loose_end"]


class Cell(nn.Module):
    """Nodes that apply searched operations to searched inputs; their outputs are concatenated (NASNet, arXiv 1707.07012).

    The states of a cell are its inputs, the predecessors, and then its nodes. Node i adds up `num_ops_per_node` operations;
    operation k of it applies a `LayerChoice` called `<key>/op_i_k` to one earlier state, which an `InputChoice` called
    `<key>/input_i_k` takes. Cells with one key make the same decisions.

    Args:
        op_candidates: the operations, by name or in a list. They keep the shape of their input.
        num_nodes: how many nodes there are.
        num_ops_per_node: how many operations a node adds up.
        num_predecessors: how many inputs the cell has.
        merge_op: whether the output holds all nodes, or only those that no other node takes; how many channels it has then
            depends on the architecture, and so may the costs of all that follows: cost tables of such a model run every combination of
            inputs, which only works for small cells. While weights or masks of several decide, all nodes are in it.
        preprocessor: gets the list of inputs and gives the list of first states; the inputs themselves unless given.
        postprocessor: gets the output and the list of inputs, and gives what the cell gives; the output unless given.
        concat_dim: the dimension along which nodes are concatenated.
        key, label: what the decisions' names begin with; one of the two.

    Errors:
        ChoiceError: no operations, numbers below 1, no key, or another number of inputs in `forward`.
        ConfigError: another `merge_op`.

    Example:
        >>> import mutorch
        >>> cell = Cell({"tanh": nn.Tanh(), "relu": nn.ReLU()}, num_nodes=2, key="cell")
        >>> mutorch.Mutator(cell).space.names
        ('cell/input_0_0', 'cell/op_0_0', 'cell/input_1_0', 'cell/op_1_0')
        >>> cell(torch.ones(1, 3, 2, 2)).shape
        torch.Size([1, 6, 2, 2])
    """

    def __init__(
        self,
        op_candidates: Mapping[str, Operation] | Sequence[Operation],
        num_nodes: int,
        num_ops_per_node: int = 1,
        num_predecessors: int = 1,
        merge_op: MergeOp = "all",
        preprocessor: Callable[[list[Tensor]], list[Tensor]] | None = None,
        postprocessor: Callable[[Tensor, list[Tensor]], Any] | None = None,
        concat_dim: int = 1,
        *,
        key: str | None = None,
        label: str | None = None,
    ) -> None:
        super().__init__()
        key = label if key is None else key
        if key is None:
            raise ChoiceError("a Cell needs a key: what its decisions' names begin with")
        for name, number in {
            "num_nodes": num_nodes,
            "num_ops_per_node": num_ops_per_node,
            "num_predecessors": num_predecessors,
        }.items():
            if number < 1:
                raise ChoiceError(f"Cell {key!r}: {name} must be at least 1, got {number}")
        if merge_op not in ("all", "loose_end"):
            raise ConfigError(f"Cell {key!r} has no merge_op {merge_op!r}; {nearest(merge_op, ('all', 'loose_end'))}")
        self.num_predecessors = num_predecessors
        self.merge_op = merge_op
        self.preprocessor = preprocessor
        self.postprocessor = postprocessor
        self.concat_dim = concat_dim
        self.nodes = nn.ModuleList()
        for node in range(num_nodes):
            slots = [self._slot(op_candidates, node, place, key) for place in range(num_ops_per_node)]
            self.nodes.append(nn.ModuleList(slots))

    def _slot(self, candidates: Any, node: int, place: int, key: str) -> nn.ModuleDict:
        """What takes a state, and what is applied to it."""
        takes = InputChoice(self.num_predecessors + node, n_chosen=1, key=f"{key}/input_{node}_{place}")
        takes.is_read_elsewhere = self.merge_op == "loose_end"
        op = LayerChoice(_made(candidates, node, place), key=f"{key}/op_{node}_{place}")
        return nn.ModuleDict({"input": takes, "op": op})

    def forward(self, *inputs: Any) -> Any:
        """What the cell computes of its predecessors: several tensors, or a list of them."""
        given = list(inputs[0]) if len(inputs) == 1 and isinstance(inputs[0], list | tuple) else list(inputs)
        if len(given) != self.num_predecessors:
            raise ChoiceError(f"this Cell has {self.num_predecessors} predecessors, got {len(given)} inputs")
        states = given if self.preprocessor is None else list(self.preprocessor(given))
        first = len(states)
        for node in self.nodes:
            here = list(states)
            states.append(sum(slot["op"](slot["input"](here)) for slot in _slots(node)))
        output = torch.cat([states[first + node] for node in self.output_node_indices], dim=self.concat_dim)
        return output if self.postprocessor is None else self.postprocessor(output, given)

    @property
    def output_node_indices(self) -> list[int]:
        """The numbers of the nodes that are in the output."""
        everything = list(range(len(self.nodes)))
        taken = [_position(slot["input"]) for node in self.nodes for slot in _slots(node)]
        if self.merge_op == "all" or None in taken:
            return everything
        return [node for node in everything if node + self.num_predecessors not in taken]


def _made(candidates: Mapping[str, Operation] | Sequence[Operation], node: int, place: int) -> Any:
    def make(operation: Operation) -> nn.Module:
        return copy.deepcopy(operation) if isinstance(operation, nn.Module) else operation(node, place)

    if isinstance(candidates, Mapping):
        return {name: make(operation) for name, operation in candidates.items()}
    return [make(operation) for operation in candidates]


def _slots(node: nn.Module) -> list[nn.ModuleDict]:
    return [slot for slot in node.children() if isinstance(slot, nn.ModuleDict)]


def _position(take: nn.Module) -> int | None:
    """Which state is taken; `None` while none is chosen for good."""
    if isinstance(take, ChosenInputs):
        return take.positions[0]
    assert isinstance(take, InputChoice)
    choice = take.current_choice
    return None if choice is None else take.numbers(choice)[0]
