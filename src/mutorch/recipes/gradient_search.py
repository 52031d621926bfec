"""Search by gradient: DARTS, GDAS, DSNAS, ProxylessNAS, and sampled architectures, as one loop that a method fills in.

The budget is counted in path-steps: the forward and backward of one path on one batch. A mixed step over four candidates
costs four of them, a forward without backward is counted as a whole one. So methods that compute different amounts a step
can be compared, and a random architecture can be given what the search had.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mutorch.mutators import Mutator
from mutorch.space import Architecture
from mutorch.training import CollapseMeter, Reading, SharpnessGuard, dominant_eigenvalue
from mutorch.training.checkpoint import load_checkpoint, save_checkpoint

from .data import Batches, Data
from .gradient_loop import Loop, seed_torch
from .methods import Method, as_method
from .progress import Progress

NUM_LOOKS = 10
"""How often a search is looked at, and its checkpoint written."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        architecture: the most probable one.
        path_steps: what was spent.
        readings: the meter's, after each tenth of the search that learns the architecture.
        stopped: whether it was stopped before its budget was spent.
        reason: why; empty if it was not.
        eigenvalues: the dominant eigenvalue at each reading, if it was asked for.
    """

    architecture: Architecture
    path_steps: int
    readings: list[Reading]
    stopped: bool
    reason: str = ""
    eigenvalues: list[float] = field(default_factory=list)


def search_by_gradient(
    net: nn.Module,
    data: Data,
    *,
    method: str | Method | Mapping[str, Any] = "samples",
    path_steps: int = 3000,
    batch_size: int = 64,
    lr: float = 0.1,
    weight_decay: float = 5e-4,
    seed: int = 0,
    max_skips: int | None = None,
    stop_when_sharp: bool = False,
    skip_dropout: float = 0.0,
    cost_weight: float = 0.0,
    recompute: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    on_reading: Callable[[Found], None] | None = None,
) -> Found:
    """Train the supernet and learn its architecture. `net` is trained in place, and computes the winner afterwards.

    Weights are trained on the training data (SGD, Nesterov momentum 0.9, cosine), the architecture on the validation data,
    except by `"joint"` methods, which have one loss. Everything random is a function of seed and step, so a search that was
    interrupted and started again with the same line finds the same.

    Args:
        net: a supernet of blocks such as `DiffMutableOP`.
        method: one of `METHODS`, a dict of one as `type` and what is different, or your own.
        max_skips: stop when more decisions than this prefer an operation without weights.
        stop_when_sharp: stop when the dominant eigenvalue grows (see `SharpnessGuard`); for mixtures.
        skip_dropout: at the beginning; it falls to 0 (see `DiffMutableModule`).
        cost_weight: what the expected multiply-adds, in shares of the largest architecture's, add to the architecture's loss.
        recompute: whether candidates compute again in backward, for less memory.
        checkpoint: a file to write after each tenth of the search, and to resume from.
        progress: called then too, with a line of text.
        on_reading: called then too, with what is found so far.

    Errors:
        ConfigError: an unknown method.
        ResumeError: the checkpoint belongs to another search.
    """
    method = as_method(method)
    mutator = Mutator(net)
    mutator.prepare_arch_params(seed=seed, relaxation=method.relaxation)
    for members in mutator.arch.mutables.values():
        for mutable in members:
            mutable.normalize, mutable.checkpoint = method.normalize, recompute
    loop = Loop(net, mutator, data, method, path_steps, batch_size, lr, weight_decay, seed)
    loop.skip_dropout = skip_dropout
    loop.set_cost(cost_weight, data)
    sharpness = Batches(data, "val", batch_size, seed) if stop_when_sharp else None
    watch = _Watch(loop, mutator, method, CollapseMeter(mutator, max_skips=max_skips), sharpness, seed)
    run = {"method": repr(method), "path_steps": path_steps, "batch_size": batch_size, "lr": lr, "seed": seed}
    run |= {"weight_decay": weight_decay, "skip_dropout": skip_dropout, "cost_weight": cost_weight}
    run |= {"max_skips": max_skips, "stop_when_sharp": stop_when_sharp, "space": mutator.space.fingerprint}
    state = None if checkpoint is None else load_checkpoint(checkpoint, run=run)
    if state is not None:
        watch.load_state_dict(state)
    training = net.training
    net.train()
    devices = {parameter.device for parameter in net.parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices=list(devices)):
        while loop.spent < path_steps and not watch.reason:
            before = loop.spent * NUM_LOOKS // path_steps
            loop.iterate()
            if loop.spent * NUM_LOOKS // path_steps > before:
                note = watch.look()
                if checkpoint is not None:
                    save_checkpoint(checkpoint, watch.state_dict(), run=run)
                if on_reading is not None:
                    on_reading(watch.found())
                if progress is not None:
                    progress("searching by gradient", min(loop.spent, path_steps), path_steps, note)
    net.train(training)
    found = watch.found()
    mutator.set_choices(found.architecture)
    return found


class _Watch:
    """Looks at a search now and then, and says when to stop it."""

    def __init__(
        self, loop: Loop, mutator: Mutator, method: Method, meter: CollapseMeter, sharpness: Batches | None, seed: int
    ) -> None:
        self.loop, self.mutator, self.method, self.meter, self.seed = loop, mutator, method, meter, seed
        self.guard, self.sharpness = SharpnessGuard(window=2), sharpness
        self.readings: list[Reading] = []
        self.reason = ""

    def look(self) -> str:
        """Read the meters, once the architecture is learned; what there is to say."""
        if not self.loop.is_learning:
            return "warming up"
        reading = self.meter.read()
        self.readings.append(reading)
        if self.sharpness is not None and self.guard.should_stop(self._eigenvalue(self.sharpness)):
            self.reason = "the loss became sharp"
        if reading.should_stop:
            self.reason = "too many skips"
        return described(reading)

    def found(self) -> Found:
        """What is found so far."""
        architecture = self.mutator.argmax()
        eigenvalues = list(self.guard.values)
        return Found(architecture, self.loop.spent, list(self.readings), bool(self.reason), self.reason, eigenvalues)

    def state_dict(self) -> dict[str, Any]:
        """The search so far, and all that its next step depends on."""
        readings = [asdict(reading) for reading in self.readings]
        state = {"loop": self.loop.state_dict(), "meter": self.meter.state_dict(), "readings": readings}
        return {**state, "eigenvalues": list(self.guard.values), "reason": self.reason}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.loop.load_state_dict(state["loop"])
        self.meter.load_state_dict(state["meter"])
        self.readings = [Reading(**reading) for reading in state["readings"]]
        self.guard.values, self.reason = list(state["eigenvalues"]), state["reason"]

    def _eigenvalue(self, batches: Batches) -> float:
        step = self.loop.step
        inputs, labels = batches.at(step)
        seed_torch(self.seed, "sharpness", step)

        def loss(model: nn.Module) -> Tensor:
            device = next(model.parameters()).device
            return F.cross_entropy(model(inputs.to(device)), labels.to(device))

        relaxation, _ = self.method.at(self.loop.done)
        return dominant_eigenvalue(self.mutator, loss, seed=self.seed, step=step, relaxation=relaxation)


def described(reading: Reading) -> str:
    """A reading as a line of text."""
    choices = ", ".join(f"{name} {choice}" for name, choice in list(reading.architecture.items())[:6])
    return f"entropy {reading.entropy:.2f}, skips {reading.skip_share:.0%}: {choices}"
