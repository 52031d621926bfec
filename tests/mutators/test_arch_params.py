import copy
import random

import pytest
import torch
from torch import nn

from mutorch.cost import CostTable
from mutorch.errors import ChoiceError, ExportError, LoadError, SpaceError, StateError
from mutorch.models import chain_net
from mutorch.mutables import (
    DiffChoiceRoute,
    DiffMutableOP,
    Gumbel,
    OneHot,
    OneShotMutableOP,
    OneShotMutableValue,
    Softmax,
)
from mutorch.mutators import Mutator, active_modules, inactive_parameters
from mutorch.subnet import export

X = torch.linspace(-1, 1, 8).reshape(4, 2)


def block(**kwargs):
    return DiffMutableOP({"zero": nn.Flatten(), "linear": nn.Linear(2, 2), "tanh": nn.Tanh()}, **kwargs)


def prepared(net, **kwargs):
    mutator = Mutator(net)
    mutator.prepare_arch_params(**kwargs)
    return mutator


def set_logits(mutator, **logits):
    with torch.no_grad():
        for name, values in logits.items():
            mutator.arch[name.replace("_", ".")].copy_(torch.tensor(values))


def test_parameters_are_small_seeded_and_kept_apart_from_weights():
    net = nn.Sequential(block(), block())
    mutator = prepared(net)
    again = prepared(nn.Sequential(block(), block()))
    other = prepared(nn.Sequential(block(), block()), seed=1)
    assert list(mutator.arch_params) == ["0", "1"]
    assert all(0 < p.abs().max() < 0.01 for p in mutator.arch_parameters())
    assert all(map(torch.equal, mutator.arch_parameters(), again.arch_parameters()))
    assert not torch.equal(mutator.arch["0"], other.arch["0"])
    assert not torch.equal(mutator.arch["0"], mutator.arch["1"])
    ids = {id(p) for p in mutator.weight_parameters()}
    assert not any(id(p) in ids for p in mutator.arch_parameters())
    assert not any("arch" in name for name in net.state_dict())


def test_blocks_with_one_alias_share_one_parameter():
    net = nn.Sequential(block(alias="both"), block(alias="both"), block())
    mutator = prepared(net)
    assert [tuple(p.shape) for p in mutator.arch_parameters()] == [(3,), (3,)]
    assert net[0].arch_param is net[1].arch_param is mutator.arch["both"]


def test_before_they_are_made_asking_for_them_is_an_error():
    mutator = Mutator(nn.Sequential(block()))
    for ask in (mutator.arch_parameters, mutator.entropy, mutator.relax, lambda: mutator.arch_params):
        with pytest.raises(AttributeError, match=r"call prepare_arch_params\(\) first"):
            ask()


def test_a_model_without_anything_to_learn_is_refused():
    with pytest.raises(StateError, match="no decision of this model can be learned by gradient"):
        prepared(nn.Sequential(OneShotMutableOP({"a": nn.Tanh(), "b": nn.ReLU()})))


def test_prepared_blocks_mix_until_an_architecture_is_set_and_again_when_relaxed():
    net = nn.Sequential(block())
    mutator = prepared(net)
    mixed = net(X)
    mutator.set_choices({"0": "tanh"})
    assert torch.equal(net(X), X.tanh())
    mutator.relax()
    assert torch.equal(net(X), mixed)
    with mutator.at({"0": "tanh"}):
        assert torch.equal(net(X), X.tanh())
    assert mutator.current_choices == {"0": None}


def test_other_decisions_stay_discrete():
    net = nn.Sequential(OneShotMutableOP({"a": nn.Tanh(), "b": nn.ReLU()}), block())
    net.value = OneShotMutableValue([1, 2])
    mutator = prepared(net)
    assert mutator.current_choices == {"0": "a", "1": None, "value": 2}
    assert mutator.argmax() in mutator.space


def test_the_argmax_leaves_out_zero_unless_told_otherwise():
    mutator = prepared(nn.Sequential(block()))
    set_logits(mutator, **{"0": [5.0, 1.0, 0.0]})
    assert mutator.argmax() == {"0": "linear"}
    assert mutator.argmax(exclude=()) == {"0": "zero"}
    with pytest.raises(SpaceError, match="is excluded; leave one"):
        mutator.argmax(exclude=("zero", "linear", "tanh"))


def route(**kwargs):
    edges = nn.ModuleDict({name: DiffMutableOP({"zero": nn.Tanh(), "skip": nn.Identity()}) for name in "abc"})
    return nn.ModuleDict({"route": DiffChoiceRoute(edges, **kwargs)})


def test_edges_without_parameters_are_ranked_by_their_best_operation():
    mutator = prepared(route())
    assert "route" not in mutator.arch_params
    edge = "route._candidates.{}"
    with torch.no_grad():
        for name, values in {"a": [9.0, 0.0], "b": [0.0, 1.0], "c": [0.0, 2.0]}.items():
            mutator.arch[edge.format(name)].copy_(torch.tensor(values))
    assert mutator.argmax()["route"] == ["b", "c"]  # on a, all is zero
    assert mutator.argmax(exclude=())["route"] == ["a", "c"]


def test_edges_with_parameters_are_ranked_by_these_and_listed_in_their_order():
    mutator = prepared(route(with_arch_param=True))
    set_logits(mutator, route=[0.1, 0.3, 0.5])
    assert mutator.argmax()["route"] == ["b", "c"]
    set_logits(mutator, route=[0.4, 0.3, 0.5])
    assert mutator.argmax()["route"] == ["a", "c"]


def test_entropy_is_a_share_of_the_largest():
    mutator = prepared(nn.Sequential(block(), block()))
    set_logits(mutator, **{"0": [0.0, 0.0, 0.0], "1": [50.0, 0.0, 0.0]})
    assert mutator.entropy() == pytest.approx({"0": 1.0, "1": 0.0}, abs=1e-6)


def test_what_is_clear_can_be_settled():
    net = nn.Sequential(block(), block())
    mutator = prepared(net)
    set_logits(mutator, **{"0": [0.0, 0.0, 0.0], "1": [0.0, 0.0, 5.0]})
    assert mutator.settle(0.9) == ["1"]
    assert mutator.current_choices == {"0": None, "1": "tanh"}
    assert len(net[1].choices) == 3
    with pytest.raises(ChoiceError, match="between 0 and 1, got 2"):
        mutator.settle(2)


def test_the_temperature_is_that_of_every_gumbel_block():
    net = nn.Sequential(block(relaxation=Gumbel()), block())
    mutator = prepared(net)
    mutator.set_temperature(0.3)
    assert net[0].relaxation == Gumbel(tau=0.3)
    assert net[1].relaxation == Softmax()
    with pytest.raises(StateError, match="none has a temperature"):
        prepared(nn.Sequential(block())).set_temperature(1.0)


@pytest.mark.parametrize(("seed", "step", "same"), [(0, 3, True), (0, 4, False), (1, 3, False)])
def test_draws_are_a_function_of_seed_and_step(seed, step, same):
    def weights(seed, step):
        net = nn.Sequential(block(), block())
        mutator = prepared(net, relaxation=Gumbel(hard=False))
        mutator.draw(seed=seed, step=step)
        return torch.cat([op.compute_arch_probs(op.arch_param) for op in net])

    assert torch.equal(weights(0, 3), weights(seed, step)) == same


def test_on_a_sampled_path_only_its_parameters_are_active():
    net = chain_net(mutable=DiffMutableOP)
    mutator = prepared(net, relaxation=OneHot())
    mutator.draw(seed=0, step=0)
    idle = {id(p) for p in inactive_parameters(net)}
    net(torch.ones(2, 1, 8, 8)).sum().backward()
    assert {id(p) for p in net.parameters() if p.grad is None} == idle
    assert idle
    assert sum(module is net for module in active_modules(net)) == 1


def test_samples_follow_the_probabilities():
    mutator = prepared(nn.Sequential(block()))
    set_logits(mutator, **{"0": [0.0, 1.0, 2.0]})
    rng = random.Random(0)
    drawn = [mutator.sample_probable(rng)["0"] for _ in range(2000)]
    shares = torch.tensor([drawn.count(name) / 2000 for name in ("zero", "linear", "tanh")])
    torch.testing.assert_close(shares.double(), mutator.probabilities()["0"], atol=0.04, rtol=0)
    log = mutator.arch.log_probability({"0": "tanh"})
    assert log.exp().item() == pytest.approx(mutator.probabilities()["0"][2].item(), abs=1e-6)


def test_sampled_routes_are_in_the_space():
    mutator = prepared(route(with_arch_param=True))
    sampled = [mutator.sample_probable(seed) for seed in range(20)]
    assert all(architecture in mutator.space for architecture in sampled)
    assert len({tuple(a["route"]) for a in sampled}) == 3


def test_sample_choices_gives_what_is_learned():
    mutator = prepared(nn.Sequential(block()))
    set_logits(mutator, **{"0": [0.0, 1.0, 2.0]})
    assert mutator.sample_choices() == mutator.sample_choices("min") == {"0": "tanh"}
    with pytest.warns(UserWarning, match="mutables with `arch param` detected"):
        assert mutator.max_choices == {"0": "tanh"}


def test_a_search_goes_on_where_it_was_saved():
    mutator = prepared(nn.Sequential(block(), block()))
    set_logits(mutator, **{"0": [0.0, 1.0, 2.0], "1": [9.0, 0.0, 0.0]})
    mutator.settle(0.9)
    resumed = prepared(nn.Sequential(block(), block()))
    resumed.load_state_dict(mutator.state_dict())
    assert all(map(torch.equal, resumed.arch_parameters(), mutator.arch_parameters()))
    assert resumed.current_choices == {"0": None, "1": "zero"}
    with pytest.raises(LoadError, match=r"'1' has shape \(3,\) here and None in the state"):
        mutator.load_state_dict(prepared(nn.Sequential(block())).state_dict())


def test_model_and_mutator_are_copied_together():
    net = nn.Sequential(block())
    mutator = prepared(net)
    net_copy, mutator_copy = copy.deepcopy((net, mutator))
    set_logits(mutator_copy, **{"0": [0.0, 0.0, 9.0]})
    torch.testing.assert_close(net_copy(X), X.tanh(), atol=1e-3, rtol=0)
    assert not torch.allclose(net(X), net_copy(X), atol=1e-2)


def test_a_model_that_is_being_learned_is_exported_with_an_architecture_only():
    net = nn.Sequential(block())
    mutator = prepared(net)
    with pytest.raises(ExportError, match=r"'0' has no choice yet, it is being learned; give mutator.argmax\(\)"):
        export(net)
    assert isinstance(export(net, {"0": "tanh"})[0], nn.Tanh)
    assert CostTable.from_model(mutator, X)({"0": "tanh"}).macs == 0
    assert mutator.current_choices == {"0": None}


@pytest.mark.parametrize("name", ["keys", "a.b"])
def test_any_alias_names_a_parameter(name):
    mutator = prepared(nn.Sequential(block(alias=name)))
    assert mutator.arch[name].shape == (3,)
    with pytest.raises(SpaceError, match="has no architecture parameter; "):
        mutator.arch["other"]


def test_clipping_and_any_optimizer_work_on_the_parameters():
    net = nn.Sequential(block())
    mutator = prepared(net)
    optimizer = torch.optim.AdamW(mutator.arch_parameters(), lr=0.1)
    net(X).square().sum().mul(1e6).backward()
    norm = torch.nn.utils.clip_grad_norm_(mutator.arch_parameters(), 1.0)
    assert norm > 1
    before = mutator.arch["0"].detach().clone()
    optimizer.step()
    assert not torch.equal(before, mutator.arch["0"])
