import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mutorch
from mutorch.channels import searchable, widths
from mutorch.errors import ConfigError, InfeasibleBudgetError
from mutorch.importance import L1, GroupFisher, Random
from mutorch.mutables import OneShotMutableOP
from mutorch.mutators import Mutator
from mutorch.pruning import Finetune, Gradual, OneByOne, Prices, shrink, uniform

X = torch.zeros(1, 1, 6, 6)


class SmallNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.bn, self.bn_a = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
        self.b, self.bn_b = nn.Conv2d(16, 32, 3, stride=2, bias=False), nn.BatchNorm2d(32)
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        x = F.relu(self.bn(self.stem(x)))
        x = F.relu(x + self.bn_a(self.a(x)))
        return self.head(F.relu(self.bn_b(self.b(x))).mean(dim=(2, 3)))


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallNet()


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(8, 1, 6, 6, generator=generator), torch.randint(4, (8,), generator=generator)) for _ in range(4)
    ]


def macs(model):
    return mutorch.count(model, X).macs


WAYS = [Gradual(3, 2), Gradual(4, 1, "linear"), OneByOne(6, 2), OneByOne(4, 1, normalise=None, schedule="cubic")]


@pytest.mark.parametrize("gradual", WAYS, ids=str)
@pytest.mark.parametrize("divisor", [1, 4])
def test_the_budget_is_met_and_missed_by_less_than_a_step_of_the_divisor(model, batches, gradual, divisor):
    finetune = Finetune(steps=1)
    small = shrink(
        model, {"macs": "50%"}, batches, nn.CrossEntropyLoss(), gradual=gradual, divisor=divisor, finetune=finetune
    )
    budget = 0.5 * macs(model)
    assert macs(small.model) <= budget
    assert all(width % divisor == 0 for width in small.architecture.values())
    whole = {"stem": 16, "b": 32}
    wider = [
        {**small.architecture, name: width + divisor}
        for name, width in small.architecture.items()
        if width < whole[name]
    ]
    costs = [macs(mutorch.export(small.net, one)) for one in wider]
    assert max(costs) > budget
    if isinstance(gradual, Gradual):
        assert min(costs) > budget


@pytest.mark.parametrize("gradual", [Gradual(3, 2), OneByOne(6, 2)], ids=str)
def test_steps_and_passes_are_counted(model, batches, gradual):
    options = {"divisor": 1, "finetune": Finetune(steps=3), "calibrate": 3}
    small = shrink(model, {"macs": "50%"}, batches, nn.CrossEntropyLoss(), gradual=gradual, **options)
    between = 2 * 2 if isinstance(gradual, Gradual) else 6
    assert small.steps == between + 3
    check = 0 if isinstance(gradual, Gradual) else 1 + 1 / 8  # gradients of a batch, and of its first sample alone
    assert small.passes == pytest.approx(small.steps * 4 / 3 + 3 / 3 + check)
    assert f"trained for {small.steps} steps; {small.passes:.0f} passes in all" in str(small)


def test_passes_of_a_ranking_count_too(model, batches):
    def ranked_by(importance):
        return shrink(model, {"macs": "50%"}, batches, importance=importance, calibrate=0).passes

    loss = nn.CrossEntropyLoss()
    fisher = GroupFisher(batches, lambda m, b: loss(m(b[0]), b[1]), num_batches=2, normalise=None)
    assert ranked_by(L1()) == 0
    assert ranked_by(fisher) == pytest.approx(2 + 1 / 8)


@pytest.mark.parametrize("gradual", [Gradual(3, 2), OneByOne(6, 2)], ids=str)
def test_the_result_is_a_plain_subnet_of_the_original_which_is_untouched(model, batches, gradual, tmp_path):
    before = copy.deepcopy(model.state_dict())
    small = shrink(model, {"macs": "50%"}, batches, nn.CrossEntropyLoss(), gradual=gradual, divisor=1)
    assert type(small.model) is SmallNet
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    shapes = {name: value.shape for name, value in mutorch.export(small.net, small.architecture).state_dict().items()}
    assert shapes == {name: value.shape for name, value in small.model.state_dict().items()}
    loaded = mutorch.load(mutorch.save(small.model, tmp_path / "small.safetensors"), SmallNet).eval()
    x = torch.randn(2, 1, 6, 6)
    assert torch.equal(loaded(x), small.model.eval()(x))


def test_every_round_ranks_what_the_training_before_left(model, batches):
    seen = []

    def ranking(net):
        seen.append(L1()(net))
        return seen[-1]

    shrink(
        model,
        {"macs": "40%"},
        batches,
        nn.CrossEntropyLoss(),
        importance=ranking,
        gradual=Gradual(3, 2, "linear"),
        divisor=1,
    )
    sizes = [len(scores["stem"]) for scores in seen]
    assert sizes[0] == 16
    assert sizes[0] > sizes[1] > sizes[2]
    kept = seen[0]["stem"].sort(descending=True).values[: sizes[1]]
    assert not torch.allclose(seen[1]["stem"].sort(descending=True).values, kept)


def test_without_training_rounds_of_one_ranking_keep_what_one_cut_keeps(model, batches):
    options = {"importance": L1(), "divisor": 1, "finetune": Finetune(steps=0), "calibrate": 0}
    at_once = shrink(model, {"macs": "50%"}, batches, **options)
    rounds = shrink(model, {"macs": "50%"}, batches, nn.CrossEntropyLoss(), gradual=Gradual(1, 0), **options)
    assert rounds.architecture == at_once.architecture
    assert all(
        torch.equal(value, rounds.model.state_dict()[name]) for name, value in at_once.model.state_dict().items()
    )


def test_the_score_after_every_round_is_kept(model, batches):
    small = shrink(
        model,
        {"macs": "50%"},
        batches,
        nn.CrossEntropyLoss(),
        gradual=Gradual(3, 1),
        finetune=Finetune(steps=1),
        divisor=1,
        evaluate=macs,
    )
    assert list(small.scores) == ["original", "round 1", "round 2", "pruned", "recalibrated", "finetuned"]
    found = [small.scores[stage] for stage in ("original", "round 1", "round 2", "pruned")]
    assert found == sorted(found, reverse=True)


def test_a_round_that_leaves_too_little_is_undone_and_the_last(model, batches):
    def shrunk(min_score):
        gradual = Gradual(4, 1, "linear", min_score=min_score)
        options = {"gradual": gradual, "finetune": Finetune(steps=1), "divisor": 1, "evaluate": macs}
        return shrink(model, {"macs": "50%"}, batches, nn.CrossEntropyLoss(), **options)

    whole = macs(model)
    small = shrunk(0.65 * whole)
    assert small.stopped.startswith("round 3 of 4 scored")
    assert f"stopped: {small.stopped}" in str(small)
    assert small.scores["round 3"] < 0.65 * whole <= macs(small.model) == small.scores["round 2"]
    assert macs(mutorch.export(small.net, small.architecture)) == macs(small.model)
    assert shrunk(0.1 * whole).stopped == ""
    with pytest.raises(InfeasibleBudgetError, match="round 1 of 4 scored .*, below min_score"):
        shrunk(whole)
    with pytest.raises(ConfigError, match="min_score needs evaluate"):
        shrink(model, {"macs": "50%"}, batches, nn.CrossEntropyLoss(), gradual=Gradual(min_score=1.0))


def test_the_least_important_channels_go_first_while_the_model_trains(model, batches):
    """Channels that nothing after them uses have no gradient, and are the first that go."""
    with torch.no_grad():
        model.head.weight[:, 5:] = 0
    small = shrink(
        model,
        {"params": "70%"},
        batches,
        nn.CrossEntropyLoss(),
        gradual=OneByOne(2, 1, lr=0.0),
        finetune=Finetune(steps=0, weight_decay=0),
        freeze=["stem", "a"],
        divisor=1,
    )
    (unit,) = (unit for name, (unit,) in Mutator(small.net).search_groups.items() if name == "b")
    kept = unit.mutable_channel.order[: small.architecture["b"]]
    assert set(range(5)) <= set(kept)


def test_it_is_a_matter_of_the_seed_alone(model, batches):
    data = torch.utils.data.TensorDataset(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
    before = torch.get_rng_state()
    options = {"gradual": OneByOne(4, 2), "divisor": 1, "finetune": Finetune(steps=2), "seed": 3}
    one, other = (
        shrink(model, {"macs": "50%"}, loader, nn.CrossEntropyLoss(), **options).model.state_dict() for _ in range(2)
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert torch.equal(torch.get_rng_state(), before)


def test_shares_of_units_may_be_given_by_name_and_others_meet_the_budget(model, batches):
    small = shrink(model, {}, batches, allocation={"b": 0.5}, divisor=1)
    assert small.architecture == {"stem": 16, "b": 16}
    small = shrink(model, {"macs": "60%"}, batches, allocation={"b": 0.75}, divisor=1)
    assert small.architecture["b"] == 24
    assert small.architecture["stem"] < 16
    assert shrink(model, {}, batches, allocation={"*": 0.5, "b": 0.75}).architecture == {"stem": 8, "b": 24}
    rounds = shrink(model, {}, batches, nn.CrossEntropyLoss(), allocation={"b": 0.5}, gradual=Gradual(2, 1), divisor=1)
    assert rounds.architecture == {"stem": 16, "b": 16}


def test_uniform_rounds_end_where_one_uniform_cut_ends(model, batches):
    """Shares are of the original, not of what a round left."""
    net = searchable(model, X, rules=[widths(counts=range(1, 65), divisor=1)])
    prices = Prices(Mutator(net), X)
    wanted = uniform(prices, prices.budget({"macs": "40%"}), {})
    small = shrink(model, {"macs": "40%"}, batches, nn.CrossEntropyLoss(), gradual=Gradual(4, 0), divisor=1)
    assert small.architecture == wanted


def test_absolute_allocation_compares_scores_of_units_as_they_are(model, batches):
    def ranking(net):
        scores = Random(0)(net)
        return {"stem": scores["stem"] + 100, "b": scores["b"]}

    options = {"importance": ranking, "divisor": 1, "min_ratio": 0.25, "calibrate": 0}
    small = shrink(model, {"macs": "90%"}, batches, allocation="absolute", **options)
    assert small.architecture["stem"] == 16
    scores = {name: values / values.mean() for name, values in ranking(small.net).items()}
    assert scores["stem"].min() > scores["b"].min()  # what "global" compares is another matter


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gradual(rounds=0), "gradual: rounds must be a whole number of at least 1, got 0"),
        (lambda: Gradual(schedule="cube"), "gradual: no schedule 'cube'; did you mean 'cubic'"),
        (lambda: Gradual(lr=-1), "gradual: lr must be at least 0, got -1"),
        (lambda: OneByOne(steps=5, interval=6), "interval 6 is longer than the 5 steps"),
        (lambda: OneByOne(normalise="mem"), "got 'mem'; did you mean 'memory'"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_gradual_pruning_needs_a_loss_and_channels_alone(model, batches):
    with pytest.raises(ConfigError, match="gradual trains, and needs loss"):
        shrink(model, {"macs": "50%"}, batches, gradual=Gradual())
    with pytest.raises(ConfigError, match="gradual is a Gradual or a OneByOne, got 5"):
        shrink(model, {"macs": "50%"}, batches, nn.CrossEntropyLoss(), gradual=5)
    with pytest.raises(ConfigError, match="a share is given for 'c', which is no unit"):
        shrink(model, {"macs": "50%"}, batches, allocation={"c": 0.5})
    with pytest.raises(ConfigError, match="the share of 'b' must be above 0"):
        shrink(model, {"macs": "50%"}, batches, allocation={"b": 0})
    with pytest.raises(InfeasibleBudgetError, match="no widths were found within"):
        shrink(model, {"macs": "40%"}, batches, allocation={"*": 1.0})
    chosen = nn.Sequential(
        OneShotMutableOP({"one": nn.Conv2d(1, 1, 1), "skip": nn.Identity()}), nn.Conv2d(1, 16, 1), nn.Conv2d(16, 4, 1)
    )
    with pytest.raises(ConfigError, match="'0' decides something else; export the model first"):
        shrink(chosen, {"macs": "90%"}, batches, nn.CrossEntropyLoss(), gradual=Gradual())


def test_channels_that_a_batch_does_not_tell_sample_by_sample_are_named(batches):
    class Mixed(nn.Module):
        """A layer that samples go through along another dimension than the first."""

        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(36, 16), nn.Linear(16, 4)

        def forward(self, x):
            hidden = torch.relu(self.one(x.flatten(1)))
            return self.two(hidden[None].expand(3, -1, -1)).mean(dim=0)

    with pytest.raises(ConfigError, match="the gradients of a batch do not tell those of its samples for 'one'"):
        shrink(Mixed(), {"macs": "50%"}, batches, nn.CrossEntropyLoss(), gradual=OneByOne(2, 1))
    assert shrink(Mixed(), {"macs": "50%"}, batches, nn.CrossEntropyLoss(), gradual=Gradual(2, 1)).architecture
