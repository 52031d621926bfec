"""The same promises on a CUDA device. Skipped where there is none."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mutorch import CostTable, LatencyRunner, Mutator, check, export, latency_table, remeasure, searchable
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


@pytest.mark.filterwarnings("ignore:.* measured latencies vary:UserWarning", "ignore:TensorFloat32:UserWarning")
@pytest.mark.parametrize("runtime", ["eager", "compile"])
def test_latency_on_cuda_waits_for_the_device(runtime):
    small, large = nn.Linear(64, 64), nn.Sequential(*(nn.Linear(4096, 4096) for _ in range(8)))
    runner = LatencyRunner(runtime, device="cuda", dtype="fp16", batch=1024, repeats=20, warmup=5)
    fast, slow = runner(small, torch.zeros(1, 64)), runner(large, torch.zeros(1, 4096))
    # 8 products of 1024 x 4096 x 4096 take a while on any device; launching them alone does not.
    assert slow.median_ms > fast.median_ms
    assert (slow.device, slow.dtype, slow.batch) == ("cuda:0", "fp16", 1024)
    assert next(large.parameters()).device.type == "cpu"


@pytest.mark.filterwarnings("ignore:.* measured latencies vary:UserWarning")
def test_a_table_of_latencies_is_built_and_remeasured_on_cuda():
    net = chain_net()
    mutator, image = Mutator(net), torch.zeros(1, 1, 10, 10)
    runner = LatencyRunner(device="cuda", batch=64, repeats=10)
    table = latency_table(net, mutator, image, runner=runner, num_samples=40)
    assert "cuda" in table.measured_on
    found = remeasure(net, mutator, [mutator.max_choices, mutator.min_choices], runner, image, table=table)
    assert all(one.measured.median_ms > 0 and one.predicted_ms > 0 for one in found)
