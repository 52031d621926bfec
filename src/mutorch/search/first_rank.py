"""What one rank does for all."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import distributed

from .ranks import are_many
from .sending import pack_error, unpack_error

T = TypeVar("T")


def on_first_rank(make: Callable[[], T]) -> T:
    """What `make` gives on rank 0, on all ranks; in a program of one process, what it gives. An error of it is raised on all.

    For what must not differ, as what is measured. Every rank calls this; the value is pickled.

    Example:
        >>> on_first_rank(lambda: 3)
        3
    """
    if not are_many():
        return make()
    sent: list[Any] = [None, None]
    if distributed.get_rank() == 0:
        try:
            sent[0] = make()
        except Exception as error:
            sent[1] = pack_error(error)
    distributed.broadcast_object_list(sent, src=0)
    if sent[1] is not None:
        raise unpack_error(sent[1])
    value: T = sent[0]
    return value
