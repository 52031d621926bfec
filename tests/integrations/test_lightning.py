import sys
from collections import Counter

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from mutorch import Mutator, export, searchable, widths
from mutorch.errors import ConfigError, MissingExtraError, SpaceError, StateError
from mutorch.integrations.lightning import SupernetCallback
from mutorch.mutables import OneShotMutableOP
from mutorch.training import protect, sandwich_step, single_path, single_path_step, strict_fair

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),  # advice
    pytest.mark.filterwarnings(
        "ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning"
    ),  # its own use of torch
]
X = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(48) % 4
BATCHES = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 48, 8)]


def supernet():
    """Two widths and a choice of modules."""
    torch.manual_seed(0)
    op = OneShotMutableOP({"linear": nn.Linear(16, 16), "deep": nn.Sequential(nn.Linear(16, 16), nn.ReLU())})
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), op, nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    return searchable(net, X[:1], rules=[widths(counts=[4, 8, 12, 16])])


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)


class Classifier(LightningModule):
    def __init__(self, optimizer=sgd):
        super().__init__()
        self.net = supernet()
        self.seen, self.validated = [], []
        self.make_optimizer = optimizer

    def training_step(self, batch, number):
        self.seen.append(Mutator(self.net).current_choices)
        x, y = batch
        return cross_entropy(self.net(x), y)

    def validation_step(self, batch, number):
        self.validated.append(Mutator(self.net).current_choices)

    test_step = validation_step

    def configure_optimizers(self):
        return self.make_optimizer(self.net.parameters())


def trainer(folder, *callbacks, epochs=2, **options):
    options = {"enable_checkpointing": False, "devices": 1, **options}
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=list(callbacks),
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def loader():
    return DataLoader(TensorDataset(X, Y), batch_size=8)


def by_hand(optimizer=sgd, epochs=2, step_of=single_path_step, accumulate=1, seed=3):
    net = supernet()
    mutator = Mutator(net)
    optimizer = optimizer(net.parameters())
    protect(optimizer, net)
    for number, (x, y) in enumerate(BATCHES * epochs):
        step_of(net, mutator, lambda m, x=x, y=y: cross_entropy(m(x), y) / accumulate, seed=seed, step=number)
        if (number + 1) % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
    return net


def assert_equal_weights(net, other):
    assert net.state_dict().keys() == other.state_dict().keys()
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize(
    "optimizer",
    [sgd, lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)],
    ids=["SGD", "AdamW"],
)
def test_lightning_trains_as_a_loop_of_single_path_steps_by_hand(tmp_path, optimizer):
    module = Classifier(optimizer)
    trainer(tmp_path, SupernetCallback(Mutator(module.net), seed=3)).fit(module, loader())
    assert module.seen == [single_path(Mutator(module.net).space, 3, number) for number in range(12)]
    assert_equal_weights(module.net, by_hand(optimizer))


def test_accumulated_batches_train_one_architecture_a_step(tmp_path):
    module = Classifier()
    callback = SupernetCallback(Mutator(module.net), seed=3)
    trainer(tmp_path, callback, accumulate_grad_batches=3).fit(module, loader())

    def step_of(*args, step, **kwargs):
        return single_path_step(*args, step=step // 3, **kwargs)

    assert module.seen[::3] == module.seen[1::3] == module.seen[2::3]
    assert_equal_weights(module.net, by_hand(step_of=step_of, accumulate=3))


def test_accumulated_batches_train_an_architecture_each_if_asked(tmp_path):
    module = Classifier()
    callback = SupernetCallback(Mutator(module.net), seed=3, every="batch")
    trainer(tmp_path, callback, accumulate_grad_batches=3).fit(module, loader())
    assert_equal_weights(module.net, by_hand(accumulate=3))


def test_fair_sampling_uses_each_width_once_in_as_many_steps(tmp_path):
    module = Classifier()
    mutator = Mutator(module.net)
    trainer(tmp_path, SupernetCallback(mutator, seed=3, sample="fair")).fit(module, loader())
    assert module.seen == [a for number in range(3) for a in strict_fair(mutator.space, 3, number)]
    for name in ("0", "3"):
        assert Counter(choices[name] for choices in module.seen[:4]) == {4: 1, 8: 1, 12: 1, 16: 1}


def test_a_sandwich_over_accumulated_batches_trains_the_ends_in_every_step(tmp_path):
    module = Classifier()
    mutator = Mutator(module.net)
    callback = SupernetCallback(mutator, sample="sandwich", every="batch")
    trainer(tmp_path, callback, accumulate_grad_batches=4, epochs=2, limit_train_batches=4).fit(module, loader())
    assert module.seen[0::4] == [mutator.space.max] * 2
    assert module.seen[1::4] == [mutator.space.min] * 2


def test_a_sampler_of_ones_own_is_a_function(tmp_path):
    module = Classifier()
    mutator = Mutator(module.net)

    def ends(space, seed, number):
        return space.max if number % 2 else space.min

    trainer(tmp_path, SupernetCallback(mutator, sample=ends), epochs=1).fit(module, loader())
    assert module.seen == [mutator.space.min, mutator.space.max] * 3


def test_what_was_not_trained_does_not_move(tmp_path):
    module = Classifier()
    mutator = Mutator(module.net)
    before = {name: tensor.clone() for name, tensor in module.net.state_dict().items()}
    smallest = SupernetCallback(mutator, sample=lambda space, seed, number: {**space.min, "2": "linear"})
    trainer(tmp_path, smallest).fit(module, loader())
    moved = {name: tensor != before[name] for name, tensor in module.net.state_dict().items()}
    assert moved["0.weight"][:4].any()
    assert not moved["0.weight"][4:].any()
    assert not any(moved[name].any() for name in moved if "deep" in name)


def test_without_protection_weight_decay_moves_what_was_not_trained(tmp_path):
    module = Classifier()
    before = module.net.state_dict()["0.weight"].clone()
    smallest = SupernetCallback(Mutator(module.net), sample=lambda space, seed, number: space.min, protect=False)
    trainer(tmp_path, smallest).fit(module, loader())
    assert (module.net.state_dict()["0.weight"] != before)[4:].all()


def test_protection_ends_with_the_training(tmp_path):
    module = Classifier()
    run = trainer(tmp_path, SupernetCallback(Mutator(module.net)))
    run.fit(module, loader())
    run.fit_loop.max_epochs = 4
    run.fit(module, loader())  # protected anew
    (optimizer,) = run.optimizers
    protect(optimizer, module.net).remove()  # raises where one is left


def test_validation_runs_at_the_chosen_architecture_and_training_goes_on_as_without(tmp_path):
    module, mutator = (m := Classifier()), Mutator(m.net)
    callback = SupernetCallback(mutator, seed=3, evaluate_at=mutator.space.min)
    run = trainer(tmp_path, callback, val_check_interval=2, accumulate_grad_batches=3)
    run.fit(module, loader(), loader())  # in the midst of steps, too
    assert len(module.validated) == 2 + 2 * 3 * 6  # the sanity check; twice three times all batches
    assert module.validated == [mutator.space.min] * len(module.validated)

    alone = Classifier()
    trainer(tmp_path, SupernetCallback(Mutator(alone.net), seed=3), accumulate_grad_batches=3).fit(alone, loader())
    assert_equal_weights(module.net, alone.net)


def test_after_training_the_net_is_at_the_largest_and_is_tested_as_it_is_set(tmp_path):
    module, mutator = (m := Classifier()), Mutator(m.net)
    run = trainer(tmp_path, SupernetCallback(mutator), epochs=1)
    run.fit(module, loader())
    assert mutator.current_choices == mutator.space.max
    mutator.set_choices(mutator.space.min)
    run.test(module, loader(), verbose=False)
    assert module.validated == [mutator.space.min] * 6


def test_a_run_that_is_resumed_ends_as_one_that_was_not_interrupted(tmp_path):
    whole = Classifier()
    trainer(tmp_path, SupernetCallback(Mutator(whole.net), seed=3), epochs=4).fit(whole, loader())
    first = Classifier()
    run = trainer(tmp_path, SupernetCallback(Mutator(first.net), seed=3), epochs=2)
    run.fit(first, loader())
    run.save_checkpoint(tmp_path / "half.ckpt")

    second = Classifier()
    run = trainer(tmp_path, SupernetCallback(Mutator(second.net), seed=3), epochs=4)
    run.fit(second, loader(), ckpt_path=tmp_path / "half.ckpt")
    assert second.seen == whole.seen[12:]
    assert_equal_weights(second.net, whole.net)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("every", ["step", "batch"])
def test_a_run_that_is_resumed_within_an_epoch_goes_on_with_the_next_architecture(tmp_path, every):
    def run_of(module):
        keep = ModelCheckpoint(every_n_train_steps=2, save_top_k=-1, filename="{step}")
        callback = SupernetCallback(Mutator(module.net), seed=3, every=every)
        return trainer(tmp_path, callback, keep, accumulate_grad_batches=2, enable_checkpointing=True)

    first, second = Classifier(), Classifier()
    run_of(first).fit(first, loader())
    run_of(second).fit(second, loader(), ckpt_path=tmp_path / "checkpoints" / "step=4.ckpt")
    assert second.seen == first.seen[8:]


def test_a_checkpoint_holds_the_plain_supernet_and_nothing_else(tmp_path):
    module = Classifier()
    run = trainer(tmp_path, SupernetCallback(Mutator(module.net)), epochs=1)
    run.fit(module, loader())
    run.save_checkpoint(tmp_path / "net.ckpt")
    state = torch.load(tmp_path / "net.ckpt", weights_only=True)["state_dict"]
    net = supernet()
    net.load_state_dict({name.removeprefix("net."): tensor for name, tensor in state.items()})
    assert_equal_weights(net, module.net)
    architecture = Mutator(net).space.sample(1)
    assert torch.equal(export(net, architecture)(X), export(module.net, architecture)(X))


class BySandwich(Classifier):
    """A step with several forwards: manual optimization, with the step functions of mutorch."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.mutator = Mutator(self.net)

    def training_step(self, batch, number):
        x, y = batch
        optimizer = self.optimizers()
        optimizer.zero_grad()
        loss_fn = lambda model: cross_entropy(model(x), y)  # noqa: E731
        sandwich_step(self.net, self.mutator, loss_fn, seed=3, step=self.global_step, backward=self.manual_backward)
        optimizer.step()


def test_in_manual_optimization_a_step_trains_a_whole_sandwich(tmp_path):
    module = BySandwich()
    trainer(tmp_path, SupernetCallback(module.mutator, sample=None)).fit(module, loader())
    assert_equal_weights(module.net, by_hand(step_of=sandwich_step))


class TwoOptimizers(Classifier):
    """Manual optimization: the supernet has two optimizers, and another model a third."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.other = nn.Linear(2, 1)

    def configure_optimizers(self):
        return sgd(self.net[:3].parameters()), sgd(self.net[3:].parameters()), sgd(self.other.parameters())

    def training_step(self, batch, number):
        loss = super().training_step(batch, number)
        first, second, third = self.optimizers()
        self.manual_backward(loss + self.other(torch.ones(2)).sum())
        for optimizer in (first, second, third):
            optimizer.step()
            optimizer.zero_grad()


def test_several_optimizers_of_one_supernet_are_all_protected(tmp_path):
    module = TwoOptimizers()
    trainer(tmp_path, SupernetCallback(Mutator(module.net), seed=3)).fit(module, loader())
    assert_equal_weights(module.net, by_hand())


def test_a_module_that_is_the_supernet_itself_trains(tmp_path):
    class Whole(LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.op = OneShotMutableOP({"one": nn.Linear(6, 4), "two": nn.Sequential(nn.Linear(6, 4), nn.Tanh())})
            self.seen = []

        def training_step(self, batch, number):
            self.seen.append(self.op.current_choice)
            return cross_entropy(self.op(batch[0]), batch[1])

        def configure_optimizers(self):
            return sgd(self.parameters())

    module = Whole()
    trainer(tmp_path, SupernetCallback(Mutator(module))).fit(module, loader())
    assert set(module.seen) == {"one", "two"}


def test_a_training_that_fails_leaves_the_net_as_between_steps(tmp_path):
    class Fails(Callback):
        def on_after_backward(self, trainer, pl_module):
            if trainer.global_step == 2:
                raise RuntimeError("no more")

    module, mutator = (m := Classifier()), Mutator(m.net)
    run = trainer(tmp_path, SupernetCallback(mutator), Fails())
    with pytest.raises(RuntimeError, match="no more"):
        run.fit(module, loader())
    assert mutator.current_choices == mutator.space.max
    protect(run.optimizers[0], module.net).remove()


def test_the_mutator_of_another_model_is_refused_before_anything_is_trained(tmp_path):
    module = Classifier()
    run = trainer(tmp_path, SupernetCallback(Mutator(supernet())))
    with pytest.raises(StateError, match=r"belongs to another model; make one of this net .*Sequential.*Classifier"):
        run.fit(module, loader(), loader())
    assert not module.seen
    assert not module.validated


def test_an_optimizer_without_the_supernet_is_refused(tmp_path):
    module = Classifier(lambda _: sgd(nn.Linear(2, 1).parameters()))
    with pytest.raises(ConfigError, match="no optimizer of the trainer has parameters of the Sequential"):
        trainer(tmp_path, SupernetCallback(Mutator(module.net))).fit(module, loader())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sample": "unifrom"}, ConfigError, r"no way to sample 'unifrom'; did you mean 'uniform'\?"),
        ({"every": "epoch"}, ConfigError, "no 'epoch' to sample for; .*allowed: 'step', 'batch'"),
        ({"evaluate_at": {"0": 8}}, SpaceError, "the architecture leaves 3 undecided"),
    ],
)
def test_a_wrong_option_is_refused_when_the_callback_is_made(options, error, message):
    with pytest.raises(error, match=message):
        SupernetCallback(Mutator(supernet()), **options)


def test_without_lightning_the_error_has_the_install_line(monkeypatch):
    monkeypatch.delitem(sys.modules, "mutorch.integrations.lightning")
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(MissingExtraError, match=r"pip install \"mutorch\[lightning\]\""):
        import mutorch.integrations.lightning  # noqa: F401
