import random

import pytest

from mutorch.cost import Costs
from mutorch.search import History, Trial
from mutorch.space import Decision, SearchSpace

SPACE = SearchSpace([Decision("op", ("skip", "conv", "pool")), Decision("width", (8, 16, 32))])


@pytest.fixture(scope="session")
def space():
    return SPACE


@pytest.fixture(scope="session")
def make_history():
    """A search in which the operation decides nearly all, and the width costs."""

    def make(count=30, objectives=(), *, space=SPACE, seed=0, strategy="evolution"):
        draw, trials = random.Random(seed), []
        for index in range(count):
            architecture = space.sample(draw)
            codes = space.encode(architecture)
            score = codes[0] + 0.1 * draw.random()
            macs = 1_000_000 * (1 + codes[-1])
            costs = Costs(macs, macs // 10, 0.5, 0.25)
            values = (score, *(-macs for _ in objectives[1:]))
            trials.append(Trial(index, architecture, score, {"accuracy": score}, costs, 2.0, values))
        run = {"space": space.fingerprint, "budget": {"macs": [None, 5e6]}, "strategy": strategy, "seed": seed}
        run |= {"ahead": 8, "objective": list(objectives), "constraints": {"loss": [0.0, 2.0]}}
        return History(trials, objectives=objectives, run=run)

    return make
