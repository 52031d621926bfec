"""What the constraints of a space allow, for many architectures at once."""

from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutorch.errors import CostError
from mutorch.space import SearchSpace
from mutorch.space.tied import Tied

from .factors import Codes, Factors, Key

TABLED = 100_000
"""Combinations of tied decisions up to which there is a table of those that are allowed."""
_REDRAWN = 64


class Allowed:
    """The constraints of a space over codes, as `SearchSpace.encode` numbers choices.

    Of decisions that constraints tie together, a table says which combinations are allowed. Where they have more than
    100,000, architectures are looked at one by one.

    Example:
        >>> from mutorch.space import Decision, Ref
        >>> depth, width = Decision("depth", (2, 3, 4)), Decision("width", (16, 32))
        >>> allowed = Allowed(SearchSpace([depth, width], [Ref("depth") * Ref("width") <= 64]))
        >>> allowed.mask(np.array([[0, 1], [2, 0], [2, 1]]))
        array([ True,  True, False])
    """

    def __init__(self, space: SearchSpace) -> None:
        self._counts = tuple(len(decision.choices) for decision in space)
        place = {name: number for number, name in enumerate(space.names)}
        self._ties = [(tie, np.array([place[name] for name in tie.names], dtype=np.intp)) for tie in space.ties]
        self._tables: dict[int, NDArray[np.bool_]] = {}

    @property
    def is_everything(self) -> bool:
        """Whether there are no constraints."""
        return not self._ties

    def mask(self, codes: Codes) -> NDArray[np.bool_]:
        """Which of many architectures are allowed; `codes` as in `CostTable.evaluate`."""
        allowed = np.ones(len(codes), dtype=np.bool_)
        for tie, columns in self._ties:
            table = self._table(tie)
            own = np.asarray(codes)[:, columns]
            allowed &= _one_by_one(tie, own) if table is None else table[tuple(own.T)]
        return allowed

    def random(self, random: np.random.Generator, size: int, redrawn: int = _REDRAWN) -> NDArray[np.int64]:
        """Random architectures: uniform over what is allowed where there is a table, else only the first are made to obey.

        Args:
            redrawn: how many, which takes long.
        """
        codes = random.integers(0, self._counts, size=(size, len(self._counts)))
        for tie, columns in self._ties:
            table = self._table(tie)
            if table is not None:
                rows = np.argwhere(table)
                codes[:, columns] = rows[random.integers(len(rows), size=size)]
                continue
            draw = Random(int(random.integers(2**62)))
            for row in codes[:redrawn]:
                values = _decoded(tie, row[columns])
                if tie.broken(values):
                    drawn = tie.draw(draw, {})
                    row[columns] = [d.index(drawn[d.name]) for d in tie.decisions]
        return codes

    def added_to(self, factors: Factors) -> Factors:
        """The same function with more than its whole range added where constraints are broken: its minimum obeys.

        Errors:
            CostError: no table, since constraints tie too many decisions together.
        """
        for tie, _ in self._ties:
            if self._table(tie) is None:
                raise CostError(
                    f"{tie} tie decisions with {tie.combinations:,} combinations together, too many for a table"
                )
        tables = dict(factors.tables)
        penalty = 1 + sum(int(table.max()) - int(table.min()) for table in tables.values())
        for key, allowed in self.tables().items():
            added = np.where(allowed, 0, penalty).astype(np.int64)
            tables[key] = tables[key] + added if key in tables else added
        return Factors(factors.counts, tables)

    def tables(self) -> dict[Key, NDArray[np.bool_]]:
        """The allowed combinations of the tied decisions that have a table, by decisions in ascending order."""
        found = {}
        for tie, columns in self._ties:
            table = self._table(tie)
            if table is not None:
                order = np.argsort(columns)
                found[tuple(int(column) for column in columns[order])] = table.transpose(order)
        return found

    @property
    def untabled(self) -> list[Tied]:
        """The tied decisions that have no table."""
        return [tie for tie, _ in self._ties if tie.combinations > TABLED]

    def _table(self, tie: Tied) -> NDArray[np.bool_] | None:
        if tie.combinations > TABLED:
            return None
        if id(tie) not in self._tables:
            table = np.zeros([len(decision.choices) for decision in tie.decisions], dtype=np.bool_)
            if tie.codes:
                table[tuple(np.array(tie.codes, dtype=np.intp).reshape(len(tie.codes), -1).T)] = True
            self._tables[id(tie)] = table
        return self._tables[id(tie)]


def _one_by_one(tie: Tied, codes: NDArray[Any]) -> NDArray[np.bool_]:
    different, places = np.unique(codes, axis=0, return_inverse=True)
    allowed = np.array([not tie.broken(_decoded(tie, row)) for row in different], dtype=np.bool_)
    return allowed[places.reshape(-1)]


def _decoded(tie: Tied, codes: NDArray[Any]) -> dict[str, Any]:
    return {d.name: d.choices[int(code)] for d, code in zip(tie.decisions, codes, strict=True)}
