"""How well a one-shot search ranks: against a table of all 256 architectures of the digits chain, trained alone.

`data/tabular_digits.csv` holds the accuracy of every architecture, trained alone for 300 steps, two seeds each. A search
may spend 3000 path-steps (ten such trainings) on its supernet. Reported: Kendall's tau between its scores and the table's
test accuracy, the same among the better half, the regret (points of test accuracy behind the best architecture) of the
one it ranks first, and of the one that wins among its ten best on validation data after training alone (from the table).
"""

import csv
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import kendalltau
from torch import nn

from mutorch import Mutator, export
from mutorch.models import chain_net
from mutorch.testing import ClutteredDigits
from mutorch.training import fit, recalibrate_

TABLE = Path(__file__).parent / "data" / "tabular_digits.csv"
CHOICES = ("skip", "maxpool", "separable", "conv3x3")
PATH_STEPS = 3000


def train_supernet(data: ClutteredDigits, seed: int) -> tuple[nn.Module, Mutator]:
    """The supernet as the SPOS recipe trains it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = chain_net()
    mutator = Mutator(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    fit(
        net,
        data.loader("train", 64),
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        optimizer,
        steps=PATH_STEPS,
        mutator=mutator,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, PATH_STEPS),
        seed=seed,
    )
    return net, mutator


def scores(data: ClutteredDigits, net: nn.Module, mutator: Mutator, codes: list[str]) -> dict[str, NDArray[np.float64]]:
    """Each way of scoring every architecture with the supernet's weights, on validation images."""
    images = data["train"].tensors[0]
    calibration = [images[start : start + 350] for start in range(0, len(images), 350)]
    inputs, labels = data["val"].tensors
    found: dict[str, list[float]] = {"log-likelihood": [], "accuracy": [], "accuracy, not recalibrated": []}
    for code in codes:
        architecture = {f"block{i}": CHOICES[int(digit)] for i, digit in enumerate(code)}
        subnet = export(net, architecture, mutator=mutator).eval()
        with torch.inference_mode():
            found["accuracy, not recalibrated"].append(_accuracy(subnet(inputs), labels))
        recalibrate_(subnet, calibration)
        with torch.inference_mode():
            logits = subnet(inputs)
        found["accuracy"].append(_accuracy(logits, labels))
        found["log-likelihood"].append(-float(F.cross_entropy(logits, labels)))
    return {name: np.array(values) for name, values in found.items()}


def _accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float((logits.argmax(dim=1) == labels).float().mean())


def run(num_seeds: int = 5) -> dict[str, float]:
    """The means over seeds, for each way of scoring."""
    torch.set_num_threads(1)
    with TABLE.open() as file:
        rows = list(csv.DictReader(file))
    codes = [row["arch"] for row in rows]
    test = np.array([float(row["test_mean"]) for row in rows])
    validation = np.array([float(row["val_s0"]) for row in rows])  # one training, as a search would have
    better = test >= np.median(test)
    data = ClutteredDigits()
    collected: dict[str, list[float]] = {}
    for seed in range(num_seeds):
        net, mutator = train_supernet(data, seed)
        for way, values in scores(data, net, mutator, codes).items():
            ten = np.argsort(-values, kind="stable")[:10]
            winner = ten[validation[ten].argmax()]
            for name, value in {
                "tau": kendalltau(values, test).statistic,
                "tau, better half": kendalltau(values[better], test[better]).statistic,
                "regret of the first, points": 100 * (test.max() - test[values.argmax()]),
                "regret of the best of ten retrained, points": 100 * (test.max() - test[winner]),
            }.items():
                collected.setdefault(f"{way}: {name}", []).append(float(value))
                if seed == num_seeds - 1:
                    print(f"  {way}: {name}: {[round(v, 3) for v in collected[f'{way}: {name}']]}", flush=True)
    return {name: float(np.mean(values)) for name, values in collected.items()}
