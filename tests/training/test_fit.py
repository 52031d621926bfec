import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, TensorDataset

from mutorch.errors import ConfigError, ResumeError
from mutorch.models import chain_net
from mutorch.mutables import OneShotMutableOP
from mutorch.mutators import Mutator
from mutorch.testing import ClutteredDigits
from mutorch.training import fit, single_path, single_path_step, strict_fair_step
from mutorch.utils import RuntimeInfo

pytest.importorskip("lightning_fabric")

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(22, 3, generator=GENERATOR)
Y = torch.randn(22, 1, generator=GENERATOR)


class Noisy(Dataset):
    """Samples with a random transform, as torchvision's are: drawn from torch's own generator."""

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return X[index] + torch.randn(3) / 10, Y[index]


LOADERS = {
    "a shuffled loader": lambda: DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True),
    "random transforms": lambda: DataLoader(Noisy(), batch_size=4, shuffle=True, drop_last=True),
    "a batch sampler of its own": lambda: DataLoader(
        Noisy(), batch_sampler=BatchSampler(RandomSampler(range(22)), 5, drop_last=False)
    ),
    "a list of batches": lambda: list(zip(X.split(4), Y.split(4), strict=True)),
    "an iterable without a length": lambda: Endless(),
}


class Endless:
    def __iter__(self):
        yield from zip(X.split(6), Y.split(6), strict=True)


class Crash(Exception):  # noqa: N818
    pass


def supernet():
    torch.manual_seed(0)
    ops = {"a": nn.Linear(3, 3), "b": nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), "c": nn.Dropout(0.5)}
    return nn.Sequential(OneShotMutableOP(ops), nn.Dropout(0.3), nn.Linear(3, 1))


def loss_fn(model, batch):
    x, y = batch
    return functional.mse_loss(model(x), y)


SCHEDULERS = {
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 15),
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=15),
    "steps": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [3, 7]),
    "warm-up": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=3), torch.optim.lr_scheduler.ExponentialLR(o, 0.9)],
        [3],
    ),
    "lambda": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
}


def train(crash_at=None, *, data="a shuffled loader", scheduler="cosine", adam=False, steps=15, **options):
    """One line of training as a user writes it, with everything built anew; may crash after a step."""
    net = supernet()
    parameters = net.parameters()
    optimizer = torch.optim.AdamW(parameters) if adam else torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    made = SCHEDULERS[scheduler](optimizer) if scheduler else None

    def on_step(number, total, loss):
        if number == crash_at:
            raise Crash

    options = {"mutator": Mutator(net), "seed": 3, "checkpoint_every": 2, **options}
    result = fit(net, LOADERS[data](), loss_fn, optimizer, steps=steps, scheduler=made, on_step=on_step, **options)
    return net, optimizer, result


def assert_same(one, other):
    for first, second in zip(one[:2], other[:2], strict=True):
        torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("crash_at", range(1, 15))
def test_a_training_interrupted_at_any_step_ends_with_the_same_bits(tmp_path, crash_at):
    whole = train()
    with pytest.raises(Crash):
        train(crash_at, checkpoint=tmp_path / "state.pt")
    resumed = train(checkpoint=tmp_path / "state.pt")
    assert resumed[2].resumed_at == crash_at // 2 * 2
    assert resumed[2].losses == whole[2].losses[resumed[2].resumed_at :]
    assert_same(resumed, whole)


@pytest.mark.parametrize(
    "options",
    [
        *({"data": name} for name in LOADERS),
        *({"scheduler": name} for name in (*SCHEDULERS, None)),
        {"adam": True, "clip_grad_norm": 0.1},
        {"step": strict_fair_step},
        {"mutator": None},
    ],
    ids=lambda options: ", ".join(f"{name} {getattr(value, '__name__', value)}" for name, value in options.items()),
)
def test_every_part_of_a_training_resumes(tmp_path, options):
    whole = train(**options)
    for crash_at in (5, 12):
        with pytest.raises(Crash):
            train(crash_at, checkpoint=tmp_path / "state.pt", **options)
    resumed = train(checkpoint=tmp_path / "state.pt", **options)
    assert (resumed[2].resumed_at, resumed[2].steps) == (12, 15)
    assert_same(resumed, whole)


def test_a_finished_training_is_not_trained_further(tmp_path):
    first = train(checkpoint=tmp_path / "state.pt")
    again = train(checkpoint=tmp_path / "state.pt")
    assert (again[2].steps, again[2].resumed_at, again[2].losses) == (15, 15, [])
    assert_same(first, again)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "another run \\(seed: 3 there, 4 here\\)"),
        ({"steps": 20}, "another run \\(steps: 15 there, 20 here\\)"),
        ({"step": strict_fair_step}, "step: 'single_path_step' there, 'strict_fair_step' here"),
        ({"mutator": None}, "space: '.*' there, None here"),
        ({"adam": True}, "optimizer: 'SGD' there, 'AdamW' here"),
        ({"scheduler": None}, "scheduler: 'CosineAnnealingLR' there, None here"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused_with_what_differs(tmp_path, change, message):
    train(checkpoint=tmp_path / "state.pt")
    with pytest.raises(ResumeError, match=message):
        train(checkpoint=tmp_path / "state.pt", **change)


def test_the_checkpoint_of_another_model_is_refused(tmp_path):
    def start(width):
        net = nn.Linear(3, width)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        batch = (X, Y.expand(-1, width))
        return fit(net, [batch], loss_fn, optimizer, steps=2, checkpoint=tmp_path / "state.pt")

    start(1)
    with pytest.raises(ResumeError, match="the model in .* does not fit this one: (?s:.*)size mismatch"):
        start(2)


def test_each_step_is_the_step_of_the_loop_that_one_would_write():
    nets = [supernet()[0::2] for _ in range(2)]  # without dropout, which draws
    del nets[0][0]._candidates["c"], nets[1][0]._candidates["c"]
    ours, theirs = (torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9) for net in nets)
    batches = LOADERS["a list of batches"]()
    result = fit(nets[0], batches, loss_fn, ours, steps=8, mutator=Mutator(nets[0]), seed=3)
    losses, mutator = [], Mutator(nets[1])
    for number in range(8):
        batch = batches[number % len(batches)]
        losses.append(single_path_step(nets[1], mutator, lambda m, b=batch: loss_fn(m, b), seed=3, step=number).item())
        theirs.step()
        theirs.zero_grad()
    assert result.losses == losses
    assert_same((nets[0], ours), (nets[1], theirs))


def test_the_callers_random_states_generators_and_modes_are_as_before(tmp_path):
    loader = LOADERS["a shuffled loader"]()
    net = supernet()
    net[1].eval()
    modes = [module.training for module in net.modules()]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for generator in (random.seed, np.random.seed, torch.manual_seed):
        generator(5)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    def crash(number, total, loss):
        if number == 3:
            raise Crash

    fit(net, loader, loss_fn, optimizer, steps=2, mutator=Mutator(net))
    with pytest.raises(Crash):
        fit(net, loader, loss_fn, optimizer, steps=4, mutator=Mutator(net), on_step=crash)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert loader.generator is None
    assert loader.sampler.generator is None
    assert [module.training for module in net.modules()] == modes


def test_gradients_from_before_are_not_part_of_the_first_step():
    def start(with_gradients):
        net = supernet()
        if with_gradients:
            net[2].weight.grad = torch.ones(1, 3)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        fit(net, LOADERS["a list of batches"](), loss_fn, optimizer, steps=3, mutator=Mutator(net))
        return net, optimizer

    assert_same(start(True), start(False))


def test_clipping_bounds_the_gradient_norm():
    norms = []
    net = nn.Linear(3, 1)

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            norms.append(nn.utils.get_total_norm([p.grad for p in net.parameters()]).item())
            return super().step(closure)

    optimizer = Watched(net.parameters(), lr=0.1)
    batch = (100 * X, 100 * Y)
    fit(net, [batch], loss_fn, optimizer, steps=3, clip_grad_norm=0.5)
    assert norms == pytest.approx([0.5] * 3, rel=1e-4)


def test_every_epoch_has_each_sample_once_in_another_order():
    seen = []

    def record(model, batch):
        seen.append(batch[0].flatten().tolist())
        return model(batch[0]).sum()

    data = DataLoader(TensorDataset(torch.arange(10.0).unsqueeze(1)), batch_size=4, shuffle=True)
    net = nn.Linear(1, 1)
    fit(net, data, record, torch.optim.SGD(net.parameters(), lr=0.0), steps=6)
    epochs = [sum(seen[:3], []), sum(seen[3:], [])]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_the_run_tells_its_iteration_and_progress():
    told = []
    net = supernet()
    fit(
        net,
        LOADERS["a list of batches"](),
        loss_fn,
        torch.optim.SGD(net.parameters(), lr=0.1),
        steps=3,
        mutator=Mutator(net),
        on_step=lambda number, total, loss: told.append((number, total, RuntimeInfo.iter(), RuntimeInfo.max_iters())),
    )
    assert told == [(1, 3, 1, 3), (2, 3, 2, 3), (3, 3, 3, 3)]


@pytest.mark.parametrize("data", [[], iter([(X, Y)])])
def test_data_that_runs_out_is_an_error(data):
    net = nn.Linear(3, 1)
    with pytest.raises(
        ConfigError, match="the data has no batches: it is empty, or an iterator that can be read only once"
    ):
        fit(net, data, loss_fn, torch.optim.SGD(net.parameters(), lr=0.1), steps=2)


def test_low_precision_comes_from_fabric():
    fabric = pytest.importorskip("lightning_fabric").Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    net = chain_net()
    mutator = Mutator(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    dtypes = set()
    net.stem[0].register_forward_hook(lambda _, __, output: dtypes.add(output.dtype))
    data = ClutteredDigits().loader("train")

    def loss(model, batch):
        return functional.cross_entropy(model(batch[0]), batch[1])

    result = fit(net, data, loss, optimizer, steps=60, mutator=mutator, fabric=fabric)
    assert dtypes == {torch.bfloat16}
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    assert sum(result.losses[-10:]) < sum(result.losses[:10])


def test_the_last_step_leaves_its_architecture_set():
    net, _, _ = train(steps=5)
    mutator = Mutator(net)
    assert mutator.current_choices == single_path(mutator.space, 3, 4)
