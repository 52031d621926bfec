"""A searchable backbone with a head that follows it, at a searchable resolution."""

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from mutorch.errors import ConfigError, nearest
from mutorch.registry import MODELS

from .image_classifier import ImageClassifier

RESIZER_KEYS = ("input_resizer", "mutable_shape")
INPUT_SHAPE = "input_shape"


class SearchableImageClassifier(ImageClassifier):
    """An `ImageClassifier` whose parts are tied: the head follows the backbone's width, images get a size that is searched.

    Args:
        backbone, head: modules, or configs of them.
        input_resizer_cfg: `input_resizer`, the config of a `DynamicInputResizer`, and `mutable_shape`, that of a
            `OneShotMutableValue` of sizes `[height, width]`; its decision is `input_shape`. Without it, images stay as they
            are.
        connect_head: a method of the head to the attribute that it is called with, such as
            `dict(connect_with_backbone="backbone.last_mutable")`.

    Errors:
        ConfigError: other keys of `input_resizer_cfg`; a method or an attribute that is not there.

    Example:
        >>> import torch
        >>> from mutorch.models import LinearClsHead
        >>> shapes = dict(type="OneShotMutableValue", value_list=[[16, 16], [32, 32]])
        >>> resizer = dict(input_resizer=dict(type="DynamicInputResizer"), mutable_shape=shapes)
        >>> head = LinearClsHead(num_classes=10, in_channels=8)
        >>> model = SearchableImageClassifier(nn.Conv2d(3, 8, 3), head, input_resizer_cfg=resizer)
        >>> from mutorch.mutators import Mutator
        >>> Mutator(model).space.names, model(torch.ones(1, 3, 20, 20)).shape
        (('input_shape',), torch.Size([1, 10]))
    """

    def __init__(
        self,
        backbone: nn.Module | dict[str, Any],
        head: nn.Module | dict[str, Any],
        input_resizer_cfg: Mapping[str, Any] | None = None,
        connect_head: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(backbone, head)
        self.input_resizer = None if input_resizer_cfg is None else _resizer(input_resizer_cfg)
        for method, attribute in (connect_head or {}).items():
            if not callable(getattr(self.head, method, None)):
                raise ConfigError(
                    f"connect_head: {type(self.head).__name__} has no method {method!r}; {nearest(method, dir(self.head))}"
                )
            try:
                found = attrgetter(attribute)(self)
            except AttributeError as error:
                raise ConfigError(f"connect_head: there is no {attribute!r} in this classifier: {error}") from None
            getattr(self.head, method)(found)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if self.input_resizer is None else self.input_resizer(images))


def _resizer(config: Mapping[str, Any]) -> nn.Module:
    unknown = [key for key in config if key not in RESIZER_KEYS]
    if unknown or len(config) != len(RESIZER_KEYS):
        raise ConfigError(
            f"input_resizer_cfg has the keys {' and '.join(RESIZER_KEYS)}, got {', '.join(config) or 'none'}"
        )
    resizer: Any = MODELS.build(config["input_resizer"])
    resizer.register_mutable_attr("shape", MODELS.build({"alias": INPUT_SHAPE, **config["mutable_shape"]}))
    built: nn.Module = resizer
    return built
