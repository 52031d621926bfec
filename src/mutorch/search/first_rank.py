"""What one rank does for all."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")


def on_first_rank(make: Callable[[], T]) -> T:
    """What `make` gives on rank 0, on all ranks; in a program of one process, what it gives. An error of it is raised on all.

    For what must not differ, as what is measured. Every rank calls this; the value is pickled.

    Example:
        >>> on_first_rank(lambda: 3)
        3
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return make()
    sent: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            sent[0] = make()
        except Exception as error:
            sent[1] = error
    dist.broadcast_object_list(sent, src=0)
    if sent[1] is not None:
        raise sent[1]
    value: T = sent[0]
    return value
