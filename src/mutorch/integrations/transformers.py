"""A supernet inside the `Trainer` of transformers."""

from collections.abc import Mapping
from typing import Any, Literal

from mutorch.mutators import Mutator
from mutorch.space import Choice
from mutorch.utils import require

from .supernet_steps import Sampler, SupernetSteps

_Callback: Any = require("transformers", extra="transformers").TrainerCallback


class SupernetCallback(_Callback):  # type: ignore[misc]
    """Trains an architecture a step, and moves nothing else; evaluation runs at `evaluate_at`.

    For any model that the `Trainer` takes and that is a supernet or holds one. Numbers are counted by optimizer steps
    (`state.global_step`), or with `every="batch"` by batches. Both go on in a run that is resumed. Between steps, for
    evaluation, and after training, the net is at `evaluate_at`; `trainer.evaluate()` and `trainer.predict()` take it as it
    then is.

    Args:
        mutator, seed, sample, every, evaluate_at, protect: as `mutorch.integrations.SupernetSteps` has them.

    Errors:
        StateError: when training starts, if the model that is trained does not hold the mutator's model.

    Example:
        >>> import torch
        >>> from mutorch import searchable
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=32, **sizes))
        >>> net = searchable(model, {"input_ids": torch.zeros(1, 8, dtype=torch.long)})
        >>> callback = SupernetCallback(Mutator(net), seed=0)  # Trainer(net, ..., callbacks=[callback]).train()
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
        self._batch = 0  # of those that are accumulated for a step

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, optimizer: Any, **kwargs: Any) -> None:
        self._steps.check(model)
        # accelerate's wrapper is no whole optimizer: what it wraps has the hooks.
        self._steps.start([getattr(optimizer, "optimizer", optimizer)])

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._batch = 0
        self._train(args, state)

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._batch += 1
        self._train(args, state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._steps.rest()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._steps.rest()  # another callback may have stopped the epoch in the midst of a step

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._steps.stop()

    def _train(self, args: Any, state: Any) -> None:
        step = state.global_step
        self._steps.train(
            step if self._steps.every == "step" else step * args.gradient_accumulation_steps + self._batch
        )
