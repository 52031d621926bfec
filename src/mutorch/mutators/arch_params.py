"""The architecture parameters of a model: one vector of logits for each decision that is learned by gradient."""

from collections.abc import Collection, Iterable, Mapping
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from mutorch.errors import LoadError, SpaceError, StateError, nearest
from mutorch.mutables import BaseMutable, DiffChoiceRoute, DiffMutableModule, Draw, Relaxation, gumbel_noise, top_paths
from mutorch.space import Architecture, Choice, SearchSpace, random_at

Groups = Mapping[str, list[BaseMutable[Any, Any]]]


class NoArchParamsError(StateError, AttributeError):
    """Architecture parameters asked for before they were made."""


class ArchParams:
    """The logits of every learned decision, and what can be read off them; a `Mutator` holds one.

    Args:
        groups: decision to mutables, as `group` gives them. Those of a `DiffMutableModule` are learned, routes without
            `with_arch_param` excepted: their edges are ranked by the operations on them.
        seed: of the initial values, 1e-3 times normal noise, which is equal in every process.
        device: where the parameters live.
    """

    def __init__(self, groups: Groups, *, seed: int, device: torch.device) -> None:
        self.mutables = {
            name: [m for m in members if isinstance(m, DiffMutableModule) and not m.is_fixed]
            for name, members in groups.items()
        }
        self.mutables = {name: members for name, members in self.mutables.items() if members}
        self.learned = [name for name, members in self.mutables.items() if _is_learned(members[0])]
        self.parameters = nn.ParameterDict()
        for name in self.learned:
            generator = torch.Generator().manual_seed(random_at(seed, "arch param", name).getrandbits(63))
            values = torch.randn(self.mutables[name][0].num_choices, generator=generator) * 1e-3
            self.parameters[_attribute(name)] = nn.Parameter(values.to(device))
        self.bind()

    def __getitem__(self, name: str) -> nn.Parameter:
        if name not in self.learned:
            raise SpaceError(f"decision {name!r} has no architecture parameter; {nearest(name, self.learned)}")
        parameter: nn.Parameter = self.parameters[_attribute(name)]
        return parameter

    def items(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Decision to parameter, in the order of the space."""
        return [(name, self[name]) for name in self.learned]

    def bind(self) -> None:
        """Hand the parameters to their mutables."""
        for name in self.learned:
            for mutable in self.mutables[name]:
                mutable.set_forward_args(self[name])

    def relax(self, names: Collection[str] | None = None) -> None:
        """Undo the choices: the mutables compute mixtures again."""
        for name, members in self.mutables.items():
            for mutable in members if names is None or name in names else ():
                if not mutable.is_fixed:
                    mutable.assign(None)

    def draw(self, seed: int, step: int, relaxation: Relaxation | None) -> None:
        """Set noise and paths of every learned decision; all ranks draw the same."""
        generator = torch.Generator().manual_seed(random_at(seed, "draw", step).getrandbits(63))
        on_cpu = self._on_cpu()
        for name in self.learned:
            noise = gumbel_noise(len(on_cpu[name]), generator)
            rule = relaxation or self.mutables[name][0].relaxation
            draw = Draw(noise, top_paths(rule, on_cpu[name], noise))
            for mutable in self.mutables[name]:
                if relaxation is not None:
                    mutable.relaxation = relaxation
                mutable.set_draw(draw)

    def probabilities(self) -> dict[str, Tensor]:
        """The softmax of each decision's parameter, on the CPU in float64."""
        return {name: torch.softmax(values, dim=-1) for name, values in self._on_cpu().items()}

    def argmax(self, space: SearchSpace, exclude: Collection[str], start: Mapping[str, Choice]) -> Architecture:
        """The architecture of the most probable choices; `start` decides what is not learned."""
        probabilities = self.probabilities()
        found = dict(start)
        for name in self.learned:
            mutable = self.mutables[name][0]
            if not isinstance(mutable, DiffChoiceRoute):
                found[name] = self._best(mutable, probabilities[name], exclude)[0]
        for name, members in self.mutables.items():
            route = members[0]
            if isinstance(route, DiffChoiceRoute):
                strengths = (
                    dict(zip(route.choices, probabilities[name].tolist(), strict=True))
                    if name in self.learned
                    else self._strengths(route, probabilities, exclude)
                )
                ranked = sorted(strengths, key=lambda edge: -strengths[edge])
                kept = ranked[: min(route.num_chosen, len(ranked))]
                found[name] = [edge for edge in route.choices if edge in kept]
        return {name: space[name].canonical(choice) for name, choice in found.items()}

    def sample(self, start: Mapping[str, Choice], random: Random) -> Architecture:
        """An architecture drawn by the probabilities; `start` decides what is not learned."""
        probabilities = self.probabilities()
        found = dict(start)
        for name in self.learned:
            route, p = self.mutables[name][0], probabilities[name].tolist()
            count = min(route.num_chosen, len(p)) if isinstance(route, DiffChoiceRoute) else 1
            names, left, drawn = list(route.choices), list(p), []
            for _ in range(count):
                (edge,) = random.choices(range(len(left)), left)
                drawn.append(edge)
                left[edge] = 0.0
            found[name] = [names[i] for i in sorted(drawn)] if isinstance(route, DiffChoiceRoute) else names[drawn[0]]
        return found

    def log_probability(self, architecture: Mapping[str, Choice]) -> Tensor:
        """The log-probability that `sample` draws what is learned of `architecture`, for backward.

        Edges of a route are counted in their order; they may have been drawn in another.
        """
        total = []
        for name, parameter in self.items():
            chosen = architecture[name]
            mask = torch.zeros_like(parameter)
            for choice in chosen if isinstance(chosen, list | tuple) else [chosen]:
                number = list(self.mutables[name][0].choices).index(choice)
                total.append(torch.log_softmax(parameter + mask, dim=-1)[number])
                mask = mask.index_fill(0, torch.tensor([number], device=mask.device), float("-inf"))
        return torch.stack(total).sum()

    def leads(self) -> dict[str, float]:
        """By how much the most probable candidate of each decision leads the second."""
        tops = {name: p.topk(min(2, len(p))).values.tolist() for name, p in self.probabilities().items()}
        return {name: top[0] - top[1] if len(top) > 1 else 1.0 for name, top in tops.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over the values of `state`.

        Errors:
            LoadError: decisions or numbers of candidates that differ; nothing is changed.
        """
        own = {name: tuple(parameter.shape) for name, parameter in self.items()}
        given = {name: tuple(values.shape) for name, values in state.items()}
        for name in own | given:
            if own.get(name) != given.get(name):
                raise LoadError(
                    f"architecture parameter {name!r} has shape {own.get(name)} here and {given.get(name)} in the "
                    "state (None: there is none); they belong to different spaces"
                )
        with torch.no_grad():
            for name, parameter in self.items():
                parameter.copy_(state[name])

    def _on_cpu(self) -> dict[str, Tensor]:
        """The values in float64, in one transfer."""
        if not self.learned:
            return {}
        sizes = [len(self[name]) for name in self.learned]
        flat = torch.cat([self[name].detach().double() for name in self.learned]).cpu()
        return dict(zip(self.learned, torch.split(flat, sizes), strict=True))

    def _best(
        self, mutable: DiffMutableModule[Any, Any], probabilities: Tensor, exclude: Collection[str]
    ) -> tuple[str, float]:
        allowed = [pair for pair in zip(mutable.choices, probabilities.tolist(), strict=True) if pair[0] not in exclude]
        if not allowed:
            raise SpaceError(f"every candidate of {list(mutable.choices)} is excluded; leave one")
        return max(allowed, key=lambda pair: pair[1])

    def _strengths(
        self, route: DiffChoiceRoute, probabilities: Mapping[str, Tensor], exclude: Collection[str]
    ) -> dict[str, float]:
        """Edge to the probability of the best operation on it, as DARTS ranks them; without operations all are equal."""
        decided = {id(m): name for name in self.learned for m in self.mutables[name]}
        strengths = {}
        for edge, module in route.candidates.items():
            on_edge = [m for m in module.modules() if id(m) in decided and isinstance(m, DiffMutableModule)]
            best = [self._best(m, probabilities[decided[id(m)]], exclude)[1] for m in on_edge[:1]]
            strengths[edge] = best[0] if best else 0.0
        return strengths


def _is_learned(mutable: DiffMutableModule[Any, Any]) -> bool:
    return not isinstance(mutable, DiffChoiceRoute) or mutable.with_arch_param


def _attribute(name: str) -> str:
    """A decision's name as `nn.ParameterDict` can hold it: no dots, no name of a method."""
    attribute = name.replace(".", "/")
    return f"{attribute}/" if hasattr(nn.ParameterDict, attribute) else attribute
