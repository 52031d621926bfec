import pytest

from mutorch.errors import ConfigError
from mutorch.training import Temperature
from mutorch.training.temperature import SHAPES


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_falls_from_start_to_end_and_stays_there(shape):
    temperature = Temperature(5.0, 0.5, shape)
    values = [temperature(number / 10) for number in range(-2, 13)]
    assert values[:3] == pytest.approx([5.0] * 3)
    assert values[-3:] == pytest.approx([0.5] * 3)
    assert values == sorted(values, reverse=True)


def test_the_middle_tells_the_shapes_apart():
    middle = {shape: Temperature(4.0, 1.0, shape)(0.25) for shape in SHAPES}
    assert middle["linear"] == pytest.approx(3.25)
    assert middle["exponential"] == pytest.approx(4 / 4**0.25)
    assert middle["cosine"] == pytest.approx(4 - 3 * (1 - 0.5**0.5) / 2)


@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), "hot", True])
def test_a_temperature_that_is_not_positive_is_refused(value):
    with pytest.raises(ConfigError, match="a temperature must be a positive number"):
        Temperature(start=value)


def test_an_unknown_shape_is_refused():
    with pytest.raises(ConfigError, match="no shape 'cosin' of a temperature; did you mean 'cosine'"):
        Temperature(shape="cosin")
