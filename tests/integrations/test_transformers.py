import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments
from transformers.modeling_outputs import SequenceClassifierOutput

from mutorch import Mutator, export, searchable
from mutorch.errors import ConfigError, MissingExtraError, StateError
from mutorch.integrations.transformers import SupernetCallback
from mutorch.mutables import OneShotMutableOP
from mutorch.training import protect, sandwich_step, single_path, single_path_step, strict_fair

CONFIG = BertConfig(
    vocab_size=32,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=4,
    intermediate_size=32,
    max_position_embeddings=8,
    num_labels=2,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
IDS = torch.randint(32, (48, 8), generator=torch.Generator().manual_seed(0))
LABELS = (IDS[:, 0] > 15).long()


class Tokens(Dataset):
    def __len__(self):
        return len(IDS)

    def __getitem__(self, index):
        return {"input_ids": IDS[index], "labels": LABELS[index]}


class InOrder(Trainer):
    """The order of the data, and the mean over accumulated batches, are those of the loops by hand."""

    loss_is_scaled_for_ga = False  # left alone, this version adds up what BERT says, and does not divide
    seen: list

    def _get_train_sampler(self, dataset=None):
        return None

    def compute_loss(self, model, inputs, *args, **kwargs):
        if model.training:
            self.__dict__.setdefault("seen", []).append(Mutator(self.model).current_choices)
        return super().compute_loss(model, inputs, *args, **kwargs)


def bert():
    torch.manual_seed(0)
    return BertForSequenceClassification(CONFIG)


def supernet():
    """Widths and heads."""
    return searchable(bert(), {"input_ids": IDS[:1]})


def trainer(folder, net, *callbacks, cls=InOrder, epochs=2, **options):
    options = {"save_strategy": "no", "max_grad_norm": 1.0, "per_device_train_batch_size": 8, **options}
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        weight_decay=0.1,
        per_device_eval_batch_size=16,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **options,
    )
    return cls(net, arguments, train_dataset=Tokens(), eval_dataset=Tokens(), callbacks=list(callbacks))


def by_hand(folder, epochs=2, step_of=single_path_step, accumulate=1, seed=3):
    net = supernet().train()
    mutator = Mutator(net)
    optimizer = trainer(folder, net).create_optimizer()  # the trainer's: no weight decay for biases and norms
    protect(optimizer, net)
    for number in range(6 * epochs):
        rows = slice(number % 6 * 8, number % 6 * 8 + 8)
        batch = {"input_ids": IDS[rows], "labels": LABELS[rows]}
        step_of(net, mutator, lambda m, batch=batch: m(**batch).loss / accumulate, seed=seed, step=number)
        if (number + 1) % accumulate == 0:
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return net


def assert_equal_weights(net, other):
    assert net.state_dict().keys() == other.state_dict().keys()
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_the_trainer_trains_as_a_loop_of_single_path_steps_by_hand(tmp_path):
    net = supernet()
    mutator = Mutator(net)
    run = trainer(tmp_path, net, SupernetCallback(mutator, seed=3))
    run.train()
    assert run.seen == [single_path(mutator.space, 3, number) for number in range(12)]
    assert_equal_weights(net, by_hand(tmp_path))


def test_accumulated_batches_train_one_architecture_a_step(tmp_path):
    net = supernet()
    run = trainer(tmp_path, net, SupernetCallback(Mutator(net), seed=3), gradient_accumulation_steps=3)
    run.train()

    def step_of(*args, step, **kwargs):
        return single_path_step(*args, step=step // 3, **kwargs)

    assert run.seen[::3] == run.seen[1::3] == run.seen[2::3]
    assert_equal_weights(net, by_hand(tmp_path, step_of=step_of, accumulate=3))


def test_accumulated_batches_train_an_architecture_each_if_asked(tmp_path):
    net = supernet()
    callback = SupernetCallback(Mutator(net), seed=3, every="batch")
    run = trainer(tmp_path, net, callback, gradient_accumulation_steps=3)
    run.train()
    assert_equal_weights(net, by_hand(tmp_path, accumulate=3))


def test_fair_sampling_goes_through_a_fair_set_in_each_step_of_as_many_batches(tmp_path):
    net = supernet()
    mutator = Mutator(net)
    callback = SupernetCallback(mutator, seed=3, sample="fair", every="batch")
    run = trainer(tmp_path, net, callback, max_steps=2, gradient_accumulation_steps=4)
    run.train()
    assert run.seen[:4] == strict_fair(mutator.space, 3, 0)


def test_what_was_not_trained_does_not_move(tmp_path):
    net = supernet()
    mutator = Mutator(net)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    smallest = SupernetCallback(mutator, sample=lambda space, seed, number: space.min)
    trainer(tmp_path, net, smallest).train()
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    moved = net.state_dict()[name] != before[name]
    assert tuple(moved.shape) == (32, 16)
    assert moved[:8, :8].all()
    assert not moved[8:].any()
    assert not moved[:, 8:].any()


def test_without_protection_weight_decay_moves_what_was_not_trained(tmp_path):
    net = supernet()
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    before = net.state_dict()[name].clone()
    smallest = SupernetCallback(Mutator(net), sample=lambda space, seed, number: space.min, protect=False)
    trainer(tmp_path, net, smallest).train()
    assert (net.state_dict()[name] != before)[8:].all()


class EvaluatedAt(TrainerCallback):
    def __init__(self, mutator):
        self.mutator, self.seen = mutator, []

    def on_prediction_step(self, args, state, control, **kwargs):
        self.seen.append(self.mutator.current_choices)


def test_evaluation_runs_at_the_chosen_architecture_and_training_goes_on_as_without(tmp_path):
    net = supernet()
    mutator = Mutator(net)
    evaluated = EvaluatedAt(mutator)
    callback = SupernetCallback(mutator, seed=3, evaluate_at=mutator.space.min)
    run = trainer(tmp_path, net, callback, evaluated, eval_strategy="steps", eval_steps=5, eval_on_start=True)
    run.train()
    assert evaluated.seen == [mutator.space.min] * 12  # at the start, after steps 5 and 10 and at the end
    assert_equal_weights(net, by_hand(tmp_path))


def test_after_training_the_net_is_at_the_largest_and_is_evaluated_as_it_is_set(tmp_path):
    net = supernet()
    mutator = Mutator(net)
    evaluated = EvaluatedAt(mutator)
    run = trainer(tmp_path, net, SupernetCallback(mutator), evaluated, epochs=1)
    run.train()
    assert mutator.current_choices == mutator.space.max
    mutator.set_choices(mutator.space.min)
    run.predict(Tokens())
    assert evaluated.seen == [mutator.space.min] * 3


@pytest.mark.parametrize("step", [6, 8], ids=["after an epoch", "within an epoch"])
def test_a_run_that_is_resumed_ends_as_one_that_was_not_interrupted(tmp_path, step):
    options = {"gradient_accumulation_steps": 1, "save_strategy": "steps", "save_steps": 2}
    whole, second = supernet(), supernet()
    run = trainer(tmp_path / "whole", whole, SupernetCallback(Mutator(whole), seed=3), **options)
    run.train()
    resumed = trainer(tmp_path / "second", second, SupernetCallback(Mutator(second), seed=3), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
    assert resumed.seen == run.seen[step:]
    assert_equal_weights(second, whole)


def test_a_checkpoint_holds_the_plain_supernet_and_nothing_else(tmp_path):
    net = supernet()
    run = trainer(tmp_path, net, SupernetCallback(Mutator(net)), epochs=1)
    run.train()
    run.save_model(str(tmp_path / "saved"))
    loaded = supernet()
    loaded.load_state_dict(load_file(tmp_path / "saved" / "model.safetensors"))
    assert_equal_weights(loaded, net)
    architecture = Mutator(net).space.sample(1)
    inputs = {"input_ids": IDS}
    same = [export(one, architecture).eval()(**inputs).logits for one in (loaded, net)]
    assert torch.equal(*same)
    plain = BertForSequenceClassification.from_pretrained(tmp_path / "saved")  # the largest, by transformers alone
    assert torch.equal(plain.eval()(**inputs).logits, net.eval()(**inputs).logits)


def test_a_trainer_may_train_twice_and_is_not_protected_afterwards(tmp_path):
    net = supernet()
    run = trainer(tmp_path, net, SupernetCallback(Mutator(net)), epochs=1)
    run.train()
    run.train()
    protect(run.optimizer.optimizer, net).remove()


class Fails(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 2:
            raise RuntimeError("no more")


def test_a_training_that_failed_may_be_started_again(tmp_path):
    net = supernet()
    fails = Fails()
    run = trainer(tmp_path, net, SupernetCallback(Mutator(net), seed=3), fails)
    with pytest.raises(RuntimeError, match="no more"):
        run.train()
    run.remove_callback(fails)
    run.train()
    assert len(run.seen) == 2 + 12


class Choosy(nn.Module):
    """A model that is not of transformers, whose part has choices."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        ops = {"linear": nn.Linear(16, 16), "deep": nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))}
        self.trunk = nn.Sequential(nn.Embedding(32, 16), OneShotMutableOP(ops))
        self.head = nn.Linear(16, 2)

    def forward(self, input_ids, labels=None):
        logits = self.head(self.trunk(input_ids).mean(1))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def test_the_part_of_a_model_that_has_choices_may_have_the_mutator(tmp_path):
    model = Choosy()
    mutator = Mutator(model.trunk)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    callback = SupernetCallback(mutator, sample=lambda space, seed, number: {"1": "linear"})
    trainer(tmp_path, model, callback, cls=Trainer).train()
    moved = {name: not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()}
    assert moved["trunk.1._candidates.linear.weight"]
    assert moved["head.weight"]
    assert not any(moved[name] for name in moved if "deep" in name)


class BySandwich(InOrder):
    """A step with several forwards: a trainer whose step is a step function of mutorch."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        model.train()
        inputs = self._prepare_inputs(inputs)
        return sandwich_step(
            model,
            Mutator(self.model),
            lambda m: self.compute_loss(m, inputs) / self.current_gradient_accumulation_steps,
            seed=3,
            step=self.state.global_step,
            backward=self.accelerator.backward,
        )


def test_a_trainer_with_a_step_of_its_own_trains_a_whole_sandwich(tmp_path):
    net = supernet()
    trainer(tmp_path, net, SupernetCallback(Mutator(net), sample=None), cls=BySandwich).train()
    assert_equal_weights(net, by_hand(tmp_path, step_of=sandwich_step))


def test_the_mutator_of_another_model_is_refused_before_anything_is_trained(tmp_path):
    net = supernet()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    run = trainer(tmp_path, net, SupernetCallback(Mutator(supernet())))
    with pytest.raises(StateError, match="belongs to another model; make one of this net .*BertForSequenceClass"):
        run.train()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_an_optimizer_that_cannot_be_protected_is_refused_and_trains_unprotected_if_asked(tmp_path):
    net = supernet()
    run = trainer(tmp_path, net, SupernetCallback(Mutator(net)), optim="adafactor")
    with pytest.raises(ConfigError, match="Adafactor remembers .* use SGD, Adam"):
        run.train()
    unprotected = SupernetCallback(Mutator(net), protect=False)
    assert trainer(tmp_path, net, unprotected, optim="adafactor").train().global_step == 12


def test_without_transformers_the_error_has_the_install_line(monkeypatch):
    monkeypatch.delitem(sys.modules, "mutorch.integrations.transformers")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install \"mutorch\[transformers\]\""):
        import mutorch.integrations.transformers  # noqa: F401
