import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from mutorch.cost import count
from mutorch.models import MBBlock, ShuffleBlock, ShuffleXception, chain_net
from mutorch.mutators import Mutator
from mutorch.subnet import export


def macs_by_torch(model, *inputs):
    """What torch's own counter says of a forward for training, where it sees no fused kernels."""
    with FlopCounterMode(display=False) as counter:
        model.train()(*inputs)
    return counter.get_total_flops() / 2


class TwoTowers(nn.Module):
    def __init__(self):
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.LazyLinear(6))

    def forward(self, left, right):
        return self.tower(left) @ self.tower(right).T


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        return functional.scaled_dot_product_attention(q, k, v, dropout_p=0.1 if self.training else 0.0)


PLAIN = {
    "linear on a sequence": (lambda: nn.Linear(3, 5), [(2, 7, 3)]),
    "grouped, dilated, strided conv2d": (lambda: nn.Conv2d(4, 8, 3, 2, 1, dilation=2, groups=2), [(2, 4, 9, 9)]),
    "conv1d and conv3d": (
        lambda: nn.Sequential(nn.Conv1d(2, 3, 3), nn.Unflatten(1, (1, 3)), nn.Conv2d(1, 2, 2)),
        [(2, 2, 8)],
    ),
    "transposed conv2d": (lambda: nn.ConvTranspose2d(3, 5, 3, stride=2), [(1, 3, 4, 4)]),
    "batch norms and pools": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AvgPool2d(2)),
        [(2, 3, 8, 8)],
    ),
    "a tower used twice": (TwoTowers, [(2, 3, 6, 6), (2, 3, 6, 6)]),
    "attention by hand": (Attention, [(2, 5, 8)]),
    "multi-head attention": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), [(2, 5, 8)] * 3),
    "transformer layer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), [(2, 5, 8)]),
    "gru": (lambda: nn.GRU(4, 5), [(3, 2, 4)]),
    "inverted residual block with squeeze": (
        lambda: MBBlock(8, 8, kernel_size=5, expand_ratio=3, se_cfg={"ratio": 4}),
        [(2, 8, 7, 7)],
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_macs_are_half_the_flops_that_torch_counts(name):
    make, shapes = PLAIN[name]
    model, inputs = make(), tuple(torch.zeros(shape) for shape in shapes)
    assert count(model, inputs).macs == macs_by_torch(model, *inputs) > 0


@pytest.mark.parametrize(
    ("settings", "directions"), [({}, 1), ({"num_layers": 2, "bidirectional": True}, 2), ({"batch_first": True}, 1)]
)
def test_an_lstm_costs_its_matrix_products_at_every_position(settings, directions):
    # Torch's counter knows no formula for the fused kernel and says 0.
    model = nn.LSTM(4, 5, **settings)
    positions, layers = 2 * 3, settings.get("num_layers", 1)
    inputs = [4] + [5 * directions] * (layers - 1)
    expected = sum(positions * directions * (4 * 5 * width + 4 * 5 * 5) for width in inputs)
    assert count(model, torch.zeros(3, 2, 4)).macs == expected


def test_a_batch_costs_as_many_times_as_it_has_samples():
    model = chain_net()
    Mutator(model)
    one, eight = (count(export(model), torch.zeros(batch, 1, 10, 10)) for batch in (1, 8))
    assert (eight.macs, eight.params, eight.size_mb) == (8 * one.macs, one.params, one.size_mb)
    assert eight.act_mem_mb == pytest.approx(8 * one.act_mem_mb)


def test_flops_are_two_for_every_mac_and_costs_are_read_by_metric():
    costs = count(nn.Linear(3, 5), torch.zeros(1, 3))
    assert (costs.macs, costs.flops, costs["flops"], costs["params"]) == (15, 30, 30.0, 20.0)


def test_tied_parameters_are_counted_once():
    one, other = nn.Linear(4, 4), nn.Linear(4, 4)
    other.weight = one.weight
    assert count(nn.Sequential(one, other), torch.zeros(1, 4)).params == 16 + 4 + 4


def test_size_is_that_of_the_saved_state(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1).half())
    model.register_buffer("scratch", torch.zeros(1000), persistent=False)
    costs = count(model, lambda m: m[1](m[0](torch.zeros(1, 3, 8, 8))))
    saved = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    assert costs.size_mb * 1e6 == saved


def test_activation_memory_is_what_operations_make_without_views():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Unflatten(1, (2, 4)), nn.Flatten())
    assert count(model, torch.zeros(3, 4)).act_mem_mb == 3 * 8 * 4 / 1e6


def test_counting_leaves_everything_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2).eval(), nn.Dropout(), nn.Flatten(), nn.Linear(8, 2))
    model.add_module("noise", nn.RReLU())
    model(torch.ones(2, 1, 4, 4)).sum().backward()
    state = copy.deepcopy(model.state_dict())
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    random_state, fast = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    count(model, lambda m: m(torch.rand(2, 1, 4, 4)))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(parameter.grad, gradients[name]) for name, parameter in model.named_parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_failing_forward_leaves_everything_as_it_was():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(4, 2))
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        count(model, torch.ones(2, 3))
    assert model.training
    assert int(model[0].num_batches_tracked) == 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("block", [ShuffleBlock(8, 8, 3), ShuffleXception(8, 16, stride=2)], ids=["block", "xception"])
def test_meta_tensors_cost_the_macs_and_bytes_of_real_ones(block):
    real = count(block, torch.zeros(1, 8, 6, 6))
    meta = count(block.to("meta"), torch.zeros(1, 8, 6, 6, device="meta"))
    assert (meta.macs, meta.params, meta.size_mb) == (real.macs, real.params, real.size_mb)
