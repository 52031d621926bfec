"""The same promises on a CUDA device. Skipped where there is none."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mutorch import CostTable, Mutator, check, export, searchable
from mutorch.models import chain_net
from mutorch.testing import ClutteredDigits, check_export
from mutorch.training import fit, recalibrate_

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_exported_subnets_equal_the_supernet_on_cuda():
    check_export(chain_net().cuda(), torch.randn(4, 1, 10, 10, device="cuda"), tolerance=1e-5)


def test_costs_do_not_depend_on_the_device():
    x = torch.zeros(1, 1, 10, 10)
    on_cpu = CostTable.from_model(Mutator(chain_net()), x)
    on_cuda = CostTable.from_model(Mutator(chain_net().cuda()), x.cuda())
    architecture = on_cpu.space.sample(0)
    assert on_cuda(architecture).macs == on_cpu(architecture).macs


def test_counting_leaves_the_random_state_of_the_device_alone():
    net = chain_net().cuda()
    before = torch.cuda.get_rng_state()
    CostTable.from_model(Mutator(net), torch.zeros(1, 1, 10, 10, device="cuda"))
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_fit_trains_in_bfloat16_and_the_subnet_is_recalibrated_on_the_device():
    fabric = pytest.importorskip("lightning_fabric").Fabric(accelerator="cuda", devices=1, precision="bf16-mixed")
    data, net = ClutteredDigits(), chain_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    result = fit(
        net,
        data.loader("train"),
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        optimizer,
        steps=60,
        mutator=Mutator(net),
        fabric=fabric,
    )
    subnet = export(net).cuda()
    assert recalibrate_(subnet, [data["train"].tensors[0][:256].cuda()]) > 0
    assert sum(result.losses[-10:]) < sum(result.losses[:10])


def test_a_searchable_model_on_cuda_computes_what_its_exports_compute_in_both_modes():
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4)
    )
    x = torch.randn(2, 3, 8, 8, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    found = check(searchable(model.cuda().eval(), x), n=3, tolerance=1e-4)
    assert found.exported <= 1e-4
    assert found.masked is not None
