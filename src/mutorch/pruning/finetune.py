"""What a pruned model is trained with afterwards."""

from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mutorch.errors import ConfigError
from mutorch.training import fit
from mutorch.training.distill import class_dim, scores_of, seen_outputs
from mutorch.utils import evaluating, require

from .batches import device_of


@dataclass(frozen=True, slots=True)
class Finetune:
    """SGD with Nesterov momentum and a cosine schedule, with the outputs of the original as soft targets.

    Attributes:
        steps: optimizer steps; or say `epochs`. Two epochs where neither is given.
        lr: the highest learning rate; about a third of that of the original training.
        distill: the share of the loss that compares with the original's outputs, from 0 (off) to 1. Costs one forward
            of the original a step.
        temperature: outputs are divided by it before they are compared.
    """

    steps: int | None = None
    epochs: float | None = None
    lr: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 5e-4
    distill: float = 0.9
    temperature: float = 4.0

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise ConfigError(f"finetune takes steps or epochs, not both, got {self.steps!r} and {self.epochs!r}")
        for name, low in (("steps", 0), ("epochs", 0), ("lr", 0), ("temperature", 1e-6), ("weight_decay", 0)):
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise ConfigError(f"finetune: {name} must be at least {low}, got {value!r}")
        if not 0 <= self.distill <= 1:
            raise ConfigError(f"finetune: distill is a share from 0 to 1, got {self.distill!r}")

    def num_steps(self, data: Iterable[Any]) -> int:
        """Steps, or epochs of the data in steps.

        Errors:
            ConfigError: epochs of data without a length.
        """
        if self.steps is not None:
            return self.steps
        epochs = 2 if self.epochs is None else self.epochs
        if not epochs:
            return 0
        if not isinstance(data, Sized):
            raise ConfigError(f"the data has no length to count {epochs} epochs of; give finetune=Finetune(steps=...)")
        return max(1, round(epochs * len(data)))


def finetune_(
    model: nn.Module,
    original: nn.Module,
    data: Iterable[Any],
    loss: Callable[[nn.Module, Any], Tensor],
    settings: Finetune,
    *,
    constant_lr: float | None = None,
    seed: int = 0,
    on_step: Callable[[int, int, Tensor], Any] | None = None,
) -> int:
    """Train a pruned model, in place; returns the number of steps. Needs the extra `train`.

    Args:
        constant_lr: a learning rate that stays, instead of the cosine schedule of `settings`.
    """
    steps = settings.num_steps(data)
    if not steps or not any(parameter.requires_grad for parameter in model.parameters()):
        return 0
    optimizer = torch.optim.SGD(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=settings.lr if constant_lr is None else constant_lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.momentum > 0,
    )
    device = device_of(model)
    index = device.index or 0
    accelerator = {"cuda": "cuda", "mps": "mps"}.get(device.type, "cpu")
    fabric = require("lightning_fabric", extra="train").Fabric(
        accelerator=accelerator, devices=1 if accelerator == "cpu" else [index]
    )
    fit(
        model,
        data,
        Distilled(loss, original, settings.distill, settings.temperature) if settings.distill else loss,
        optimizer,
        steps=steps,
        scheduler=None if constant_lr is not None else torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
        seed=seed,
        fabric=fabric,
        on_step=on_step,
    )
    return steps


class Distilled:
    """A loss, and how far the model's outputs are from those of a teacher (Hinton et al., arXiv 1503.02531).

    Outputs are compared tensor by tensor: as logits along dimension 1 (class scores, score maps), or along the last one
    where there are three (scores of every token); a single dimension by squared differences. The teacher computes in
    evaluation mode.

    Args:
        loss: takes a model and a batch; it calls the model once.
        share: of the comparison; the loss has the rest.

    Example:
        >>> model, teacher = nn.Linear(2, 3), nn.Linear(2, 3)
        >>> loss = Distilled(lambda m, x: m(x).sum(), teacher, share=1.0, temperature=2.0)
        >>> bool(loss(model, torch.ones(4, 2)) > 0), bool(loss(teacher, torch.ones(4, 2)).abs() < 1e-6)
        (True, True)
    """

    def __init__(
        self, loss: Callable[[nn.Module, Any], Tensor], teacher: nn.Module, share: float, temperature: float
    ) -> None:
        self._loss = loss
        self._teacher = teacher
        self._share = share
        self._temperature = temperature

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        with evaluating(self._teacher), torch.no_grad():
            _, wanted = self._run(self._teacher, batch)
        loss, outputs = self._run(model, batch)
        pairs = [(a, b) for a, b in zip(outputs, wanted, strict=False) if a.shape == b.shape]
        if len(pairs) != len(outputs) or not pairs:
            raise ConfigError("the pruned model's outputs differ from the original's in shape; give distill=0")
        apart = torch.stack([self._apart(a, b) for a, b in pairs]).mean()
        return (1 - self._share) * loss + self._share * apart

    def _run(self, model: nn.Module, batch: Any) -> tuple[Tensor, list[Tensor]]:
        """The loss, and every tensor that the model gave."""
        with seen_outputs(model) as outputs:
            loss = self._loss(model, batch)
        if not outputs:
            raise ConfigError("the loss does not call the model, so its outputs cannot be compared; give distill=0")
        return loss, scores_of(outputs[-1])

    def _apart(self, output: Tensor, wanted: Tensor) -> Tensor:
        if output.dim() < 2:
            return F.mse_loss(output, wanted)
        along = class_dim(output)
        soft = [F.log_softmax(logits.float() / self._temperature, dim=along) for logits in (output, wanted)]
        each = F.kl_div(soft[0], soft[1], log_target=True, reduction="none").sum(dim=along)
        return each.mean() * self._temperature**2
