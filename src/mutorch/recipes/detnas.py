"""Backbone search for object detection (DetNAS, Chen et al., arXiv 1903.10979), from a config to a plain detector.

1. Train one supernet, backbone and detector together, on the detection task, one uniform path a step; where settings say so its
backbone first learns to classify. 2. Search it under a budget by mean average precision on validation images: each candidate
takes the supernet's weights and its own BatchNorm statistics. 3. Train the best ones alone, and beside them random ones within the
same budget, the largest and the smallest, equally long. 4. Export the winner.

The stages are those of the one-shot recipe, with another loss and another score. A model gives class logits (N, K, h, w) and boxes
(N, 4, h, w), as `DenseDetector` does; for another kind of detector make a subclass of `DetNASRun` with its `loss` and `found`.
"""

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mutorch.errors import ConfigError
from mutorch.models import ImageClassifier
from mutorch.models.detection import detection_loss, detections
from mutorch.mutators import Mutator
from mutorch.registry import DATASETS
from mutorch.search.loop import OnTrial
from mutorch.utils import evaluating
from mutorch.utils.average_precision import mean_average_precision

from .building import build_model
from .data import Data
from .detnas_settings import DetNASSettings, Pretraining
from .progress import Progress
from .settings import Training
from .spos import Result, Run, fit_by_sgd, run_whole


def detnas(
    settings: DetNASSettings,
    output: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    on_trial: Sequence[OnTrial] = (),
) -> Result:
    """Run the whole recipe; see the top of this file.

    Args:
        settings: model, data, trainings, search.
        output: a folder for checkpoints, the log, results and the exported winner. One folder is one run.
        on_trial: as for `spos`.

    Returns:
        As for `spos`; the accuracies of its rows are mAP, averaged over the overlaps 0.50 to 0.95 as COCO does.

    Errors:
        ResumeError: the folder belongs to a run with other settings.
        InfeasibleBudgetError: a budget that cannot be met, before anything is trained.
        ConfigError: a pre-training of a model without `backbone`.
    """
    return run_whole(DetNASRun(settings, output, progress), on_trial)


class DetNASRun(Run):
    """The stages of the recipe, for a detection task.

    Args:
        settings, output, progress: as for `detnas`. The data's batches are images and, for each image, a dict of `boxes` and
            `labels`; see `DetectionDigits`.

    Attributes:
        pretraining_data: what backbones learn to classify first; `None` without.
    """

    metric = "mAP"
    objective = "mAP"
    lasting = (*Run.lasting, "pretrain")
    settings: DetNASSettings

    def __init__(
        self, settings: DetNASSettings, output: str | os.PathLike[str], progress: Progress | None = None
    ) -> None:
        super().__init__(settings, output, progress)
        self.pretraining_data: Data | None = None
        if settings.pretrain is not None:
            if not isinstance(getattr(self.net, "backbone", None), nn.Module):
                raise ConfigError(
                    f"pretrain trains the model's `backbone`, and {type(self.net).__name__} has no such module"
                )
            self.pretraining_data = DATASETS.build(dict(settings.pretrain.data))

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The detection loss of images and targets."""
        images, targets = batch
        return detection_loss(model(images), targets, tuple(images.shape[2:]))

    def found(self, model: nn.Module, images: Tensor) -> list[dict[str, Tensor]]:
        """What a model detects: for each image `boxes`, `scores` and `labels`."""
        return detections(model(images))

    def evaluate(self, model: nn.Module, loader: DataLoader[Any]) -> dict[str, float]:
        """`mAP` over the overlaps 0.50 to 0.95, and `mAP50` at 0.5."""
        found: list[dict[str, Tensor]] = []
        wanted: list[dict[str, Tensor]] = []
        with evaluating(model), torch.inference_mode():
            for images, targets in loader:
                found += self.found(model, images)
                wanted += targets
        return {"mAP": mean_average_precision(found, wanted), "mAP50": mean_average_precision(found, wanted, iou=0.5)}

    def _fit(
        self, model: nn.Module, training: Training, stage: str | None, checkpoint: Path, mutator: Mutator | None = None
    ) -> None:
        if self.settings.pretrain is not None and self.pretraining_data is not None:
            # A copy: the backbone's choices stay those of the detector's mutator.
            backbone = copy.deepcopy(model.backbone)
            classifier = ImageClassifier(backbone, self._head(self.settings.pretrain))  # type: ignore[arg-type]
            is_supernet = mutator is not None
            fit_by_sgd(
                classifier,
                self.pretraining_data,
                super().loss,
                self.settings.pretrain.supernet if is_supernet else self.settings.pretrain.alone,
                mutator=Mutator(classifier) if is_supernet else None,
                seed=self.settings.seed,
                checkpoint=checkpoint.with_suffix(".backbone.ckpt"),
                on_step=None if stage is None else self._shower("pre-training the backbone"),
            )
            model.backbone.load_state_dict(classifier.backbone.state_dict())  # type: ignore[union-attr]
        super()._fit(model, training, stage, checkpoint, mutator)

    def _head(self, pretrain: Pretraining) -> nn.Module:
        """A new classifier's head, always with the same weights."""
        return build_model(pretrain.head, self.settings.seed)
