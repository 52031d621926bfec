"""The units of a model as plain data, found by observing it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from mutorch.errors import ConfigError, MutorchError, nearest
from mutorch.ops import DYNAMIC_OPS
from mutorch.utils import ExampleInputs

from .atoms import ALWAYS
from .channel import Channel
from .searchable import SEARCH, EmptySpaceError, searchable
from .structure import Structure, TensorDim
from .widths import widths

TRACERS = ("BackwardTracer", "FxTracer")


class ChannelAnalyzer:
    """The units of a model, found by running it once (seed 001; the older library traced its graph).

    Args:
        demo_input: the shape of an input, the input itself, or what else `searchable` takes as example inputs; a dict with a
            key `type` is a config of the older library, of which `input_shape` is read.
        tracer_type: accepted, as the documents have it: `'BackwardTracer'` or `'FxTracer'`. There is one way here.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))
        >>> found = ChannelAnalyzer((1, 3, 4, 4)).analyze(model)
        >>> list(found), found["0_(0, 8)_8"]["init_args"]
        (['0_(0, 8)_8'], {'num_channels': 8})
    """

    def __init__(self, demo_input: Any = (1, 3, 224, 224), tracer_type: str = "BackwardTracer") -> None:
        if tracer_type not in TRACERS:
            raise ConfigError(f"no tracer_type {tracer_type!r}; {nearest(tracer_type, TRACERS)}")
        self.demo_input = demo_input
        self.tracer_type = tracer_type

    def analyze(self, model: nn.Module) -> dict[str, dict[str, Any]]:
        """Name of a unit to its config, in the order of the model, which is left as it is.

        Only units whose channels dynamic ops can follow are there: those of convolutions, linear layers, norms and
        embeddings. `searchable` handles the others too.

        Errors:
            ConfigError: the model does not run on the demo input.
        """
        example_inputs = self._example_inputs(model)
        try:
            net = searchable(model, example_inputs, rules=[widths(ratios=(0.5, 1.0), divisor=1)])
        except EmptySpaceError:
            return {}
        except MutorchError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{type(model).__name__} does not run on demo_input {self.demo_input!r}: {error}; give one that it takes"
            ) from error
        return dict(_configs(net, vars(net)[SEARCH].structure))

    def _example_inputs(self, model: nn.Module) -> ExampleInputs:
        given = self.demo_input
        if isinstance(given, Mapping) and "type" in given:
            given = tuple(given.get("input_shape", (1, 3, 224, 224)))
        if isinstance(given, tuple | list) and given and all(type(size) is int for size in given):
            device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
            return torch.zeros(tuple(given), device=device)
        if isinstance(given, Tensor | tuple | Mapping) or callable(given):
            inputs: ExampleInputs = given
            return inputs
        raise NotImplementedError(f"demo_input is a shape, a tensor, a tuple, a dict or a function, got {given!r}")


def as_analyzer(given: Any) -> Any:
    """An analyzer: as given, or from its config.

    Errors:
        ConfigError: neither.
    """
    if given is None:
        return ChannelAnalyzer()
    if isinstance(given, Mapping):
        arguments = {name: value for name, value in given.items() if name not in ("type", "from_cfg")}
        if given.get("type", "ChannelAnalyzer") not in ("ChannelAnalyzer", ChannelAnalyzer):
            raise ConfigError(f"no analyzer {given['type']!r}; {nearest(given['type'], ['ChannelAnalyzer'])}")
        if isinstance(arguments.get("tracer_type"), type):
            arguments["tracer_type"] = arguments["tracer_type"].__name__
        return ChannelAnalyzer(**arguments)
    if hasattr(given, "analyze"):
        return given
    raise ConfigError(f"an analyzer has a method analyze(model), got {given!r}")


def _configs(net: nn.Module, structure: Structure) -> Iterator[tuple[str, dict[str, Any]]]:
    modules = dict(net.named_modules())
    beyond = _beyond(structure)
    for number, group in enumerate(structure.groups):
        channels: list[Channel] | None = [] if number not in beyond else None
        for place, _ in group.places:
            found = _channels(structure, modules.get(place.module), place, number, group.num_channels)
            channels = None if channels is None or found is None else [*channels, *found]
        if not channels:
            continue
        sides = {True: dict[Any, Channel](), False: dict[Any, Channel]()}
        for channel in channels:
            sides[channel.is_output_channel].setdefault((channel.name, channel.index), channel)
        if not sides[True] or not sides[False]:
            continue
        first = next(iter(sides[True].values()))
        yield (
            f"{first.name}_{first.index}_{group.num_channels}",
            {
                "init_args": {"num_channels": group.num_channels},
                "channels": {
                    "input_related": [channel.config_template() for channel in sides[False].values()],
                    "output_related": [channel.config_template() for channel in sides[True].values()],
                },
                "choice": group.num_channels,
            },
        )


def _beyond(structure: Structure) -> set[int]:
    """The groups that count something which no dynamic op knows of: an attribute of a module of the user's."""
    found: set[int] = set()
    for rule in structure.sizes:
        static = getattr(type(rule.module), "static_class", type(rule.module))
        if static not in DYNAMIC_OPS:
            for components, _ in rule.dims:
                found |= set(structure.groups_in(components))
    return found


def _channels(
    structure: Structure, module: nn.Module | None, place: TensorDim, number: int, num_channels: int
) -> list[Channel] | None:
    """The channels of a group along one dimension of a tensor; `None` where a dynamic op cannot follow it."""
    static: Any = getattr(type(module), "static_class", type(module))
    components = structure.dims[place]
    if module is None or static not in DYNAMIC_OPS or len(components) != 1:
        return None
    if place.name not in ("weight", "bias", "running_mean", "running_var"):
        return None
    ids = components[0]
    group_of = np.where(ids == ALWAYS, -1, structure.group_of[ids])
    positions = np.flatnonzero(group_of == number)
    start, end = int(positions[0]), int(positions[-1]) + 1
    times, rest = divmod(end - start, num_channels)
    if end - start != len(positions) or rest:
        return None
    index, channels = structure.index_of[ids[positions]], np.arange(num_channels)
    groups = int(vars(module).get("groups", 1)) if isinstance(module, _ConvNd) else 1
    depthwise = isinstance(module, _ConvNd) and groups > 1 and groups == vars(module)["in_channels"]
    tiled = (groups > 1 and not depthwise) or static is nn.GroupNorm
    if not np.array_equal(index, np.tile(channels, times) if tiled else channels.repeat(times)):
        return None
    sides = _sides(module, place, groups, depthwise=depthwise)
    if groups > 1 and not depthwise and place.dim == 1:  # one group stands for all
        start, end = start * groups, end * groups
    return [Channel(place.module, None, (start, end), is_output_channel=side) for side in sides]


def _sides(module: nn.Module, place: TensorDim, groups: int, *, depthwise: bool) -> Sequence[bool]:
    """Whether a dimension is the output side of a module (`True`), the input side, or both."""
    if isinstance(module, _ConvNd):
        if depthwise:
            return (True, False) if vars(module)["in_channels"] == vars(module)["out_channels"] else ()
        return ((place.dim == 0) is not module.transposed,)
    if isinstance(module, nn.Linear):
        return (place.dim == 0,)
    if isinstance(module, nn.Embedding):
        return (True,)
    if isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm | nn.PReLU):
        return (True, False)
    return ()
