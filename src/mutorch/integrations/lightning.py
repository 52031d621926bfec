"""A supernet inside Lightning's trainer."""

from collections.abc import Mapping
from typing import Any, Literal

from mutorch.mutators import Mutator
from mutorch.space import Choice
from mutorch.utils import require

from .supernet_steps import Sampler, SupernetSteps

_Callback: Any = require("lightning.pytorch", extra="lightning").Callback


class SupernetCallback(_Callback):  # type: ignore[misc]
    """Trains an architecture a step, and moves nothing else; validation runs at `evaluate_at`.

    For any `LightningModule` that is a supernet or holds one, with automatic or manual optimization, one optimizer or
    several. Numbers are counted by optimizer steps (`trainer.global_step`); with `every="batch"`, and in manual
    optimization, where a batch may step several optimizers, by batches. Both go on in a run that is resumed. Between
    steps, for validation, and after training, the net is at `evaluate_at`; `Trainer.test` takes it as it then is.

    Args:
        mutator, seed, sample, every, evaluate_at, protect: as `mutorch.integrations.SupernetSteps` has them.

    Errors:
        StateError: when training starts, if the module that is trained does not hold the mutator's model.

    Example:
        >>> from lightning.pytorch import LightningModule
        >>> from mutorch.mutables import OneShotMutableOP
        >>> from torch import nn
        >>> class Classifier(LightningModule):  # and its training_step and configure_optimizers, as always
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = OneShotMutableOP({"linear": nn.Linear(2, 2), "skip": nn.Identity()})
        >>> module = Classifier()
        >>> callback = SupernetCallback(Mutator(module.net), seed=0)  # Trainer(..., callbacks=[callback]).fit(module, data)
        >>> module.net.current_choice  # between the steps
        'linear'
    """

    def __init__(
        self,
        mutator: Mutator,
        *,
        seed: int = 0,
        sample: str | Sampler | None = "uniform",
        every: Literal["step", "batch"] = "step",
        evaluate_at: Mapping[str, Choice] | None = None,
        protect: bool = True,
    ) -> None:
        self._steps = SupernetSteps(
            mutator, seed=seed, sample=sample, every=every, evaluate_at=evaluate_at, protect=protect
        )

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self._steps.check(pl_module)
        self._steps.rest()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._steps.start(trainer.optimizers)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        by_step = self._steps.every == "step" and pl_module.automatic_optimization
        self._steps.train(trainer.global_step if by_step else trainer.fit_loop.total_batch_idx)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._steps.rest()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._steps.stop()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._steps.stop()
