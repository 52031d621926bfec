"""What choices in the model cost: a layer choice over its candidate, masks over sums written by hand."""

import torch
from torch import nn

from benchmarks.measure import in_turns
from mutorch import LayerChoice, Mutator, export
from mutorch.mutables import InputChoice
from mutorch.mutators import DartsMutator, RandomMutator

CHANNELS, BLOCKS = 32, 20


def conv(size: int) -> nn.Sequential:
    """A candidate: convolution, norm, activation."""
    layer = nn.Conv2d(CHANNELS, CHANNELS, size, padding=size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(CHANNELS), nn.ReLU())


def chain() -> nn.Sequential:
    """Twenty layer choices of four candidates."""
    stem = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, stride=2, padding=1), nn.ReLU())
    blocks = [LayerChoice({f"conv{k}": conv(k) for k in (1, 3, 5)} | {"skip": nn.Identity()}) for _ in range(BLOCKS)]
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 10))


def single_path(batch: int, size: int, repeats: int) -> float:
    """One path of the chain, chosen by a `Mutator`, over the same layers without choices."""
    net = chain().eval()
    mutator = Mutator(net)
    mutator.set_choices({name: f"conv{1 + 2 * (number % 3)}" for number, name in enumerate(mutator.space.names)})
    static, x = export(net), torch.zeros(batch, 3, size, size)
    with torch.inference_mode():
        plain, ours = in_turns(lambda: static(x), lambda: net(x), repeats=repeats)
    return ours / plain


def by_mask(batch: int, size: int, repeats: int) -> float:
    """One path of the chain, decided by the masks of a `RandomMutator`, over the same layers without choices."""
    net = chain().eval()
    mutator = RandomMutator(net, seed=0)
    mutator.reset()
    static, x = export(net), torch.zeros(batch, 3, size, size)
    with torch.inference_mode():
        plain, ours = in_turns(lambda: static(x), lambda: net(x), repeats=repeats)
    return ours / plain


def dispatch() -> tuple[float, float]:
    """Microseconds that a layer choice adds to the call of its candidate: a choice, and a mask."""
    chosen, masked = (LayerChoice({name: nn.Identity() for name in "abcd"}) for _ in range(2))
    Mutator(chosen).set_choices({"root": "b"})
    RandomMutator(masked, seed=0).reset()
    candidate, x = chosen["b"], torch.zeros(1)
    plain, by_choice, by_mask = in_turns(
        lambda: candidate(x), lambda: chosen(x), lambda: masked(x), repeats=15, inner=10_000
    )
    return (by_choice - plain) * 1e6, (by_mask - plain) * 1e6


def mixture() -> float:
    """Forward and backward of a layer whose four candidates a `DartsMutator` weighs, over the weighted sum by hand."""
    choice = LayerChoice([conv(3) for _ in range(4)], key="op")
    mutator = DartsMutator(nn.Sequential(choice))
    alpha = nn.Parameter(torch.zeros(5))
    x = torch.zeros(16, CHANNELS, 16, 16)

    def by_hand() -> None:
        weights = torch.softmax(alpha, dim=0)
        torch.stack(
            [weight * candidate(x) for weight, candidate in zip(weights, choice, strict=False)]
        ).sum().backward()

    def ours() -> None:
        mutator.reset()
        choice(x).sum().backward()

    hand, masks = in_turns(by_hand, ours, repeats=41)
    return masks / hand


def inputs() -> float:
    """Microseconds that an input choice adds to the sum of two tensors."""
    choice = InputChoice(4, n_chosen=2)
    Mutator(choice).set_choices({"root": [1, 3]})
    given = [torch.zeros(1) for _ in range(4)]
    plain, ours = in_turns(lambda: given[1] + given[3], lambda: choice(given), repeats=15, inner=10_000)
    return (ours - plain) * 1e6


def run() -> dict[str, float]:
    """All figures by name."""
    torch.set_num_threads(1)
    by_choice, mask = dispatch()
    return {
        "forward, 20 layer choices, batch 1 3x32x32, over the static net": single_path(1, 32, 400),
        "forward, 20 layer choices, batch 32 3x32x32, over the static net": single_path(32, 32, 41),
        "forward by masks, 20 layer choices, batch 1 3x32x32, over it": by_mask(1, 32, 400),
        "dispatch of one layer choice, microseconds": by_choice,
        "dispatch of one layer choice by a mask, microseconds": mask,
        "an input choice over the sum of two, microseconds": inputs(),
        "DartsMutator, forward and backward, over a stacked sum by hand": mixture(),
    }
