"""What a mutable says it was set to, in the form that saved subnets use."""

from typing import Any, NamedTuple


class DumpChosen(NamedTuple):
    """A choice and, optionally, what is worth knowing about it.

    Attributes:
        chosen: the choice as a plain value; `fix_chosen` takes it back.
        meta: not needed to load, for people and tools, e.g. `{'all_choices': [...]}`.

    Example:
        >>> DumpChosen(chosen="conv3x3")
        DumpChosen(chosen='conv3x3', meta=None)
    """

    chosen: Any
    meta: dict[str, Any] | None = None
