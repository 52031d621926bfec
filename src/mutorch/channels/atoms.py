"""Which channels live and die together: union-find over atoms, some of which stand for a conjunction of two others."""

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
ALWAYS = 0
"""The atom of what is always there."""
ANYTHING = 1
"""The atom of a position that may be any channel's: what is compared with it agrees."""


class Atoms:
    """The smallest things that may be removed, and what is known of them.

    A position of a tensor's dimension is *live* where all its atoms are. Uniting two atoms makes them one. An atom can be
    *defined* as the conjunction of two others (a channel of an attention layer lives where its head and its place in the
    head do), and *frozen*: it is always live, for a reason that is kept.
    """

    def __init__(self) -> None:
        self._parent = np.zeros(1024, dtype=np.int64)
        self._first = np.zeros(1024, dtype=np.int64)
        self._second = np.zeros(1024, dtype=np.int64)
        self._frozen = np.zeros(1024, dtype=np.int64)
        self._frozen[ALWAYS] = 1
        self._parent[ANYTHING] = ANYTHING
        self._count = 2
        self.reasons: list[str] = ["", "constant"]

    def __len__(self) -> int:
        return self._count

    def new(self, count: int) -> Ids:
        """`count` new atoms, free and different from all others."""
        while self._count + count > len(self._parent):
            for name in ("_parent", "_first", "_second", "_frozen"):
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.zeros_like(old)]))
        ids = np.arange(self._count, self._count + count, dtype=np.int64)
        self._parent[ids] = ids
        self._count += count
        return ids

    def find(self, ids: Ids) -> Ids:
        """The representative of each atom."""
        roots: Ids = self._parent[ids]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                break
            roots = above
        self._parent[ids] = roots
        return roots

    def resolve(self, ids: Ids) -> list[Ids]:
        """What the atoms come down to: components of free atoms, `ALWAYS` where there is none.

        Position i is live where every component's atom at i is. Empty: all positions are always live.
        """
        roots = self.find(ids)
        roots = np.where(self._frozen[roots] > 0, ALWAYS, roots)
        defined = self._first[roots] > 0
        if not defined.any():
            return [roots] if roots.any() else []
        parts = self.resolve(np.where(defined, self._first[roots], roots))
        return distinct([*parts, *self.resolve(np.where(defined, self._second[roots], ALWAYS))])

    def freeze(self, ids: Ids, reason: str) -> None:
        """Make atoms always live; the first reason is kept."""
        waiting = np.unique(self.find(ids))
        while len(waiting):
            waiting = waiting[self._frozen[waiting] == 0]
            if not len(waiting):
                return
            self.reasons.append(reason)
            self._frozen[waiting] = len(self.reasons) - 1
            defined = waiting[self._first[waiting] > 0]
            waiting = np.unique(self.find(np.concatenate([self._first[defined], self._second[defined]])))

    def reason(self, ids: Ids) -> str | None:
        """Why the first frozen one of these atoms, or of what defines them, is frozen; `None` where all are free."""
        roots = self.find(np.unique(ids))
        found = self._frozen[roots]
        if found.any():
            return self.reasons[int(found[found > 0][0])]
        defined = roots[self._first[roots] > 0]
        return self.reason(np.concatenate([self._first[defined], self._second[defined]])) if len(defined) else None

    def unite(self, one: Ids, other: Ids) -> None:
        """Make the atoms of each pair one."""
        one, other = self.find(one), self.find(other)
        apart = one != other
        if not apart.any():
            return
        pairs = np.unique(np.stack([one[apart], other[apart]]), axis=1)
        for kept, merged in (pairs, pairs[::-1]):
            if (
                len(np.unique(merged)) == len(merged)
                and self._is_plain(merged)
                and not np.isin(merged, self._all_within(kept)).any()
            ):
                self._parent[merged] = kept
                return
        for a, b in pairs.T.tolist():
            self._unite_pair(a, b)

    def define(self, ids: Ids, first: Ids, second: Ids, reason: str) -> None:
        """Let each atom stand for two others; atoms given twice make their definitions equal.

        `reason` is why atoms are frozen where this cannot be: an atom cannot be a part of itself.
        """
        ids, first, second = self.find(ids), self.find(first), self.find(second)
        always = self._frozen[ids] > 0
        if always.any():
            self.freeze(np.concatenate([first[always], second[always]]), reason)
        for atom, a, b in np.unique(np.stack([ids, first, second])[:, ~always], axis=1).T.tolist():
            self._define_one(atom, a, b, reason)

    def _define_one(self, atom: int, first: int, second: int, reason: str) -> None:
        root, a, b = (int(self.find(np.array([x]))[0]) for x in (atom, first, second))
        if self._frozen[root]:
            self.freeze(np.array([a, b]), reason)
        elif self._first[root]:
            self._unite_pair(int(self._first[root]), a)
            self._unite_pair(int(self._second[root]), b)
        elif self._frozen[a] or self._frozen[b]:
            self._unite_pair(root, b if self._frozen[a] else a)
        elif root in self._within(a) or root in self._within(b):
            self.freeze(np.array([root, a, b]), reason)
        else:
            self._first[root], self._second[root] = a, b

    def _within(self, atom: int) -> set[int]:
        """The atom and everything that it is defined by."""
        found: set[int] = set()
        waiting = [atom]
        while waiting:
            root = int(self.find(np.array([waiting.pop()]))[0])
            if root not in found:
                found.add(root)
                waiting += [int(part) for part in (self._first[root], self._second[root]) if part]
        return found

    def _all_within(self, roots: Ids) -> Ids:
        """The atoms and everything that any of them is defined by."""
        found = roots
        while True:
            defined = found[self._first[found] > 0]
            parts = self.find(np.concatenate([self._first[defined], self._second[defined]]))
            new = np.setdiff1d(parts, found)
            if not len(new):
                return found
            found = np.concatenate([found, new])

    def _is_plain(self, roots: Ids) -> bool:
        return not (self._first[roots].any() or self._frozen[roots].any())

    def _unite_pair(self, a: int, b: int) -> None:
        a, b = (int(x) for x in self.find(np.array([a, b])))
        if a == b:
            return
        for frozen, other in ((a, b), (b, a)):
            if self._frozen[frozen]:
                self.freeze(np.array([other]), self.reasons[int(self._frozen[frozen])])
                return
        if self._first[b] and not self._first[a]:
            a, b = b, a
        if self._first[a] and (b in self._within(a) or (self._first[b] and a in self._within(b))):
            self.freeze(np.array([a, b]), "channels that would be a part of themselves")
            return
        parts = [(int(part[a]), int(part[b])) for part in (self._first, self._second)] if self._first[b] else []
        self._parent[b] = a
        for one, other in parts:
            self._unite_pair(one, other)


def distinct(components: list[Ids]) -> list[Ids]:
    """The components without repetition of an atom at a position, and without empty ones."""
    kept: list[Ids] = []
    for component in components:
        for before in kept:
            component = np.where(component == before, ALWAYS, component)
        if component.any():
            kept.append(component)
    return kept
