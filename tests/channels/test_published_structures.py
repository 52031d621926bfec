"""Published pruned networks: the same numbers of units, parameters and operations as their authors' code shows.

Widths are given as the publications list them: stem, then for each stage the units of its first block and of the others.
"""

import csv
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from channels.published import MobileNetV1, MobileNetV2, resnet34, resnet50

from mutorch import Mutator, count, export, searchable, widths

X = torch.zeros(1, 3, 224, 224)
GROUP_FISHER_ACT = (
    "61 27 35 241 32 29 27 42 87 107 512 44 50 52 81 47 50 210 206 1024 107 108 86 126 91 112 98 110 112 115 397 427 2048 "
    "373 348 433 384"
)
GROUP_FISHER_FLOPS = (
    "61 28 35 242 31 28 26 41 90 107 509 42 50 51 84 49 51 210 207 1024 103 108 90 124 94 114 99 111 108 111 400 421 2048 "
    "377 347 443 376"
)
GROUP_FISHER_MBV2_ACT = "21 10 45 24 73 85 32 95 76 160 64 204 200 217 344 96 348 338 543 160 810 803 944 320 1280"
GROUP_FISHER_MBV2_FLOPS = "27 16 77 24 85 115 32 102 95 181 64 169 176 180 308 96 223 241 511 160 467 510 771 320 1280"


AUTOSLIM = {  # of MobileNetV2 x1.5, in network order
    "220M": "8 8 96 16 96 96 24 144 144 144 48 288 288 288 288 64 432 432 648 176 720 720 1440 280 1920",
    "320M": "8 8 96 16 96 96 24 144 144 144 56 288 288 288 288 96 432 432 864 240 1440 960 1440 480 1920",
    "530M": "32 16 144 24 176 192 48 240 144 264 88 288 336 432 576 144 576 648 864 240 1440 1440 1440 480 1920",
}
WIDE_MOBILENET = partial(MobileNetV2, 1.5)
TABLE = Path(__file__).parents[1] / "data" / "structure.csv"


@cache
def any_width(model):
    """Searchable in every number of channels; made once, as nothing here changes it."""
    with torch.device("meta"):
        built = model()
    return searchable(built, X.to("meta"), rules=[widths(counts=range(1, 2049), divisor=1)], num_trials=0)


def of_resnet50(kept):
    """Unit to width, from the order of the publications: in each stage conv1, conv2 and conv3 of block 0, then the others'."""
    names = ["conv1"]
    for stage, depth in enumerate((3, 4, 6, 3), start=1):
        names += [f"layer{stage}.0.conv{number}" for number in (1, 2, 3)]
        names += [f"layer{stage}.{block}.conv{number}" for block in range(1, depth) for number in (1, 2)]
    return dict(zip(names, kept, strict=True))


def dcff():
    """Ratios of the channels of DCFF's ResNet-50 (Dynamic-Coded Filter Fusion, arXiv 2107.06916)."""
    kept = [64]
    for stage, depth in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for block in range(depth):
            late = stage == 3 or (stage == 2 and block >= 3)
            first, second = (0.7, 0.7) if late else (0.65, 0.6)
            kept += [int(width * first), int(width * second)]
            if block == 0:
                kept.append(int(4 * width * 0.9))
    return of_resnet50(kept)


def l1(variant):
    """The ResNet-34 of Pruning Filters for Efficient ConvNets (arXiv 1608.08710), as MMRazor prunes it."""
    ratios = {"A": {1: 0.7, 2: 0.7, 3: 0.7}, "B": {1: 0.5, 2: 0.4, 3: 0.6}}[variant]
    blocks = {1: (0, 1), 2: (1, 2), 3: (1, 2, 3, 4)}
    return {
        f"layer{stage}.{block}.conv1": int(64 * 2 ** (stage - 1) * ratio)
        for stage, ratio in ratios.items()
        for block in blocks[stage]
    }


def scaled(share):
    """Every unit's share."""
    return lambda mutator: {decision.name: int(decision.choices[-1] * share) for decision in mutator.space}


def built(model):
    """The widths that a model has when it is built so."""
    with torch.device("meta"):
        narrow = model()
    return lambda mutator: {name: narrow.get_submodule(name).out_channels for name in mutator.space.names}


def of_mobilenet(kept):
    return [int(width) for width in kept.split()]


@pytest.mark.parametrize(
    ("model", "units"),
    [(resnet50, 37), (resnet34, 20), (MobileNetV2, 25)],
    ids=["ResNet-50", "ResNet-34", "MobileNetV2"],
)
def test_the_published_networks_have_the_published_number_of_units(model, units):
    assert len(Mutator(any_width(model)).space) == units


@pytest.mark.parametrize(
    ("model", "architecture", "operations", "parameters"),
    [
        (resnet50, dcff(), 2_257_523_259, 15_163_623),
        (resnet50, of_resnet50(of_mobilenet(GROUP_FISHER_ACT)), 2_068_627_018, 16_263_012),
        (resnet50, of_resnet50(of_mobilenet(GROUP_FISHER_FLOPS)), 2_068_548_079, 16_262_778),
        (resnet34, l1("A"), 3_111_310_320, 20_151_764),
        (resnet34, l1("B"), 2_792_929_488, 19_469_372),
        (resnet34, {"layer3.0.conv2": int(256 * 0.8)}, 3_402_767_808, 20_206_160),
        (MobileNetV2, of_mobilenet(GROUP_FISHER_MBV2_ACT), 212_152_431, 3_176_537),
        (MobileNetV2, of_mobilenet(GROUP_FISHER_MBV2_FLOPS), 212_861_216, 2_815_111),
        (WIDE_MOBILENET, of_mobilenet(AUTOSLIM["220M"]), 221_412_560, 4_125_104),
        (WIDE_MOBILENET, of_mobilenet(AUTOSLIM["320M"]), 320_247_520, 5_767_288),
        (WIDE_MOBILENET, of_mobilenet(AUTOSLIM["530M"]), 529_261_920, 6_495_992),
    ],
    ids=[
        *("DCFF", "group-Fisher act", "group-Fisher flops", "L1 A", "L1 B", "L1 C", "MBV2 act", "MBV2 flops"),
        *("AutoSlim 220M", "AutoSlim 320M", "AutoSlim 530M"),
    ],
)
def test_exported_networks_have_the_published_parameters_and_operations(model, architecture, operations, parameters):
    costs = count(subnet(model, architecture), X.to("meta"), convention="mmr")
    assert (costs.macs, costs.params) == (operations, parameters)


@pytest.mark.parametrize(
    ("name", "model", "architecture"),
    [
        ("L1 ResNet34 A", resnet34, l1("A")),
        ("L1 ResNet34 B", resnet34, l1("B")),
        ("Slimmable ResNet50 x0.25", resnet50, scaled(0.25)),
        ("US-MobileNet v1 x0.5", MobileNetV1, scaled(0.5)),
        ("US-MobileNet v2 x0.7", MobileNetV2, built(partial(MobileNetV2, 0.7))),
    ],
)
def test_exported_networks_have_the_parameters_and_multiply_adds_of_the_table(name, model, architecture):
    row = of_table(name)
    costs = count(subnet(model, architecture), X.to("meta"))
    assert (costs.params, costs.macs) == (int(row["params_counted"]), int(row["macs_counted"]))


@pytest.mark.parametrize(
    ("name", "model", "architecture"),
    [
        ("DCFF ResNet50 (conv3 x0.9)", resnet50, dcff()),
        *((f"AutoSlim MobileNetV2 {size}", WIDE_MOBILENET, of_mobilenet(kept)) for size, kept in AUTOSLIM.items()),
    ],
)
def test_exported_networks_have_what_was_published_within_one_percent(name, model, architecture):
    row = of_table(name)
    costs = count(subnet(model, architecture), X.to("meta"), convention="mmr")
    assert costs.params == int(row["params_counted"])
    assert costs.params == pytest.approx(float(row["published_params"]), rel=0.01)
    assert costs.macs == pytest.approx(1e6 * float(row["published_M"]), rel=0.01)


def subnet(model, architecture):
    """The exported model; an architecture is a dict, a list in network order, or a function of the mutator."""
    net = any_width(model)
    mutator = Mutator(net)
    if isinstance(architecture, list):
        architecture = dict(zip(in_network_order(net, mutator), architecture, strict=True))
    elif callable(architecture):
        architecture = architecture(mutator)
    return export(net, {**mutator.space.max, **architecture}, mutator=mutator)


def of_table(name):
    with TABLE.open(encoding="utf-8", newline="") as file:
        (row,) = (row for row in csv.DictReader(file) if row["name"] == name)
    return row


def in_network_order(net, mutator):
    """Units by the first module that makes their channels."""
    order = {path: number for number, (path, _) in enumerate(net.named_modules())}
    return sorted(mutator.space.names, key=order.__getitem__)
