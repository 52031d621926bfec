"""What `searchable` takes, what it refuses and how it says so."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mutorch import Mutator, check, export, searchable, widths
from mutorch.channels import EmptySpaceError, report
from mutorch.channels.searchable import SEARCH
from mutorch.errors import SpaceError
from mutorch.mutables import OneShotMutableOP

RULES = [widths(ratios=(0.5, 1.0), divisor=1)]


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class Blocks(nn.Module):
    """Two stages of two convolutions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layer1 = nn.Sequential(nn.Conv2d(8, 12, 3), nn.ReLU(), nn.Conv2d(12, 16, 3))
        self.layer2 = nn.Sequential(nn.Conv2d(16, 12, 1), nn.ReLU(), nn.Conv2d(12, 16, 1))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.stem(x)))
        return self.head(x.mean((2, 3)))


IMAGES = drawn(2, 3, 8, 8)


def made(**options):
    return searchable(Blocks(), IMAGES, **{"rules": RULES, **options})


def units(net):
    return {name: choices for name, (_, choices) in report(net).units.items()}


def test_every_group_of_channels_is_a_decision():
    assert set(units(made())) == {"stem", "layer1.0", "layer1.2", "layer2.0", "layer2.2"}


# ---- which modules -----------------------------------------------------------------------------------------------------


def test_only_names_by_glob():
    assert set(units(made(only="layer1"))) == {"layer1.0"}


def test_only_names_by_type():
    net = made(only=nn.Conv2d)
    assert set(units(net)) == {"stem", "layer1.0", "layer1.2", "layer2.0"}  # layer2.2 feeds the head, which is none


def test_only_names_by_predicate():
    assert set(units(made(only=lambda path, module: path in ("layer2.0", "layer2.2")))) == {"layer2.0"}


def test_freeze_names_modules_of_which_neither_inputs_nor_outputs_change():
    net = made(freeze=["layer1.2"])
    assert set(units(net)) == {"stem", "layer2.0", "layer2.2"}
    assert "frozen: named by freeze" in report(net).modules["layer1.2"]


def test_freeze_wins_over_only():
    assert set(units(made(only="layer*", freeze="layer1"))) == {"layer2.0"}


def test_tied_modules_keep_the_same_channels():
    net = made(tie=[["layer1.0", "layer2.0"]])
    assert set(units(net)) == {"stem", "layer1.0", "layer1.2", "layer2.2"}
    Mutator(net).set_min_choices()
    assert net.layer1[0].out_channels == net.layer2[0].out_channels == 6


def test_tie_takes_globs():
    assert set(units(made(tie=[["layer?.0"]]))) == {"stem", "layer1.0", "layer1.2", "layer2.2"}


def test_the_last_rule_that_names_a_unit_counts():
    net = made(rules=[*RULES, widths("layer1.*", counts=[3, 4]), widths("layer1.2", ratios=(0.75, 1.0), divisor=1)])
    assert units(net)["layer1.0"] == [3, 4, 12]
    assert units(net)["layer1.2"] == [12, 16]
    assert units(net)["stem"] == [4, 8]


def test_units_that_no_rule_names_are_not_searched():
    assert set(units(made(rules=[widths("layer2.*", ratios=(0.5, 1.0))]))) == {"layer2.0", "layer2.2"}


# ---- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": "layr1"}, r"only names 'layr1', which is no module of Blocks; did you mean 'layer1'"),
        ({"freeze": ["stem", "haed"]}, r"freeze names 'haed', which is no module of Blocks; did you mean 'head'"),
        ({"freeze": nn.Conv3d}, r"freeze names 'Conv3d', which is no module of Blocks; "),
        (
            {"tie": [["layer1.0", "layer3.0"]]},
            r"tie names 'layer3.0', which is no module of Blocks; did you mean 'layer",
        ),
        ({"tie": [["layer1.0", "layer1.1"]]}, r"tie names 'layer1.1', a ReLU without a weight"),
        ({"tie": [["layer1.0", "layer1.2"]]}, r"'layer1.0' and 'layer1.2' make different numbers of channels"),
        ({"rules": [widths("stm")]}, r"widths names 'stm', which is no unit of the model; did you mean 'stem'"),
        ({"rules": [*RULES, widths("head")]}, r"widths names 'head', which is no unit of the model; "),
    ],
    ids=str,
)
def test_names_that_mean_nothing_are_errors_with_the_nearest_ones(options, message):
    with pytest.raises(SpaceError, match=message):
        made(**options)


def test_a_model_is_made_searchable_once():
    with pytest.raises(SpaceError, match="this Blocks is searchable already; build the model again"):
        searchable(made(), IMAGES)


def test_a_model_in_which_a_part_is_searchable_is_not_made_searchable_again():
    with pytest.raises(SpaceError, match="'0', a Blocks, is searchable already"):
        searchable(nn.Sequential(made(), nn.Linear(5, 16), nn.Linear(16, 2)), IMAGES)


def test_nothing_to_search_says_what_was_seen_and_why_it_stays():
    with pytest.raises(
        EmptySpaceError, match=r"nothing of Blocks can be searched: 11 modules seen; frozen: named by fr"
    ):
        made(freeze="*")


def test_rules_that_leave_one_width_say_so():
    with pytest.raises(EmptySpaceError, match="5 groups of channels have only one width under the rules"):
        made(rules=[widths(ratios=(1.0,))])


def test_one_layer_has_nothing_to_search():
    with pytest.raises(EmptySpaceError, match="feeds the model's output"):
        searchable(nn.Linear(4, 4), torch.zeros(1, 4))


def test_a_model_that_does_not_run_raises_its_own_error():
    with pytest.raises(RuntimeError, match="size|shape"):
        searchable(Blocks(), torch.zeros(2, 4, 8, 8))


class Narrow(nn.Module):
    """Does not run when anything is narrower, and nothing that it computes shows it."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.a.weight.numel() != 32:
            raise ValueError("as wide as ever, please")
        return self.b(self.a(x))


def test_what_fails_when_it_is_narrower_is_frozen_for_that_reason():
    with pytest.raises(EmptySpaceError, match=r"a narrower model fails \(ValueError: as wide as ever, please\)"):
        searchable(Narrow(), torch.zeros(1, 4))


def test_a_part_that_the_forward_does_not_reach_stays():
    model = Blocks()
    model.spare = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 4))
    net = searchable(model, IMAGES, rules=RULES)
    assert "the forward does not reach it" in report(net).modules["spare.0"]
    assert set(units(net)) == set(units(made()))


class SharedAtTwoWidths(nn.Module):
    """One layer is called with what several layers made."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(4, 8)
        self.shared = nn.Linear(8, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.shared(self.a(x)) * self.shared(self.b(x)))


def test_what_goes_into_a_shared_module_keeps_the_same_channels():
    net = searchable(SharedAtTwoWidths(), drawn(2, 4), rules=RULES)
    assert units(net) == {"a": [4, 8], "shared": [3, 6]}
    check(net)


class ByData(nn.Module):
    """Chooses by what it sees, and counts what it kept."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x[x.sum(-1) > 0]
        h = F.relu(self.a(x))
        return self.b(h) if h.sum().item() > -1 else self.b(-h)


def test_rows_chosen_by_the_data_and_branches_on_numbers_do_not_matter():
    net = searchable(ByData(), drawn(8, 4), rules=RULES)
    assert units(net) == {"a": [4, 8]}
    check(net)


class WrittenOut(nn.Module):
    """Numbers in the forward: a slice, and a view."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.b(torch.relu_(self.a(x)))
        if self.way == "slice":
            h = torch.cat([h[:, 2:], h[:, :2]], dim=1)
        else:
            h = h.view(-1, 4, 2).transpose(1, 2).reshape(-1, 8)
        return self.c(h)


@pytest.mark.parametrize(("way", "why"), [("slice", "a slice between fixed numbers"), ("view", "the number 4 in view")])
def test_what_numbers_in_the_forward_count_stays_and_the_rest_is_searched(way, why):
    net = searchable(WrittenOut(way), drawn(2, 4), rules=RULES)
    assert units(net) == {"a": [4, 8]}
    assert f"outputs frozen: {why}" in report(net).modules["b"]


# ---- example inputs ----------------------------------------------------------------------------------------------------


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.b(self.a(x) * scale)


@pytest.mark.parametrize(
    "inputs",
    [
        (drawn(2, 4), drawn(1)),
        [drawn(2, 4), drawn(1)],
        {"x": drawn(2, 4), "scale": drawn(1)},
        lambda model: model(drawn(2, 4), scale=drawn(1)),
    ],
    ids=["tuple", "list", "dict", "function"],
)
def test_example_inputs_are_what_the_model_is_called_with(inputs):
    net = searchable(TwoInputs(), inputs, rules=RULES)
    assert units(net) == {"a": [4, 8]}
    check(net)


def test_a_model_on_the_meta_device_is_searchable_and_its_exports_are_there_too():
    net = searchable(Blocks().to("meta"), IMAGES.to("meta"), rules=RULES)
    assert set(units(net)) == set(units(made()))
    plain = export(net, Mutator(net).space.min)
    assert plain(IMAGES.to("meta")).shape == (2, 5)
    assert plain.stem.weight.shape == (4, 3, 3, 3)
    assert plain.stem.weight.is_meta


# ---- models that hold mutables, and models that are held ---------------------------------------------------------------


def with_candidates():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        OneShotMutableOP(
            {
                "conv": nn.Conv2d(8, 8, 3, padding=1),
                "two": nn.Sequential(nn.Conv2d(8, 12, 1), nn.ReLU(), nn.Conv2d(12, 8, 1)),
                "skip": nn.Identity(),
            }
        ),
        nn.Conv2d(8, 5, 1),
    )


def test_candidates_stay_decisions_and_their_outputs_keep_the_same_channels():
    net = searchable(with_candidates(), IMAGES, rules=RULES)
    space = Mutator(net).space
    assert set(space.names) == {"0", "1", "1._candidates.two.0"}
    check(net, n=8)


def test_a_searchable_model_inside_a_bigger_one_keeps_its_space():
    body = made()
    bigger = nn.ModuleDict({"body": body, "neck": nn.Linear(5, 3)})

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = bigger

        def forward(self, x: Tensor) -> Tensor:
            return self.parts["neck"](self.parts["body"](x))

    whole = Whole()
    space = Mutator(whole).space
    assert {name.removeprefix("parts.body.") for name in space.names} == set(units(made()))
    with Mutator(whole).at(space.min):
        expected = whole(IMAGES)
    plain = export(whole, space.min)
    torch.testing.assert_close(plain(IMAGES), expected)
    assert plain.parts["body"].stem.out_channels == 4


# ---- what runs in training only, and what a forward remembers ----------------------------------------------------------


class Auxiliary(nn.Module):
    """A head that is there in training only."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3)
        self.body = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)
        self.auxiliary = nn.Sequential(nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 5, 1))

    def forward(self, x: Tensor):
        x = self.stem(x)
        out = self.head(self.body(x).mean((2, 3)))
        return (out, self.auxiliary(x).mean((2, 3))) if self.training else out


def test_a_head_for_training_is_searched_and_follows():
    net = searchable(Auxiliary(), IMAGES, rules=RULES)
    assert set(units(net)) == {"stem", "body", "auxiliary.0"}
    Mutator(net).set_min_choices()
    plain = export(net)
    for one, other in zip(net.train()(IMAGES), plain.train()(IMAGES), strict=True):
        torch.testing.assert_close(one, other)


class Remembering(nn.Module):
    """Keeps what it computes of a parameter, as LeViT keeps its attention biases."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.attention_bias_cache = {}
        self.a = nn.Linear(4, 8)
        self.biases = nn.Parameter(torch.randn(8))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        key = str(x.device)
        if key not in self.attention_bias_cache:
            self.attention_bias_cache[key] = self.biases * 2
        return self.head(self.a(x) + self.attention_bias_cache[key])


def test_what_a_forward_keeps_is_forgotten_when_a_choice_changes():
    net = searchable(Remembering(), drawn(2, 4), rules=RULES)
    assert units(net) == {"a": [4, 8]}
    mutator = Mutator(net)
    with torch.no_grad():
        whole = net(drawn(2, 4))
        mutator.set_min_choices()
        small = net(drawn(2, 4))
        torch.testing.assert_close(export(net)(drawn(2, 4)), small)
        assert len(net.attention_bias_cache["cpu"]) == 4
        mutator.set_max_choices()
        torch.testing.assert_close(net(drawn(2, 4)), whole)
    check(net)


def test_what_the_model_kept_before_is_not_lost():
    model = Remembering()
    with torch.no_grad():
        model(drawn(2, 4))
    kept = model.attention_bias_cache["cpu"]
    assert units(searchable(model, drawn(2, 4), rules=RULES)) == {"a": [4, 8]}
    assert model.attention_bias_cache["cpu"] is kept


def test_a_table_that_a_forward_needs_stays():
    class Table(Remembering):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.a(x) * self.table["scale"])

    model = Table()
    model.table = {"scale": torch.tensor(2.0)}
    net = searchable(model, drawn(2, 4), rules=RULES)
    assert net.table == model.table
    check(net)


# ---- what a searchable model is ----------------------------------------------------------------------------------------


def test_a_searchable_model_is_of_its_own_classes_and_prints_its_active_sizes():
    net = made()
    assert isinstance(net, Blocks)
    assert isinstance(net.stem, nn.Conv2d)
    Mutator(net).set_min_choices()
    assert net.stem.weight.shape == (4, 3, 3, 3)
    assert "out_features=5" in repr(net.head)
    assert "in_features=8" in repr(net.head)


def test_whole_weights_load_from_the_model_and_back():
    net, other = made(), Blocks()
    Mutator(net).set_min_choices()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    net.load_state_dict(other.state_dict())
    Mutator(net).set_max_choices()
    torch.testing.assert_close(net(IMAGES), other(IMAGES))
    fresh = Blocks()
    fresh.load_state_dict(net.state_dict())
    torch.testing.assert_close(fresh(IMAGES), other(IMAGES))


def test_an_optimizer_updates_the_active_part_only():
    net = made()
    before = copy.deepcopy(net.state_dict())
    Mutator(net).set_min_choices()
    net(IMAGES).sum().backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    after = net.state_dict()
    changed = (before["layer1.0.weight"] != after["layer1.0.weight"]).flatten(2).any(-1)
    assert changed[:6, :4].all()
    assert not changed[6:].any()
    assert not changed[:, 4:].any()


def test_half_precision_and_double_work():
    net = made().double()
    Mutator(net).set_min_choices()
    torch.testing.assert_close(export(net)(IMAGES.double()), net(IMAGES.double()))


def test_a_pickled_net_works_in_a_fresh_process(tmp_path):
    net = searchable(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(1, 4))
    Mutator(net).set_min_choices()
    torch.save(net, tmp_path / "net.pt")
    torch.save(net(torch.ones(1, 4)).detach(), tmp_path / "out.pt")
    code = (
        "import sys, torch\n"
        f"net = torch.load(r'{tmp_path}/net.pt', weights_only=False)\n"
        f"assert torch.equal(net(torch.ones(1, 4)), torch.load(r'{tmp_path}/out.pt'))\n"
        "from mutorch import Mutator\n"
        "assert Mutator(net).space.names == ('0',)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_layer_that_runs_only_when_something_is_narrower_is_frozen():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            if self.b.in_features < 8:
                self.b(x)
            return self.b(self.a(x))

    with pytest.raises(EmptySpaceError, match="a narrower model fails"):
        searchable(Fails(), torch.zeros(1, 4))


def test_the_search_stays_with_copies():
    net = copy.deepcopy(made())
    assert SEARCH in vars(net)
    assert set(units(net)) == set(units(made()))


# ---- weights that change -----------------------------------------------------------------------------------------------


def assign(net):
    for parameter in net.parameters():
        parameter.data = parameter.data * 2


def multiply(net):
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)


def set_vector(net):
    vector = nn.utils.parameters_to_vector(net.parameters())
    nn.utils.vector_to_parameters(vector.detach() * 2, net.parameters())


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("change", [assign, multiply, set_vector])
def test_weights_that_change_are_read_again(change, training):
    net = made().train(training)
    Mutator(net).set_min_choices()
    with torch.set_grad_enabled(training):
        net(IMAGES)
        change(net)
        torch.testing.assert_close(net(IMAGES), export(net)(IMAGES))


def test_functional_calls_compute_with_the_weights_that_they_are_given():
    net = made()
    Mutator(net).set_min_choices()
    given = {name: parameter.detach() * 2 for name, parameter in net.named_parameters()}
    found = torch.func.functional_call(net, given, (IMAGES,))
    gradients = torch.func.grad(lambda weights: torch.func.functional_call(net, weights, (IMAGES,)).sum())(given)
    net.load_state_dict(given)
    plain = export(net)
    torch.testing.assert_close(found, plain(IMAGES))
    plain(IMAGES).sum().backward()
    torch.testing.assert_close(gradients["head.weight"][:, :8], plain.head.weight.grad)
    assert gradients["head.weight"].shape == (5, 16)


def test_a_transformer_of_torch_is_searched_whatever_kernels_evaluate_it():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.Linear(5, 16), nn.TransformerEncoder(layer, 2), nn.Linear(16, 3)).eval()
    net = searchable(model, drawn(2, 6, 5), rules=RULES)
    attention = "1.layers.0.self_attn"
    assert {f"{attention}.num_heads", f"{attention}.head_dim", "1.layers.1.linear1"} <= set(units(net))
    assert check(net).masked is not None


def test_weights_written_in_place_through_data_are_read_again():
    net = searchable(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2)).eval(), torch.ones(1, 4))
    Mutator(net).set_min_choices()
    with torch.no_grad():
        before = net(torch.ones(1, 4))
    for parameter in net.parameters():
        parameter.data.mul_(2.0)
    with torch.no_grad():
        assert not torch.equal(net(torch.ones(1, 4)), before)


def test_weights_are_packed_in_inference_mode_and_packed_again_after_a_step_of_an_optimizer():
    net = searchable(
        nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 2, 1)).eval(), torch.ones(1, 3, 2, 2)
    )
    Mutator(net).set_min_choices()
    x = torch.ones(1, 3, 2, 2)
    with torch.inference_mode():
        before = net(x)
        assert net[1].weight.is_contiguous()
    net(x).sum().backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    with torch.inference_mode():
        after = net(x)
    assert not torch.equal(before, after)
    with torch.no_grad():
        assert torch.equal(after, net(x))
