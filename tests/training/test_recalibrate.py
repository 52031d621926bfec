import copy

import pytest
import torch
from torch import nn

from mutorch.models import chain_net
from mutorch.mutables import OneShotMutableOP
from mutorch.mutators import Mutator
from mutorch.subnet import export
from mutorch.training import recalibrate_, recalibrated


def batches(count=3, size=16, channels=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [3 + torch.randn(size, channels, 10, 10, generator=generator) * (n + 1) for n in range(count)]


def used_model():
    """A model with statistics of its own, odd momenta and odd modes."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.Dropout(0.5), nn.BatchNorm2d(4).eval()
    )
    for batch in batches(seed=1):
        model(batch)
    return model


def everything(model):
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return tensors, [m.training for m in model.modules()], [getattr(m, "momentum", None) for m in model.modules()]


def assert_same(one, other):
    assert one[0].keys() == other[0].keys()
    assert all(torch.equal(tensor, other[0][name]) for name, tensor in one[0].items())
    assert one[1:] == other[1:]


def test_statistics_are_the_plain_averages_over_batches():
    model, data = used_model(), batches()
    assert recalibrate_(model, data) == 2
    inputs = [model[0](batch) for batch in data]
    torch.testing.assert_close(model[1].running_mean, torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0))
    torch.testing.assert_close(model[1].running_var, torch.stack([x.var((0, 2, 3)) for x in inputs]).mean(0))
    # The first layer normalises with the statistics of each batch meanwhile; dropout rests.
    standard = [nn.functional.batch_norm(x, None, None, model[1].weight, model[1].bias, training=True) for x in inputs]
    torch.testing.assert_close(model[3].running_mean, torch.stack([x.mean((0, 2, 3)) for x in standard]).mean(0))
    torch.testing.assert_close(model[3].running_var, torch.stack([x.var((0, 2, 3)) for x in standard]).mean(0))


def test_only_statistics_change():
    model = used_model()
    before = everything(model)
    generator = torch.get_rng_state()
    recalibrate_(model, batches())
    after = everything(model)
    changed = {name for name, tensor in after[0].items() if not torch.equal(tensor, before[0][name])}
    statistics = {"running_mean", "running_var", "num_batches_tracked"}
    assert changed <= {f"{layer}.{name}" for layer in (1, 3) for name in statistics}
    assert {"1.running_mean", "1.running_var", "3.running_mean", "3.running_var"} <= changed
    assert after[1:] == before[1:]
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_result_depends_on_the_batches_alone():
    one, other = used_model(), used_model()
    for batch in batches(seed=5):
        other(batch)
    recalibrate_(one, batches())
    recalibrate_(other, batches())
    assert_same(everything(one), everything(other))


def test_layers_that_no_batch_reaches_keep_their_statistics_and_are_not_counted():
    model = nn.Sequential(OneShotMutableOP({"a": nn.BatchNorm2d(1), "b": nn.BatchNorm2d(1)}))
    mutator = Mutator(model)
    for choice in "ab":
        mutator.set_choices({"0": choice})
        model(batches(seed=2)[0])
    before = everything(model[0].candidates["a"])
    assert recalibrate_(model, batches()) == 1
    assert_same(everything(model[0].candidates["a"]), before)
    assert int(model[0].candidates["b"].num_batches_tracked) == 3


def test_batches_may_be_tuples_generators_and_more_than_needed():
    data = batches(5)
    results = []
    for given, options in (
        (data[:2], {}),
        ([(x, "label") for x in data], {"num_batches": 2}),
        (iter(data), {"num_batches": 2}),
        ([{"image": x} for x in data[:2]], {"forward": lambda model, batch: model(batch["image"])}),
    ):
        model = used_model()
        assert recalibrate_(model, given, **options) == 2
        results.append(everything(model))
    for result in results[1:]:
        assert_same(results[0], result)


@pytest.mark.parametrize("exhausted", [iter([]), [], (x for x in ())])
def test_no_batches_are_an_error_and_change_nothing(exhausted):
    model = used_model()
    before = everything(model)
    with pytest.raises(ValueError, match="there are no batches to recalibrate with"):
        recalibrate_(model, exhausted)
    assert_same(everything(model), before)


def test_a_failing_forward_changes_nothing():
    model = used_model()
    before = everything(model)
    with pytest.raises(RuntimeError, match="expected input"):
        recalibrate_(model, [*batches(1), torch.zeros(2, 7, 10, 10)])
    assert_same(everything(model), before)


def test_a_model_without_batch_norm_is_not_run():
    def never(model, batch):
        raise AssertionError("not to be run")

    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.BatchNorm2d(4, track_running_stats=False))
    assert recalibrate_(model, batches(), forward=never) == 0


def test_a_supernet_is_recalibrated_for_a_while_only():
    net = chain_net()
    mutator = Mutator(net)
    for batch in batches():
        net(batch)
    before = everything(net)
    architecture = mutator.space.sample(4)
    reference = export(net, architecture)
    recalibrate_(reference, batches(seed=3))
    with mutator.at(architecture), recalibrated(net, batches(seed=3)) as model:
        assert model is net
        assert torch.equal(copy.deepcopy(net).eval()(batches()[0]), reference.eval()(batches()[0]))
    assert_same(everything(net), before)
    with pytest.raises(ZeroDivisionError), recalibrated(net, batches(seed=3)):
        _ = 1 / 0
    assert_same(everything(net), before)
