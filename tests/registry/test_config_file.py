import pytest

from mutorch.errors import ConfigError
from mutorch.registry import load_config

PYTHON = """
import math
from pathlib import Path as P
_HIDDEN = dict(type='Op')
class Net: ...
def f(): ...
lr = 0.5 * 2
folder = P('runs')
model = dict(type=Net, stem=_HIDDEN)
"""


@pytest.fixture
def config(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "trials: 8\nmodel: {type: Net}"),
        ("a.yml", "trials: 8\nmodel: {type: Net}"),
        ("a.json", '{"trials": 8, "model": {"type": "Net"}}'),
        ("a.py", "trials = 8\nmodel = dict(type='Net')"),
    ],
)
def test_every_format_gives_the_same_dict(config, name, text):
    assert load_config(str(config(name, text))) == {"trials": 8, "model": {"type": "Net"}}


def test_a_python_config_keeps_public_plain_data(config):
    loaded = load_config(config("a.py", PYTHON))
    assert list(loaded) == ["lr", "folder", "model"]
    assert loaded["model"]["stem"] == {"type": "Op"}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("+2.5E4", 25000.0), ("1.0e-3", 0.001), ("3", 3), ("e3", "e3")],
)
def test_exponents_in_yaml_are_numbers(config, text, value):
    loaded = load_config(config("a.yaml", f"lr: {text}"))["lr"]
    assert loaded == value
    assert type(loaded) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "a: 1\nb: [2", "line 2: expected"),
        ("a.yaml", "a: !!python/object:os.system {}", "line 1: could not determine a constructor"),
        ("a.yaml", "a: \x00", "unacceptable character"),
        ("a.json", '{"a": 1,\n"b" 2}', "line 2: Expecting ':'"),
        ("a.py", "a = 1\nb = = 2", "line 2: SyntaxError"),
        ("a.py", "a = 1\nb = c", "line 2: NameError: name 'c' is not defined"),
        ("a.yaml", "- 1", "must be a mapping .*, got list"),
        ("a.json", "3", "must be a mapping .*, got int"),
        ("a.yaml", "", "must be a mapping .*, got NoneType"),
        ("a.toml", "a = 1", r"suffix '\.toml'; .*'\.yaml', '\.yml', '\.json', '\.py'"),
    ],
)
def test_a_config_that_cannot_be_read_says_where(config, name, text, message):
    with pytest.raises(ConfigError, match=rf"{name}'.*{message}"):
        load_config(config(name, text))


def test_a_config_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_config(tmp_path / "a.yaml")


def test_a_missing_config_names_its_neighbours(config):
    path = config("digits.yaml", "")
    with pytest.raises(FileNotFoundError, match=r"not found; .*did you mean 'digits\.yaml'"):
        load_config(path.with_name("digit.yaml"))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match="there is no folder"):
        load_config(tmp_path / "absent" / "a.yaml")
