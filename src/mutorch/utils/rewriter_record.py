"""Function rewriters of a deployment library, taken out of its context."""

from collections.abc import Iterable
from typing import Any


def pop_rewriter_function_record(rewriter_context: Any, function_record_to_pop: Iterable[str]) -> dict[str, Any]:
    """The named function rewriters, removed from `rewriter_context`; unknown names are skipped.

    Keep the result to put them back. The context is an MMDeploy `RewriterContext`, or anything
    with its `_rewriter_manager.function_rewriter._registry._rewrite_records` dict.

    Example:
        >>> from types import SimpleNamespace as Space
        >>> registry = Space(_rewrite_records={"a.forward": 1, "b.forward": 2})
        >>> manager = Space(function_rewriter=Space(_registry=registry))
        >>> pop_rewriter_function_record(Space(_rewriter_manager=manager), ["a.forward", "c"])
        {'a.forward': 1}
        >>> registry._rewrite_records
        {'b.forward': 2}
    """
    records = rewriter_context._rewriter_manager.function_rewriter._registry._rewrite_records
    return {name: records.pop(name) for name in function_record_to_pop if name in records}
