import pytest
from torch import nn

from mutorch.utils import str2class


def test_classes_come_in_the_container_of_their_paths():
    assert str2class("torch.nn.Conv2d") is nn.Conv2d
    assert str2class(["torch.nn.Conv2d"]) == [nn.Conv2d]
    assert str2class(("torch.nn.Conv2d", "torch.nn.ReLU")) == (nn.Conv2d, nn.ReLU)


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (3, TypeError, "a class path is a string, got 3"),
        ([3], TypeError, "a class path is a string, got 3"),
        ("Conv2d", AssertionError, "'Conv2d' has no module"),
        ("absent_package.Conv2d", ImportError, "cannot be imported: No module named"),
        ("torch.nn.Conv2D", ImportError, "no class 'Conv2D'; did you mean 'Conv2d'"),
        ("torch.nn.functional.relu", TypeError, "not a class but a function"),
    ],
)
def test_a_path_to_no_class_is_an_error(path, error, message):
    with pytest.raises(error, match=message):
        str2class(path)
