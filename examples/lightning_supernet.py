"""Train a supernet with Lightning, search it for half the multiply-adds, and take home a plain model.

Needs `pip install "mutorch[lightning]"`; takes 15 seconds on one CPU core.
"""

import argparse

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import mutorch
from mutorch.integrations.lightning import SupernetCallback
from mutorch.testing import ClutteredDigits


def build() -> nn.Module:
    """Your model."""
    layers: list[nn.Module] = []
    for in_channels, out_channels in ((1, 32), (32, 32), (32, 64)):
        layers += [nn.Conv2d(in_channels, out_channels, 3, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class Classifier(LightningModule):
    """Your module: nothing in it is about supernets."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: list[Tensor], number: int) -> Tensor:
        return cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)


def main(epochs: int, trials: int) -> dict[str, float]:
    """The accuracies on test data of the subnet that was found, and of the largest and the smallest beside."""
    torch.manual_seed(0)
    data = ClutteredDigits()
    net = mutorch.searchable(build(), data.example_inputs)  # the same model, which can now have other widths
    mutator = mutorch.Mutator(net)

    callback = SupernetCallback(mutator, seed=0)  # each step trains another architecture
    Trainer(max_epochs=epochs, callbacks=[callback], logger=False).fit(Classifier(net), data.loader("train"))
    net.cpu()

    def accuracy(model: nn.Module, split: str = "val") -> float:
        x, y = data[split].tensors
        return (model(x).argmax(1) == y).float().mean().item()

    batches = [x for x, _ in data.loader("train", 256)]  # each candidate's BatchNorm statistics are measured on these
    settings = {"budget": {"macs": "50%"}, "calibrate": batches, "num_trials": trials}
    history = mutorch.search(net, mutator, accuracy, example_inputs=data.example_inputs, **settings)
    architectures = {"found": history.best.architecture, "largest": mutator.space.max, "smallest": mutator.space.min}
    subnets = {name: mutorch.export(net, each, calibrate=batches).eval() for name, each in architectures.items()}
    mutorch.save(subnets["found"], "lightning_subnet.safetensors")
    print(mutorch.compare(subnets["largest"], subnets["found"], data.example_inputs))
    return {name: round(accuracy(subnet, "test"), 3) for name, subnet in subnets.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--trials", type=int, default=30)
    print("accuracy on test data:", main(**vars(parser.parse_args())))
