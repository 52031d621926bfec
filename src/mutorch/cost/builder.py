"""From observed forwards to exact tables."""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from mutorch.errors import CostError
from mutorch.mutables import BaseMutable, MutableModule
from mutorch.mutators import Mutator, walk
from mutorch.space import Architecture
from mutorch.space.decision import key as as_key
from mutorch.utils import ExampleInputs

from .count import stored_tensors
from .factors import Factors
from .observe import Context, Convention, Observation, observe

Key = tuple[Context, str]
Codes = Sequence[int]
Moved = Mapping[str, int]
Tables = dict[tuple[int, ...], NDArray[np.int64]]

_FEW = 64
"""Combinations of decisions that are all looked at."""
_MAX_ENTRIES = 4_000_000
"""The largest table that is made: 32 MB."""


class FactorsBuilder:
    """Observes a model until every operation's cost is a table over the decisions that it depends on.

    Each forward runs every candidate of every module, so what happens inside a candidate is always seen. Values, and
    candidates whose outputs differ in shape, change what runs elsewhere: these decisions are *moved* away from a base
    architecture, one at a time and then, where a random architecture shows that two hide each other, together.
    """

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
        # Decisions of which one forward shows only the current choice.
        self.opaque = frozenset(
            name
            for name, mutables in mutator.search_groups.items()
            if not all(isinstance(m, MutableModule) and m.candidates for m in mutables)
        )
        self.moving = set(self.opaque)
        # The largest: a small depth would hide what the layers beyond it depend on.
        self.base = self.space.encode(self.space.max)
        self.depends: dict[Key, set[str]] = defaultdict(set)
        self._moved: set[str] = set()
        self._seen: dict[tuple[tuple[str, int], ...], Observation] = {}

    def build(self, num_checks: int) -> dict[str, Factors]:
        """Factors of `flops`, `activation_bytes`, `params` and `bytes`."""
        self._move_each()
        samples = [self.space.encode(self.space.sample(number)) for number in range(num_checks)]
        for codes in self._revealing(samples) * 2:  # what one shows may concern those before it
            self._refine(codes)
        params, size = self._stored()
        factors = {field: self._executed(field) for field in ("flops", "activation_bytes")}
        self._check(factors, samples)
        return {**factors, "params": params, "bytes": size}

    @property
    def uncounted(self) -> dict[str, int]:
        """Operations without a formula, and how often they ran in one forward, at most."""
        total: Counter[str] = Counter()
        for observation in self._seen.values():
            total |= observation.uncounted
        return dict(total)

    # ---- what depends on what ------------------------------------------------------------------------------------

    def observe(self, moved: Moved) -> Observation:
        """The costs with some decisions moved away from the base."""
        away = {name: code for name, code in moved.items() if code != self.base[self.index[name]]}
        assignment = tuple(sorted(away.items()))
        if assignment not in self._seen:
            if len(self._seen) >= self.max_observations:
                raise self._too_many(away, f"more than {self.max_observations} forwards")
            codes = [away.get(name, code) for name, code in zip(self.space.names, self.base, strict=True)]
            observation = self._observe_at(self.space.decode(codes), self.opaque)
            self._seen[assignment] = observation
            self.moving |= observation.reshaping
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

    def _move_each(self) -> None:
        """Note what changes when one decision moves."""
        self.observe({})
        while waiting := sorted(self.moving - self._moved, key=self.index.__getitem__):
            for name in waiting:
                for code in range(self.counts[self.index[name]]):
                    self._note(name, {}, {name: code})
            self._moved.update(waiting)

    def _note(self, name: str, before: Moved, after: Moved) -> None:
        one, other = self.observe(before), self.observe(after)
        for key in _keys(one, other):
            if _cost(one, key) != _cost(other, key):
                self.depends[key].add(name)

    def _revealing(self, samples: Sequence[Codes]) -> list[Codes]:
        """Where decisions that hide each other are looked for: everywhere in a small space, else at ends and samples."""
        moving = sorted(self.index[name] for name in self.moving)
        counts = [self.counts[number] for number in moving]
        if not samples or not moving:
            return []
        if math.prod(counts) > _FEW:
            ends = [self.space.encode(self.space.default), self.space.encode(self.space.min)]
            return [*ends, [0] * len(self.counts), [count - 1 for count in self.counts], *samples]
        everywhere: list[Codes] = []
        for moved in np.ndindex(*counts):
            codes = list(self.base)
            for number, code in zip(moving, moved, strict=True):
                codes[number] = code
            everywhere.append(codes)
        return [*everywhere, *samples]

    def _refine(self, codes: Codes) -> None:
        """Find dependencies that only show at `codes`."""
        while True:
            self._move_each()
            moved = {name: codes[self.index[name]] for name in self.space.names if name in self.moving}
            there = self.observe(moved)
            wrong = [
                key for key in _keys(there, *self._seen.values()) if self._predicted(key, moved) != _cost(there, key)
            ]
            if not wrong:
                return
            # From where a cost is predicted to where it is wrong, one decision at a time: one of them changes it.
            known = {name: code for name, code in moved.items() if name in self.depends[wrong[0]]}
            for name in [name for name in moved if name not in known]:
                further = {**known, name: moved[name]}
                self._note(name, known, further)
                known = further

    def _predicted(self, key: Key, moved: Moved) -> tuple[int, int]:
        return _cost(self.observe({name: code for name, code in moved.items() if name in self.depends[key]}), key)

    # ---- what runs -----------------------------------------------------------------------------------------------

    def _executed(self, field: str) -> Factors:
        """The costs of what runs: each operation's context, times a table over the decisions that it depends on."""
        tables: Tables = {}
        grouped: dict[tuple[Context, tuple[str, ...]], list[Key]] = defaultdict(list)
        for key in _keys(*self._seen.values()):
            depends = tuple(sorted(self.depends[key], key=self.index.__getitem__))
            grouped[key[0], depends].append(key)
        for (context, names), members in grouped.items():
            shape = [self.counts[self.index[name]] for name in names]
            if math.prod(shape) > self.max_observations:
                raise self._too_many(names, f"{math.prod(shape)} forwards")
            total = np.zeros(shape, dtype=np.int64)
            for codes in np.ndindex(*shape):
                seen: Counter[Key] = getattr(self.observe(dict(zip(names, codes, strict=True))), field)
                total[codes] = sum(seen[key] for key in members)
            self._add(tables, [context], names, total)
        return Factors(self.counts, tables)

    # ---- what is stored ------------------------------------------------------------------------------------------

    def _stored(self) -> tuple[Factors, Factors]:
        """Parameters, and bytes of what is saved: a tensor counts where any module that holds it is kept."""
        holders: dict[int, set[Context]] = defaultdict(set)
        tensors: dict[int, Tensor] = {}
        at = {path: m for path, m, _ in walk(self.mutator.model) if id(m) in self.decisions}
        for _, module, inside in walk(self.mutator.model):
            around = [self._holding(at[path], candidate) for path, candidate in inside]
            for context in itertools.product(*around):
                for stored_in, kept in self._kept(module, context):
                    for tensor in stored_tensors(kept):
                        holders[id(tensor)].add(stored_in)
                        tensors[id(tensor)] = tensor
        params: Counter[frozenset[Context]] = Counter()
        bytes_: Counter[frozenset[Context]] = Counter()
        for number, held in holders.items():
            tensor = tensors[number]
            params[frozenset(held)] += tensor.numel() if isinstance(tensor, nn.Parameter) else 0
            bytes_[frozenset(held)] += tensor.numel() * tensor.element_size()
        return self._from_contexts(params), self._from_contexts(bytes_)

    def _kept(self, module: nn.Module, context: Context) -> Iterable[tuple[Context, nn.Module]]:
        """What an export keeps of one module, and where: of a mutable nothing but what its choice stands for."""
        if not isinstance(module, BaseMutable):
            yield context, module
        elif isinstance(module, MutableModule) and not module.candidates:
            for choice in module.choices:
                for kept in module.chosen_module(choice).modules():
                    yield (*context, (self.decisions[id(module)], choice)), kept

    def _holding(self, module: nn.Module, candidate: str) -> Context:
        """The `(decision, choice)` pairs of which each keeps the candidate."""
        if not isinstance(module, MutableModule):
            return ()
        name = self.decisions[id(module)]
        return tuple((name, as_key(choice)) for choice in module.decision_choices if module.keeps(choice, candidate))

    def _from_contexts(self, totals: Counter[frozenset[Context]]) -> Factors:
        tables: Tables = {}
        for contexts, total in totals.items():
            self._add(tables, contexts, (), np.int64(total))
        return Factors(self.counts, tables)

    # ---- tables --------------------------------------------------------------------------------------------------

    def _add(
        self,
        tables: Tables,
        contexts: Iterable[Context],
        names: Sequence[str],
        total: NDArray[np.int64] | np.int64,
    ) -> None:
        """Add `total`, a table over the decisions `names`, where any of the contexts holds."""
        contexts = [()] if () in contexts else list(contexts)
        asked = {name for context in contexts for name, _ in context}
        key = tuple(sorted(self.index[name] for name in asked | set(names)))
        shape = [self.counts[i] for i in key]
        if math.prod(shape) > _MAX_ENTRIES:
            raise CostError(
                f"a table of {math.prod(shape)} entries would be needed: candidates of {_listed(self.space.names[i] for i in key)} "
                "share tensors or act on each other; give these decisions one alias, or their candidates tensors of their own"
            )
        holds = np.zeros(shape, dtype=bool)
        for context in contexts:
            here = np.ones_like(holds)
            for name, choice in context:
                code = self.space[name].index(choice)
                here &= self._along(np.arange(len(self.space[name].choices)) == code, [name], key)
            holds |= here
        term = holds * self._along(np.asarray(total), names, key)
        tables[key] = tables[key] + term if key in tables else term

    def _along(self, array: NDArray[np.generic], names: Sequence[str], key: tuple[int, ...]) -> NDArray[np.generic]:
        """`array`, whose axes are the decisions `names` in order, with its axes placed as `key` has them."""
        axes = [self.index[name] for name in names]
        return array.reshape([self.counts[i] if i in axes else 1 for i in key])

    # ---- errors --------------------------------------------------------------------------------------------------

    def _check(self, factors: Mapping[str, Factors], samples: Sequence[Codes]) -> None:
        for sample in samples:
            codes, architecture = np.array([sample]), self.space.decode(sample)
            observation = self._observe_at(architecture, frozenset(self.space.names))
            for field, factor in factors.items():
                counted, said = getattr(observation, field).total(), int(factor.evaluate(codes)[0])
                if counted != said:
                    raise CostError(
                        f"the table says {said} {field} where a forward counts {counted}, at {architecture}: the model "
                        "does something that its choices do not explain, such as reading the choice of a block elsewhere"
                    )

    def _too_many(self, names: Iterable[str], needed: str) -> CostError:
        return CostError(
            f"{needed} would be needed: {_listed(names)} act on each other's costs; raise max_observations, or give "
            "fewer choices"
        )


def _keys(*observations: Observation) -> list[Key]:
    fields = itertools.chain.from_iterable((o.flops, o.activation_bytes) for o in observations)
    return list(dict.fromkeys(itertools.chain.from_iterable(fields)))


def _cost(observation: Observation, key: Key) -> tuple[int, int]:
    return observation.flops[key], observation.activation_bytes[key]


def _listed(names: Iterable[str], limit: int = 8) -> str:
    quoted = [repr(name) for name in names]
    more = f" and {len(quoted) - limit} more" if len(quoted) > limit else ""
    return f"the decisions {', '.join(quoted[:limit])}{more}"
