import pytest
import torch
from torch import Tensor, nn

from mutorch import Mutator, check, searchable, widths
from mutorch.channels import in_mode
from mutorch.errors import ExportError
from mutorch.mutables import OneShotMutableOP
from mutorch.ops.dynamic import STATE

RULES = [widths(ratios=(0.5, 1.0), divisor=1)]


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def made(model=None):
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    return searchable(model, drawn(2, 4), rules=RULES)


def test_the_smallest_and_random_architectures_are_compared_and_equal_bit_for_bit():
    found = check(made(), n=3)
    assert found.num_architectures == 4
    assert found.exported == 0.0
    assert found.masked is not None
    assert found.masked < 1e-6


def test_choices_modes_and_buffers_are_as_they_were():
    torch.manual_seed(0)
    net = searchable(
        nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).train(), drawn(3, 4), rules=RULES
    )
    Mutator(net).set_min_choices()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    check(net)
    assert Mutator(net).current_choices == Mutator(net).space.min
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net[0].weight.shape == (4, 4)


def test_example_inputs_may_be_given():
    assert check(made(), drawn(7, 4)).exported == 0.0


def test_a_supernet_without_widths_is_checked_on_inputs_that_are_given():
    net = nn.Sequential(OneShotMutableOP({"a": nn.Linear(4, 4), "b": nn.Identity()}))
    assert check(net, drawn(2, 4)).masked is None
    with pytest.raises(ExportError, match="check needs example_inputs"):
        check(net)


def test_a_net_without_mode_mask_is_compared_with_exports_alone():
    class Largest(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x - x.amax(-1, keepdim=True)

    found = check(made(nn.Sequential(nn.Linear(4, 8), Largest(), nn.Linear(8, 2))))
    assert found.masked is None
    assert found.exported == 0.0


class Unfaithful(nn.Module):
    """Computes something else once it is plain."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * (1.0 if STATE in vars(self.layer) else 1.5)


def test_the_first_module_that_differs_is_named_with_the_architecture():
    net = made(nn.Sequential(nn.Linear(4, 8), Unfaithful(), nn.Linear(6, 2)))
    with pytest.raises(ExportError, match=r"the exported subnet gives .* first in '1' \(off by 0.0.*\), at \{.*'0': 4"):
        check(net)


def test_a_tolerance_lets_differences_pass():
    net = made(nn.Sequential(nn.Linear(4, 8), Unfaithful(), nn.Linear(6, 2)))
    assert 0.1 < check(net, tolerance=10.0).exported < 10


def test_a_net_in_mode_mask_is_checked_and_stays_there():
    net = made()
    Mutator(net).set_min_choices()
    with in_mode(net, "mask"):
        check(net)
        assert net[0].weight.shape == (8, 4)
