"""Everything of `torch.nn`, with layers whose arguments may be mutables: `import mutorch.nn as nn`.

Example:
    >>> import mutorch.nn as nn
    >>> kernel = nn.ValueChoice([3, 5], label="kernel")
    >>> conv = nn.Conv2d(3, 8, kernel, padding=kernel // 2)
    >>> conv.kernel_size, isinstance(conv, nn.Conv2d), type(nn.Conv2d(3, 8, 3)).__module__
    ((3, 3), True, 'torch.nn.modules.conv')
"""

from typing import Any

import torch

from mutorch.errors import nearest
from mutorch.mutables import Cell as Cell
from mutorch.mutables import InputChoice as InputChoice
from mutorch.mutables import LayerChoice as LayerChoice
from mutorch.mutables import MutableScope as MutableScope
from mutorch.mutables import ValueChoice as ValueChoice
from mutorch.ops import Repeat as Repeat
from mutorch.ops import layer as layer

from .face import face

_PREFIX = "Mutable"


def __getattr__(name: str) -> Any:
    """A name of `torch.nn`; a layer class takes mutables, also under the name `MutableConv2d` and so on."""
    if hasattr(torch.nn, name):
        return face(getattr(torch.nn, name))
    plain = name.removeprefix(_PREFIX)
    if plain != name and hasattr(torch.nn, plain) and face(getattr(torch.nn, plain)) is not getattr(torch.nn, plain):
        return face(getattr(torch.nn, plain))
    raise AttributeError(f"mutorch.nn has no {name!r}, nor has torch.nn; {nearest(name, dir(torch.nn))}")


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(torch.nn)})
