import pytest

from mutorch.errors import ConfigError
from mutorch.mutables import Gumbel, Softmax
from mutorch.recipes import METHODS, as_method
from mutorch.training import Temperature


def test_a_name_and_a_dict_of_it_are_the_same_method():
    assert as_method("darts") == as_method({"type": "darts"}) == METHODS["darts"]
    assert as_method({"type": "darts", "arch_lr": 0.5}).arch_lr == 0.5


def test_the_temperature_falls_over_the_learning():
    method = as_method({"type": "gdas", "temperature": {"start": 4.0, "end": 1.0, "shape": "linear"}})
    taus = [rule.tau for done in (0.0, 0.5, 1.0) for rule in method.at(done)]
    assert taus == [4.0, 4.0, 2.5, 2.5, 1.0, 1.0]
    assert method.at(0.5)[0].single_path


def test_what_has_no_temperature_stays_as_it_is():
    assert METHODS["darts"].at(0.5) == (Softmax(), Softmax())
    assert as_method({"type": "darts", "temperature": {}}).at(0.5) == (Softmax(), Softmax())
    assert METHODS["gumbel"].at(0.9)[0] == Gumbel(hard=False)


def test_gdas_has_the_published_temperatures():
    assert METHODS["gdas"].temperature == Temperature(10.0, 0.1, "linear")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("dart", "no method 'dart'; did you mean 'darts'"),
        ({"arch_lr": 0.1}, "no method None"),
        ({"type": "darts", "arch_rl": 0.1}, "a method has no key 'arch_rl'; did you mean 'arch_lr'"),
        ({"type": "darts", "arch_lr": -1}, "arch_lr must be a number at least 0, got -1"),
        ({"type": "darts", "warmup": 2}, "warmup must be a number between 0 and 1, got 2"),
        ({"type": "samples", "num_samples": 1}, "num_samples must be a whole number of at least 2, got 1"),
        ({"type": "darts", "normalize": "yes"}, "normalize must be true or false, got 'yes'"),
        ({"type": "gdas", "temperature": 3}, "temperature must be a dict of start, end, shape, got 3"),
        ({"type": "gdas", "temperature": {"strat": 3}}, "'temperature' has no key 'strat'; did you mean 'start'"),
    ],
)
def test_mistakes_are_named(given, message):
    with pytest.raises(ConfigError, match=message):
        as_method(given)
