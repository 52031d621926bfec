"""Random masks: uniform, seeded, of the right number (seed 004)."""

import math
from collections import Counter

import pytest
import torch
from torch import nn

from mutorch.mutables import InputChoice, LayerChoice
from mutorch.mutators import Mutator, RandomMutator
from mutorch.subnet import export

COUNT = 3000


def net():
    return nn.Sequential(
        LayerChoice([nn.ReLU(), nn.Tanh(), nn.Identity()], key="layer"),
        InputChoice(3, key="any"),
        InputChoice(4, n_chosen=2, key="two"),
        InputChoice(3, n_chosen=0, key="zero"),
        LayerChoice([nn.ReLU(), nn.Tanh(), nn.Identity()], key="layer"),
    )


def drawn(key):
    mutator = RandomMutator(net(), seed=1)
    seen = Counter()
    for _ in range(COUNT):
        mutator.reset()
        seen[tuple(mutator.status()[key])] += 1
    return seen


@pytest.mark.parametrize(
    ("key", "masks", "taken"), [("layer", 3, {1}), ("any", 8, {0, 1, 2, 3}), ("two", 6, {2}), ("zero", 1, {0})]
)
def test_every_allowed_mask_is_equally_probable(key, masks, taken):
    seen = drawn(key)
    assert len(seen) == masks
    assert {sum(mask) for mask in seen} == taken
    p = 1 / masks
    assert all(abs(n / COUNT - p) <= 4.5 * math.sqrt(p * (1 - p) / COUNT) for n in seen.values())


def test_masks_are_bools():
    mutator = RandomMutator(net())
    assert {mask.dtype for mask in mutator.sample_search().values()} == {torch.bool}


def test_equal_seeds_decide_alike_and_the_global_generator_has_no_part():
    def some(seed, noise):
        mutator = RandomMutator(net(), seed=seed)
        found = []
        for _ in range(5):
            torch.manual_seed(noise)
            mutator.reset()
            found.append(mutator.status())
        return found

    torch.manual_seed(0)
    before = torch.get_rng_state()
    mutator = RandomMutator(net(), seed=3)
    mutator.reset()
    mutator.export()
    assert torch.equal(torch.get_rng_state(), before)
    assert some(3, 0) == some(3, 1)
    assert some(3, 0) != some(4, 0)


def test_export_draws_anew_and_leaves_what_is_active():
    mutator = RandomMutator(net(), seed=0)
    mutator.reset()
    status = mutator.status()
    assert len({str(mutator.export()) for _ in range(20)}) > 10
    assert mutator.status() == status


def test_what_it_exports_is_an_architecture_of_the_space():
    model = net()
    mutator, space = RandomMutator(model, seed=2), Mutator(net()).space
    for _ in range(20):
        space.validate(mutator.export())


def test_what_is_active_is_what_export_gives():
    model = nn.Sequential(LayerChoice([nn.ReLU(), nn.Tanh(), nn.Identity()]), LayerChoice([nn.ReLU(), nn.Tanh()]))
    mutator = RandomMutator(model, seed=2)
    x = torch.linspace(-1, 1, 5)
    seen = set()
    for _ in range(10):
        mutator.reset()
        assert torch.equal(export(model)(x), model(x))
        seen.add(str(mutator.status()))
    assert len(seen) > 3
