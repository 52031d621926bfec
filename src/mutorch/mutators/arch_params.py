"""The architecture parameters of a model: one vector of logits for each decision that is learned by gradient."""

from collections.abc import Collection, Iterable, Mapping
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from mutorch.errors import LoadError, SpaceError, StateError, nearest
from mutorch.mutables import (
    BaseMutable,
    DiffChoiceRoute,
    DiffMutableModule,
    Draw,
    Relaxation,
    Some,
    gumbel_noise,
    top_paths,
)
from mutorch.space import Architecture, Choice, Decision, SearchSpace, random_at
from mutorch.space.decision import plain

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
        self.learned = [name for name, members in self.mutables.items() if members[0].is_learned]
        self.parameters = nn.ParameterDict()
        for name in self.learned:
            generator = torch.Generator().manual_seed(random_at(seed, "arch param", name).getrandbits(63))
            values = torch.randn(self.mutables[name][0].num_choices, generator=generator) * 1e-3
            self.parameters[attribute(name)] = nn.Parameter(values.to(device))
        self.bind()

    def __getitem__(self, name: str) -> nn.Parameter:
        if name not in self.learned:
            raise SpaceError(f"decision {name!r} has no architecture parameter; {nearest(name, self.learned)}")
        parameter: nn.Parameter = self.parameters[attribute(name)]
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
                    if name in self.learned:  # masks may have decided since, which unbinds it
                        mutable.set_forward_args(self[name])

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
        """The probabilities of each decision's candidates, on the CPU in float64."""
        return {name: self._first(name).picks.probabilities(values) for name, values in self._on_cpu().items()}

    def argmax(self, space: SearchSpace, exclude: Collection[str], start: Mapping[str, Choice]) -> Architecture:
        """The architecture of the most probable choices; `start` decides what is not learned."""
        probabilities = self.probabilities()
        found = dict(start)
        for name in self.mutables:
            mutable = self._first(name)
            if name in self.learned:
                found[name] = self._best(mutable, probabilities[name], exclude)
            elif isinstance(mutable, DiffChoiceRoute):
                strengths = self._strengths(mutable, probabilities, exclude)
                found[name] = mutable.decided(mutable.picks.best([strengths[edge] for edge in mutable.choices]))
        return {name: space[name].canonical(choice) for name, choice in found.items()}

    def sample(self, start: Mapping[str, Choice], random: Random) -> Architecture:
        """An architecture drawn by the probabilities; `start` decides what is not learned."""
        probabilities = self.probabilities()
        found = dict(start)
        for name in self.learned:
            mutable = self._first(name)
            found[name] = plain(mutable.decided(mutable.picks.sample(probabilities[name].tolist(), random)))
        return found

    def log_probabilities(self, decision: Decision) -> dict[int, float]:
        """The log-probability of each choice of a learned decision, by number."""
        mutable, parameter = self._first(decision.name), self[decision.name].detach()
        numbers = [mutable.numbers(choice) for choice in decision.choices]
        return {n: float(mutable.picks.log_probability(parameter, chosen)) for n, chosen in enumerate(numbers)}

    def log_probability(self, architecture: Mapping[str, Choice]) -> Tensor:
        """The log-probability that `sample` draws what is learned of `architecture`, for backward.

        Edges of a route are counted in their order; they may have been drawn in another.
        """
        total = []
        for name, parameter in self.items():
            mutable = self._first(name)
            total.append(mutable.picks.log_probability(parameter, mutable.numbers(architecture[name])))
        return torch.stack(total).sum()

    def entropy(self) -> dict[str, float]:
        """The entropy of each decision, in shares of the largest."""
        return {name: self._first(name).picks.entropy(p) for name, p in self.probabilities().items()}

    def leads(self) -> dict[str, float]:
        """How far each decision is from being another one: by how much its best candidate leads the second."""
        return {name: self._first(name).picks.lead(p.tolist()) for name, p in self.probabilities().items()}

    def takes_one(self, name: str) -> bool:
        """Whether a decision is learned and takes one of its candidates, whose probabilities are a softmax."""
        return name in self.learned and self._first(name).picks == Some(1) and not self._is_route(name)

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

    def _first(self, name: str) -> DiffMutableModule[Any, Any]:
        return self.mutables[name][0]

    def _is_route(self, name: str) -> bool:
        return isinstance(self._first(name), DiffChoiceRoute)

    def _best(self, mutable: DiffMutableModule[Any, Any], probabilities: Tensor, exclude: Collection[str]) -> Any:
        """The most probable choice; where one operation is taken, none of `exclude`."""
        values = probabilities.tolist()
        if mutable.picks == Some(1) and not isinstance(mutable, DiffChoiceRoute):
            allowed = [number for number, choice in enumerate(mutable.choices) if choice not in exclude]
            if not allowed:
                raise SpaceError(f"every candidate of {list(mutable.choices)} is excluded; leave one")
            return mutable.decided([max(allowed, key=values.__getitem__)])
        return mutable.decided(mutable.picks.best(values))

    def _strengths(
        self, route: DiffChoiceRoute, probabilities: Mapping[str, Tensor], exclude: Collection[str]
    ) -> dict[str, float]:
        """Edge to the probability of the best operation on it, as DARTS ranks them; without operations all are equal."""
        decided = {id(m): name for name in self.learned for m in self.mutables[name]}
        strengths = dict.fromkeys(route.candidates, 0.0)
        for edge, module in route.candidates.items():
            on_edge = [m for m in module.modules() if id(m) in decided and isinstance(m, DiffMutableModule)]
            for m in on_edge[:1]:
                best = self._best(m, probabilities[decided[id(m)]], exclude)
                strengths[edge] = float(probabilities[decided[id(m)]][m.numbers(best)[0]])
        return strengths


def attribute(name: str) -> str:
    """A decision's name as `nn.ParameterDict` can hold it: no dots, no name of a method; no two names are held as one."""
    attribute = name.replace("\\", "\\\\").replace("/", "\\/").replace(".", "/")
    return f"{attribute}/" if hasattr(nn.ParameterDict, attribute) else attribute
