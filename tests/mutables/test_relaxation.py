import pytest
import torch

from mutorch.errors import ConfigError
from mutorch.mutables import Gumbel, OneHot, Softmax, TopK, TwoPaths, gumbel_noise, top_paths

LOGITS = torch.tensor([0.5, -1.0, 0.2, 1.5], dtype=torch.float64)
ALL = [Softmax(), Gumbel(), Gumbel(hard=False), Gumbel(single_path=True), OneHot(), TwoPaths(), TopK(2)]


def noise(seed):
    return gumbel_noise(4, torch.Generator().manual_seed(seed))


def weights(relaxation, logits, seed=0):
    paths = top_paths(relaxation, logits, noise(seed))
    return paths, relaxation.weights(logits, noise(seed), paths)


@pytest.mark.parametrize("relaxation", ALL, ids=repr)
def test_weights_of_the_computing_candidates_add_up_to_one(relaxation):
    paths, found = weights(relaxation, LOGITS)
    assert len(paths) == len(found) == (relaxation.num_paths or 4)
    assert found.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("relaxation", ALL, ids=repr)
def test_every_relaxation_has_a_gradient_for_the_parameter(relaxation):
    logits = LOGITS.clone().requires_grad_()
    _, found = weights(relaxation, logits)
    (found * torch.arange(1.0, 1 + len(found))).sum().backward()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("relaxation", ALL, ids=repr)
def test_equal_noise_gives_equal_weights_and_paths(relaxation):
    first, second = weights(relaxation, LOGITS, 3), weights(relaxation, LOGITS, 3)
    assert first[0] == second[0]
    assert torch.equal(first[1], second[1])


@pytest.mark.parametrize("relaxation", [Gumbel(single_path=True), OneHot()], ids=repr)
def test_single_paths_are_samples_of_the_softmax(relaxation):
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(4)
    for _ in range(4000):
        counts[top_paths(relaxation, LOGITS, gumbel_noise(4, generator))[0]] += 1
    torch.testing.assert_close(counts / 4000, torch.softmax(LOGITS, -1).float(), atol=0.025, rtol=0)


def test_hard_gumbel_is_one_hot_with_the_gradient_of_the_soft_sample():
    hard, soft = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    target = torch.tensor([1.0, 3.0, -2.0, 0.5], dtype=torch.float64)
    value = weights(Gumbel(tau=0.7), hard)[1]
    (value * target).sum().backward()
    (weights(Gumbel(tau=0.7, hard=False), soft)[1] * target).sum().backward()
    assert sorted(value.tolist()) == [0, 0, 0, 1]
    torch.testing.assert_close(hard.grad, soft.grad)


def test_the_single_path_of_gumbel_has_the_gradient_of_its_own_soft_weight():
    logits, dense = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    paths, value = weights(Gumbel(tau=0.7, single_path=True), logits)
    value.sum().backward()
    weights(Gumbel(tau=0.7, hard=False), dense)[1][paths[0]].backward()
    assert value.tolist() == [1]
    torch.testing.assert_close(logits.grad, dense.grad)


def test_one_hot_has_the_gradient_of_the_log_probability():
    logits, reference = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    paths, value = weights(OneHot(), logits)
    value.sum().backward()
    torch.log_softmax(reference, -1)[paths[0]].backward()
    torch.testing.assert_close(logits.grad, reference.grad)


def test_two_paths_move_probability_between_these_two_alone():
    logits = LOGITS.clone().requires_grad_()
    paths, value = weights(TwoPaths(), logits)
    (value * torch.tensor([1.0, 3.0])).sum().backward()
    assert sorted(value.tolist()) == [0, 1]
    assert [number for number in range(4) if logits.grad[number] != 0] == list(paths)
    assert logits.grad.sum().item() == pytest.approx(0)


def test_top_k_takes_the_most_probable_candidates_in_their_order():
    paths, value = weights(TopK(2), LOGITS)
    assert paths == (0, 3)
    torch.testing.assert_close(value, torch.softmax(LOGITS[[0, 3]], -1))


def test_a_low_temperature_makes_soft_samples_one_hot():
    assert weights(Gumbel(tau=1e-6, hard=False), LOGITS)[1].max().item() == pytest.approx(1)


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError, match="temperature must be positive, got 0"):
        Gumbel(tau=0)
    with pytest.raises(ConfigError, match="a single path has no soft weights"):
        Gumbel(hard=False, single_path=True)
    with pytest.raises(ConfigError, match="at least one candidate must compute, got k=0"):
        TopK(0)
