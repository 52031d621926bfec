"""How many parts a decision takes: probabilities against frequencies and against enumeration."""

import itertools
import math
from collections import Counter
from random import Random

import pytest
import torch

from mutorch.mutables import AnyNumber, Some

LOGITS = torch.tensor([0.3, -1.2, 0.9, 0.1], dtype=torch.float64)
ALL = range(len(LOGITS))
SUBSETS = [set(c) for n in range(len(LOGITS) + 1) for c in itertools.combinations(ALL, n)]


def of_a_set(picks, logits, numbers):
    """The probability that the set is drawn: in any order, where the order matters."""
    orders = itertools.permutations(numbers) if isinstance(picks, Some) else [tuple(numbers)]
    return sum(math.exp(picks.log_probability(logits, order)) for order in orders)


@pytest.mark.parametrize("picks", [Some(0), Some(1), Some(2), Some(4), AnyNumber()], ids=str)
def test_the_probabilities_of_all_that_can_be_drawn_sum_to_one(picks):
    possible = [s for s in SUBSETS if isinstance(picks, AnyNumber) or len(s) == picks.count]
    assert sum(of_a_set(picks, LOGITS, s) for s in possible) == pytest.approx(1)


@pytest.mark.parametrize("picks", [Some(1), Some(2), Some(3), AnyNumber()], ids=str)
def test_frequencies_of_samples_are_the_probabilities(picks):
    random, count = Random(0), 8000
    probabilities = picks.probabilities(LOGITS).tolist()
    seen = Counter(frozenset(picks.sample(probabilities, random)) for _ in range(count))
    for drawn in map(frozenset, SUBSETS):
        expected = of_a_set(picks, LOGITS, drawn) if isinstance(picks, AnyNumber) or len(drawn) == picks.count else 0.0
        # four standard deviations of a binomial
        assert abs(seen[drawn] / count - expected) <= 4 * math.sqrt(expected * (1 - expected) / count) + 1e-12


def test_each_part_of_any_number_is_drawn_with_its_own_probability():
    assert torch.allclose(AnyNumber().probabilities(LOGITS), LOGITS.sigmoid())
    expected = (LOGITS.sigmoid()[[0, 2]].log().sum() + (1 - LOGITS.sigmoid())[[1, 3]].log().sum()).item()
    assert AnyNumber().log_probability(LOGITS, [0, 2]).item() == pytest.approx(expected)


def test_the_gradient_of_the_log_probability_of_any_number_is_taken_minus_sigmoid():
    logits = LOGITS.clone().requires_grad_()
    AnyNumber().log_probability(logits, [0, 2]).backward()
    taken = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    assert torch.allclose(logits.grad, taken - LOGITS.sigmoid())


def test_the_gradient_of_one_is_one_hot_minus_softmax():
    logits = LOGITS.clone().requires_grad_()
    Some(1).log_probability(logits, [2]).backward()
    assert torch.allclose(logits.grad, torch.eye(4, dtype=torch.float64)[2] - LOGITS.softmax(0))


@pytest.mark.parametrize(("picks", "numbers"), [(Some(0), []), (Some(2), [0, 2]), (Some(4), [0, 1, 2, 3])], ids=str)
def test_the_best_of_some_are_the_most_probable(picks, numbers):
    assert picks.best(picks.probabilities(LOGITS).tolist()) == numbers


def test_the_best_of_any_number_are_those_more_probable_than_not():
    assert AnyNumber().best([0.5, 0.500001, 0.2, 1.0]) == [1, 3]
    assert AnyNumber().best([0.0, 0.1]) == []


def test_of_equal_parts_the_first_are_best():
    assert Some(2).best([0.25] * 4) == [0, 1]


@pytest.mark.parametrize("count", [2, 3])
def test_parts_whose_probability_is_lost_to_rounding_are_still_drawn_when_nothing_else_is_left(count):
    picks = Some(count)
    probabilities = picks.probabilities(torch.tensor([1000.0, 0.0, 0.0, 0.0])).tolist()
    assert probabilities == [1.0, 0.0, 0.0, 0.0]
    drawn = [picks.sample(probabilities, Random(seed)) for seed in range(200)]
    assert all(len(set(numbers)) == count and 0 in numbers for numbers in drawn)
    assert len({tuple(numbers) for numbers in drawn}) == math.comb(3, count - 1)


@pytest.mark.parametrize("picks", [Some(1), Some(2), AnyNumber()], ids=str)
def test_equal_seeds_draw_equal_parts_ascending(picks):
    probabilities = picks.probabilities(LOGITS).tolist()
    drawn = [picks.sample(probabilities, Random(3)) for _ in range(2)]
    assert drawn[0] == drawn[1] == sorted(drawn[0])


@pytest.mark.parametrize("picks", [Some(1), Some(2), AnyNumber()], ids=str)
def test_entropy_is_one_without_a_preference_and_zero_when_decided(picks):
    assert picks.entropy(picks.probabilities(torch.zeros(4))) == pytest.approx(1)
    decided = torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert picks.entropy(decided) == pytest.approx(0)


def test_a_single_part_is_decided():
    assert Some(1).entropy(torch.ones(1)) == 0
    assert Some(1).lead([1.0]) == 1
    assert Some(1).sample([1.0], Random(0)) == [0]


@pytest.mark.parametrize(
    ("picks", "probabilities", "lead"),
    [
        (Some(1), [0.5, 0.3, 0.2], 0.2),
        (Some(2), [0.5, 0.3, 0.2], 0.1),
        (Some(3), [0.5, 0.3, 0.2], 1.0),
        (Some(0), [0.5, 0.3, 0.2], 1.0),
        (AnyNumber(), [1.0, 0.4, 0.0], 0.2),
    ],
    ids=str,
)
def test_the_lead_is_how_far_another_decision_is(picks, probabilities, lead):
    assert picks.lead(probabilities) == pytest.approx(lead)
