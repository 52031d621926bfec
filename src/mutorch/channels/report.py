"""What of a model is searchable, what follows, what is frozen, and why."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from .build import Search
from .mode import searches
from .structure import TensorDim


@dataclass(frozen=True, slots=True)
class ChannelReport:
    """What `report` found; `print` it for a table.

    Attributes:
        units: name to (number of channels, choices), in the order of the space.
        modules: one line for each module with tensors: path to what is searchable or frozen in it.
        unknown: operations without a rule: (operation, module) to how many channels they froze.
        covered: the share of parameters that some unit cuts.
    """

    units: dict[str, tuple[int, Sequence[int]]]
    modules: dict[str, str]
    unknown: dict[tuple[str, str], int]
    covered: float

    def __str__(self) -> str:
        width = max((len(path) for path in self.modules), default=0)
        lines = [f"{path:<{width}}  {text}" for path, text in self.modules.items()]
        size = 1
        for _, choices in self.units.values():
            size *= len(choices)
        lines.append(
            f"{len(self.units)} units, {size:,} architectures; {self.covered:.1%} of the parameters are inside units"
        )
        for (operation, path), count in self.unknown.items():
            lines.append(
                f"no rule for {operation!r} in {path!r}: {count} channels stay; teach it with mutorch.register_label_rule"
            )
        return "\n".join(lines)


def report(net: nn.Module) -> ChannelReport:
    """One line for each module of a searchable model: its own unit, the units that it follows, or why it is frozen.

    Errors:
        SpaceError: the model is not searchable.

    Example:
        >>> import torch
        >>> from mutorch import searchable
        >>> net = searchable(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2)), torch.zeros(1, 4))
        >>> print(report(net))
        0  searchable: 16 channels, 8 or 16; inputs frozen: tied to what is constant, by a matrix product in '0'
        2  follows 0; outputs frozen: feeds the model's output
        1 units, 2 architectures; 98.2% of the parameters are inside units
    """
    units: dict[str, tuple[int, Sequence[int]]] = {}
    modules: dict[str, str] = {}
    unknown: dict[tuple[str, str], int] = {}
    cut, total = 0, 0
    for path, search in searches(net):
        prefix = f"{path}." if path else ""
        units |= {prefix + unit.name: (unit.num_channels, list(unit.choices)) for unit in search.units}
        lines = _lines(search)
        for module, _ in net.get_submodule(path).named_modules():
            if module in lines:
                modules[(prefix + module).rstrip(".")] = lines[module]
        unknown |= {(operation, prefix + module): n for (operation, module), n in search.observer.unknown.items()}
        inside = {place.path for place in search.structure.dims if _units_in(search, place)}
        for name, parameter in net.get_submodule(path).named_parameters():
            total += parameter.numel()
            cut += parameter.numel() if name in inside else 0
    return ChannelReport(units, modules, unknown, cut / max(total, 1))


def _units_in(search: Search, place: TensorDim) -> list[str]:
    numbers = search.structure.groups_in(search.structure.dims[place])
    return [search.group_units[number].name for number in numbers if number in search.group_units]


def _lines(search: Search) -> dict[str, str]:
    makes = {search.structure.groups[number].places[0][0]: unit for number, unit in search.group_units.items()}
    followed: dict[str, list[str]] = defaultdict(list)
    made: dict[str, list[str]] = defaultdict(list)
    frozen: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for place in search.structure.dims:
        if place in makes:
            unit = makes[place]
            choices = (
                " or ".join(str(choice) for choice in unit.choices)
                if len(unit.choices) < 4
                else (f"{unit.choices[0]} to {unit.choices[-1]}")
            )
            own = "" if unit.name == place.module else f"{unit.name}: "
            made[place.module].append(f"{own}{unit.num_channels} channels, {choices}")
        else:
            own_names = {unit.name for other, unit in makes.items() if other.module == place.module}
            followed[place.module] += [name for name in _units_in(search, place) if name not in own_names]
            if not _units_in(search, place):
                frozen[place.module][_side(place)]["one width only under the rules"] += place.size
    for place, reason in search.structure.frozen:
        if place.size > 1 and not reason.startswith("the kernel of"):
            frozen[place.module][_side(place)][reason] += place.size
    lines: dict[str, str] = {}
    for module in dict.fromkeys((*made, *followed, *frozen)):
        parts = [f"searchable: {'; '.join(made[module])}"] if made[module] else []
        names = list(dict.fromkeys(followed[module]))
        if names:
            parts.append(f"follows {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}")
        for side, reasons in frozen[module].items():
            parts.append(f"{side} frozen: {reasons.most_common(1)[0][0]}")
        lines[module] = "; ".join(parts)
    return lines


def _side(place: TensorDim) -> str:
    if place.name.startswith(("weight", "in_proj")) and place.dim == 1:
        return "inputs"
    return "outputs" if place.name.startswith(("weight", "bias", "in_proj")) else place.name
