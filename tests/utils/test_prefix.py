from mutorch.utils import add_prefix


def test_add_prefix_makes_a_new_dict():
    losses = {"loss": 1}
    assert add_prefix(losses, "max") == {"max.loss": 1}
    assert losses == {"loss": 1}
