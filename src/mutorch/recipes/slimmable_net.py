"""Networks of a few widths, each with batch norms of its own; and widths that are the same share everywhere."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mutorch.channels import SlimmableChannelUnit, searchable, widths
from mutorch.channels.analyzer import ChannelAnalyzer
from mutorch.errors import ConfigError, SpaceError
from mutorch.mutators import ChannelMutator, Mutator
from mutorch.pruning import Prices, uniform
from mutorch.pruning.shrink import SHARES
from mutorch.search.ladders import ladders
from mutorch.space import Architecture, SearchSpace, random_at
from mutorch.subnet import export
from mutorch.utils import ExampleInputs


def slimmable_net(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    ratios: Sequence[float] = (),
    budgets: Sequence[Mapping[str, Any]] = (),
    divisor: int = 8,
    min_ratio: float = 0.1,
    **selection: Any,
) -> tuple[ChannelMutator, list[Architecture]]:
    """A slimmable copy of a model, and the few architectures that it is for, the largest first.

    Slimmable networks (Yu et al. 2019, arXiv 1812.08928): convolutions share their weights, and every width of a 2d batch norm has
    a norm of its own, scales and statistics (`SlimmableChannelUnit`). Two architectures with the same width at a norm share it.
    Other norms are cut, and share what they have.

    Args:
        ratios: shares of the channels, the same in all layers; the whole model is always among the architectures.
        budgets: or the uniform widths that meet these; see `mutorch.Budget`.
        divisor: widths are multiples of it.
        min_ratio: the smallest share of its channels that a unit keeps to meet a budget.
        selection: `only`, `freeze` and `tie` of `searchable`.

    Returns:
        A mutator whose `model` is the copy, and its architectures: for `slimmable_step`.

    Errors:
        ConfigError: both ratios and budgets, or neither.
        InfeasibleBudgetError: a budget below the narrowest model.
        EmptySpaceError: nothing of the model can be cut.
        SpaceError: channels that `searchable` cuts, but not the units of `ChannelMutator`; names the tensor.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16), nn.Conv2d(16, 4, 1))
        >>> mutator, architectures = slimmable_net(model, torch.zeros(1, 3, 8, 8), ratios=(0.5, 1.0))
        >>> architectures, list(mutator.model[1].candidate_bn)
        ([{'0_(0, 16)_16': 16}, {'0_(0, 16)_16': 8}], ['8'])
    """
    if bool(ratios) == bool(budgets):
        raise ConfigError("a slimmable network needs either ratios or budgets, which say how wide it can be")
    smaller = _smaller(model, example_inputs, ratios, budgets, divisor, min_ratio, selection)
    units = ChannelAnalyzer(example_inputs).analyze(model)
    if not units:
        raise _cannot(type(model).__name__)
    whole = {name: int(unit["init_args"]["num_channels"]) for name, unit in units.items()}
    architectures = [whole]
    for small in smaller:
        narrow = {name: _width_in(small, unit, model) for name, unit in units.items()}
        if narrow not in architectures:
            architectures.append(narrow)
    candidates = {name: sorted({one[name] for one in architectures}) for name in units}
    config = {name: {"init_args": {"candidate_choices": choices}} for name, choices in candidates.items()}
    mutator = ChannelMutator(
        {"type": SlimmableChannelUnit, "units": config}, {"type": "ChannelAnalyzer", "demo_input": example_inputs}
    )
    mutator.prepare_from_supernet(copy.deepcopy(model))
    mutator.set_choices(mutator.space.max)
    architectures = [{name: one[name] for name in mutator.space.names} for one in architectures]
    for small in smaller:
        architecture = {name: _width_in(small, units[name], model) for name in mutator.space.names}
        _check_same(small, export(mutator.model, architecture, mutator=mutator))
    return mutator, architectures


def _smaller(
    model: nn.Module,
    example_inputs: ExampleInputs,
    ratios: Sequence[float],
    budgets: Sequence[Mapping[str, Any]],
    divisor: int,
    min_ratio: float,
    selection: Mapping[str, Any],
) -> list[nn.Module]:
    """Plain models of the widths that are wanted, the largest first."""
    if ratios:
        net = searchable(model, example_inputs, rules=[widths(ratios=ratios, divisor=divisor)], **selection)
        space = Mutator(net).space
        return [export(net, at_share(space, ratio)) for ratio in sorted(ratios, reverse=True)]
    net = searchable(model, example_inputs, rules=[widths(ratios=SHARES, divisor=divisor)], **selection)
    prices = Prices(Mutator(net), example_inputs, min_ratio=min_ratio)
    found = [uniform(prices, prices.budget(budget), {}) for budget in budgets]
    found.sort(key=lambda architecture: -prices(architecture).macs)
    return [export(net, {**Mutator(net).space.default, **architecture}) for architecture in found]


def _width_in(small: nn.Module, unit: Mapping[str, Any], model: nn.Module) -> int:
    """How many channels of a unit are left in a smaller model; all where no module says it."""
    num_channels = int(unit["init_args"]["num_channels"])
    for channel in unit["channels"]["output_related"]:
        whole, left = (_out_channels(net.get_submodule(channel["name"])) for net in (model, small))
        if whole and left and whole == channel["end"] - channel["start"]:
            return left * num_channels // whole
    return num_channels


def _out_channels(module: nn.Module) -> int | None:
    sizes = (getattr(module, name, None) for name in ("out_channels", "out_features", "num_features", "embedding_dim"))
    return next((size for size in sizes if isinstance(size, int)), None)


def _check_same(small: nn.Module, slimmed: nn.Module) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in small.state_dict().items()}
    for name, tensor in slimmed.state_dict().items():
        if wanted[name] != tuple(tensor.shape):
            raise _cannot(repr(name))


def _cannot(what: str) -> SpaceError:
    return SpaceError(
        f"{what} cannot be slimmed with norms of its own: its channels are counted by something that the units of ChannelMutator "
        "do not follow; freeze it, or take the recipe us-net, which recalibrates norms instead"
    )


def shares_norms(mutator: Mutator, architectures: Sequence[Architecture]) -> bool:
    """Whether two of a slimmable network's architectures use one batch norm, whose statistics are then of neither."""
    models = [export(mutator.model, architecture, mutator=mutator) for architecture in architectures]
    norms: dict[str, list[int]] = {}
    for model in models:
        for path, module in model.named_modules():
            if isinstance(module, _BatchNorm):
                norms.setdefault(path, []).append(module.num_features)
    return any(len(set(sizes)) < len(sizes) for sizes in norms.values())


def at_share(space: SearchSpace, share: float) -> Architecture:
    """The architecture in which all decisions have the same share of their largest choice, rounded up to their choices.

    So `widths` rounds too. Decisions whose choices are no numbers keep what the largest architecture has.

    Example:
        >>> from mutorch.space import Decision
        >>> at_share(SearchSpace([Decision("a", (8, 16, 24, 32)), Decision("b", (4, 8))]), 0.6)
        {'a': 24, 'b': 8}
    """
    rounded = {
        name: next(choice for choice in ladder if choice >= share * ladder[-1] * (1 - 1e-9))
        for name, ladder in ladders(space).items()
        if not isinstance(ladder[-1], list | tuple)
    }
    return space.repair({**space.max, **rounded})


def uniform_paths(space: SearchSpace, seed: int, step: int, num_random: int = 2) -> list[Architecture]:
    """The largest architecture, the smallest, and some at one random share: the sandwich of US-Nets.

    As `mutorch.training.sandwich_step` has it, but for one share in all layers (Yu and Huang 2019, arXiv 1903.05134): what is
    trained is what is used where all layers are slimmed alike. For `slimmable_step`.

    Example:
        >>> from mutorch.space import Decision
        >>> space = SearchSpace([Decision(name, tuple(range(1, 9))) for name in "ab"])
        >>> uniform_paths(space, 0, 3, num_random=1)
        [{'a': 8, 'b': 8}, {'a': 1, 'b': 1}, {'a': 6, 'b': 6}]
    """
    numbers = [ladder for ladder in ladders(space).values() if not isinstance(ladder[-1], list | tuple)]
    lowest = min((ladder[0] / ladder[-1] for ladder in numbers if ladder[-1]), default=1.0)
    shares = [random_at(seed, "uniform paths", step, number).uniform(lowest, 1.0) for number in range(num_random)]
    return [space.max, space.min, *(at_share(space, share) for share in shares)]
