"""The cells of DARTS as data: what each node reads, through which operation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

from mutorch.errors import SpaceError, nearest

Edge = tuple[int, str]
"""`(input, operation)`: inputs 0 and 1 are the two cells before, 2 and up the nodes of the cell."""
Cell = tuple[tuple[Edge, ...], ...]
"""The edges of each node, in order; the first node is number 2."""
FIRST_NODE = 2


@dataclass(frozen=True, slots=True)
class DartsGenotype:
    """A normal and a reduction cell, each a tuple of nodes, each a tuple of `(input, operation)`.

    Errors:
        SpaceError: an input that the node cannot read, or reads twice.

    Example:
        >>> DARTS_V2.normal[3]
        ((0, 'skip_connect'), (2, 'dil_conv_3x3'))
        >>> DartsGenotype(normal=[[(0, "skip_connect"), (2, "sep_conv_3x3")]], reduce=[])
        Traceback (most recent call last):
        ...
        mutorch.errors.SpaceError: node normal_n2 reads different inputs from 0 to 1, at least one, got [0, 2]
    """

    normal: Cell
    reduce: Cell

    def __post_init__(self) -> None:
        for name in ("normal", "reduce"):
            cell = tuple(tuple((int(i), str(op)) for i, op in node) for node in getattr(self, name))
            object.__setattr__(self, name, cell)
            for number, node in enumerate(cell, FIRST_NODE):
                _check_node(f"{name}_n{number}", number, node)

    @classmethod
    def from_architecture(cls, architecture: Mapping[str, Any]) -> Self:
        """The cells of a searched `DartsBackbone`: routes `normal_n2`, operations `normal_n2_p0`, ..., with any prefix.

        Errors:
            SpaceError: decisions that are not those of a `DartsBackbone`.

        Example:
            >>> DartsGenotype.from_architecture(DARTS_V1.architecture()) == DARTS_V1
            True
        """
        return cls(normal=_cell(architecture, "normal"), reduce=_cell(architecture, "reduce"))

    def architecture(self) -> dict[str, Any]:
        """The choices of the edges that are kept, as an architecture or a subnet file has them.

        Example:
            >>> {name: choice for name, choice in DARTS_V2.architecture().items() if name.startswith("reduce_n2")}
            {'reduce_n2': ['reduce_n2_p0', 'reduce_n2_p1'], 'reduce_n2_p0': 'max_pool_3x3', 'reduce_n2_p1': 'max_pool_3x3'}
        """
        chosen: dict[str, Any] = {}
        for kind, cell in (("normal", self.normal), ("reduce", self.reduce)):
            for number, node in enumerate(cell, FIRST_NODE):
                chosen[f"{kind}_n{number}"] = [f"{kind}_n{number}_p{i}" for i, _ in node]
                chosen.update({f"{kind}_n{number}_p{i}": operation for i, operation in node})
        return chosen


def _check_node(name: str, number: int, node: Sequence[Edge]) -> None:
    inputs = [i for i, _ in node]
    if not inputs or not set(inputs) <= set(range(number)) or len(set(inputs)) != len(inputs):
        raise SpaceError(f"node {name} reads different inputs from 0 to {number - 1}, at least one, got {inputs}")


def _cell(architecture: Mapping[str, Any], kind: str) -> Cell:
    nodes: list[tuple[Edge, ...]] = []
    while (route := f"{kind}_n{len(nodes) + FIRST_NODE}") in architecture:
        edges = architecture[route]
        try:
            nodes.append(tuple(sorted((int(edge.removeprefix(f"{route}_p")), architecture[edge]) for edge in edges)))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise SpaceError(
                f"decision {route!r} chose {edges!r}; a route of DARTS chooses names like '{route}_p0', whose operations "
                "the architecture also has"
            ) from None
    if not nodes:
        raise SpaceError(f"the architecture has no decision '{kind}_n2'; {nearest(f'{kind}_n2', architecture)}")
    return tuple(nodes)


DARTS_V1 = DartsGenotype(
    normal=(
        ((0, "sep_conv_3x3"), (1, "sep_conv_3x3")),
        ((0, "skip_connect"), (1, "sep_conv_3x3")),
        ((0, "skip_connect"), (1, "sep_conv_3x3")),
        ((0, "sep_conv_3x3"), (2, "skip_connect")),
    ),
    reduce=(
        ((0, "max_pool_3x3"), (1, "max_pool_3x3")),
        ((0, "max_pool_3x3"), (2, "skip_connect")),
        ((0, "max_pool_3x3"), (2, "skip_connect")),
        ((0, "avg_pool_3x3"), (2, "skip_connect")),
    ),
)
"""The cells of the first-order search on CIFAR-10 (arXiv 1806.09055; its code's `DARTS_V1`)."""

DARTS_V2 = DartsGenotype(
    normal=(
        ((0, "sep_conv_3x3"), (1, "sep_conv_3x3")),
        ((0, "sep_conv_3x3"), (1, "sep_conv_3x3")),
        ((0, "skip_connect"), (1, "sep_conv_3x3")),
        ((0, "skip_connect"), (2, "dil_conv_3x3")),
    ),
    reduce=(
        ((0, "max_pool_3x3"), (1, "max_pool_3x3")),
        ((1, "max_pool_3x3"), (2, "skip_connect")),
        ((0, "max_pool_3x3"), (2, "skip_connect")),
        ((1, "max_pool_3x3"), (2, "skip_connect")),
    ),
)
"""The cells of the second-order search on CIFAR-10 (arXiv 1806.09055, figures 4 and 5; its code's `DARTS_V2`)."""

DARTS_MMRAZOR = DartsGenotype(
    normal=(
        ((0, "sep_conv_3x3"), (1, "sep_conv_3x3")),
        ((0, "skip_connect"), (1, "sep_conv_5x5")),
        ((0, "sep_conv_3x3"), (1, "skip_connect")),
        ((0, "skip_connect"), (1, "skip_connect")),
    ),
    reduce=(
        ((0, "max_pool_3x3"), (1, "sep_conv_3x3")),
        ((0, "max_pool_3x3"), (2, "dil_conv_5x5")),
        ((0, "max_pool_3x3"), (2, "skip_connect")),
        ((0, "max_pool_3x3"), (2, "skip_connect")),
    ),
)
"""The cells that MMRazor published, with 97.32 % on CIFAR-10."""

GENOTYPES: Mapping[str, DartsGenotype] = MappingProxyType(
    {"DARTS_V1": DARTS_V1, "DARTS_V2": DARTS_V2, "DARTS_MMRAZOR": DARTS_MMRAZOR}
)
