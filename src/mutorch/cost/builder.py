"""From observed forwards to exact tables."""

import functools
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mutorch.channels import MutableChannelUnit
from mutorch.errors import CostError, SpaceError
from mutorch.mutables import BaseMutable, MutableModule
from mutorch.mutators import Mutator
from mutorch.space import Architecture, random_at
from mutorch.utils import ExampleInputs

from .amount import Amount, along, check_entries
from .declared import DeclaredSizes, is_declared
from .factors import Factors
from .live import Kept, LiveSizes, kept_channels
from .observe import Context, Convention, Observation, observe
from .static import narrowed, whole
from .stored import stored

Key = tuple[Context, str]
Codes = Sequence[int]
Moved = Mapping[str, int]
Tables = dict[tuple[int, ...], NDArray[np.int64]]

_FEW = 64
"""Combinations of decisions that are all looked at."""


class FactorsBuilder:
    """Observes a model until every operation's cost is a table over the decisions that it depends on.

    Each forward runs every candidate of every module, so what happens inside a candidate is always seen. Values, and
    candidates whose outputs differ in shape, change what runs elsewhere: these decisions are *moved* away from a base
    architecture, one at a time and then, where a random architecture shows that two hide each other, together.

    Widths of a searchable model are not moved: it is observed with all channels, and costs are `Amount`s, which say how
    they depend on the widths. Only a width of one channel is, where a model may do something else.
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
        groups = mutator.search_groups.items()
        widths = [name for name, members in groups if all(_is_width(m) for m in members)]
        self.kept = kept_channels(mutator, widths)
        self.widths = {self.index[name] for name in widths}
        # Decisions of which one forward shows only the current choice.
        self.opaque = frozenset(
            name
            for name, mutables in groups
            if name not in widths and not all(isinstance(m, MutableModule) and m.runs_anywhere for m in mutables)
        )
        # The largest: a small depth would hide what the layers beyond it depend on.
        base = self.space.encode(self.space.max)
        # Widths at their largest, whatever constraints say: all channels are observed in any case.
        self.base = tuple(d.index(d.largest) if d.name in widths else n for d, n in zip(self.space, base, strict=True))
        # A dimension of one position has no order in memory: views stand in for copies, kernels for others.
        self.ones = _ones(self.kept, self.base)
        self.moving = set(self.opaque)
        self.depends: dict[Key, set[str]] = defaultdict(set)
        self._moved: set[str] = set()
        self._shapes: dict[str, dict[int, int]] = {}
        self._first_alike: dict[str, dict[int, int]] = {}
        self._seen: dict[tuple[tuple[str, int], ...], Observation] = {}
        self._shown: dict[frozenset[tuple[str, int]], Observation] = {}  # by decisions moved, and held at the base

    def build(self, num_checks: int) -> dict[str, Factors]:
        """Factors of `flops`, `activation_bytes`, `params` and `bytes`."""
        self._suspect_ones(num_checks)
        self._move_each()
        samples = [self.space.encode(self.space.sample(number)) for number in range(num_checks)]
        if self.kept and num_checks:
            samples.append(self.space.encode(self.space.min))
        for codes in self._revealing(samples) * 2:  # what one shows may concern those before it
            self._refine(codes)
        params, size = self._stored()
        self._observe_together()
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
        assignment = self._assignment(moved)
        away = dict(assignment)
        if assignment not in self._seen:
            if len(self._seen) >= self.max_observations:
                raise self._too_many(away, f"more than {self.max_observations} forwards")
            codes = [away.get(name, code) for name, code in zip(self.space.names, self.base, strict=True)]
            architecture = self.space.decode(codes)
            if not self.space.constraints or architecture in self.space:
                observation = self._observe_at(architecture, away)
            else:
                observation = self._observe_near(architecture, away)
            self._seen[assignment] = observation
            self._learn(observation)
        return self._seen[assignment]

    def _assignment(self, moved: Moved) -> tuple[tuple[str, int], ...]:
        """What of these moves leads away from the base."""
        away = {name: self._alike(name, code) for name, code in moved.items() if self._is_away(name, code)}
        return tuple(sorted(away.items()))

    def _observe_at(self, architecture: Architecture, away: Moved) -> Observation:
        self.mutator.set_choices(architecture, obey=False)
        cut = {self.index[name] for name in away} & self.widths
        with narrowed(self.mutator.model) if cut else whole(self.mutator.model):
            free = {number: kept for number, kept in self.kept.items() if kept.decision not in cut}
            live = LiveSizes(self.mutator.model, free, narrow=bool(cut)) if self.kept else None
            return self._observe(self.opaque, live)

    def _observe_near(self, architecture: Architecture, away: Moved) -> Observation:
        """Run what constraints rule out: it shows what its parts cost. Where the model cannot, run the nearest allowed."""
        try:
            return self._observe_at(architecture, away)
        except Exception:
            try:
                near = self.space.repair(architecture, {name: architecture[name] for name in away})
            except SpaceError:  # nothing allowed has these choices: nobody asks what they cost
                return Observation()
            return self._observe_at(near, away)

    def _learn(self, observation: Observation) -> None:
        """Which decisions change what runs elsewhere, and which of their choices do not differ there."""
        for name, shapes in observation.reshaping.items():
            known = self._shapes.get(name, {})
            codes = {self.space[name].index(choice): shape for choice, shape in shapes.items()}
            both = {code: (known.get(code), shape) for code, shape in codes.items()}
            classes = {pair: number for number, pair in enumerate(dict.fromkeys(both.values()))}
            self._shapes[name] = {code: classes[pair] for code, pair in both.items()}
            first = {number: code for code, number in reversed(self._shapes[name].items())}
            base = self.base[self.index[name]]
            first[self._shapes[name][base]] = base
            self._first_alike[name] = {code: first[number] for code, number in self._shapes[name].items()}
            if len(classes) > len(set(known.values())):
                self._moved.discard(name)  # more of its choices differ than were looked at
            self.moving.add(name)

    def _alike(self, name: str, code: int) -> int:
        """The choice to run in place of one whose output has the same shape: costs elsewhere are equal."""
        return self._first_alike[name][code] if name in self._first_alike else code

    def _is_away(self, name: str, code: int) -> bool:
        """Whether a forward at the base does not show what a choice costs."""
        number = self.index[name]
        if number in self.widths:
            return code in self.ones.get(number, ())
        return self._alike(name, code) != self.base[number]

    def _cost(self, key: Key, at: Moved, cut: Moved) -> tuple[Any, ...]:
        """What a key costs at a place, where some widths are cut."""
        observation = self.observe(at)
        codes = {self.index[name]: code for name, code in cut.items() if self.index[name] in self.widths}
        codes = {number: code for number, code in codes.items() if code in self.ones.get(number, ())}
        return tuple(Amount.of(costs[key]).at(codes) for costs in (observation.flops, observation.activation_bytes))

    def _observe(self, alone: frozenset[str], live: LiveSizes | None = None) -> Observation:
        return observe(
            self.mutator.model,
            self.example_inputs,
            convention=self.convention,
            decisions=self.decisions,
            alone=alone,
            live=live,
        )

    def _suspect_ones(self, num_checks: int) -> None:
        """Move widths of one channel where such widths, all of them or some, change what runs."""
        ones = {self.space.names[number]: min(codes) for number, codes in self.ones.items()}
        for trial in range(min(num_checks, 3) if ones else 0):
            some = random_at(trial, "widths of one channel")
            moved = {name: code for name, code in ones.items() if not trial or some.random() < 0.5}
            for key in _keys(self.observe({}), self.observe(moved)):
                if self._cost(key, {}, moved) != self._cost(key, moved, moved):
                    costs = self.observe({}).flops[key], self.observe({}).activation_bytes[key]
                    concerned = {self.space.names[n] for cost in costs for n in Amount.of(cost).decisions}
                    self.moving |= (concerned & set(ones)) or set(ones)

    def _move_each(self) -> None:
        """Note what changes when one decision moves."""
        self.observe({})
        while waiting := sorted(self.moving - self._moved, key=self.index.__getitem__):
            self._moved.update(waiting)
            for name in waiting:
                for code in range(self.counts[self.index[name]]):
                    if self._is_away(name, code) and self._alike(name, code) == code:
                        self._note(name, {}, {name: code})

    def _note(self, name: str, before: Moved, after: Moved) -> None:
        for key in _keys(self.observe(before), self.observe(after)):
            if self._cost(key, before, after) != self._cost(key, after, after):
                self.depends[key].add(name)

    def _revealing(self, samples: Sequence[Codes]) -> list[Codes]:
        """Where decisions that hide each other are looked for: everywhere in a small space, else at ends and samples."""
        moving = sorted(self.index[name] for name in self.moving)
        names = self.space.names
        classes = [
            [c for c in range(self.counts[n]) if self._is_away(names[n], c) and self._alike(names[n], c) == c]
            for n in moving
        ]
        classes = [[self.base[number], *away] for number, away in zip(moving, classes, strict=True)]
        if not samples or not moving:
            return []
        if math.prod(map(len, classes)) > _FEW:
            ends = [self.space.encode(self.space.default), self.space.encode(self.space.min)]
            extremes: list[Codes] = [[0] * len(self.counts), [count - 1 for count in self.counts]]
            return [*ends, *self._allowed(extremes), *samples]
        everywhere: list[Codes] = []
        for moved in itertools.product(*classes):
            codes = list(self.base)
            for number, code in zip(moving, moved, strict=True):
                codes[number] = code
            everywhere.append(codes)
        return [*self._allowed(everywhere), *samples]

    def _allowed(self, places: Sequence[Codes]) -> list[Codes]:
        """Of these, what is in the space."""
        return [codes for codes in places if not self.space.constraints or self.space.decode(codes) in self.space]

    def _refine(self, codes: Codes) -> None:
        """Find dependencies that only show at `codes`."""
        before: tuple[int, ...] = ()
        # Where nothing more is learned, as around what constraints rule out and the model cannot run, the checks decide.
        while before != self._learned():
            before = self._learned()
            self._move_each()
            moved = {name: codes[self.index[name]] for name in self.space.names if name in self.moving}
            there = self.observe(moved)
            wrong = [
                key
                for key in _keys(there, *self._seen.values())
                if self._cost(key, self._known(key, moved), moved) != self._cost(key, moved, moved)
            ]
            if not wrong:
                return
            # From where a cost is predicted to where it is wrong, one decision at a time: one of them changes it.
            known = self._known(wrong[0], moved)
            for name in [name for name in moved if name not in known]:
                further = {**known, name: moved[name]}
                self._note(name, known, further)
                known = further

    def _learned(self) -> tuple[int, ...]:
        return sum(map(len, self.depends.values())), len(self.moving), len(self._moved), len(self._seen)

    def _known(self, key: Key, moved: Moved) -> dict[str, int]:
        """Of the moves, those that are known to change what a key costs."""
        return {name: code for name, code in moved.items() if name in self.depends[key]}

    # ---- what runs -----------------------------------------------------------------------------------------------

    def _executed(self, field: str) -> Factors:
        """The costs of what runs: each operation's context, times a table over the decisions that it depends on."""
        tables: Tables = {}
        for (context, names), members in self._grouped().items():
            alike = self._choices_apart(names)
            moved = tuple(self.index[name] for name in names)
            total = Amount({})
            for codes in itertools.product(*map(dict.fromkeys, alike)):
                seen: Counter[Key] = getattr(self._showing(dict(zip(names, codes, strict=True))), field)
                cost = Amount.of(sum(seen[key] for key in members))
                total += cost * Amount({moved: _where(alike, codes)}) if moved else cost
            self._add(tables, [context], total)
        return Factors(self.counts, tables)

    def _grouped(self) -> dict[tuple[Context, tuple[str, ...]], list[Key]]:
        """The operations, by context and by the decisions that they depend on."""
        grouped: dict[tuple[Context, tuple[str, ...]], list[Key]] = defaultdict(list)
        for key in _keys(*self._seen.values()):
            depends = tuple(sorted(self.depends[key], key=self.index.__getitem__))
            grouped[key[0], depends].append(key)
        return grouped

    def _choices_apart(self, names: Sequence[str]) -> list[list[int]]:
        """For each choice of some decisions, the one to run in its place."""
        alike = [[self._alike(name, code) for code in range(self.counts[self.index[name]])] for name in names]
        needed = math.prod(len(set(codes)) for codes in alike)
        if needed > self.max_observations:
            raise self._too_many(names, f"{needed} forwards")
        return alike

    def _observe_together(self) -> None:
        """Run what operations in different parts of the model need in the same forwards.

        An operation costs the same wherever decisions that it does not depend on are. A width that is cut, and what
        constraints may rule out, run alone.
        """
        if self.space.constraints:
            return
        widths = {self.space.names[number] for number in self.widths}
        waiting: dict[frozenset[tuple[str, int]], dict[str, int]] = {}
        for names in {names for _, names in self._grouped() if widths.isdisjoint(names)}:
            for codes in itertools.product(*map(dict.fromkeys, self._choices_apart(names))):
                moved = dict(zip(names, codes, strict=True))
                if self._assignment(moved) not in self._seen:
                    waiting[frozenset(moved.items())] = moved
        plans: list[dict[str, int]] = []
        planned: list[tuple[frozenset[tuple[str, int]], dict[str, int]]] = []
        for held, moved in sorted(waiting.items(), key=lambda item: (-len(item[1]), sorted(item[1].items()))):
            fits = (plan for plan in plans if all(plan.get(name, code) == code for name, code in held))
            plan = next(fits, None)
            if plan is None:
                plans.append(plan := {})
            plan.update(moved)
            planned.append((held, plan))
        self._shown = {held: self.observe(plan) for held, plan in planned}

    def _showing(self, moved: Moved) -> Observation:
        """A forward with some decisions as asked, moved or at the base; others may be anywhere."""
        shown = self._shown.get(frozenset(moved.items()))
        return self.observe(moved) if shown is None else shown

    # ---- what is stored ------------------------------------------------------------------------------------------

    def _stored(self) -> tuple[Factors, Factors]:
        """Parameters, and bytes of what is saved: a tensor counts where any module that holds it is kept."""
        params: dict[frozenset[Context], Amount] = defaultdict(lambda: Amount({}))
        bytes_: dict[frozenset[Context], Amount] = defaultdict(lambda: Amount({}))
        live = LiveSizes(self.mutator.model, self.kept) if self.kept else None
        declared = DeclaredSizes(self.mutator)
        for tensor, held in stored(self.mutator.model, self.decisions):
            elements = declared.of(tensor, tensor.numel() if live is None else live.numel(tensor))
            params[held] += elements if isinstance(tensor, nn.Parameter) else 0
            bytes_[held] += elements * tensor.element_size()
        return self._from_contexts(params), self._from_contexts(bytes_)

    def _from_contexts(self, totals: Mapping[frozenset[Context], Amount]) -> Factors:
        tables: Tables = {}
        for contexts, total in totals.items():
            self._add(tables, contexts, total)
        return Factors(self.counts, tables)

    # ---- tables --------------------------------------------------------------------------------------------------

    def _add(self, tables: Tables, contexts: Iterable[Context], total: Amount) -> None:
        """Add `total` where any of the contexts holds."""
        contexts = [()] if () in contexts else list(contexts)
        asked = {self.index[name] for context in contexts for name, _ in context}
        key = tuple(sorted(asked))
        self._check_entries(key)
        holds = np.zeros([self.counts[i] for i in key], dtype=np.int64)
        for context in contexts:
            here = np.ones_like(holds)
            for name, choice in context:
                codes = np.arange(len(self.space[name].choices)) == self.space[name].index(choice)
                here &= along(codes.astype(np.int64), (self.index[name],), key)
            holds |= here
        for decisions in total.terms:
            self._check_entries(tuple(sorted({*key, *decisions})))
        for decisions, term in (total * Amount({key: holds})).terms.items():
            tables[decisions] = tables[decisions] + term if decisions in tables else term

    def _check_entries(self, key: tuple[int, ...]) -> None:
        try:
            check_entries(tuple(self.counts[i] for i in key))
        except CostError as error:
            raise CostError(
                f"{error}: candidates of {_listed(self.space.names[i] for i in key)} "
                "share tensors or act on each other; give these decisions one alias, or their candidates tensors of their own"
            ) from None

    # ---- errors --------------------------------------------------------------------------------------------------

    def _check(self, factors: Mapping[str, Factors], samples: Sequence[Codes]) -> None:
        for sample in samples:
            codes, architecture = np.array([sample]), self.space.decode(sample)
            self.mutator.set_choices(architecture)
            with narrowed(self.mutator.model):
                observation = self._observe(frozenset(self.space.names))
            for field, factor in factors.items():
                counted, said = getattr(observation, field).total(), int(factor.evaluate(codes)[0])
                if counted != said:
                    raise CostError(
                        f"the table says {said} {field} where a forward counts {counted}, at {architecture}: the model "
                        "does something that its choices do not explain, such as reading the choice of a block elsewhere, or working on as many things as it finds in the input"
                    )

    def _too_many(self, names: Iterable[str], needed: str) -> CostError:
        return CostError(
            f"{needed} would be needed: {_listed(names)} act on each other's costs; raise max_observations, or give "
            "fewer choices"
        )


def _keys(*observations: Observation) -> list[Key]:
    fields = itertools.chain.from_iterable((o.flops, o.activation_bytes) for o in observations)
    return list(dict.fromkeys(itertools.chain.from_iterable(fields)))


def _where(alike: Sequence[Codes], codes: Codes) -> NDArray[np.int64]:
    """1 where decisions are at choices alike to `codes`, else 0."""
    same = [np.array(each) == code for each, code in zip(alike, codes, strict=True)]
    table: NDArray[np.int64] = functools.reduce(np.multiply.outer, same).astype(np.int64)
    return table


def _is_width(mutable: BaseMutable[Any, Any]) -> bool:
    return isinstance(mutable, MutableChannelUnit) and not is_declared(mutable)


def _ones(kept: Mapping[int, Kept], base: Codes) -> dict[int, set[int]]:
    """For each decision, the choices that keep a single channel of something; none where the base does not keep all."""
    found: dict[int, set[int]] = defaultdict(set)
    for one in kept.values():
        if not one.masks[base[one.decision]].all():
            return {}
        found[one.decision] |= set(np.flatnonzero(one.masks.sum(axis=1) == 1).tolist()) - {base[one.decision]}
    return {decision: codes for decision, codes in found.items() if codes}


def _listed(names: Iterable[str], limit: int = 8) -> str:
    quoted = [repr(name) for name in names]
    more = f" and {len(quoted) - limit} more" if len(quoted) > limit else ""
    return f"the decisions {', '.join(quoted[:limit])}{more}"
