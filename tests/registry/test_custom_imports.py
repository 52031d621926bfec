import sys

import pytest

from mutorch.errors import ConfigError
from mutorch.registry import import_custom


@pytest.fixture
def a_module(tmp_path, monkeypatch):
    (tmp_path / "my_custom_ops.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_custom_ops"
    sys.modules.pop("my_custom_ops", None)


@pytest.mark.parametrize("wrap", [lambda name: name, lambda name: [name]])
@pytest.mark.parametrize("whole", [False, True])
def test_a_name_or_a_list_of_names_is_imported(a_module, wrap, whole):
    block = {"imports": wrap(a_module), "allow_failed_imports": False}
    assert import_custom({"custom_imports": block} if whole else block) == [a_module]
    assert a_module in sys.modules


def test_a_config_without_custom_imports_imports_nothing():
    assert import_custom({"model": {}}) == []


def test_a_failing_import_is_a_config_error():
    with pytest.raises(ConfigError, match="'absent_package.ops' cannot be imported") as caught:
        import_custom({"custom_imports": {"imports": ["absent_package.ops"]}})
    assert isinstance(caught.value.__cause__, ImportError)


def test_a_failing_import_that_is_allowed_warns(a_module):
    block = {"imports": ["absent_package", a_module], "allow_failed_imports": True}
    with pytest.warns(UserWarning, match="'absent_package' cannot be imported"):
        assert import_custom(block) == [a_module]


@pytest.mark.parametrize(("block", "message"), [(["json"], "is written dict"), ({"imports": 3}, "or a list of names")])
def test_custom_imports_written_otherwise_are_refused(block, message):
    with pytest.raises(ConfigError, match=message):
        import_custom({"custom_imports": block})
