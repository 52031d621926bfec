"""Config files: YAML, JSON, or Python that assigns plain data."""

import json
import re
import runpy
import traceback
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import yaml

from mutorch.errors import ConfigError, nearest

_PLAIN = (dict, list, tuple, set, str, bytes, int, float, type(None), PurePath)


class ConfigNotFoundError(ConfigError, FileNotFoundError):
    """A config file that does not exist."""


def load_config(path: str | Path) -> dict[str, Any]:
    """The config in a `.yaml`, `.yml`, `.json` or `.py` file, as a dict.

    A `.py` file is run, so load only those you trust; its public names that hold plain data are
    the config (modules, functions, classes and names with a leading `_` are dropped).
    `custom_imports` is not acted on here: pass the config to `import_custom`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "search.yaml")
        ...     _ = file.write_text("trials: 8\\nlr: 1e-3")
        ...     load_config(file)
        {'trials': 8, 'lr': 0.001}
    """
    path = Path(path)
    if path.suffix not in _READERS:
        raise ConfigError(f"config '{path}' has the suffix '{path.suffix}'; {nearest(path.suffix, _READERS)}")
    if not path.is_file():
        raise ConfigNotFoundError(_not_found(path))
    try:
        config = _READERS[path.suffix](path)
    except UnicodeDecodeError as error:
        raise _broken(path, None, f"not UTF-8 text: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(
            f"config '{path}' must be a mapping of names to values at its top level, got {type(config).__name__}"
        )
    return config


def _not_found(path: Path) -> str:
    if not path.parent.is_dir():
        return f"config '{path}' not found; there is no folder '{path.parent}'"
    names = sorted(file.name for file in path.parent.iterdir() if file.suffix in _READERS)
    return f"config '{path}' not found; in its folder: {nearest(path.name, names)}"


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads `1e-3` as a number, as YAML 1.2 does; PyYAML makes it a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _read_yaml(path: Path) -> Any:
    try:
        # A SafeLoader: makes plain data only.
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", error)
        raise _broken(path, mark.line + 1 if mark else None, problem) from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise _broken(path, error.lineno, error.msg) from error


def _read_python(path: Path) -> dict[str, Any]:
    try:
        names = runpy.run_path(str(path))
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        if isinstance(error, SyntaxError) and error.filename == str(path):
            lines.append(error.lineno)
        problem = f"{type(error).__name__}: {error}"
        raise _broken(path, lines[-1] if lines else None, problem) from error
    return {name: value for name, value in names.items() if not name.startswith("_") and isinstance(value, _PLAIN)}


def _broken(path: Path, line: int | None, problem: object) -> ConfigError:
    place = f", line {line}" if line else ""
    return ConfigError(f"config '{path}'{place}: {problem}")


_READERS: dict[str, Callable[[Path], Any]] = {
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
    ".json": _read_json,
    ".py": _read_python,
}
