"""In what two descriptions of a run differ."""

from collections.abc import Mapping
from typing import Any


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The entries that differ, for an error about a file of another run; empty where none does.

    Example:
        >>> differences({"seed": 0, "steps": 5}, {"seed": 1, "steps": 5})
        'seed: 0 there, 1 here'
    """
    keys = dict.fromkeys([*found, *wanted])
    return "; ".join(
        f"{key}: {found.get(key)!r} there, {wanted.get(key)!r} here"
        for key in keys
        if found.get(key) != wanted.get(key)
    )
