"""Libraries that mutorch can do without: imported on use, or stood in for."""

import importlib
from abc import ABCMeta
from typing import Any, NoReturn

from mutorch.errors import MissingExtraError, MutorchError


class BrokenLibraryError(MutorchError, ImportError):
    """An optional library that is installed, but cannot be imported."""


def require(module: str, *, extra: str) -> Any:
    """The optional module, imported now; `extra` is the extra of mutorch that installs it.

    A library that is missing raises `MissingExtraError` with the install line. One that is
    there but fails to import raises `BrokenLibraryError`, chained to the library's own error.

    Example:
        >>> require("json", extra="cli").dumps([1])
        '[1]'
    """
    library = module.partition(".")[0]
    try:
        importlib.import_module(library)
        return importlib.import_module(module)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == library:
            raise MissingExtraError(
                f"'{library}' is not installed; it comes with the extra '{extra}': pip install \"mutorch[{extra}]\""
            ) from error
        raise BrokenLibraryError(
            f"'{library}' is installed, but importing '{module}' failed: {error}; "
            f'its versions may not fit, try: pip install --upgrade "mutorch[{extra}]"'
        ) from error


def _fail(name: str) -> NoReturn:
    raise MissingExtraError(f"'{name}' is needed here and is not installed; install '{name}' first")


def get_placeholder(string: str) -> type:
    """A class that stands in for one of a library that is not installed, named by `string`.

    It can be a base class, next to mixins; making an instance raises an `ImportError`.

    Example:
        >>> Detector = get_placeholder("mmdet")
        >>> class MyDetector(Detector): ...
        >>> MyDetector()
        Traceback (most recent call last):
        mutorch.errors.MissingExtraError: 'mmdet' is needed here and is not installed; ...
    """

    # __new__, so that no __init__ that comes earlier in the bases can hide the error.
    def refuse(cls: type, *args: object, **kwargs: object) -> NoReturn:
        _fail(string)

    return type("Placeholder", (), {"__new__": refuse})


class _PackageMeta(ABCMeta):
    """Makes `Placeholder.anything` an error; from ABCMeta, so that abstract mixins still fit."""

    _library: str

    def __getattr__(cls, name: str) -> NoReturn:
        if name.startswith("__"):
            # Python itself asks classes for optional special names.
            raise AttributeError(name)
        _fail(cls._library)


def get_package_placeholder(string: str) -> type:
    """Like `get_placeholder`, for a whole package: reading any attribute raises as well.

    Example:
        >>> mmdet = get_package_placeholder("mmdet")
        >>> mmdet.models
        Traceback (most recent call last):
        mutorch.errors.MissingExtraError: 'mmdet' is needed here and is not installed; ...
    """
    return _PackageMeta("PackagePlaceholder", (get_placeholder(string),), {"_library": string})
