import pytest
import torch
from torch import nn

from mutorch.utils import get_module_device, has_weights, set_requires_grad


def test_the_device_is_that_of_the_first_parameter():
    assert get_module_device(nn.Linear(1, 1)) == torch.device("cpu")
    assert get_module_device(nn.Linear(1, 1, device="meta")) == torch.device("meta")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_device_on_cuda_is_a_torch_device():
    assert get_module_device(nn.Linear(1, 1, device="cuda")) == torch.device("cuda", 0)


def test_a_module_without_parameters_has_no_device():
    with pytest.raises(ValueError, match="ReLU has no parameters"):
        get_module_device(nn.ReLU())


@pytest.mark.parametrize("several", [False, True])
def test_set_requires_grad_reaches_every_parameter(several):
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    nets = [net[0], None, net[1]] if several else net
    set_requires_grad(nets)
    assert not any(p.requires_grad for p in net.parameters())
    set_requires_grad(nets, True)
    assert all(p.requires_grad for p in net.parameters())


def test_a_norm_and_a_pool_have_no_weights():
    assert not has_weights(nn.Sequential(nn.AvgPool2d(2), nn.BatchNorm2d(3)))
    assert has_weights(nn.Sequential(nn.ReLU(), nn.Conv2d(1, 1, 1)))
