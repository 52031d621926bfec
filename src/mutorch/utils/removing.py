"""Hooks that are there for a while."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch.utils.hooks import RemovableHandle


@contextmanager
def removing(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Remove these hooks at the end of the `with`, also if it fails.

    Example:
        >>> from torch import nn
        >>> module = nn.Identity()
        >>> with removing([module.register_forward_hook(print)]):
        ...     len(module._forward_hooks)
        1
        >>> len(module._forward_hooks)
        0
    """
    registered = list(handles)
    try:
        yield
    finally:
        for handle in registered:
            handle.remove()
