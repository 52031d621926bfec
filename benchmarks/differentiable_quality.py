"""How good the architectures are that gradients find: against the table of the digits chain, 3000 path-steps.

Reported is the regret: how many points of test accuracy the found architecture is behind the best of all 256, both as the
table has them. A path-step is forward and backward of one path on 64 images; a forward alone is counted as a whole one.
"""

import csv
import warnings
from collections.abc import Mapping

import numpy as np
import torch

from mutorch.models import chain_net
from mutorch.mutables import DiffMutableOP
from mutorch.recipes import search_by_gradient
from mutorch.testing import ClutteredDigits
from mutorch.training import CollapseWarning

from .search_quality import CHOICES, PATH_STEPS, TABLE

SEEDS = {"darts": 10, "gumbel": 10, "samples": 10, "gdas": 5, "dsnas": 5} | dict.fromkeys(
    ("proxyless", "darts-two-level", "darts-second-order"), 5
)
"""Method to the number of its seeds, from 0; the rates of `darts` and `gumbel` were chosen on seeds from 100 on."""


def run(seeds: Mapping[str, int] = SEEDS, first_seed: int = 0) -> dict[str, float]:
    """The mean regret of each method, and that of its worst seed."""
    warnings.filterwarnings("ignore", category=CollapseWarning)  # what collapses here is the result
    torch.set_num_threads(1)
    with TABLE.open() as file:
        accuracy = {row["arch"]: 100 * float(row["test_mean"]) for row in csv.DictReader(file)}
    best = max(accuracy.values())
    data = ClutteredDigits()
    figures = {}
    for method, count in seeds.items():
        regrets = []
        for seed in range(first_seed, first_seed + count):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                net = chain_net(mutable=DiffMutableOP)
            found = search_by_gradient(net, data, method=method, path_steps=PATH_STEPS, seed=seed)
            code = "".join(str(CHOICES.index(found.architecture[f"block{i}"])) for i in range(4))
            regrets.append(best - accuracy[code])
            print(f"  {method}, seed {seed}: {code}, regret {regrets[-1]:.2f}", flush=True)
        figures[f"{method}: mean regret of {count} seeds, points"] = float(np.mean(regrets))
        figures[f"{method}: worst regret of {count} seeds, points"] = max(regrets)
    return figures
