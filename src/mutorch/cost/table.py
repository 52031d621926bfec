"""The exact costs of every architecture of a space, as tables built once."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mutorch.errors import CostError, nearest
from mutorch.mutables import MutableModule
from mutorch.mutators import Mutator, walk
from mutorch.space import Architecture, Choice, SearchSpace

from .count import MEGABYTE, Costs
from .example_inputs import ExampleInputs
from .factors import Codes, Factors
from .observe import Context, Convention, Observation, observe

METRICS = ("macs", "flops", "params", "act_mem_mb", "size_mb")
"""What a budget can bound; see `Costs`."""
_SCALE = {"macs": ("flops", 0.5), "flops": ("flops", 1), "params": ("params", 1)} | {
    "act_mem_mb": ("activation_bytes", 1 / MEGABYTE),
    "size_mb": ("bytes", 1 / MEGABYTE),
}
Assignment = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class CostTable:
    """What every architecture of a space costs, exactly: a candidate costs microseconds, a million one numpy call.

    Built from a handful of observed forwards: one that runs every candidate, and, where values or candidates change the
    shapes that later layers see, one for each combination that matters. Equal to counting the exported model.

    Attributes:
        space: the space whose architectures it prices.
        uncounted: operations that have no formula and count as none, by how often they ran.

    Example:
        >>> import torch
        >>> from mutorch.mutables import OneShotMutableOP
        >>> op = OneShotMutableOP({"conv": nn.Conv2d(4, 4, 1, bias=False), "skip": nn.Identity()})
        >>> table = CostTable.from_model(Mutator(nn.Sequential(op)), torch.zeros(1, 4, 2, 2))
        >>> table({"0": "conv"}).macs, table({"0": "skip"}).macs
        (64, 0)
    """

    space: SearchSpace
    uncounted: Mapping[str, int]
    _factors: Mapping[str, Factors]

    @classmethod
    def from_model(
        cls,
        mutator: Mutator,
        example_inputs: ExampleInputs,
        *,
        convention: Convention = "mac",
        max_observations: int = 2000,
        num_checks: int = 3,
    ) -> "CostTable":
        """The table of the mutator's model. The model is as before afterwards.

        Args:
            example_inputs: counted as given: use a batch of one for costs per sample.
            convention: see `count`.
            max_observations: how many forwards may be spent on decisions that act on each other.
            num_checks: how many random architectures are counted directly and compared.

        Errors:
            CostError: decisions that act on each other in too many combinations, or in a way that the table misses;
                they are named.
        """
        builder = _Builder(mutator, example_inputs, convention, max_observations)
        with mutator.at(mutator.current_choices):
            return builder.build(num_checks)

    def __call__(self, architecture: Mapping[str, Choice]) -> Costs:
        """The costs of one architecture.

        Errors:
            SpaceError, ChoiceError: not an architecture of the space.
        """
        codes = np.array([self.space.encode(architecture)], dtype=np.intp)
        value = {metric: self.evaluate(codes, metric)[0] for metric in ("macs", "params", "act_mem_mb", "size_mb")}
        return Costs(int(value["macs"]), int(value["params"]), float(value["act_mem_mb"]), float(value["size_mb"]))

    def evaluate(self, codes: Codes, metric: str) -> NDArray[np.number]:
        """One metric of many architectures.

        Args:
            codes: an integer array (architectures, decisions) as `SearchSpace.encode` numbers choices.
            metric: one of `METRICS`.
        """
        name, scale = self._metric(metric)
        raw = self._factors[name].evaluate(codes)
        return raw // 2 if metric == "macs" else raw * scale

    def cheapest(self, metric: str = "macs") -> Architecture:
        """The architecture with the smallest value of `metric`, exactly."""
        return self.space.canonical(self.space.decode(self._factors[self._metric(metric)[0]].minimum()))

    def largest(self, metric: str = "macs") -> Architecture:
        """The architecture with the largest value of `metric`, exactly."""
        return self.space.canonical(self.space.decode(self._factors[self._metric(metric)[0]].negated().minimum()))

    def reachable(self, metric: str) -> tuple[float, float]:
        """The smallest and largest value of `metric` in the space."""
        return self(self.cheapest(metric))[metric], self(self.largest(metric))[metric]

    @staticmethod
    def _metric(metric: str) -> tuple[str, float]:
        if metric not in _SCALE:
            raise CostError(f"no metric {metric!r}; {nearest(metric, METRICS)}")
        return _SCALE[metric]


class _Builder:
    """Observes a model until every operation's cost is a table over the decisions that it depends on."""

    def __init__(
        self, mutator: Mutator, example_inputs: ExampleInputs, convention: Convention, max_observations: int
    ) -> None:
        self.mutator = mutator
        self.space = mutator.space
        self.index = {name: number for number, name in enumerate(self.space.names)}
        self.counts = tuple(len(decision.choices) for decision in self.space)
        self.example_inputs = example_inputs
        self.convention: Convention = convention
        self.max_observations = max_observations
        self.decisions = {id(m): name for name, mutables in mutator.search_groups.items() for m in mutables}
        # Decisions that one forward cannot show all choices of: values, and candidates that change shapes.
        self.alone = frozenset(
            name
            for name, mutables in mutator.search_groups.items()
            if not all(isinstance(m, MutableModule) and m.candidates for m in mutables)
        )
        self.base = self.space.default
        self._seen: dict[Assignment, Observation] = {}

    def build(self, num_checks: int) -> CostTable:
        while reshaping := self.observe(()).reshaping - self.alone:
            self.alone |= reshaping
            self._seen.clear()
        flops, activation = self._executed("flops"), self._executed("activation_bytes")
        params, size = self._stored()
        factors = {"flops": flops, "activation_bytes": activation, "params": params, "bytes": size}
        table = CostTable(self.space, dict(self.observe(()).uncounted), factors)
        self._check(table, num_checks)
        return table

    def observe(self, assignment: Assignment) -> Observation:
        """The costs with some of the `alone` decisions moved away from the base."""
        if assignment not in self._seen:
            if len(self._seen) >= self.max_observations:
                raise CostError(
                    f"more than {self.max_observations} forwards would be needed: "
                    f"{', '.join(repr(name) for name, _ in assignment)} act on each other's costs; "
                    "raise max_observations, or give fewer choices"
                )
            moved = {name: self.space[name].choices[code] for name, code in assignment}
            self._seen[assignment] = self._observe_at({**self.base, **moved}, self.alone)
        return self._seen[assignment]

    def _observe_at(self, architecture: Architecture, alone: frozenset[str]) -> Observation:
        self.mutator.set_choices(architecture)
        return observe(
            self.mutator.model,
            self.example_inputs,
            convention=self.convention,
            decisions=self.decisions,
            alone=alone,
        )

    # ---- what runs -----------------------------------------------------------------------------------------------

    def _executed(self, field: str) -> Factors:
        """The costs of what runs: each operation's context, times a table over the values that it depends on."""
        base: Counter[tuple[Context, str]] = getattr(self.observe(()), field)
        depends: dict[tuple[Context, str], list[str]] = defaultdict(list)
        for name in sorted(self.alone, key=self.index.__getitem__):
            for code in self._other_codes(name):
                for key in _differing(base, getattr(self.observe(((name, code),)), field)):
                    if name not in depends[key]:
                        depends[key].append(name)
        tables: dict[tuple[int, ...], NDArray[np.int64]] = {}
        keys = list(dict.fromkeys([*base, *depends]))
        grouped: dict[tuple[Context, tuple[str, ...]], list[tuple[Context, str]]] = defaultdict(list)
        for key in keys:
            grouped[key[0], tuple(depends[key])].append(key)
        for (context, values), members in grouped.items():
            total = np.zeros([len(self.space[name].choices) for name in values], dtype=np.int64)
            for codes in itertools.product(*(range(n) for n in total.shape)):
                moved = [(v, c) for v, c in zip(values, codes, strict=True) if c != self._base_code(v)]
                seen: Counter[tuple[Context, str]] = getattr(self.observe(tuple(moved)), field)
                total[codes] = sum(seen[key] for key in members)
            self._add(tables, [context], values, total)
        return Factors(self.counts, tables)

    def _other_codes(self, name: str) -> list[int]:
        return [code for code in range(len(self.space[name].choices)) if code != self._base_code(name)]

    def _base_code(self, name: str) -> int:
        return self.space[name].index(self.base[name])

    # ---- what is stored ------------------------------------------------------------------------------------------

    def _stored(self) -> tuple[Factors, Factors]:
        """Parameters, and bytes of parameters and buffers: a tensor counts where any module that holds it is kept."""
        holders: dict[int, set[Context]] = defaultdict(set)
        sizes: dict[int, tuple[int, int]] = {}
        names = {path: self.decisions[id(m)] for path, m, _ in walk(self.mutator.model) if id(m) in self.decisions}
        for _, module, inside in walk(self.mutator.model):
            context = tuple((names[path], choice) for path, choice in inside)
            for tensor in _own_tensors(module):
                holders[id(tensor)].add(context)
                elements = tensor.numel() if isinstance(tensor, nn.Parameter) else 0
                sizes[id(tensor)] = (elements, tensor.numel() * tensor.element_size())
        totals: Counter[frozenset[Context]] = Counter()
        bytes_: Counter[frozenset[Context]] = Counter()
        for tensor_id, contexts in holders.items():
            totals[frozenset(contexts)] += sizes[tensor_id][0]
            bytes_[frozenset(contexts)] += sizes[tensor_id][1]
        return self._from_contexts(totals), self._from_contexts(bytes_)

    def _from_contexts(self, totals: Counter[frozenset[Context]]) -> Factors:
        tables: dict[tuple[int, ...], NDArray[np.int64]] = {}
        for contexts, total in totals.items():
            self._add(tables, contexts, (), np.int64(total))
        return Factors(self.counts, tables)

    # ---- tables --------------------------------------------------------------------------------------------------

    def _add(
        self,
        tables: dict[tuple[int, ...], NDArray[np.int64]],
        contexts: Iterable[Context],
        values: Sequence[str],
        total: NDArray[np.int64] | np.int64,
    ) -> None:
        """Add `total`, a table over `values`, where any of the contexts holds."""
        contexts = [()] if () in contexts else list(contexts)
        asked = {name for context in contexts for name, _ in context}
        key = tuple(sorted(self.index[name] for name in asked | set(values)))
        holds = np.zeros([self.counts[i] for i in key], dtype=bool)
        for context in contexts:
            here = np.ones_like(holds)
            for name, choice in context:
                code = self.space[name].index(choice)
                here &= self._along(np.arange(len(self.space[name].choices)) == code, [name], key)
            holds |= here
        term = holds * self._along(np.asarray(total), values, key)
        tables[key] = tables[key] + term if key in tables else term

    def _along(self, array: NDArray[np.generic], names: Sequence[str], key: tuple[int, ...]) -> NDArray[np.generic]:
        """`array`, whose axes are the decisions `names`, with its axes placed as `key` orders them."""
        axes = [self.index[name] for name in names]
        ordered = np.transpose(array, np.argsort(axes)) if axes else array
        return ordered.reshape([self.counts[i] if i in axes else 1 for i in key])

    def _check(self, table: CostTable, num_checks: int) -> None:
        for number in range(num_checks):
            architecture = self.space.sample(number)
            observation = self._observe_at(architecture, frozenset(self.space.names))
            counted, said = observation.flops.total() // 2, table(architecture).macs
            if counted != said:
                raise CostError(
                    f"the table says {said} macs where a forward counts {counted}, at {architecture}: the decisions "
                    f"{', '.join(sorted(self.alone)) or 'of this model'} act on each other in a way that changing one "
                    "at a time does not show"
                )


def _own_tensors(module: nn.Module) -> list[nn.Parameter]:
    return [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]  # type: ignore[misc]


def _differing(one: Counter[tuple[Context, str]], other: Counter[tuple[Context, str]]) -> list[tuple[Context, str]]:
    return [key for key in dict.fromkeys([*one, *other]) if one[key] != other[key]]
