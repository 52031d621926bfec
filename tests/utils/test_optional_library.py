import abc
import sys

import pytest
from torch import nn

from mutorch.errors import MissingExtraError
from mutorch.utils import get_package_placeholder, get_placeholder, require


def test_require_gives_the_module():
    assert require("os.path", extra="cli") is sys.modules["os.path"]


def test_a_missing_library_is_answered_with_the_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(MissingExtraError, match=r"'rich'.*extra 'cli'.*pip install \"mutorch\[cli"):
        require("rich.table", extra="cli")


@pytest.mark.parametrize("line", ["import absent_dependency", "from json import absent"])
def test_an_import_error_inside_a_library_is_not_called_missing(tmp_path, monkeypatch, line):
    (tmp_path / "broken_library.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"is installed, but importing .*absent") as caught:
        require("broken_library", extra="cli")
    assert not isinstance(caught.value, MissingExtraError)
    assert isinstance(caught.value.__cause__, ImportError)


@pytest.mark.parametrize("get", [get_placeholder, get_package_placeholder])
def test_a_placeholder_raises_only_when_instantiated(get):
    placeholder = get("absent_dependency")

    class Alone(placeholder):
        pass

    class Mixed(nn.Module, placeholder):
        def __init__(self):
            pass

    class Abstract(placeholder, abc.ABC):
        pass

    for cls in (placeholder, Alone, Mixed, Abstract):
        with pytest.raises(ImportError, match="'absent_dependency' is needed"):
            cls()


def test_a_package_placeholder_raises_on_any_attribute():
    with pytest.raises(ImportError, match="'absent_dependency' is needed"):
        _ = get_package_placeholder("absent_dependency").models


def test_a_plain_placeholder_has_ordinary_attribute_errors():
    assert not hasattr(get_placeholder("absent_dependency"), "models")
