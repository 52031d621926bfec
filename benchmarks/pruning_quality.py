"""How much accuracy is left after pruning, at equal passes: the small ResNet on the digits, to half and a quarter of its MACs.

A pass is a forward and backward of one model on 64 images; a forward of a teacher counts as a third of one. Every line
spends at most 620, those of ranking included: the original is trained (SGD 0.1, momentum 0.9 Nesterov, weight decay 5e-4, cosine), pruned, its BatchNorm
statistics are measured again, and it is trained on (cosine from the second learning rate). Reported: test accuracy in
points, the mean over seeds, with no choice made on these seeds or on test images; methods and rates were chosen on
validation images with the seeds 100 to 105.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.small_resnet import SmallResNet
from mutorch import Mutator, export, searchable, widths
from mutorch.importance import L1, L2, GroupFisher, Importance, Random
from mutorch.pruning import Finetune, Gradual, OneByOne, Prices, shrink, uniform
from mutorch.testing import ClutteredDigits
from mutorch.training import fit
from mutorch.utils import evaluating

PASSES = 620
RECALIBRATION = 44 / 3
"""What measuring BatchNorm on all images once counts in `Shrunk.passes`; every line does so, and it is not counted here."""
BUDGETS = ("50%", "25%")


@dataclass(frozen=True, slots=True)
class Way:
    """One line of the table.

    Attributes:
        trained: how many passes the original is trained.
        importance: `None` is the default of `shrink`.
        gradual: `None` is one cut.
    """

    trained: int
    finetune: Finetune
    importance: Importance | None = None
    allocation: str = "uniform"
    gradual: Gradual | OneByOne | None = None


def by_fisher(net: nn.Module) -> dict[str, Tensor]:
    """Group Fisher over 16 batches, each of which is a pass."""
    return GroupFisher(ClutteredDigits().loader("train", 64), _loss, num_batches=16)(net)


def taught(trained: int, **options: float) -> Finetune:
    """As many steps as are left when each one also pays for a forward of the teacher."""
    return Finetune(steps=(PASSES - trained) * 3 // 4, **options)


WAYS = {
    "uniform L1": Way(500, Finetune(steps=120, distill=0.0), L1()),
    "global L2": Way(500, Finetune(steps=120, distill=0.0), L2(), "global"),
    "default ranking, no teacher": Way(500, Finetune(steps=120, distill=0.0)),
    "default of shrink, with a teacher": Way(500, taught(500)),
    "the same, ranked at random": Way(500, taught(500), Random()),
    "ranked by group Fisher, with a teacher": Way(500, Finetune(steps=77), by_fisher),
    "in two rounds, with a teacher": Way(500, Finetune(steps=80), gradual=Gradual(2, 10)),
    "the loop of group Fisher, with a teacher": Way(500, Finetune(steps=68), gradual=OneByOne(20, 1, schedule="cubic")),
    "pruned at 300, with a teacher": Way(300, taught(300, lr=0.1, distill=0.7, temperature=2.0)),
    "pruned at 300, no teacher": Way(300, Finetune(steps=320, lr=0.1, distill=0.0)),
    "pruned at 300 in two rounds, with a teacher": Way(
        300, Finetune(steps=200, lr=0.1, distill=0.7, temperature=2.0), gradual=Gradual(2, 40)
    ),
}


def train(model: nn.Module, data: ClutteredDigits, steps: int, seed: int) -> nn.Module:
    """The training of the originals and of the small nets from scratch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    fit(model, data.loader("train", 64), _loss, optimizer, steps=steps, scheduler=scheduler, seed=seed)
    return model


def original(seed: int) -> nn.Module:
    """The small ResNet, untrained."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SmallResNet()


def from_scratch(data: ClutteredDigits, budget: str, seed: int) -> nn.Module:
    """The small net with all widths scaled alike, trained alone."""
    net = searchable(original(seed), data.example_inputs, rules=[widths(counts=range(1, 65), divisor=1)])
    prices = Prices(Mutator(net), data.example_inputs)
    small = export(net, uniform(prices, prices.budget({"macs": budget}), {}))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in small.modules():
            reset: Callable[[], None] | None = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()
    return train(small, data, PASSES, seed)


def run(seeds: range = range(5), split: str = "test", only: Collection[str] = ()) -> dict[str, float]:
    """The means over seeds, for each way and budget; or `only` for some ways, without the nets to compare with."""
    ways = {name: way for name, way in WAYS.items() if not only or name in only}
    torch.set_num_threads(1)
    data = ClutteredDigits()
    images, labels = data[split].tensors

    def accuracy(model: nn.Module) -> float:
        with evaluating(model), torch.inference_mode():
            return 100 * float((model(images).argmax(dim=1) == labels).float().mean())

    collected: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        collected.setdefault(name, []).append(value)

    for seed in seeds:
        originals = {
            steps: train(original(seed), data, steps, seed) for steps in {way.trained for way in ways.values()}
        }
        if not only:
            note("the original, 500 passes", accuracy(originals[500]))
        for budget in BUDGETS:
            if not only:
                note(f"{budget} MACs: the small net from scratch", accuracy(from_scratch(data, budget, seed)))
            for name, way in ways.items():
                small = shrink(
                    originals[way.trained],
                    {"macs": budget},
                    data.loader("train", 64),
                    nn.CrossEntropyLoss(),
                    importance=way.importance,
                    allocation=way.allocation,
                    gradual=way.gradual,
                    divisor=1,
                    finetune=way.finetune,
                    evaluate=accuracy,
                    seed=seed,
                )
                spent = way.trained + small.passes - RECALIBRATION
                if spent > PASSES + 0.5:
                    raise AssertionError(f"{name} spent {spent:.1f} passes")
                note(f"{budget} MACs: {name}", small.scores["finetuned"])
                note(f"{budget} MACs: {name}, before finetuning", small.scores["recalibrated"])
        print(f"  seed {seed}:", {name: round(values[-1], 1) for name, values in collected.items()}, flush=True)
    return {name: float(np.mean(values)) for name, values in collected.items()}


def _loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])
