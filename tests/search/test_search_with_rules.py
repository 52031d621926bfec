import copy
import pickle

import pytest
import torch
from torch import nn

import mutorch
from mutorch.errors import ConstraintError, ResumeError
from mutorch.mutables import choice_of
from mutorch.search import read_history
from mutorch.subnet.export import record_of


class Net(nn.Module):
    """Blocks, a kernel size and a rule that ties them."""

    def __init__(self):
        super().__init__()
        self.kernel = mutorch.ValueChoice([1, 3, 5], label="kernel")
        self.padding = self.kernel // 2
        self.blocks = nn.Sequential(
            *(
                mutorch.OneShotMutableOP({"conv": nn.Conv2d(2, 2, 3, padding=1), "skip": nn.Identity()})
                for _ in range(4)
            )
        )
        self.weight = nn.Parameter(torch.randn(2, 2, 5, 5))
        skipped = sum(choice_of(block).eq("skip") for block in self.blocks)
        self.rule = mutorch.Require(skipped * self.kernel <= 6)

    def forward(self, x):
        kernel = self.kernel.current_choice
        start = (5 - kernel) // 2
        weight = self.weight[:, :, start : start + kernel, start : start + kernel]
        return self.blocks(nn.functional.conv2d(x, weight, padding=self.padding.current_choice))


def score(model):
    """Prefers what the rule forbids: large kernels and skipped blocks."""
    architecture = record_of(model)["architecture"]
    return architecture["kernel"] + list(architecture.values()).count("skip")


@pytest.mark.parametrize("strategy", ["evolution", "random"])
def test_a_search_under_a_budget_stays_within_the_rules(strategy, tmp_path):
    net = Net()
    mutator = mutorch.Mutator(net)
    options = {"example_inputs": torch.zeros(1, 2, 6, 6), "budget": {"macs": "80%"}, "strategy": strategy, "seed": 0}
    log = tmp_path / "log.jsonl"
    history = mutorch.search(net, mutator, score, num_trials=25, log=log, **options)
    found = [trial.architecture for trial in history.trials]
    assert len(found) == 25
    assert all(architecture in mutator.space for architecture in found)
    best = max(score(mutorch.export(net, a)) for a in found)
    assert history.best.score == best
    again = mutorch.search(net, mutator, score, num_trials=25, log=log, **options)
    assert [trial.architecture for trial in again.trials] == found
    looser = mutorch.Mutator(copy.deepcopy(net), constraints=[mutorch.space.Ref("kernel") < 5])
    with pytest.raises(ResumeError):
        mutorch.search(looser.model, looser, score, num_trials=25, log=log, **options)
    assert list(read_history(log)) == list(history)


def test_a_supernet_is_trained_within_the_rules():
    net = Net()
    mutator = mutorch.Mutator(net)
    for step in range(10):
        mutorch.training.strict_fair_step(net, mutator, lambda m: m(torch.ones(1, 2, 6, 6)).sum(), seed=0, step=step)
        assert mutator.current_choices in mutator.space
        assert net.rule.current_choice


def test_a_mutator_and_its_space_are_pickled_with_their_rules():
    mutator = mutorch.Mutator(Net())
    again = pickle.loads(pickle.dumps(mutator))
    assert again.space == mutator.space
    assert pickle.loads(pickle.dumps(mutator.space)).sample(3) == mutator.space.sample(3)
    with pytest.raises(ConstraintError):
        again.set_choices({**dict.fromkeys(again.space.names, "skip"), "kernel": 5})
