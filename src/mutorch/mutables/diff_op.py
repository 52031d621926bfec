"""A block whose operation is learned by gradient."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mutorch.errors import ChoiceError

from .candidates import build_candidates
from .diff_module import DiffMutableModule, weighted_sum
from .dump import DumpChosen
from .one_shot_op import sum_of_outputs
from .partial_channels import PartialChannels, partial_channels
from .relaxation import OneHot, Relaxation, gumbel_noise
from .summed_modules import SummedModules


class DiffMutableOP(DiffMutableModule[str, str | list[str]]):
    """A block that computes the mixture of its candidates: DARTS (arXiv 1806.09055; seed 001).

    With a current choice and no `arch_param` argument it is a block of a one-shot supernet.

    Args:
        candidates: a dict from name to a built module or to a config with `type`, or a ready `nn.ModuleDict`.
        fix_threshold: by how much the most probable candidate must lead for the block to be decided early; see
            `OneHotMutableOP` and `Mutator.settle`. At 1, never.
        module_kwargs: arguments added to every config; see `build_candidates`.
        alias: mutables with one alias make one decision, and share one architecture parameter.
        init_cfg: see `BaseMutable`.
        relaxation: how the candidates are mixed; `Softmax()` unless given.
        partial: into how many equal parts the channels are divided, of which the candidates compute the first: they are made
            for a `partial`-th of the channels, and the rest passes (PC-DARTS). So is what is exported: to train what was
            found at full width, take its architecture to a model with `partial=1`.

    Errors:
        ChoiceError: no candidates, a threshold outside 0 to 1 (also `ValueError`), or less than one part.

    Example:
        >>> op = DiffMutableOP({"twice": nn.Upsample(scale_factor=2), "again": nn.Upsample(scale_factor=2)})
        >>> op(torch.ones(1, 1, 1, 1), arch_param=torch.zeros(2))
        tensor([[[[1., 1.],
                  [1., 1.]]]])
    """

    def __init__(
        self,
        candidates: Mapping[str, nn.Module | Mapping[str, Any]] | nn.ModuleDict,
        fix_threshold: float = 1.0,
        module_kwargs: dict[str, Any] | None = None,
        alias: str | None = None,
        init_cfg: dict[str, Any] | None = None,
        *,
        relaxation: Relaxation | None = None,
        partial: int = 1,
    ) -> None:
        super().__init__(module_kwargs=module_kwargs, alias=alias, init_cfg=init_cfg, relaxation=relaxation)
        if partial < 1:
            raise ChoiceError(f"partial must be at least 1, got {partial}")
        self.partial = partial
        if not 0 <= fix_threshold <= 1:
            raise ChoiceError(f"fix_threshold must be between 0 and 1, got {fix_threshold}")
        self.fix_threshold = fix_threshold
        self._candidates = build_candidates(candidates, module_kwargs)
        self._chosen: list[str] = []

    @property
    def choices(self) -> list[str]:
        """The names of the candidates, in order; after fixing, of those that are left."""
        return list(self._candidates.keys())

    @property
    def decision_choices(self) -> list[Any]:
        """The names; after fixing to several, their list as the only choice."""
        return [tuple(self._chosen)] if len(self._chosen) > 1 else self.choices

    def keeps(self, choice: Any, candidate: str) -> bool:
        return candidate == choice if isinstance(choice, str) else candidate in choice

    def forward(self, x: Any, arch_param: Tensor | None = None) -> Any:
        compute = super().forward
        if self.partial == 1:
            return compute(x, arch_param)
        return partial_channels(lambda part: compute(part, arch_param), x, self.partial)

    def sample_choice(self, arch_param: Tensor) -> str:
        """The most probable candidate. To leave some out, such as 'zero', see `Mutator.argmax`."""
        self._check_arch_param(arch_param)
        return self.choices[int(arch_param.detach().argmax())]

    def forward_arch_param(self, x: Any, arch_param: Tensor) -> Any:
        """The mixture by `arch_param`.

        Errors:
            ChoiceError: not one value for each candidate.
        """
        return self._mixture(arch_param, list(self._candidates.values()), [x] * len(self._candidates))

    def forward_choice(self, x: Any, choice: Any) -> Any:
        if isinstance(choice, str):
            self._check_choice(choice)
            return self._candidates[choice](x)
        return self._summed(choice)(x)

    def forward_fixed(self, x: Any) -> Any:
        """The sum of the candidates that were fixed, as a rule one."""
        return sum_of_outputs(self, [self._candidates[name](x) for name in self._chosen])

    def forward_all(self, x: Any) -> Any:
        """The plain sum of all candidates' outputs (seed 001).

        Errors:
            ChoiceError: outputs that cannot be added.
        """
        return sum_of_outputs(self, [candidate(x) for candidate in self._candidates.values()])

    def chosen_module(self, choice: Any) -> nn.Module:
        module = super().chosen_module(choice) if isinstance(choice, str) else self._summed(choice)
        return module if self.partial == 1 else PartialChannels(module, self.partial)

    def _summed(self, names: list[str]) -> nn.Module:
        for name in names:
            self._check_choice(name)
        return SummedModules({name: self._candidates[name] for name in names})

    def fix_chosen(self, chosen: str | list[str]) -> None:
        """Keep only the candidates `chosen`, for good and in place.

        Errors:
            FixedError: fixed before.
            ChoiceError: no candidate of that name, or none at all; nothing is removed.
        """
        self._check_not_fixed()
        names = [chosen] if isinstance(chosen, str) else list(chosen)
        if not names:
            raise ChoiceError(f"{self._describe()} cannot be fixed to nothing; choices: {self.choices}")
        for name in names:
            self._check_choice(name)
        self._candidates = nn.ModuleDict({name: self._candidates[name] for name in self.choices if name in names})
        self._chosen = self.choices
        self._current_choice = names[0] if len(names) == 1 else self.choices
        self.is_fixed = True

    def dump_chosen(self) -> DumpChosen:
        """The current choice, with all choices as meta.

        Errors:
            ChoiceError: no choice was made.
        """
        if self._current_choice is None:
            raise ChoiceError(f"{self._describe()} has no current choice to dump; choices: {self.choices}")
        return DumpChosen(chosen=self._current_choice, meta={"all_choices": self.choices})

    def extra_repr(self) -> str:
        return f"choices={self.choices}, current_choice={self._current_choice!r}, relaxation={self.relaxation}"


class OneHotMutableOP(DiffMutableOP):
    """A block that computes one sampled candidate a step: DSNAS (arXiv 2002.09128; seed 001).

    A `DiffMutableOP` with the relaxation `OneHot()`, which keeps the weights of the last step in `arch_weights`, a leaf
    whose gradient the backward fills in.

    Args:
        candidates, fix_threshold, module_kwargs, alias, init_cfg, partial: as for `DiffMutableOP`. Below a `fix_threshold` of 1,
            `forward_arch_param` fixes the block, for good and in place, as soon as the most probable candidate leads the
            second by that much; it waits for the device to see that. `Mutator.settle` decides without removing anything.

    Example:
        >>> op = OneHotMutableOP({"twice": nn.Upsample(scale_factor=2), "same": nn.Identity()})
        >>> _ = op(torch.ones(1, 1, 1, 1), arch_param=torch.tensor([0.0, 50.0]))
        >>> op.arch_weights
        tensor([0., 1.], requires_grad=True)
    """

    def __init__(
        self,
        candidates: Mapping[str, nn.Module | Mapping[str, Any]] | nn.ModuleDict,
        fix_threshold: float = 1.0,
        module_kwargs: dict[str, Any] | None = None,
        alias: str | None = None,
        init_cfg: dict[str, Any] | None = None,
        *,
        relaxation: Relaxation | None = None,
        partial: int = 1,
    ) -> None:
        super().__init__(
            candidates,
            fix_threshold,
            module_kwargs,
            alias,
            init_cfg,
            relaxation=relaxation or OneHot(),
            partial=partial,
        )
        self._all_names = self.choices
        self._arch_weights: Tensor | None = None

    @property
    def arch_weights(self) -> Tensor | None:
        """The weights of the last mixture, one for each candidate."""
        return self._arch_weights

    def sample_weights(
        self,
        arch_param: Tensor,
        probs: Tensor,
        random_sample: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """One draw from the candidates, as a one-hot vector of floats of the shape of `arch_param`.

        Args:
            probs: the probability of each candidate.
            random_sample: whether to draw uniformly instead.
            generator: to draw from, on the CPU; the module's own unless given.
        """
        wanted = torch.ones_like(probs) if random_sample else probs
        logits = wanted.detach().to("cpu", torch.float64).log()
        number = int((logits + gumbel_noise(len(logits), generator or self._own_generator())).argmax())
        sample = torch.zeros_like(arch_param, requires_grad=False)
        sample[number] = 1.0
        return sample

    def forward_arch_param(self, x: Any, arch_param: Tensor) -> Any:
        """One candidate, sampled by softmax(arch_param); after fixing, the fixed one."""
        if not self._is_fixed:
            self._check_arch_param(arch_param)
            leader = self._leader(arch_param)
            if leader is not None:
                self.fix_chosen(leader)
        if self._is_fixed:
            kept = [name in self._chosen for name in self._all_names]
            self._arch_weights = torch.tensor(kept, dtype=arch_param.dtype, device=arch_param.device).requires_grad_()
            return self.forward_fixed(x)
        draw = self._draw or self._drawn(arch_param)
        leaf = torch.zeros_like(arch_param, requires_grad=False)
        values = self.relaxation.weights(arch_param, draw.noise.to(arch_param), draw.paths)
        for position, number in enumerate(draw.paths):
            leaf[number] = values[position].detach()
        self._arch_weights = leaf.requires_grad_()
        # Value: the leaf's. Gradient: to the leaf, and through the relaxation to the parameter.
        weights = torch.stack([leaf[number] for number in draw.paths]) + (values - values.detach())
        candidates = list(self._candidates.values())
        return weighted_sum(weights, [self._run(candidates[number], x) for number in draw.paths])

    def _leader(self, arch_param: Tensor) -> str | None:
        """The candidate that leads by the threshold."""
        if self.fix_threshold >= 1 and len(self._candidates) > 1:
            return None
        probs = torch.softmax(arch_param.detach(), dim=-1).cpu()
        if len(probs) == 1:
            return None
        first, second = probs.topk(2).values.tolist()
        return self.choices[int(probs.argmax())] if first - second >= self.fix_threshold else None
