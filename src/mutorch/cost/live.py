"""How much of a tensor is live, as a function of the decisions that cut it."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from mutorch.channels import MutableChannelUnit
from mutorch.channels.atoms import ALWAYS, Ids, distinct
from mutorch.channels.dims import Dim
from mutorch.errors import CostError
from mutorch.mutables.activity import as_mask
from mutorch.mutators import Mutator
from mutorch.ops.dynamic import FollowedSize, dynamic_modules
from mutorch.ops.extent import Extent

from .amount import Amount
from .reading import Reader
from .static import held

Size = int | Amount


@dataclass(frozen=True, slots=True)
class Kept:
    """Which channels a decision keeps.

    Attributes:
        decision: its number.
        masks: a row of bools for each choice.
    """

    decision: int
    masks: NDArray[np.bool_]


def kept_channels(mutator: Mutator, names: Sequence[str]) -> dict[int, Kept]:
    """What the units of some decisions keep at each choice, by the id of the unit's channel mutable."""
    found: dict[int, Kept] = {}
    for name in names:
        number = mutator.space.names.index(name)
        for unit in mutator.search_groups[name]:
            if not isinstance(unit, MutableChannelUnit):
                continue
            before, channel = unit.current_choice, unit.mutable_channel
            masks = []
            for choice in mutator.space[name].choices:
                unit.assign(choice)
                masks.append(as_mask(channel.active(), channel.num_channels).numpy().astype(np.bool_))
            unit.assign(before)
            found[id(channel)] = Kept(number, np.stack(masks))
    return found


class LiveSizes:
    """The live sizes of the tensors of one forward of a model that is `whole`, or `narrowed` to what only some units cut.

    Labels of parameters come from what the dynamic modules of the model follow, and are carried through the forward by the
    rules that `searchable` learned from. Each channel has a number, and 0 stands for what is always there.

    Args:
        model: with dynamic modules.
        kept: as `kept_channels` gives it; channels that are not in it keep what they keep now.
        narrow: whether the model is narrowed.
    """

    def __init__(self, model: nn.Module, kept: Mapping[int, Kept], *, narrow: bool = False) -> None:
        self.model = model
        self.kept = kept
        self.narrow = narrow
        self._reader = Reader()
        self._channels: list[Any] = []
        self._first: dict[int, int] = {}
        self._of_extent: dict[int, Dim] = {}
        self._amounts: dict[Any, Size] = {}
        self._attributes: dict[tuple[int, str, int | None], Dim] = {}
        self._owner: Ids = np.zeros(1, dtype=np.int64)
        self._index: Ids = np.zeros(1, dtype=np.int64)
        self._label_model()

    # ---- labels ------------------------------------------------------------------------------------------------------

    def _label_model(self) -> None:
        for _, module, state in dynamic_modules(self.model):
            for name, extents in state.tensors.items():
                tensor = held(module, name)
                if tensor is not None:
                    followed = dict(extents)
                    labels = tuple(self._dim(followed[d]) if d in followed else () for d in range(tensor.dim()))
                    self._reader.set_labels(tensor, labels)
            for name, sizes in state.sizes.items():
                for size in sizes:
                    self._attributes[id(module), name, size.index] = self._product(size)

    def _dim(self, extent: Extent) -> Dim:
        """The labels along a dimension."""
        if id(extent) not in self._of_extent:
            components = []
            for which, index in extent.components:
                ids = np.full(len(extent.channels) + 1, ALWAYS, dtype=np.int64)
                ids[:-1] = [self._number(channel) for channel in extent.channels]
                component = np.where(which >= 0, ids[which] + index, ALWAYS)
                components.append(component[extent.alive()] if self.narrow else component)
            self._of_extent[id(extent)] = tuple(components)
        return self._of_extent[id(extent)]

    def _number(self, channel: Any) -> int:
        """The number of a channel mutable's first channel."""
        if id(channel) not in self._first:
            self._first[id(channel)] = len(self._owner)
            count = int(channel.num_channels)
            self._owner = np.concatenate([self._owner, np.full(count, len(self._channels))])
            self._index = np.concatenate([self._index, np.arange(count)])
            self._channels.append(channel)
        return self._first[id(channel)]

    def _product(self, size: FollowedSize) -> Dim:
        dims = [self._dim(extent) for extent in size.extents]
        sizes = [extent.count() if self.narrow else extent.size for extent in size.extents]
        return self._reader.algebra.merge([*dims, ()], [*sizes, size.factor])

    # ---- a forward ---------------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Inside it, the model's forward keeps labels where only sizes, as plain numbers, carry them."""
        with self._reader.reading(self.model, self._attributes):
            yield

    def see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Label what a kernel gave."""
        self._reader.see(func, args, kwargs, out)

    def shape(self, tensor: Tensor) -> tuple[Size, ...]:
        """The live sizes of a tensor's dimensions; plain integers where nothing decides them."""
        labels = self._reader.labels(tensor)
        return tuple(self._size(dim, int(size)) for dim, size in zip(labels, tensor.shape, strict=True))

    def numel(self, tensor: Tensor) -> Size:
        """How many elements are live."""
        total: Size = 1
        for size in self.shape(tensor):
            total = total * size
        return total

    def evaluate(self, formula: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        """What a formula of flops says of the live shapes."""
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
        if all(isinstance(size, int) for x in tensors for size in self.shape(x)):
            return formula(*args, **kwargs, out_val=out)
        # Torch passes shapes to most formulas, and says so by wrapping them; others take tensors.
        read = self.shape if hasattr(formula, "__wrapped__") else lambda x: _Shaped(self.shape(x))
        args, kwargs, out = tree_map_only(Tensor, read, (args, kwargs, out))
        try:
            return formula(*args, **kwargs, out_val=out)
        except (AssertionError, AttributeError, TypeError) as error:
            raise CostError(
                f"the formula of {getattr(formula, '__name__', formula)} fails on live shapes: {error}"
            ) from error

    def _size(self, dim: Dim, size: int) -> Size:
        if not dim:
            return size
        key = tuple(component.tobytes() for component in dim)
        if key not in self._amounts:
            self._amounts[key] = self._count(distinct(list(dim)), size)
        return self._amounts[key]

    def _count(self, components: list[Ids], size: int) -> Size:
        """How many positions are live, where each component's channel has to be."""
        if not components:
            return size
        columns, counts = np.unique(np.stack(components), axis=1, return_counts=True)
        owners = np.where(columns == ALWAYS, -1, self._owner[columns])
        total: Size = 0
        for pattern in np.unique(owners, axis=1).T:
            here = (owners == pattern[:, None]).all(axis=0)
            total = total + self._run(pattern, self._index[columns[:, here]], counts[here])
        return total

    def _run(self, owners: Ids, index: Ids, counts: Ids) -> Size:
        """As `_count`, where all positions are decided by the same channel mutables."""
        live: dict[int, NDArray[np.int64]] = defaultdict(lambda: np.ones((1, len(counts)), dtype=np.int64))
        weights = counts.astype(np.int64)
        for owner, places in zip(owners.tolist(), index, strict=True):
            if owner < 0:
                continue
            channel = self._channels[owner]
            kept = self.kept.get(id(channel))
            if kept is None:
                weights = weights * as_mask(channel.active(), channel.num_channels).numpy()[places]
            else:
                live[kept.decision] = live[kept.decision] * kept.masks[:, places]
        decisions = tuple(sorted(live))
        operands: list[Any] = []
        for axis, decision in enumerate(decisions):
            operands += [live[decision], [axis, len(decisions)]]
        table = np.einsum(weights, [len(decisions)], *operands, list(range(len(decisions))))
        return Amount({decisions: table}) if decisions else int(table)


class _Shaped:
    """What formulas read of a tensor."""

    is_nested = False

    def __init__(self, shape: tuple[Size, ...]) -> None:
        self.shape = shape
        self.ndim = len(shape)

    def dim(self) -> int:
        return self.ndim

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> Size:
        return math.prod(self.shape)
