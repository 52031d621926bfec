"""Train a supernet with the Trainer of transformers, search its widths and heads, and take home a plain model.

Needs `pip install "mutorch[transformers]"`; takes 15 seconds on one CPU core.
"""

import argparse

import torch
from torch.utils.data import StackDataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import mutorch
from mutorch.integrations.transformers import SupernetCallback

TOPICS, WORDS, LENGTH = 8, 64, 16


def sentences(count: int, seed: int) -> StackDataset:
    """Your data; here, random words, two in five of them of the eight words of the sentence's topic."""
    generator = torch.Generator().manual_seed(seed)
    topics = torch.randint(TOPICS, (count,), generator=generator)
    words, own = torch.randint(WORDS, (2, count, LENGTH), generator=generator)
    of_topic = torch.rand(count, LENGTH, generator=generator) < 0.4
    return StackDataset(input_ids=torch.where(of_topic, own % 8 * TOPICS + topics[:, None], words), labels=topics)


def build() -> BertForSequenceClassification:
    """Your model."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    config = BertConfig(vocab_size=WORDS, max_position_embeddings=LENGTH, num_labels=TOPICS, **sizes)
    return BertForSequenceClassification(config)


def main(epochs: int, trials: int) -> dict[str, float]:
    """The accuracies on test data of the subnet that was found, and of the largest and the smallest beside."""
    torch.manual_seed(0)
    example = {"input_ids": torch.ones(1, LENGTH, dtype=torch.long)}
    net = mutorch.searchable(build(), example)  # the same model, which can now have other widths and fewer heads
    mutator = mutorch.Mutator(net)

    callback = SupernetCallback(mutator, seed=0)  # each step trains another architecture
    options = {"num_train_epochs": epochs, "per_device_train_batch_size": 64, "learning_rate": 3e-3}
    arguments = TrainingArguments(
        "transformers_supernet", save_strategy="no", disable_tqdm=True, report_to=[], **options
    )
    Trainer(net, arguments, train_dataset=sentences(4096, seed=0), callbacks=[callback]).train()
    net.cpu()

    def accuracy(model: torch.nn.Module, seed: int = 1) -> float:
        data = sentences(1024, seed).datasets
        return (model(input_ids=data["input_ids"]).logits.argmax(1) == data["labels"]).float().mean().item()

    settings = {"budget": {"macs": "50%"}, "example_inputs": example, "num_trials": trials}
    best = mutorch.search(net, mutator, accuracy, **settings).best.architecture
    architectures = {"found": best, "largest": mutator.space.max, "smallest": mutator.space.min}
    subnets = {name: mutorch.export(net, each).eval() for name, each in architectures.items()}
    mutorch.save(subnets["found"], "transformers_subnet.safetensors")
    print(mutorch.compare(subnets["largest"], subnets["found"], example))
    return {name: round(accuracy(subnet, seed=2), 3) for name, subnet in subnets.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--trials", type=int, default=20)
    print("accuracy on test data:", main(**vars(parser.parse_args())))
