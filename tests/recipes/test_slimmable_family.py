"""Slimmable networks, US-Nets, AutoSlim, BigNAS and OFA: what each trains, chooses and writes."""

import itertools
import json

import pytest
import torch
from benchmarks.resnet50 import ResNet50
from torch import nn

import mutorch
from mutorch.cost import count
from mutorch.errors import ConfigError, InfeasibleBudgetError, LoadError, ResumeError, SpaceError
from mutorch.models import AttentiveMobileNetV3, LinearClsHead, SearchableImageClassifier, SearchableMobileNetV2
from mutorch.mutables import OneShotMutableOP
from mutorch.mutators import Mutator
from mutorch.recipes import SlimmableSettings, SlimRun, at_share, slimmable, slimmable_net, uniform_paths
from mutorch.registry import MODELS
from mutorch.search import Feasible, GreedySlimming, Trial
from mutorch.space import Decision, SearchSpace
from mutorch.training import slimmable_step

RECIPES = ("slimmable", "us-net", "autoslim", "bignas", "ofa")
CONFIG = {
    "model": {"type": "Net"},
    "data": {"type": "ClutteredDigits"},
    "budgets": [{"macs": "60%"}, {"macs": "30%"}],
    "supernet": {"steps": 5},
    "search": {"num_trials": 4, "calibration": 2},
    "divisor": 1,
    "threads": 1,
}


def net(width=8, seed=None):
    if seed is not None:
        torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10),
    )  # fmt: skip


class Row(nn.Module):
    """Three blocks with shortcuts, of which one may be left out: a choice of kernel in each."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, stride=2)
        kernels = {f"k{size}": nn.Conv2d(8, 8, size, padding=size // 2) for size in (3, 5)}
        self.block = OneShotMutableOP(kernels, alias="kernel")
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        return self.head((self.block(torch.relu(self.stem(x)))).mean((2, 3)))


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setattr(MODELS, "_registered", {**MODELS.module_dict, "Net": net, "Row": Row})


def settings(recipe, **options):
    return SlimmableSettings.from_config({**CONFIG, "recipe": recipe, **options})


# ---- a whole run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_line_goes_on_where_it_was_stopped_and_ends_the_same(tmp_path, recipe):
    whole = slimmable(settings(recipe), tmp_path / "whole")
    told = []

    def stop(stage, done, total, note):
        told.append(stage)
        if stage != "training all sizes":
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        slimmable(settings(recipe), tmp_path / "run", progress=stop)
    again = slimmable(settings(recipe), tmp_path / "run")
    assert again.rows == whole.rows
    assert "training all sizes" in told
    for one, other in zip(again.models, whole.models, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_taken_home_computes_what_the_network_computes(tmp_path, recipe):
    made = slimmable(settings(recipe), tmp_path)
    x = torch.randn(3, 1, 10, 10, generator=torch.Generator().manual_seed(0))
    for row, model in zip(made.rows, made.models, strict=True):
        plain = mutorch.export(made.net, row.architecture, mutator=made.mutator)
        assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))
        made.mutator.set_choices(row.architecture)
        assert torch.equal(made.net.eval()(x), plain.eval()(x))
        assert (count(model, x[:1]).macs, count(model, x[:1]).params) == (row.macs, row.params)


def test_finetuning_changes_the_models_and_is_reported_beside_what_they_were(tmp_path):
    plain = slimmable(settings("us-net"), tmp_path)
    tuned = slimmable(settings("us-net", finetune={"steps": 3}), tmp_path)
    assert [row.val_accuracy for row in tuned.rows] == [row.val_accuracy for row in plain.rows]
    assert [row.finetuned is None for row in tuned.rows] == [True, False, False]
    assert not torch.equal(tuned.models[1][0].weight, plain.models[1][0].weight)


def test_results_say_what_each_subnet_is_and_costs(tmp_path):
    made = slimmable(settings("autoslim"), tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["recipe"], results["passes"]) == ("autoslim", 5 * 4)
    assert [row["budget"] for row in results["rows"]] == ["largest", "macs <= 2.122k", "macs <= 1.061k"]
    assert results["rows"][2]["architecture"] == made.rows[2].architecture


def test_another_training_may_not_use_the_same_folder_and_another_budget_may(tmp_path):
    slimmable(settings("us-net"), tmp_path)
    slimmable(settings("us-net", budgets=[{"params": "50%"}]), tmp_path)
    with pytest.raises(ResumeError, match="holds a run with other settings"):
        slimmable(settings("us-net", num_random=1), tmp_path)
    with pytest.raises(ResumeError, match="holds a run with other settings"):
        slimmable(settings("autoslim"), tmp_path)


def test_a_slimmable_network_is_trained_for_its_budgets(tmp_path):
    slimmable(settings("slimmable"), tmp_path)
    with pytest.raises(ResumeError, match="holds a run with other settings"):
        slimmable(settings("slimmable", budgets=[{"macs": "50%"}]), tmp_path)


def test_widths_of_a_slimmable_network_are_rows(tmp_path):
    made = slimmable(settings("slimmable", budgets=[], widths=[0.25, 0.5, 1.0]), tmp_path)
    assert [row.budget for row in made.rows] == ["largest", "width 0.5", "width 0.25"]
    assert [set(row.architecture.values()) for row in made.rows] == [{8}, {4}, {2}]
    assert made.passes == 15


def test_weights_to_begin_with_are_read(tmp_path):
    torch.save(net(seed=3).state_dict(), tmp_path / "mine.pt")
    run = SlimRun(settings("us-net", weights=str(tmp_path / "mine.pt")), tmp_path / "run")
    assert torch.equal(run.mutator.model[0].weight, net(seed=3)[0].weight)
    with pytest.raises(LoadError, match="no file"):
        SlimRun(settings("us-net", weights=str(tmp_path / "other.pt")), tmp_path / "run")


def test_protection_is_only_there_while_it_trains(tmp_path):
    run = SlimRun(settings("ofa", protect=True), tmp_path)
    assert run.passes == 2 * 1 + 2 * 3 + 1 * 3  # one phase of the largest alone, two with two random ones
    run.train()
    assert not any(parameter._post_accumulate_grad_hooks for parameter in run.mutator.model.parameters())


@pytest.mark.parametrize("recipe", ["autoslim", "bignas"])
def test_a_search_that_is_interrupted_takes_nothing_home_and_goes_on_later(tmp_path, recipe):
    def stop(stage, done, total, note):
        if stage.startswith(("slimming", "searching")) and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        slimmable(settings(recipe), tmp_path, progress=stop)
    (log,) = tmp_path.glob("search-*.jsonl")
    assert len(log.read_text().splitlines()) == 1 + 3 + 1  # what it is, its trials, and its end
    assert not (tmp_path / "results.json").exists()
    assert len(slimmable(settings(recipe), tmp_path).rows) == 3


@pytest.mark.parametrize("recipe", ["bignas", "ofa"])
def test_a_model_that_holds_choices_is_taken_as_it_is_and_rules_add_to_it(tmp_path, recipe):
    alone = SlimRun(settings(recipe, model={"type": "Row"}, budgets=[{"macs": "90%"}]), tmp_path)
    assert alone.mutator.space.names == ("kernel",)
    both = settings(recipe, model={"type": "Row"}, rules=[{"widths": "stem", "counts": [4, 6]}])
    made = slimmable(both, tmp_path)
    assert set(made.mutator.space.names) == {"kernel", "stem"}
    assert made.rows[1].macs <= 0.6 * made.rows[0].macs


def test_depths_are_searched_where_rules_say_so(tmp_path, monkeypatch):
    def deep():
        class Block(nn.Conv2d):
            def forward(self, x):
                return x + torch.relu(super().forward(x))

        blocks = nn.Sequential(*(Block(8, 8, 3, padding=1) for _ in range(3)))
        return nn.Sequential(nn.Conv2d(1, 8, 3), blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))

    monkeypatch.setitem(MODELS._registered, "Deep", deep)
    budgets = [{"macs": "70%"}, {"macs": "40%"}]
    made = slimmable(settings("autoslim", model={"type": "Deep"}, rules=[{"depth": "1"}], budgets=budgets), tmp_path)
    assert [row.architecture for row in made.rows] == [{"1.depth": 3}, {"1.depth": 2}, {"1.depth": 1}]


class ElasticNet(nn.Module):
    """A tiny MobileNetV3 of elastic kernels, depths, expansions and widths, at an elastic resolution."""

    def __init__(self):
        super().__init__()
        ranges = {
            "kernel_size": [[3, 5, 2]],
            "num_blocks": [[1, 2, 1]],
            "expand_ratio": [[1, 2, 1], [2, 2, 1]],
            "num_out_channels": [[8, 8, 8], [8, 16, 8], [16, 16, 8]],
        }
        sizes = {"type": "OneShotMutableValue", "value_list": [[8, 8], [10, 10]]}
        self.net = SearchableImageClassifier(
            AttentiveMobileNetV3(ranges, stride_list=[2], with_se_list=[False], out_indices=(1,)),
            LinearClsHead(num_classes=10, in_channels=16),
            input_resizer_cfg={"input_resizer": {"type": "DynamicInputResizer"}, "mutable_shape": sizes},
        )

    def forward(self, x):
        return self.net(x.expand(-1, 3, -1, -1))


@pytest.mark.parametrize("recipe", ["autoslim", "bignas", "ofa"])
def test_kernels_depths_widths_and_resolutions_are_searched_together(tmp_path, monkeypatch, recipe):
    monkeypatch.setitem(MODELS._registered, "ElasticNet", ElasticNet)
    options = {"model": {"type": "ElasticNet"}, "budgets": [{"macs": "50%"}], "supernet": {"steps": 7}}
    made = slimmable(settings(recipe, **options), tmp_path)
    names = made.mutator.space.names
    assert "input_shape" in names
    assert {name.rpartition(".")[2] for name in names} == {
        "input_shape", "depth", "kernel_size", "expand_ratio", "out_channels"
    }  # fmt: skip
    assert made.rows[0].architecture["input_shape"] == [10, 10]
    assert made.rows[1].macs <= 0.5 * made.rows[0].macs
    small = mutorch.load(tmp_path / made.rows[1].file, ElasticNet)
    x = torch.randn(2, 1, 10, 10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(small.eval()(x), made.models[1].eval()(x))


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("usnet", {}, "no recipe 'usnet' of slimmable networks; did you mean 'us-net'"),
        ("us-net", {"budgets": []}, "us-net needs 'budgets'"),
        ("slimmable", {"budgets": []}, "or 'widths', the shares of its channels"),
        ("slimmable", {"widths": [0.5]}, "either 'widths' or 'budgets'"),
        ("slimmable", {"rules": [{"widths": "*"}]}, "slimmable has no 'rules'"),
        ("autoslim", {"widths": [0.5], "rules": [{"widths": "*"}]}, "either 'widths' or 'rules'"),
        ("autoslim", {"widths": [1.5]}, "each of the widths must be a number above 0 and at most 1"),
        ("autoslim", {"widths": 0.5}, "'widths' must be a list of shares"),
        ("autoslim", {"rules": [{"ratios": [0.5]}]}, "a rule is"),
        ("autoslim", {"rules": [{"widths": "*", "ratio": [0.5]}]}, "has no key 'ratio'; did you mean 'ratios'"),
        ("us-net", {"rules": [{"depth": "*"}]}, "cuts no depths; take autoslim"),
        ("bignas", {"phases": [{"steps": 5}]}, "'phases' are of the recipe ofa"),
        ("ofa", {"phases": [{"opens": "*"}]}, "a phase needs 'steps'"),
        ("ofa", {"phases": [{"steps": 3, "open": "*"}]}, "a phase has no key 'open'; did you mean 'opens'"),
        ("ofa", {"phases": [{"steps": 3}]}, "the phases have 3 steps and supernet: steps says 5"),
        ("ofa", {"phases": [{"steps": 0}], "supernet": {}}, "steps of a phase must be"),
        ("bignas", {"budgets": ["50%"]}, "'budgets' must be a list of dicts"),
        ("bignas", {"budget": {}}, "the config has no key 'budget'; did you mean 'budgets'"),
        ("bignas", {"search": {"strategy": "annealing"}}, "no strategy 'annealing'"),
        ("bignas", {"search": {"calibration": 0}}, "calibration must be a whole number of at least 1"),
        ("bignas", {"num_random": -1}, "num_random must be a whole number of at least 0"),
        ("bignas", {"distill": "yes"}, "distill must be true or false"),
        ("bignas", {"loss_weight": -1}, "loss_weight must be a number of at least 0"),
        ("bignas", {"protect": None}, "protect must be true or false"),
    ],
)
def test_a_mistake_in_a_config_is_named(recipe, options, message):
    with pytest.raises(ConfigError, match=message):
        settings(recipe, **options)


def test_what_smaller_ones_learn_from_is_that_of_the_paper_unless_said():
    defaults = {recipe: (settings(recipe).is_distilled, settings(recipe).label_weight) for recipe in RECIPES}
    assert defaults == {"slimmable": (False, 0), "us-net": (True, 0), "autoslim": (True, 0), "bignas": (True, 0)} | {
        "ofa": (True, 1)
    }
    assert settings("ofa", distill=False, loss_weight=0.5).label_weight == 0.5


def test_ofa_opens_kernels_then_depths_then_widths(tmp_path):
    found = settings("ofa", supernet={"steps": 10}).phases_of([["kernel"], [], ["a", "b"]])
    assert [(phase.steps, phase.opens, phase.num_choices) for phase in found] == [
        (2, (), None), (2, ["kernel"], 2), (2, ["kernel"], None), (2, ["a", "b"], 2), (2, ["a", "b"], None)
    ]  # fmt: skip
    given = settings("ofa", phases=[{"steps": 2}, {"steps": 3, "opens": "*"}])
    assert [phase.steps for phase in given.phases_of([["kernel"]])] == [2, 3]
    with pytest.raises(ConfigError, match="ofa has 3 phases here"):
        SlimRun(settings("ofa", supernet={"steps": 2}), tmp_path)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_budget_out_of_reach_fails_before_anything_is_trained(tmp_path, recipe):
    with pytest.raises(InfeasibleBudgetError):
        SlimRun(settings(recipe, budgets=[{"macs": "0.1%"}]), tmp_path)


# ---- parts -----------------------------------------------------------------------------------------------------------


def test_one_share_for_all_is_rounded_up_as_widths_are():
    space = SearchSpace(
        [Decision("a", (8, 16, 24, 32)), Decision("b", (5, 10)), Decision("op", ("x", "y"), largest="x")]
    )
    assert at_share(space, 0.5) == {"a": 16, "b": 5, "op": "x"}
    assert at_share(space, 0.51) == {"a": 24, "b": 10, "op": "x"}
    assert at_share(space, 0.0) == {"a": 8, "b": 5, "op": "x"}


def test_uniform_paths_are_a_function_of_seed_and_step():
    space = SearchSpace([Decision(name, tuple(range(2, 17))) for name in "abc"])
    paths = uniform_paths(space, seed=1, step=5, num_random=3)
    assert paths == uniform_paths(space, seed=1, step=5, num_random=3)
    assert paths[:2] == [space.max, space.min]
    assert all(len(set(path.values())) == 1 for path in paths)
    assert paths != uniform_paths(space, seed=1, step=6, num_random=3)


def test_every_width_of_a_slimmable_network_has_norms_of_its_own():
    mutator, architectures = slimmable_net(net(seed=0), torch.zeros(1, 1, 10, 10), ratios=(0.5, 1.0), divisor=1)
    x = torch.randn(8, 1, 10, 10, generator=torch.Generator().manual_seed(0))
    mutator.set_choices(architectures[1])
    before = mutator.model.train()(x)
    mutator.model.eval()
    narrow = mutator.model(x)
    mutator.set_choices(architectures[0])
    mutator.model.train()(x)
    for parameter in (mutator.model[1]._parameters["weight"], mutator.model[1]._parameters["bias"]):
        parameter.data.add_(1.0)
    mutator.set_choices(architectures[1])
    assert torch.equal(mutator.model.eval()(x), narrow)
    assert before.shape == narrow.shape


def test_a_slimmable_network_meets_its_budgets_and_can_be_cut_in_part():
    x = torch.zeros(1, 1, 10, 10)
    mutator, architectures = slimmable_net(net(), x, budgets=[{"macs": "30%"}, {"macs": "60%"}], divisor=1)
    macs = [count(mutorch.export(mutator.model, one, mutator=mutator), x).macs for one in architectures]
    assert macs[0] == count(net(), x).macs
    assert 0.4 * macs[0] < macs[1] <= 0.6 * macs[0]
    assert 0.15 * macs[0] < macs[2] <= 0.3 * macs[0]


def test_parts_of_a_slimmable_network_can_stay_whole():
    convs = nn.Sequential(*(nn.Conv2d(a, b, 1) for a, b in ((1, 8), (8, 8), (8, 8), (8, 4))))
    mutator, architectures = slimmable_net(convs, torch.zeros(1, 1, 4, 4), ratios=(0.5,), divisor=1, freeze="3")
    small = mutorch.export(mutator.model, architectures[1], mutator=mutator)
    assert [conv.out_channels for conv in small] == [4, 4, 8, 4]


def test_a_slimmable_network_needs_to_be_told_its_widths():
    with pytest.raises(ConfigError, match="either ratios or budgets"):
        slimmable_net(net(), torch.zeros(1, 1, 10, 10))


class Scaled(nn.Module):
    """Its scale is a bare parameter, which no unit of the older library follows."""

    def __init__(self, channels=(1, 8)):
        super().__init__()
        self.convs = nn.Sequential(*(nn.Conv2d(a, b, 3) for a, b in itertools.pairwise(channels)))
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        return self.head((self.convs(x) * self.scale).mean((2, 3)))


@pytest.mark.parametrize(("channels", "named"), [((1, 8), "Scaled"), ((1, 4, 8), "'convs.1.weight'|'scale'")])
def test_channels_that_units_cannot_follow_are_named(channels, named):
    with pytest.raises(SpaceError, match=f"({named}) cannot be slimmed with norms of its own"):
        slimmable_net(Scaled(channels), torch.zeros(1, 1, 10, 10), ratios=(0.5, 1.0), divisor=1)


# ---- real networks ---------------------------------------------------------------------------------------------------


def mobile_net():
    block = {"type": "MBBlock", "kernel_size": 3, "expand_ratio": 6}
    rows = [[16, 1, 1, {**block, "expand_ratio": 1}], [24, 2, 2, block], [32, 2, 2, block], [64, 2, 2, block]]
    return SearchableMobileNetV2(rows, out_indices=(4,), last_channels=128)


@pytest.mark.parametrize("build", [mobile_net, ResNet50], ids=["MobileNetV2", "ResNet50"])
def test_real_networks_become_slimmable_train_a_step_and_are_taken_apart(build):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 32)
    mutator, architectures = slimmable_net(build(), x, ratios=(0.25, 0.5))

    def loss(model):
        out = model(x)
        return (out if isinstance(out, torch.Tensor) else out[0]).square().mean()

    slimmable_step(mutator.model, mutator, loss, architectures)
    assert len(architectures) == 3
    first = lambda model: out if isinstance(out := model.eval()(x), torch.Tensor) else out[0]  # noqa: E731
    for architecture in architectures[1:]:
        mutator.set_choices(architecture)
        plain = mutorch.export(mutator.model, architecture, mutator=mutator)
        assert torch.equal(first(mutator.model), first(plain))


def test_a_large_network_is_slimmed_to_budgets_without_memory():
    x = torch.zeros(1, 3, 64, 64, device="meta")
    with torch.device("meta"):
        model = ResNet50()
    net = mutorch.searchable(model, x, rules=[mutorch.widths(ratios=(0.25, 0.5, 0.75, 1.0))])
    mutator = Mutator(net)
    table = mutorch.CostTable.from_model(mutator, x)
    paths = uniform_paths(mutator.space, 0, 0)
    assert table(paths[1]).macs < table(paths[2]).macs < table(paths[0]).macs
    assert mutorch.export(net, paths[1]).fc.in_features == 512
    walk = GreedySlimming(Feasible(mutator.space, table), budgets=[{"macs": "50%"}, {"macs": "25%"}])
    while (architecture := walk.ask()) is not None:
        walk.tell(Trial(0, architecture, -table(architecture).params))  # the widest layers are the best
    shares = [one.costs.macs / table(mutator.space.max).macs for one in walk.found]
    assert shares[0] == pytest.approx(0.5, abs=0.03)
    assert shares[1] == pytest.approx(0.25, abs=0.03)
