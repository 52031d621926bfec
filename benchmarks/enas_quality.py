"""What a search with a controller finds: three spaces, on the digits, from the supernet to the exported winner.

The winner is the best on validation data of the three best proposals, each trained alone; beside it five random architectures
trained equally long, the best of them chosen by validation data too. One seed, so differences of a few points say nothing.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mutorch.models import EnasMacro, EnasMicro
from mutorch.mutables import InputChoice, LayerChoice, MutableScope
from mutorch.recipes import EnasRun, EnasSearching, EnasSettings, Row, Training
from mutorch.registry import MODELS

SEED = 0
NUM_RANDOM = 5
NUM_RETRAINED = 3
RETRAIN_STEPS = 300


def conv(channels: int, size: int) -> nn.Sequential:
    """A convolution with norm and activation."""
    layer = nn.Conv2d(channels, channels, size, padding=size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.ReLU())


class SeedCell(MutableScope):
    """A cell of the network of seed 004: two layers that are chosen."""

    def __init__(self, key: str, channels: int) -> None:
        super().__init__(key)

        def layer(number: int) -> LayerChoice:
            pool = nn.AvgPool2d(3, 1, padding=1)
            candidates = {"conv3": conv(channels, 3), "conv5": conv(channels, 5), "pool": pool, "skip": nn.Identity()}
            return LayerChoice(candidates, key=f"{key}_layer_{number}")

        self.first, self.second = layer(1), layer(2)

    def forward(self, x: Tensor) -> Tensor:
        """The output of the second layer."""
        out: Tensor = self.second(self.first(x))
        return out


class SeedNet(nn.Module):
    """The network of seed 004, its cells and convolutions filled in, between a stem and a classifier."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.cell1 = SeedCell("cell1", channels)
        self.cell2 = SeedCell("cell2", channels)
        self.op = LayerChoice([conv(channels, 3), conv(channels, 5)], key="op")
        self.input_choice = InputChoice(choose_from=["cell1", "cell2", "op", InputChoice.NO_KEY], key="inputs")
        self.max_pooling = nn.MaxPool2d(3, 1, padding=1)
        self.head = nn.Sequential(
            nn.MaxPool2d(2), conv(channels, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images (N, 1, H, W)."""
        x = self.stem(x)
        x1 = self.max_pooling(self.cell1(x))
        x2 = self.cell2(x)
        x3 = self.op(x)
        x4 = torch.zeros_like(x)
        out = self.input_choice([x1, x2, x3, x4])
        logits: Tensor = self.head(x4 if out is None else out)
        return logits


MODELS_BY_NAME: dict[str, Callable[[], nn.Module]] = {
    "macro": lambda: EnasMacro(in_channels=1, num_layers=4, channels=16, dropout=0.0),
    "micro": lambda: EnasMicro(in_channels=1, num_cells=3, channels=8, num_nodes=1, dropout=0.0),
    "seed 004": SeedNet,
}
SEARCHING = {
    "macro": EnasSearching(),
    "micro": EnasSearching(rounds=8, child_steps=100, controller_steps=10),
    "seed 004": EnasSearching(rounds=6),
}


def run(names: tuple[str, ...] = tuple(MODELS_BY_NAME)) -> dict[str, float]:
    """For each space: accuracies in percent of validation and test data, and what they took."""
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    for name in names:
        MODELS.register_module(name="EnasBenchmark", force=True)(MODELS_BY_NAME[name])
        with tempfile.TemporaryDirectory() as folder:
            figures |= {f"{name}: {what}": value for what, value in _figures(name, Path(folder)).items()}
    return figures


def _figures(name: str, folder: Path) -> dict[str, float]:
    settings = EnasSettings(
        model={"type": "EnasBenchmark"},
        data={"type": "ClutteredDigits"},
        controller={"lstm_size": 32},
        search=SEARCHING[name],
        retrain=Training(steps=RETRAIN_STEPS),
        num_retrained=NUM_RETRAINED,
        num_random=NUM_RANDOM,
        seed=SEED,
        threads=1,
    )
    clock = [time.process_time()]
    search = EnasRun(
        settings, folder, lambda stage, done, total, note: print(f"  {name}: {stage} {done}/{total} {note}")
    )
    search.train_supernet()
    clock.append(time.process_time())
    chosen = search.chosen(search.search())
    clock.append(time.process_time())
    scores = {role: [search.scores(one) for one in chosen[role]] for role in ("best", "random")}
    best = {role: max(range(len(found)), key=lambda n: found[n][0]) for role, found in scores.items()}
    clock.append(time.process_time())
    architecture, winner = chosen["best"][best["best"]], scores["best"][best["best"]]
    costs = search.table(architecture)
    search.export(Row("winner", architecture, *winner, costs.macs, costs.params, 0.0))
    clock.append(time.process_time())
    rounds = search.rounds
    return {
        "architectures, log10": float(np.log10(float(search.table.space.size))),
        "reward in the first round, %": 100 * rounds[0].reward,
        "reward in the last round, %": 100 * rounds[-1].reward,
        "entropy after the last round, of that at the beginning": rounds[-1].entropy / _entropy(search),
        "winner, validation, %": 100 * winner[0],
        "winner, test, %": 100 * winner[1],
        f"mean of {NUM_RETRAINED} proposals, test, %": 100 * float(np.mean([test for _, test in scores["best"]])),
        f"best of {NUM_RANDOM} random, validation, %": 100 * scores["random"][best["random"]][0],
        f"best of {NUM_RANDOM} random, test, %": 100 * scores["random"][best["random"]][1],
        f"mean of {NUM_RANDOM} random, test, %": 100 * float(np.mean([test for _, test in scores["random"]])),
        "winner, thousand macs": costs.macs / 1e3,
        "seconds of CPU: weights and controller": clock[1] - clock[0],
        "seconds of CPU: scoring proposals": clock[2] - clock[1],
        "seconds of CPU: training eight subnets alone": clock[3] - clock[2],
        "seconds of CPU: export": clock[4] - clock[3],
    }


def _entropy(search: EnasRun) -> float:
    """The entropy of a uniform draw, in nats."""
    return float(np.log(float(search.table.space.size)))
