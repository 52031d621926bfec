"""The macro search space of ENAS: what each layer computes, and which earlier layers it adds."""

from typing import Any

from torch import Tensor, nn

from mutorch.errors import ConfigError
from mutorch.mutables import InputChoice, LayerChoice

from .conv_norm_act import conv_norm_act
from .factorized_reduce import FactorizedReduce


class EnasMacro(nn.Module):
    """A chain of layers that each choose an operation and any number of earlier layers (arXiv 1802.03268, section 2.3).

    Layer `i` computes one of `conv3`, `sep3`, `conv5`, `sep5`, `avgpool`, `maxpool` (decision `layer_<i>`) of the layer
    before it, adds the outputs of those earlier layers that it takes (`layer_<i>_skip`, of `layer_0` to `layer_<i-1>`), and
    normalizes the sum. After a third and after two thirds of the layers, the outputs of all layers so far are halved, each by
    a `FactorizedReduce` of its own; as the paper has it, these compute whether or not a later layer takes them, so that what
    an architecture costs is a sum over its layers.

    The defaults are those of the published search on CIFAR-10.

    Args:
        in_channels: of the images.
        num_layers: 3 at least.
        channels: of every layer; even.
        dropout: before the classifier.

    Errors:
        ConfigError: fewer than three layers.

    Example:
        >>> import torch
        >>> from mutorch.mutators import Mutator
        >>> net = EnasMacro(num_layers=3, channels=4)
        >>> mutator = Mutator(net)
        >>> mutator.space.names, mutator.space.size
        (('layer_0', 'layer_1', 'layer_1_skip', 'layer_2', 'layer_2_skip'), 1728)
        >>> net(torch.ones(2, 3, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        num_layers: int = 12,
        channels: int = 36,
        *,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if num_layers < 3:
            raise ConfigError(f"EnasMacro has three stages and needs num_layers of at least 3, got {num_layers}")
        self.stem = conv_norm_act(in_channels, channels, 3, act_cfg=None)
        self.layers = nn.ModuleList()
        self.reductions = nn.ModuleDict()
        ends = (num_layers // 3 - 1, 2 * num_layers // 3 - 1)
        for number in range(num_layers):
            self.layers.append(EnasLayer(number, channels))
            if number in ends:
                self.reductions[str(number)] = nn.ModuleList(
                    FactorizedReduce(channels, channels) for _ in range(number + 1)
                )
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, in_channels, H, W)."""
        x = self.stem(x)
        outputs: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            x = layer(x, outputs)
            outputs.append(x)
            if str(number) in self.reductions:
                halves: Any = self.reductions[str(number)]
                outputs = [halve(output) for halve, output in zip(halves, outputs, strict=True)]
                x = outputs[-1]
        logits: Tensor = self.head(x)
        return logits


class EnasLayer(nn.Module):
    """One layer of `EnasMacro`: an operation (`op`), the sum with earlier outputs (`skip`), and a norm (`bn`).

    Args:
        number: of the layer; it has as many earlier ones to take.

    Example:
        >>> EnasLayer(2, 4).op.key, EnasLayer(2, 4).skip.choices
        ('layer_2', ['layer_0', 'layer_1'])
    """

    def __init__(self, number: int, channels: int) -> None:
        super().__init__()
        key = f"layer_{number}"
        self.op = LayerChoice(enas_macro_candidates(channels), key=key)
        before = [f"layer_{earlier}" for earlier in range(number)]
        self.skip = InputChoice(choose_from=before, key=f"{key}_skip") if before else None
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, earlier: list[Tensor]) -> Tensor:
        """The output for that of the layer before, and of all earlier ones."""
        out = self.op(x)
        added = None if self.skip is None else self.skip(earlier)
        normalized: Tensor = self.bn(out if added is None else out + added)
        return normalized


def enas_macro_candidates(channels: int) -> dict[str, nn.Module]:
    """The six operations of `EnasMacro`, each after a 1x1 convolution; names to modules.

    Example:
        >>> list(enas_macro_candidates(4))
        ['conv3', 'sep3', 'conv5', 'sep5', 'avgpool', 'maxpool']
    """
    return {
        "conv3": _after_1x1(channels, conv_norm_act(channels, channels, 3)),
        "sep3": _after_1x1(channels, *_separable(channels, 3)),
        "conv5": _after_1x1(channels, conv_norm_act(channels, channels, 5)),
        "sep5": _after_1x1(channels, *_separable(channels, 5)),
        "avgpool": _after_1x1(channels, nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)),
        "maxpool": _after_1x1(channels, nn.MaxPool2d(3, 1, padding=1)),
    }


def _after_1x1(channels: int, *layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(conv_norm_act(channels, channels, 1), *layers)


def _separable(channels: int, kernel_size: int) -> list[nn.Module]:
    depthwise = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=False)
    return [depthwise, conv_norm_act(channels, channels, 1)]
