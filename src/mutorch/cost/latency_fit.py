"""From measured architectures to a sum of small tables, and how well it predicts what it did not see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mutorch.space import SearchSpace, random_at

from .factors import Codes, Factors
from .latency_terms import Floats, Key, Terms, TermsOf

PICOSECONDS = 1_000_000_000
"""In a millisecond: tables hold integers, as those of all costs do."""
FOLDS = 20
_SHRINKAGES = (0.0, *(float(value) for value in np.logspace(-4, 2, 13)))
_FREE = 100.0
"""The scale of terms that are hardly shrunk: the constant, and counted costs."""
_EXACT = 1e-4
"""A relative error below which more terms are not tried: nobody measures better."""
_ANCHORED = 4
"""Decisions up to which a table is taken apart."""
_HELPS = 0.95
"""What more terms must bring the error down to, for them to be taken."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How far predictions are off for architectures that were left out of the fit (cross-validation).

    Attributes:
        median_error: of the relative errors.
        large_error: nine of ten are below.
        rank_correlation: Spearman's, of predictions and measurements.
        num_measurements: how many there were.
    """

    median_error: float
    large_error: float
    rank_correlation: float
    num_measurements: int

    @classmethod
    def of(cls, predicted: Floats, measured: Floats) -> "Accuracy":
        """That of predictions, against positive measurements.

        Example:
            >>> Accuracy.of(np.array([1.0, 2.2, 3.0]), np.array([1.0, 2.0, 4.0]))
            Accuracy(median_error=0.1, large_error=0.22, rank_correlation=1.0, num_measurements=3)
        """
        errors = np.abs(predicted - measured) / measured
        median, large = np.percentile(errors, (50, 90))
        correlation = _correlation(_ranks(predicted), _ranks(measured))
        return cls(round(float(median), 12), round(float(large), 12), round(correlation, 12), len(measured))

    def __str__(self) -> str:
        return (
            f"off by {self.median_error:.1%} (median) and {self.large_error:.1%} (nine of ten are better), rank correlation "
            f"{self.rank_correlation:.3f}, cross-validated over {self.num_measurements} measurements"
        )


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was fitted: integers in picoseconds, how accurate, and of which terms."""

    factors: Factors
    accuracy: Accuracy
    terms: str


def fit(space: SearchSpace, codes: Codes, milliseconds: Floats, *, costs: Mapping[str, Factors], seed: int) -> Fitted:
    """The sum of small tables that predicts measured latencies best.

    Relative errors are minimised, by least squares that is shrunk towards equal choices (ridge). How much, and whether terms
    of two neighbouring decisions and terms proportional to counted costs are taken, is decided by the error of each
    measurement in a fit without it. The simplest terms win unless others are better by 5%.

    Args:
        codes: an array (measurements, decisions).
        costs: counted costs that may help.
        seed: of the cross-validation of all of this, in folds.
    """
    kinds = _kinds(TermsOf(space), codes, costs)
    predicted = np.empty(len(codes))
    for left_out in _folds(codes, seed):
        kept = ~left_out
        model = _best(kinds, kept, milliseconds)
        predicted[left_out] = model.predict(left_out)
    chosen = _best(kinds, np.ones(len(codes), dtype=np.bool_), milliseconds)
    counts = tuple(len(decision.choices) for decision in space)
    return Fitted(Factors(counts, chosen.tables()), Accuracy.of(predicted, milliseconds), chosen.kind.name)


@dataclass(frozen=True, slots=True, eq=False)
class _Kind:
    """Terms that a latency may be a sum of, and their values at the measured architectures."""

    name: str
    costs: Sequence[tuple[Factors, float]]
    blocks: Sequence[Terms]
    values: Floats

    def tables(self, coefficients: Floats) -> dict[Key, NDArray[np.int64]]:
        """The sum as tables in picoseconds."""
        total: dict[Key, Floats] = {(): np.array(coefficients[0] * _FREE)}
        at = 1
        for factors, unit in self.costs:
            for key, table in factors.tables.items():
                _add(total, key, table * (coefficients[at] * unit * _FREE))
            at += 1
        for block in self.blocks:
            terms = block.basis.shape[-1]
            _add(total, block.decisions, block.table(coefficients[at : at + terms] * block.scale))
            at += terms
        whole = {key: np.rint(table * PICOSECONDS).astype(np.int64) for key, table in _anchored(total).items()}
        return {key: table for key, table in whole.items() if not key or table.any()}


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    kind: _Kind
    coefficients: Floats
    error: float

    def predict(self, rows: NDArray[np.bool_]) -> Floats:
        found: Floats = self.kind.values[rows] @ self.coefficients
        return found

    def tables(self) -> dict[Key, NDArray[np.int64]]:
        return self.kind.tables(self.coefficients)


def _kinds(terms: TermsOf, codes: Codes, costs: Mapping[str, Factors]) -> list[_Kind]:
    """Simplest first."""
    single, paired = terms.single(), terms.paired()
    counted = [(factors, 1 / max(float(factors.evaluate(codes).mean()), 1.0)) for factors in costs.values()]
    names = ", ".join(costs)
    kinds = [_kind("each choice", [], single, codes)]
    if counted:
        kinds.append(_kind(f"each choice, {names}", counted, single, codes))
    if paired:
        kinds.append(_kind("each choice, neighbouring decisions together", [], [*single, *paired], codes))
    if counted and paired:
        kinds.append(
            _kind(f"each choice, {names}, neighbouring decisions together", counted, [*single, *paired], codes)
        )
    return kinds


def _kind(name: str, costs: Sequence[tuple[Factors, float]], blocks: Sequence[Terms], codes: Codes) -> _Kind:
    columns = [np.full((len(codes), 1), _FREE)]
    columns += [factors.evaluate(codes)[:, None] * (unit * _FREE) for factors, unit in costs]
    columns += [block.columns(codes) * block.scale for block in blocks]
    return _Kind(name, costs, blocks, np.concatenate(columns, axis=1))


def _best(kinds: Sequence[_Kind], rows: NDArray[np.bool_], milliseconds: Floats) -> _Model:
    best = _shrunk(kinds[0], rows, milliseconds)
    for kind in kinds[1:]:
        if best.error < _EXACT:
            break
        other = _shrunk(kind, rows, milliseconds)
        best = other if other.error < _HELPS * best.error else best
    return best


def _shrunk(kind: _Kind, rows: NDArray[np.bool_], milliseconds: Floats) -> _Model:
    """The fit with the shrinkage that predicts each row best from the others (in closed form)."""
    measured = milliseconds[rows]
    unit = float(measured.mean())
    # Rows over their latency: what is minimised are relative errors.
    left, sizes, right = np.linalg.svd(kind.values[rows] * (unit / measured)[:, None], full_matrices=False)
    used = sizes > 1e-10 * sizes[0]
    left, sizes, right = left[:, used], sizes[used], right[used]
    along = left.T @ np.ones(len(measured))
    best: tuple[float, Floats] | None = None
    for shrinkage in _SHRINKAGES:
        kept = sizes**2 / (sizes**2 + shrinkage)
        free = 1 - (left**2) @ kept
        off = 1 - left @ (kept * along)
        # What no other row says anything about is not predicted at all.
        alone = free < 1e-7
        error = float(np.abs(np.where(alone, 1.0, off / np.where(alone, 1.0, free))).mean())
        if best is None or error < best[0]:
            best = error, right.T @ (kept / sizes * along) * unit
        if error < 1e-9:
            break
    assert best is not None
    return _Model(kind, best[1], best[0])


def _folds(codes: Codes, seed: int) -> list[NDArray[np.bool_]]:
    """Rows to leave out; those of one architecture, which was measured several times, are left out apart."""
    _, architecture = np.unique(codes, axis=0, return_inverse=True)
    order = list(range(int(architecture.max()) + 1))
    random_at(seed, "folds").shuffle(order)
    rows = np.argsort(np.array(order)[architecture.reshape(-1)], kind="stable")
    fold = np.empty(len(codes), dtype=np.intp)
    fold[rows] = np.arange(len(codes)) % FOLDS
    return [fold == number for number in range(min(FOLDS, len(codes)))]


def _anchored(tables: Mapping[Key, Floats]) -> dict[Key, Floats]:
    """The same sum of the tables that only it has: 0 wherever a decision takes its first choice.

    However a constant is spread over terms, these are the same, and whole numbers where the costs are.
    """
    found: dict[Key, Floats] = {}
    for key, table in tables.items():
        parts = {key: table}
        for decision in key if len(key) <= _ANCHORED else ():
            split: dict[Key, Floats] = {}
            for decisions, part in parts.items():
                axis = decisions.index(decision)
                first = np.asarray(part.take(0, axis=axis))
                _add(split, decisions, part - np.expand_dims(first, axis))
                _add(split, decisions[:axis] + decisions[axis + 1 :], first)
            parts = split
        for decisions, part in parts.items():
            _add(found, decisions, part)
    return found


def _add(total: dict[Key, Floats], key: Key, table: Floats) -> None:
    total[key] = total[key] + table if key in total else table


def _ranks(values: Floats) -> Floats:
    """From 0; equal values, rounding errors aside, share the mean of theirs."""
    _, places, counts = np.unique(np.round(values / values.mean(), 9), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: Floats = (last - 1 - (counts - 1) / 2)[places.reshape(-1)]
    return means


def _correlation(first: Floats, second: Floats) -> float:
    if first.std() == 0 or second.std() == 0:
        return 1.0 if first.std() == second.std() else 0.0
    return float(np.corrcoef(first, second)[0, 1])
