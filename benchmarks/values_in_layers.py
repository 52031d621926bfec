"""What layers with searchable arguments cost: each figure as a ratio to the plain PyTorch model in the same run."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

import mutorch.nn as mnn
from benchmarks.measure import in_turns
from mutorch import Mutator, export

STAGES = (2, 3, 4)


class Block(nn.Module):
    """A residual bottleneck whose hidden width and kernel are searched."""

    def __init__(self, width: object) -> None:
        super().__init__()
        hidden, kernel = mnn.ValueChoice([64, 128, 192]), mnn.ValueChoice([3, 5, 7])
        self.expand = mnn.Conv2d(width, hidden, 1, bias=False)
        self.bn1 = mnn.BatchNorm2d(hidden)
        self.depthwise = mnn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden, bias=False)
        self.bn2 = mnn.BatchNorm2d(hidden)
        self.project = mnn.Conv2d(hidden, width, 1, bias=False)
        self.bn3 = mnn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """`x` and what the bottleneck makes of it."""
        hidden = self.bn1(self.expand(x)).relu()
        hidden = self.bn2(self.depthwise(hidden)).relu()
        return x + self.bn3(self.project(hidden))


class Net(nn.Module):
    """A stem, three rows of blocks, a head: every layer has an argument that is searched."""

    def __init__(self) -> None:
        super().__init__()
        width = mnn.ValueChoice([32, 48, 64], label="width")
        self.stem = mnn.Conv2d(3, width, 3, stride=2, padding=1)
        self.rows = nn.Sequential(*(mnn.Repeat(lambda _: Block(width), (1, depth)) for depth in STAGES))
        self.head = mnn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of ten classes."""
        out: Tensor = self.head(self.rows(self.stem(x)).mean((2, 3)))
        return out


def mlp() -> nn.Sequential:
    """Eight linear layers, each with a width of its own."""
    widths = [256, *(mnn.ValueChoice([128, 256, 512]) for _ in range(7)), 10]
    return nn.Sequential(*(mnn.Linear(*pair) for pair in zip(widths, widths[1:], strict=False)))


def run() -> dict[str, float]:
    """All figures by name."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    figures: dict[str, float] = {}
    for size, batch, repeats in ((32, 1, 600), (64, 16, 60)):
        figures |= _over_plain("conv net", Net(), torch.randn(batch, 3, size, size), repeats)
    for batch, repeats in ((1, 1500), (64, 300)):
        figures |= _over_plain("eight linear layers", mlp(), torch.randn(batch, 256), repeats)
    return figures


def _over_plain(what: str, net: nn.Module, x: Tensor, repeats: int) -> dict[str, float]:
    mutator = Mutator(net.eval())
    architecture = mutator.space.sample(1)
    mutator.set_choices(architecture)
    plain = export(net, architecture)
    name = f"{what}, batch {len(x)} {'x'.join(map(str, x.shape[1:]))}"
    exported, ours = in_turns(_forward(plain, x), _forward(net, x), repeats=repeats)
    figures = {f"forward, {name}, over the exported net": ours / exported}
    plain.train(), net.train()
    exported, ours = in_turns(_step(plain, x), _step(net, x), repeats=max(repeats // 4, 15))
    return {**figures, f"forward and backward, {name}, over the exported net": ours / exported}


def _forward(net: nn.Module, x: Tensor) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return net(x)

    return run


def _step(net: nn.Module, x: Tensor) -> Callable[[], object]:
    def run() -> object:
        net.zero_grad(set_to_none=True)
        return net(x).sum().backward()

    return run
