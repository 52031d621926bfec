import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mutorch
from mutorch.channels import EmptySpaceError, widths
from mutorch.errors import BudgetError, ConfigError, InfeasibleBudgetError
from mutorch.importance import Random
from mutorch.pruning import Finetune, shrink


def conv_bn(in_channels, out_channels, stride=1):
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(out_channels)
    )


class SmallNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = conv_bn(1, 16), conv_bn(16, 16), conv_bn(16, 32, stride=2)
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.relu(x + self.a(x))
        return self.head(F.relu(self.b(x)).mean(dim=(2, 3)))


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
    return mutorch.count(model, torch.zeros(1, 1, 6, 6)).macs


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize("share", [70, 50, 25])
def test_the_budget_is_met_and_no_unit_can_be_a_step_wider(model, batches, allocation, share):
    small = shrink(model, {"macs": f"{share}%"}, batches, allocation=allocation, divisor=1)
    budget = share / 100 * macs(model)
    assert macs(small.model) <= budget
    for name, width in small.architecture.items():
        if width < {"stem.0": 16, "b.0": 32}[name]:
            wider = mutorch.export(small.net, {**small.architecture, name: width + 1})
            assert macs(wider) > budget


def test_channels_stay_multiples_of_the_divisor_and_above_the_smallest_share(model, batches):
    small = shrink(model, {"macs": "30%"}, batches, divisor=4, min_ratio=0.5)
    assert all(width % 4 == 0 for width in small.architecture.values())
    assert small.architecture["stem.0"] >= 8
    assert small.architecture["b.0"] >= 16


def test_the_result_is_a_plain_model_and_the_original_is_untouched(model, batches):
    before = copy.deepcopy(model.state_dict())
    small = shrink(model, {"params": "50%"}, batches, nn.CrossEntropyLoss(), finetune=Finetune(steps=2))
    assert {type(m).__module__.partition(".")[0] for m in small.model.modules()} <= {
        "torch",
        __name__.partition(".")[0],
    }
    assert type(small.model) is SmallNet
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert small.model.training
    assert small.steps == 2


def test_without_a_loss_only_batch_norm_is_measured_again(model, batches):
    small = shrink(model, {"macs": "50%"}, batches)
    exported = mutorch.export(small.net, small.architecture)
    for name, parameter in exported.named_parameters():
        assert torch.equal(parameter, small.model.get_parameter(name))
    assert not torch.equal(exported.stem[1].running_mean, small.model.stem[1].running_mean)
    kept = shrink(model, {"macs": "50%"}, batches, calibrate=0)
    assert torch.equal(exported.stem[1].running_mean, kept.model.stem[1].running_mean)


def test_the_same_seed_gives_the_same_model_from_a_shuffled_loader(model, batches):
    data = torch.utils.data.TensorDataset(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
    options = {"loss": nn.CrossEntropyLoss(), "finetune": Finetune(steps=3), "seed": 1, "calibrate": 2}
    before = torch.get_rng_state()
    one, other = (shrink(model, {"macs": "50%"}, loader, **options).model.state_dict() for _ in range(2))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_score_of_every_stage_is_kept_and_printed(model, batches):
    small = shrink(
        model,
        {"macs": "50%"},
        batches,
        F.cross_entropy,
        finetune=Finetune(steps=1),
        evaluate=lambda m: sum(p.numel() for p in m.parameters()),
    )
    assert list(small.scores) == ["original", "pruned", "recalibrated", "finetuned"]
    assert small.scores["original"] > small.scores["pruned"]
    text = str(small)
    assert text.splitlines()[1].split() == ["before", "after", "ratio"]
    assert "latency_ms" in text
    assert "score: original" in text


def test_frozen_parts_stay_bit_for_bit(model, batches):
    small = shrink(model, {"macs": "80%"}, batches, freeze=["a"])
    assert list(small.architecture) == ["b.0"]  # the stem feeds what is frozen
    for name in ("a.0.weight", "a.1.weight", "stem.0.weight"):
        assert torch.equal(small.model.state_dict()[name], model.state_dict()[name])


def test_a_function_may_rank_and_a_function_may_allocate(model, batches):
    seen = {}

    def halve(prices, budget, scores):
        seen.update(scores)
        return {name: choices[-1] // 2 for name, choices in prices.widths.items()}

    small = shrink(model, {"macs": "50%"}, batches, importance=Random(3), allocation=halve)
    assert small.architecture == {"stem.0": 8, "b.0": 16}
    assert seen.keys() == {"stem.0", "b.0"}


def test_widths_may_be_given_as_rules(model, batches):
    small = shrink(model, {"macs": "50%"}, batches, rules=[widths(counts=(5, 10, 20), divisor=1)])
    assert set(small.architecture.values()) <= {5, 10, 16, 20, 32}


def test_batches_may_be_dicts_and_inputs_alone():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 32), nn.Linear(32, 4)

        def forward(self, values, scale):
            return {"out": self.two(torch.relu(self.one(values))) * scale}

    batches = [{"values": torch.randn(8, 4), "scale": torch.ones(8, 1)} for _ in range(3)]
    small = shrink(Named(), {"macs": "50%"}, batches, lambda m, b: m(**b)["out"].pow(2).mean())
    assert small.architecture == {"one": 16}
    plain = nn.Sequential(nn.Linear(4, 32), nn.Linear(32, 2))
    assert shrink(plain, {"macs": "50%"}, [torch.randn(8, 4)]).architecture == {"0": 16}


def test_finetuning_with_a_teacher_brings_the_outputs_closer(model, batches):
    model.eval()
    settings = {"steps": 30, "lr": 0.02, "weight_decay": 0.0}
    taught = shrink(model, {"macs": "60%"}, batches, nn.CrossEntropyLoss(), finetune=Finetune(**settings, distill=1.0))
    before = shrink(model, {"macs": "60%"}, batches)
    x = torch.cat([inputs for inputs, _ in batches])
    with torch.no_grad():
        wanted, near, far = (m.eval()(x).softmax(dim=1) for m in (model, taught.model, before.model))
    assert (near - wanted).abs().mean() < (far - wanted).abs().mean()


def test_progress_is_told_the_stages(model, batches):
    told = []
    shrink(
        model,
        {"macs": "50%"},
        batches,
        nn.CrossEntropyLoss(),
        finetune=Finetune(steps=2),
        progress=lambda stage, done, total, note: told.append((stage, done, total)),
    )
    assert told == [("ranking channels", 0, 1), ("ranking channels", 1, 1), ("finetuning", 2, 2)]


def test_a_budget_out_of_reach_says_what_is_reachable(model, batches):
    with pytest.raises(InfeasibleBudgetError, match=r"no architecture has macs of at most 100: the space reaches from"):
        shrink(model, {"macs": 100}, batches)
    with pytest.raises(BudgetError, match="no metric 'mac'; did you mean 'macs'"):
        shrink(model, {"mac": "50%"}, batches)


def test_nothing_to_cut_is_an_error(model, batches):
    with pytest.raises(EmptySpaceError):
        shrink(model, {"macs": "50%"}, batches, freeze=["*"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": iter([1])}, "an iterator, which can be read only once"),
        ({"data": []}, "data has no batches"),
        ({"finetune": Finetune(steps=1)}, "finetune needs loss"),
        ({"allocation": "globl"}, "no allocation 'globl'; did you mean 'global'"),
        ({"loss": 3}, "loss must be a criterion"),
    ],
)
def test_options_that_do_not_fit_are_named(model, batches, options, message):
    with pytest.raises(ConfigError, match=message):
        shrink(**{"model": model, "budget": {"macs": "50%"}, "data": batches, **options})


def test_finetune_refuses_what_makes_no_sense():
    with pytest.raises(ConfigError, match="steps or epochs, not both"):
        Finetune(steps=1, epochs=1)
    with pytest.raises(ConfigError, match="distill is a share from 0 to 1, got 2"):
        Finetune(distill=2)
    with pytest.raises(ConfigError, match="lr must be at least 0, got -1"):
        Finetune(lr=-1)
    with pytest.raises(ConfigError, match="the data has no length"):
        Finetune(epochs=1).num_steps(x for x in [])


def test_a_loss_that_does_not_fit_the_batches_says_so(model):
    inputs = [torch.randn(8, 1, 6, 6)]
    with pytest.raises(ConfigError, match=r"a criterion needs batches of \(inputs, targets\), got Tensor"):
        shrink(model, {"macs": "50%"}, inputs, nn.CrossEntropyLoss())
    with pytest.raises(ConfigError, match="the loss does not call the model"):
        shrink(model, {"macs": "50%"}, inputs, lambda m, b: m.head.weight.sum())
