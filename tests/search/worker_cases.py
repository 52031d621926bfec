"""What the tests of pools share: searches to compare, and functions in processes of their own."""

import multiprocessing
import os
import random
import time
import traceback
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mutorch.mutables import OneShotMutableOP
from mutorch.mutators import Mutator
from mutorch.search import search, search_space
from mutorch.space import Decision, SearchSpace

SPACE = SearchSpace([Decision(f"block{number}", (1, 2, 3)) for number in range(4)])
PATIENCE = 30.0
FORK = multiprocessing.get_context("fork")


def noisy(architecture):
    """Depends on all global generators, and takes a time that does too."""
    time.sleep(random.random() * 0.004)
    return {"score": sum(architecture.values()) + torch.rand(()).item(), "noise": random.random() + np.random.rand()}


def trials(history):
    return [(trial.index, trial.architecture, trial.score, dict(trial.metrics), trial.error) for trial in history]


def searched(evaluate=noisy, num_trials=30, **options):
    return trials(search_space(SPACE, evaluate, num_trials=num_trials, **options))


def supernet():
    torch.manual_seed(0)

    def conv(size):
        return nn.Sequential(nn.Conv2d(4, 4, size, padding=size // 2, bias=False), nn.BatchNorm2d(4), nn.ReLU())

    blocks = [OneShotMutableOP({"conv1": conv(1), "conv3": conv(3), "skip": nn.Identity()}) for _ in range(3)]
    return nn.Sequential(*blocks, nn.Dropout(0.5))


def searched_supernet(net=None, **options):
    """With a score that is the sum of all outputs in training mode, dropout and all."""
    net = net or supernet()
    x = torch.randn(8, 4, 6, 6, generator=torch.Generator().manual_seed(1))

    def evaluate(model):
        with torch.no_grad():
            return model(x).sum() + model.train()(x).sum()

    options = {"calibrate": [x], "example_inputs": x[:1], "budget": {"macs": "80%"}, "num_trials": 14} | options
    return trials(search(net, Mutator(net), evaluate, **options))


def wait_until(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.005)


def is_alive(pid):
    """Whether a process runs; one that ended, and that nobody has asked about yet, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Fork:
    """A function in a fork of this process, in a process group of its own, with what it prints in a file."""

    def __init__(self, folder, name, function, *args):
        self.result, self.output = folder / f"{name}.result", folder / f"{name}.output"
        self._process = FORK.Process(target=self._run, args=(function, args))
        self._process.start()
        self.pid = self._process.pid

    def _run(self, function, args):
        os.setsid()
        with self.output.open("w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        torch.set_num_threads(1)
        try:
            told = ("returned", function(*args))
        except BaseException as error:
            traceback.print_exc()
            told = (type(error).__name__, str(error))
        torch.save(told, self.result)

    def join(self):
        """What it returned, or the name and text of what it raised; `None` where it was killed."""
        self._process.join(PATIENCE)
        assert self._process.exitcode is not None, f"{self.result.stem} hangs; it printed: {self.output.read_text()}"
        self._process.close()
        return torch.load(self.result, weights_only=False) if self.result.exists() else None
