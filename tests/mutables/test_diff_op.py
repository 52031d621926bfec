import copy
import pickle

import pytest
import torch
from torch import nn

from mutorch.cost import CostTable, count
from mutorch.errors import ChoiceError, FixedError
from mutorch.mutables import DiffMutableOP, DumpChosen, Gumbel, OneHot, OneHotMutableOP, Softmax, TwoPaths
from mutorch.mutators import Mutator
from mutorch.registry import MODELS
from mutorch.subnet import export, export_fix_subnet, load_fix_subnet, record_of
from mutorch.testing import check_export

X = torch.linspace(-1, 1, 6).reshape(3, 2)
LOGITS = torch.tensor([0.1, 0.5, 0.3])


def build(kind=DiffMutableOP, **kwargs):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind({"linear": nn.Linear(2, 2), "tanh": nn.Tanh(), "skip": nn.Identity()}, **kwargs)


def test_the_mixture_is_the_sum_weighted_by_the_softmax():
    op = build()
    linear, tanh, skip = torch.softmax(LOGITS, -1)
    expected = linear * op._candidates["linear"](X) + tanh * X.tanh() + skip * X
    torch.testing.assert_close(op(X, arch_param=LOGITS), expected)
    torch.testing.assert_close(op.compute_arch_probs(LOGITS), torch.softmax(LOGITS, -1))


def test_without_parameter_and_choice_the_candidates_add_up():
    op = build()
    assert torch.equal(op(X), op._candidates["linear"](X) + X.tanh() + X)


def test_with_a_choice_it_is_a_block_of_a_one_shot_supernet():
    op = build()
    op.current_choice = "tanh"
    assert torch.equal(op(X), X.tanh())


def test_a_bound_parameter_is_used_and_is_no_parameter_of_the_module():
    op = build()
    logits = nn.Parameter(LOGITS.clone())
    op.set_forward_args(arch_param=logits)
    assert torch.equal(op(X), op(X, arch_param=LOGITS))
    assert all(name.startswith("_candidates.") for name, _ in op.named_parameters())
    assert list(op.state_dict()) == ["_candidates.linear.weight", "_candidates.linear.bias"]
    op(X).sum().backward()
    assert logits.grad is not None


def test_a_copy_is_bound_to_its_own_parameter():
    op = build()
    op.set_forward_args(nn.Parameter(LOGITS.clone()))
    for copied in (copy.deepcopy(op), pickle.loads(pickle.dumps(op))):
        assert torch.equal(copied(X), op(X))
        with torch.no_grad():
            copied.arch_param.add_(torch.tensor([1.0, 0.0, 0.0]))
        assert not torch.equal(copied(X), op(X))


def test_a_parameter_of_another_size_is_refused():
    with pytest.raises(ChoiceError, match=r"DiffMutableOP 'stem' has 3 candidates, .*shape \(3,\); got \(2,\)"):
        build(alias="stem")(X, arch_param=torch.zeros(2))


@pytest.mark.parametrize("threshold", [-0.1, 1.1])
def test_a_threshold_outside_0_to_1_is_refused(threshold):
    with pytest.raises(ValueError, match="fix_threshold must be between 0 and 1"):
        build(fix_threshold=threshold)


def test_no_candidates_are_refused():
    with pytest.raises(AssertionError, match="candidates is empty"):
        DiffMutableOP({})


def test_fixing_keeps_what_was_chosen():
    op = build()
    op.fix_chosen("tanh")
    assert op.choices == ["tanh"]
    assert torch.equal(op(X, arch_param=LOGITS), X.tanh())
    assert op.dump_chosen() == DumpChosen("tanh", {"all_choices": ["tanh"]})
    with pytest.raises(AttributeError, match="already fixed to 'tanh'"):
        op.fix_chosen("tanh")
    with pytest.raises(FixedError):
        op.is_fixed = True


def test_several_candidates_may_be_fixed_together():
    op = build()
    op.fix_chosen(["skip", "tanh"])
    assert torch.equal(op(X), X.tanh() + X)
    net = nn.Sequential(op)
    assert Mutator(net).space["0"].choices == (["tanh", "skip"],)
    check_export(net, X)


def test_an_unknown_choice_changes_nothing():
    op = build()
    for chosen in ("tan", ["tanh", "tan"]):
        with pytest.raises(ChoiceError, match="no choice 'tan'; did you mean 'tanh'"):
            op.fix_chosen(chosen)
    with pytest.raises(ChoiceError, match="cannot be fixed to nothing"):
        op.fix_chosen([])
    assert op.choices == ["linear", "tanh", "skip"]
    assert not op.is_fixed


def test_dumping_needs_a_choice():
    with pytest.raises(AssertionError, match="no current choice to dump"):
        build().dump_chosen()


def test_the_sampled_choice_is_the_most_probable():
    assert build().sample_choice(LOGITS) == "tanh"


def test_a_single_path_computes_one_candidate_alone():
    ran = []
    op = build(relaxation=OneHot())
    for name, candidate in op._candidates.items():
        candidate.register_forward_hook(lambda *_, name=name: ran.append(name))
    for _ in range(30):
        op(X, arch_param=LOGITS)
    assert len(ran) == 30
    assert set(ran) == {"linear", "tanh", "skip"}


def test_two_paths_compute_two_candidates():
    op = build(relaxation=TwoPaths())
    ran = []
    for name, candidate in op._candidates.items():
        candidate.register_forward_hook(lambda *_, name=name: ran.append(name))
    op(X, arch_param=LOGITS)
    assert len(set(ran)) == 2


def test_what_is_random_does_not_come_from_the_global_generator():
    outputs = []
    for seed in range(2):
        torch.manual_seed(seed)
        op = build(relaxation=Gumbel(hard=False))
        state = torch.get_rng_state()
        outputs.append(op(X, arch_param=LOGITS))
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(*outputs)


def test_recomputed_candidates_have_the_same_gradients_and_statistics():
    def step(checkpoint):
        torch.manual_seed(0)
        block = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU())
        op = DiffMutableOP({"block": block, "skip": nn.Identity()})
        op.checkpoint = checkpoint
        logits = torch.tensor([0.3, 0.1], requires_grad=True)
        op(X.clone().requires_grad_(), arch_param=logits).square().sum().backward()
        return [logits.grad, *(p.grad for p in op.parameters()), *op.buffers()]

    for one, other in zip(step(True), step(False), strict=True):
        torch.testing.assert_close(one, other)


def test_normalised_candidates_count_by_their_weight_and_not_by_their_size():
    class Large(nn.Module):
        def forward(self, x):
            return 1000 * x

    op = DiffMutableOP({"same": nn.Identity(), "large": Large()})
    op.normalize = True
    normal = (X - X.mean(0)) / X.var(0, unbiased=False).sqrt()
    torch.testing.assert_close(op(X, arch_param=torch.zeros(2)), normal, atol=1e-4, rtol=0)
    op.current_choice = "large"
    assert torch.equal(op(X), 1000 * X)


def test_outputs_may_be_dicts_and_tuples():
    class Pair(nn.Module):
        def forward(self, x):
            return {"x": x, "more": (x * 2,)}

    out = DiffMutableOP({"a": Pair(), "b": Pair()})(X, arch_param=torch.zeros(2))
    torch.testing.assert_close(out["x"], X)
    torch.testing.assert_close(out["more"][0], 2 * X)


def test_half_precision_outputs_stay_half_precision():
    op = DiffMutableOP({"a": nn.Identity(), "b": nn.Identity()})
    assert op(X.bfloat16(), arch_param=torch.zeros(2)).dtype == torch.bfloat16


def test_the_dense_mixture_is_one_graph_for_the_compiler():
    op = build()
    compiled = torch.compile(op, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(X, LOGITS), op(X, LOGITS))


class TestAsPartOfAModel:
    def build(self):
        torch.manual_seed(0)
        inner = DiffMutableOP({"a": nn.Linear(2, 2), "b": nn.Tanh()})
        return nn.Sequential(build(), DiffMutableOP({"nested": inner, "skip": nn.Identity()}), build(OneHotMutableOP))

    def test_the_mutator_finds_it(self):
        space = Mutator(self.build()).space
        assert space.names == ("0", "1", "1._candidates.nested", "2")
        assert space["1._candidates.nested"].when == (("1", "nested"),)
        assert space["0"].largest == "linear"

    def test_exported_subnets_compute_what_the_supernet_computes(self):
        check_export(self.build(), X)

    def test_nothing_of_the_search_is_exported(self):
        net = self.build()
        architecture = {"0": "linear", "1": "nested", "1._candidates.nested": "a", "2": "skip"}
        exported = export(net, architecture)
        assert [type(m) for m in exported] == [nn.Linear, nn.Linear, nn.Identity]
        assert record_of(exported)["architecture"] == architecture

    def test_costs_are_those_of_the_exported_model(self):
        net = self.build()
        mutator = Mutator(net)
        table = CostTable.from_model(mutator, X[:1])
        for architecture in mutator.space.grid():
            assert table(architecture) == count(export(net, architecture), X[:1])

    def test_a_subnet_file_goes_around(self):
        net, other = self.build(), self.build()
        mutator = Mutator(net)
        mutator.set_choices(mutator.space.sample(1))
        subnet, _ = export_fix_subnet(net)
        load_fix_subnet(other, subnet)
        assert torch.equal(net(X), other(X))


class TestOneHotMutableOP:
    def test_sampled_weights_are_one_hot(self):
        op = build(OneHotMutableOP)
        probs = torch.softmax(LOGITS, -1)
        generator = torch.Generator().manual_seed(0)
        draws = torch.stack([op.sample_weights(LOGITS, probs, generator=generator) for _ in range(2000)])
        assert draws.dtype == torch.float32
        assert torch.equal(draws.sum(1), torch.ones(2000))
        torch.testing.assert_close(draws.mean(0), probs, atol=0.04, rtol=0)

    def test_a_uniform_sample_ignores_the_probabilities(self):
        op = build(OneHotMutableOP)
        draws = torch.stack([op.sample_weights(LOGITS, torch.tensor([1.0, 0, 0]), True) for _ in range(300)])
        assert (draws.sum(0) > 60).all()

    def test_the_weights_of_a_step_are_a_leaf_that_receives_a_gradient(self):
        op = build(OneHotMutableOP)
        logits = LOGITS.clone().requires_grad_()
        op(X, arch_param=logits).sum().backward()
        assert op.arch_weights.is_leaf
        k = int(op.arch_weights.argmax())
        log = torch.log_softmax(LOGITS.clone().requires_grad_(), -1)
        expected = op.arch_weights.grad[k] * (torch.eye(3)[k] - log.detach().exp())
        torch.testing.assert_close(logits.grad, expected)

    def test_a_clear_lead_fixes_the_most_probable_candidate(self):
        op = build(OneHotMutableOP, fix_threshold=0.5)
        op(X, arch_param=LOGITS)
        assert not op.is_fixed
        assert torch.equal(op(X, arch_param=torch.tensor([0.0, 0.0, 10.0])), X)
        assert op.is_fixed
        assert op.choices == ["skip"]
        assert op.forward_arch_param(X, LOGITS) is not None
        assert op.arch_weights.tolist() == [0, 0, 1]

    @pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
    def test_one_candidate_is_enough(self, threshold):
        op = OneHotMutableOP({"only": nn.Tanh()}, fix_threshold=threshold)
        assert torch.equal(op(X, arch_param=torch.zeros(1)), X.tanh())


def test_configs_build_it_by_name_and_stay_as_they_are():
    shared = {"type": "Linear", "in_features": 2}
    config = {"type": "DiffMutableOP", "candidates": {"a": shared, "b": shared}, "module_kwargs": {"out_features": 3}}
    op = MODELS.build(config)
    assert isinstance(op.relaxation, Softmax)
    assert op(X, arch_param=torch.zeros(2)).shape == (3, 3)
    assert shared == {"type": "Linear", "in_features": 2}


def test_skip_dropout_drops_what_has_no_weights_in_mixtures_that_are_trained():
    op = DiffMutableOP({"skip": nn.Identity(), "linear": nn.Linear(100, 100)})
    op.skip_dropout = 0.5
    x, only_skip, only_linear = torch.ones(4, 100), torch.tensor([500.0, -500.0]), torch.tensor([-500.0, 500.0])
    assert set(op(x, arch_param=only_skip).detach().unique().tolist()) == {0.0, 2.0}
    torch.testing.assert_close(op(x, arch_param=only_linear), op.candidates["linear"](x))
    assert torch.equal(op.eval()(x, arch_param=only_skip), x)
    op.train().current_choice = "skip"
    assert torch.equal(op(x), x)
