"""A ready training loop, on Lightning Fabric for devices, precision and processes."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, RandomSampler

from mutorch.errors import ConfigError, ResumeError
from mutorch.mutators import Mutator
from mutorch.space import random_at
from mutorch.utils import RuntimeInfo, require

from .checkpoint import load_checkpoint, save_checkpoint
from .steps import single_path_step

Step = Callable[..., Tensor]
"""`single_path_step`, `strict_fair_step`, or a function with their arguments."""


@dataclass(frozen=True, slots=True)
class FitResult:
    """What a training did.

    Attributes:
        steps: the step it ended at.
        resumed_at: the step that it started from; 0 for a new run.
        losses: the loss of each step done now.
    """

    steps: int
    resumed_at: int
    losses: list[float]


def fit(
    net: nn.Module,
    data: DataLoader[Any] | Iterable[Any],
    loss_fn: Callable[[nn.Module, Any], Tensor],
    optimizer: Optimizer,
    *,
    steps: int,
    mutator: Mutator | None = None,
    step: Step = single_path_step,
    scheduler: LRScheduler | None = None,
    seed: int = 0,
    clip_grad_norm: float | None = None,
    fabric: Any = None,
    checkpoint: str | PathLike[str] | None = None,
    checkpoint_every: int = 500,
    on_step: Callable[[int, int, Tensor], Any] | None = None,
) -> FitResult:
    """Train a supernet, or without `mutator` any model, for a number of optimizer steps. In place.

    Everything that torch draws in a step (order of the data, transforms, architecture, dropout) is a function of seed and
    step, so a run that was interrupted and started again with the same line ends with the same bits as one that was not.
    The caller's random states are as before afterwards. Needs the extra `train`.

    Args:
        data: batches; a `DataLoader` is reshuffled each epoch from the seed and, with several processes, split.
        loss_fn: takes the model and a batch on its device, returns the scalar loss.
        optimizer: of `net.parameters()`.
        step: how a step of the supernet samples.
        scheduler: stepped once each step.
        clip_grad_norm: the largest norm of the gradient.
        fabric: a `lightning_fabric.Fabric` for other devices, precisions or processes; one CPU or CUDA device unless
            given. Launch it before you build the model.
        checkpoint: a file to write each `checkpoint_every` steps and at the end, and to resume from.
        on_step: called after each step with its number from 1, `steps`, and the loss.

    Errors:
        MissingExtraError: the extra is not installed.
        ResumeError: the checkpoint belongs to another run.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> batches = [torch.ones(4, 2)]
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> fit(net, batches, lambda m, x: m(x).pow(2).mean(), optimizer, steps=3).steps
        3
    """
    fabric = fabric or require("lightning_fabric", extra="train").Fabric(devices=1)
    run = {"seed": seed, "steps": steps, "space": None if mutator is None else mutator.space.fingerprint}
    run["optimizer"] = type(optimizer).__name__
    run["scheduler"] = None if scheduler is None else type(scheduler).__name__
    run["step"] = None if mutator is None else getattr(step, "__name__", type(step).__name__)
    parts: dict[str, Any] = {"model": net, "optimizer": optimizer, "scheduler": scheduler}
    start = _resume(checkpoint, run, parts)
    wrapped, wrapped_optimizer = fabric.setup(net, optimizer)
    losses: list[Tensor] = []
    with ExitStack() as stack:
        stack.enter_context(_own_randomness(net))
        stack.enter_context(RuntimeInfo.running(max_iters=steps, iter=start))
        batches = stack.enter_context(_endless(data, seed, start, fabric))
        stack.enter_context(_training_mode(wrapped))
        wrapped_optimizer.zero_grad(set_to_none=True)
        for number in range(start, steps):
            batch = fabric.to_device(next(batches))
            _seed(seed, "step", number, fabric.global_rank)
            loss = _one_step(wrapped, mutator, step, loss_fn, batch, seed, number, fabric)
            if clip_grad_norm is not None:
                fabric.clip_gradients(wrapped, wrapped_optimizer, max_norm=clip_grad_norm)
            wrapped_optimizer.step()
            wrapped_optimizer.zero_grad(set_to_none=True)
            if scheduler is not None:
                scheduler.step()
            losses.append(loss)
            RuntimeInfo.update(iter=number + 1)
            if checkpoint is not None and ((number + 1) % checkpoint_every == 0 or number + 1 == steps):
                _save(checkpoint, run, parts, number + 1, fabric)
            if on_step is not None:
                on_step(number + 1, steps, loss)
    return FitResult(steps, start, [float(loss) for loss in losses])


def _one_step(
    net: nn.Module,
    mutator: Mutator | None,
    step: Step,
    loss_fn: Callable[[nn.Module, Any], Tensor],
    batch: Any,
    seed: int,
    number: int,
    fabric: Any,
) -> Tensor:
    if mutator is not None:
        return step(net, mutator, lambda model: loss_fn(model, batch), seed=seed, step=number, backward=fabric.backward)
    loss = loss_fn(net, batch)
    fabric.backward(loss)
    return loss.detach()


def _resume(checkpoint: str | PathLike[str] | None, run: dict[str, Any], parts: dict[str, Any]) -> int:
    state = None if checkpoint is None else load_checkpoint(checkpoint, run=run)
    if state is None:
        return 0
    for name, part in parts.items():
        try:
            if part is not None:
                part.load_state_dict(state[name])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ResumeError(
                f"the {name} in {checkpoint} does not fit this one: {error}; give another path"
            ) from error
    return int(state["step"])


def _save(checkpoint: str | PathLike[str], run: dict[str, Any], parts: dict[str, Any], step: int, fabric: Any) -> None:
    if fabric.is_global_zero:
        states = {name: None if part is None else part.state_dict() for name, part in parts.items()}
        save_checkpoint(checkpoint, {**states, "step": step}, run=run)
    fabric.barrier()


@contextmanager
def _own_randomness(net: nn.Module) -> Iterator[None]:
    """Torch's random states are seeded each step inside, and the caller's again afterwards."""
    devices = {parameter.device for parameter in net.parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices=list(devices)):
        yield


@contextmanager
def _training_mode(net: nn.Module) -> Iterator[None]:
    before = {module: module.training for module in net.modules()}
    net.train()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


@contextmanager
def _endless(data: Any, seed: int, start: int, fabric: Any) -> Iterator[Iterator[Any]]:
    """Batches for ever, from step `start` on, in an order that depends on the seed and the epoch alone."""
    loader = _split(data, seed, fabric) if isinstance(data, DataLoader) else data
    own = getattr(loader, "generator", None), getattr(getattr(loader, "sampler", None), "generator", None)

    def batches() -> Iterator[Any]:
        length = _known_length(loader)
        epoch, skip = divmod(start, length) if length else (0, start)
        while True:
            _shuffle(loader, seed, epoch)
            fetched = iter(loader)
            for count in itertools.count():
                # For what draws from torch's own generator: transforms, and samplers that were given none.
                _seed(seed, "data", epoch, count, fabric.global_rank)
                try:
                    batch = next(fetched)
                except StopIteration:
                    break
                if count >= skip:
                    yield batch
            if not count:
                raise ConfigError("the data has no batches: it is empty, or an iterator that can be read only once")
            skip = max(0, skip - count)
            epoch += 1

    try:
        yield batches()
    finally:
        if isinstance(loader, DataLoader):
            loader.generator = own[0]
            if isinstance(loader.sampler, RandomSampler):
                loader.sampler.generator = own[1]


def _known_length(loader: Any) -> int:
    """How many batches an epoch has for certain; 0 if only reading them would tell."""
    is_mapped = isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)
    return len(loader) if is_mapped or isinstance(loader, Sequence) else 0


def _seed(seed: int, *position: int | str) -> None:
    value = random_at(seed, *position).getrandbits(63)
    # Not torch.manual_seed: where CUDA is not in use, that formats a stack trace each time, for a millisecond.
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(value)


def _shuffle(loader: Any, seed: int, epoch: int) -> None:
    if not isinstance(loader, DataLoader):
        return
    generator = torch.Generator().manual_seed(random_at(seed, "epoch", epoch).getrandbits(63))
    loader.generator = generator
    if isinstance(loader.sampler, RandomSampler):
        loader.sampler.generator = generator
    elif hasattr(loader.sampler, "set_epoch"):
        loader.sampler.set_epoch(epoch)


def _split(loader: DataLoader[Any], seed: int, fabric: Any) -> DataLoader[Any]:
    """The loader of this process: its share of the samples, in the order of a `DistributedSampler`."""
    if fabric.world_size == 1 or isinstance(loader.sampler, DistributedSampler):
        return loader
    if loader.batch_size is None:
        raise ConfigError("a DataLoader with a batch_sampler cannot be split over processes; give a DistributedSampler")
    sampler: DistributedSampler[Any] = DistributedSampler(
        loader.dataset,
        fabric.world_size,
        fabric.global_rank,
        shuffle=isinstance(loader.sampler, RandomSampler),
        seed=seed,
        drop_last=loader.drop_last,
    )
    same = ("batch_size", "num_workers", "collate_fn", "pin_memory", "drop_last", "timeout", "worker_init_fn")
    return DataLoader(loader.dataset, sampler=sampler, **{name: getattr(loader, name) for name in same})
