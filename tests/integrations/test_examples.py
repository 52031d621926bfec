"""The example scripts, with fewer steps than they take by themselves."""

import runpy
from pathlib import Path

import pytest

import mutorch

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
@pytest.mark.parametrize(("library", "chance"), [("lightning", 1 / 10), ("transformers", 1 / 8)])
def test_the_example_finds_a_subnet_that_knows_what_it_was_trained_for(tmp_path, monkeypatch, library, chance):
    monkeypatch.chdir(tmp_path)
    example = runpy.run_path(str(EXAMPLES / f"{library}_supernet.py"))
    accuracies = example["main"](epochs=2, trials=2)
    assert accuracies["found"] > 3 * chance
    assert accuracies["found"] > accuracies["smallest"]
    loaded = mutorch.load(f"{library}_subnet.safetensors", example["build"])
    assert sum(p.numel() for p in loaded.parameters()) < 0.8 * sum(p.numel() for p in example["build"]().parameters())
