"""Classes from their dotted paths."""

import importlib
from typing import overload

from mutorch.errors import ConfigError, nearest


class ClassPathError(ConfigError, AssertionError):
    """A path without a module part."""


class ClassPathTypeError(ConfigError, TypeError):
    """Something that is not a path, or a path to something that is not a class."""


class ClassImportError(ConfigError, ImportError):
    """A path to a module or name that cannot be imported."""


@overload
def str2class(cls_name: str) -> type: ...
@overload
def str2class(cls_name: list[str]) -> list[type]: ...
@overload
def str2class(cls_name: tuple[str, ...]) -> tuple[type, ...]: ...
def str2class(
    cls_name: str | list[str] | tuple[str, ...],
) -> type | list[type] | tuple[type, ...]:
    """The class at a dotted path; a list or tuple of paths gives a list or tuple of classes.

    Example:
        >>> str2class(["torch.nn.Conv2d"])
        [<class 'torch.nn.modules.conv.Conv2d'>]
    """
    if isinstance(cls_name, list):
        return [_import_class(path) for path in cls_name]
    if isinstance(cls_name, tuple):
        return tuple(_import_class(path) for path in cls_name)
    return _import_class(cls_name)


def _import_class(path: object) -> type:
    if not isinstance(path, str):
        raise ClassPathTypeError(f"a class path is a string, got {path!r}")
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise ClassPathError(f"class path {path!r} has no module; write it as 'torch.nn.Conv2d'")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ClassImportError(f"class path {path!r} cannot be imported: {error}") from error
    classes = {key: value for key, value in vars(module).items() if isinstance(value, type)}
    if name in classes:
        return classes[name]
    if hasattr(module, name):
        found = type(getattr(module, name)).__name__
        raise ClassPathTypeError(f"{path!r} is not a class but a {found}")
    raise ClassImportError(f"module '{module_name}' has no class {name!r}; {nearest(name, classes)}")
