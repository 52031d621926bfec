"""The list of candidates with scores and resources that the older library's search files hold (seed 001)."""

import ast
from collections import UserList
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from mutorch.errors import ChoiceError, SpaceError, nearest
from mutorch.space.decision import plain

INDICATORS = ("score", "flops", "params", "latency")
Item = dict[str, dict[str, float]]


class Candidates(UserList[Item]):
    """Sampled subnets, each with a score and resources, as a list of one-entry dicts `{str(subnet): indicators}`.

    Takes subnets alone (all indicators 0.0, as in seed 001) or paired with indicators (missing ones 0.0); one or a list
    of them. What is given is not changed. `mutorch.search` keeps a `History` instead, with exact, typed records.

    Example:
        >>> candidates = Candidates()
        >>> candidates.append({"1": "choice1", "2": "choice2"})
        >>> candidates.set_resource(0, 49.9, "flops")
        >>> candidates.set_score(0, 100.0)
        >>> candidates
        [{"{'1': 'choice1', '2': 'choice2'}": {'score': 100.0, 'flops': 49.9, 'params': 0.0, 'latency': 0.0}}]
        >>> candidates.subnets, candidates.scores, candidates.resources("flops")
        ([{'1': 'choice1', '2': 'choice2'}], [100.0], [49.9])
    """

    def __init__(self, initdata: Any = None) -> None:
        super().__init__([] if initdata is None else _items(initdata))

    @property
    def scores(self) -> list[float]:
        """All scores, exactly."""
        return self._column("score")

    def resources(self, key_indicator: str = "flops") -> list[float]:
        """One resource of all candidates.

        Errors:
            ChoiceError: not flops, params or latency (also `AssertionError`).
        """
        _check(key_indicator, INDICATORS[1:])
        return self._column(key_indicator)

    @property
    def subnets(self) -> list[dict[str, Any]]:
        """The subnets, read back from the keys as literals; nothing is evaluated.

        Errors:
            ChoiceError: the list is empty (also `AssertionError`).
        """
        if not self.data:
            raise ChoiceError("there are no candidates yet")
        return [_subnet(next(iter(item))) for item in self.data]

    def append(self, item: Any) -> None:
        self.data.extend(_items(item))

    def __iadd__(self, other: Iterable[Any]) -> Self:  # type: ignore[misc]  # bare subnets as well
        self.extend(other)
        return self

    def extend(self, other: Any) -> None:
        self.data.extend(_items(other))

    def insert(self, i: int, item: Any) -> None:
        self.data[i:i] = _items(item)

    def set_score(self, i: int, score: float) -> None:
        """Set the score of candidate `i`."""
        self.set_resource(i, score, "score")

    def set_resource(self, i: int, resources: float, key_indicator: str = "flops") -> None:
        """Set one indicator of candidate `i`."""
        _check(key_indicator, INDICATORS)
        self._indicators(self.data[i])[key_indicator] = resources

    set_resources = set_resource  # as the example of seed 001 calls it

    def update_resources(self, resources: Sequence[Mapping[str, float]], start: int = 0) -> None:
        """Merge a dict of indicators into each candidate from `start` on.

        Errors:
            ChoiceError: more dicts than candidates, or an unknown indicator; nothing is changed.
        """
        if start + len(resources) > len(self.data):
            raise ChoiceError(f"{len(resources)} resources from {start} on do not fit {len(self.data)} candidates")
        for update in resources:
            for key in update:
                _check(key, INDICATORS)
        for item, update in zip(self.data[start:], resources, strict=False):
            self._indicators(item).update(update)

    def sort_by(self, key_indicator: str = "score", reverse: bool = True) -> None:
        """Sort by one indicator, largest first unless told otherwise; equal ones keep their order."""
        _check(key_indicator, INDICATORS)
        self.data.sort(key=lambda item: self._indicators(item)[key_indicator], reverse=reverse)

    def _column(self, indicator: str) -> list[float]:
        return [self._indicators(item)[indicator] for item in self.data]

    @staticmethod
    def _indicators(item: Item) -> dict[str, float]:
        return next(iter(item.values()))


def _items(given: Any) -> list[Item]:
    if isinstance(given, Mapping):
        return [_item(given)] if given else []
    if isinstance(given, UserList) or (isinstance(given, Iterable) and not isinstance(given, str)):
        return [item for one in given for item in _items(one)]
    raise TypeError(f"a candidate is a dict, or a list of dicts, got {type(given).__name__}")


def _item(given: Mapping[str, Any]) -> Item:
    subnet, indicators = next(iter(given.items()))
    if isinstance(indicators, Mapping) and len(given) == 1:
        for key in indicators:
            _check(key, INDICATORS)
        return {subnet: {**dict.fromkeys(INDICATORS, 0.0), **indicators}}
    return {str(_literal(given)): dict.fromkeys(INDICATORS, 0.0)}


def _literal(subnet: Any) -> Any:
    """Plain values only: the text of a NumPy string cannot be read back."""
    if isinstance(subnet, Mapping):
        return {str(name): _literal(value) for name, value in subnet.items()}
    return plain(subnet)


def _subnet(text: str) -> dict[str, Any]:
    try:
        subnet = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise SpaceError(f"not a subnet: {text[:80]!r} ({error})") from error
    if not isinstance(subnet, dict):
        raise SpaceError(f"not a subnet: {text[:80]!r}")
    return subnet


def _check(indicator: str, allowed: Sequence[str]) -> None:
    if indicator not in allowed:
        raise ChoiceError(f"no indicator {indicator!r}; {nearest(indicator, allowed)}")
