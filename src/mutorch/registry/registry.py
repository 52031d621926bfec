"""Classes by name: those that users register, a table of built-in ones, and torch's own."""

import copy
import importlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType, ModuleType
from typing import Any, TypeVar, overload

from mutorch.errors import ConfigError, RegistryError, nearest

from .custom_imports import import_custom

T = TypeVar("T", bound=Callable[..., Any])

LIBRARY_SCOPES = ("mutorch", "mmrazor")
"""Both name this library: configs written for the older one build as they are."""
TORCH_SCOPES = ("torch.nn", "nn", "torch")


class ConfigTypeError(ConfigError, TypeError):
    """A config, a `type` or a module to register of the wrong Python type."""


class NoConfigError(ConfigTypeError, AttributeError):
    """`None` where a config should be."""


class MissingTypeError(ConfigError, KeyError):
    """A config without `type`."""


class Registry:
    """What a config's `type` can name, and the way to build it.

    A name is looked up among the registered ones, then in the table of built-in classes, then in
    torch. So a class of yours may take the name of a built-in one and then wins in configs.
    `'scope.Name'` looks in one scope only: `mutorch` or `mmrazor` (this library: registered and
    built-in), `nn` or `torch` (torch's own classes), or the top-level package in which a
    registered class is defined.

    Example:
        >>> from torch import nn
        >>> models = Registry("models", kind=nn.Module, torch_names=nn)
        >>> @models.register_module()
        ... class Double(nn.Module):
        ...     def forward(self, x):
        ...         return 2 * x
        >>> models.build({"type": "Double"})(3)
        6
        >>> models.build({"type": "nn.Linear", "in_features": 2, "out_features": 1})
        Linear(in_features=2, out_features=1, bias=True)

    Args:
        name: Names the registry in errors.
        kind: What is built; `build` returns an instance of it as it is, and only subclasses of
            it are taken from `torch_names`.
        builtins: Class name -> the module to import it from, when it is first asked for.
        torch_names: The torch module whose classes can be named too.
    """

    def __init__(
        self,
        name: str,
        *,
        kind: type = object,
        builtins: Mapping[str, str] = MappingProxyType({}),
        torch_names: ModuleType | None = None,
    ) -> None:
        self.name = name
        self._kind = kind
        self._builtins = dict(builtins)
        self._torch_names = torch_names
        self._registered: dict[str, Callable[..., Any]] = {}

    @property
    def module_dict(self) -> Mapping[str, Callable[..., Any]]:
        """The names registered by users, read-only; built-in ones are not among them."""
        return MappingProxyType(self._registered)

    @overload
    def register_module(self, name: T) -> T: ...
    @overload
    def register_module(self, name: str | None = None, *, module: T, force: bool = False) -> T: ...
    @overload
    def register_module(
        self, name: str | None = None, module: None = None, force: bool = False
    ) -> Callable[[T], T]: ...
    def register_module(self, name: Any = None, module: Any = None, force: bool = False) -> Any:
        """Registers a class or function: a decorator, with or without `()`, or a plain call.

        A name that is taken raises `RegistryError` unless `force`. Running the same definition
        again, as a notebook cell, replaces it.
        """
        if module is None and name is not None and not isinstance(name, str):
            name, module = None, name
        if module is None:
            return lambda module: self._register(module, name, force=force)
        return self._register(module, name, force=force)

    def _register(self, module: T, name: str | None, *, force: bool) -> T:
        if not callable(module):
            raise ConfigTypeError(f"a class or a function can be registered, not {module!r}")
        key = name if name is not None else getattr(module, "__name__", None)
        if not isinstance(key, str) or not key or "." in key:
            raise RegistryError(f"{module!r} needs a name without dots, got {key!r}")
        present = self._registered.get(key)
        if present is not None and not force and not _same_definition(present, module):
            raise RegistryError(
                f"{self.name} has {key!r} already, from {present.__module__}; "
                "choose another name, or pass force=True to replace it"
            )
        self._registered[key] = module
        return module

    def build(self, cfg: Any, **defaults: Any) -> Any:
        """What `cfg` describes: its `type`, called with its other entries.

        `type` is a class, a function, `'Name'` or `'scope.Name'`. `_scope_` is a preference: that
        scope first, then all. `custom_imports` is acted on before the look-up. `defaults` are
        arguments that `cfg` may override. `cfg` and the dicts and lists inside it are copied, so
        no constructor can change yours. An instance of the registry's kind is returned as it is.

        Errors of the constructor keep their type and get a note with the name.
        """
        if isinstance(cfg, self._kind) and self._kind is not object:
            return cfg
        arguments = {**defaults, **_copied(self._checked(cfg))}
        if "custom_imports" in arguments:
            import_custom({"custom_imports": arguments.pop("custom_imports")})
        preferred = arguments.pop("_scope_", None)
        if "type" not in arguments:
            raise self._no_type(arguments)
        named = arguments.pop("type")
        target = self.find(named, preferred) if isinstance(named, str) else named
        if not callable(target):
            raise ConfigTypeError(f"'type' is a name, a class or a function, got {named!r}")
        try:
            return target(**arguments)
        except Exception as error:
            shown = named if isinstance(named, str) else getattr(named, "__qualname__", named)
            error.add_note(f"while building '{shown}' of {self.name} with {list(arguments)}")
            raise

    def get(self, key: str) -> Callable[..., Any] | None:
        """The class or function that `'Name'` or `'scope.Name'` stands for, `None` if none."""
        scope, _, name = key.rpartition(".")
        return self._in_scope(name, scope) if scope else self._anywhere(name)

    def import_builtins(self) -> list[str]:
        """The names of the built-in table, after importing each; a check that all are there."""
        for name in self._builtins:
            self._builtin(name)
        return list(self._builtins)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.get(key) is not None

    def __len__(self) -> int:
        return len(self._registered)

    def __repr__(self) -> str:
        return f"Registry({self.name!r}, registered={list(self._registered)}, builtins={list(self._builtins)})"

    def _checked(self, cfg: Any) -> dict[str, Any]:
        if cfg is None:
            raise NoConfigError(f"{self.name} cannot build None; pass a dict with a 'type'")
        if not isinstance(cfg, dict):
            raise ConfigTypeError(f"{self.name} builds from a dict with a 'type', got {type(cfg).__name__}: {cfg!r}")
        return cfg

    def _no_type(self, arguments: Mapping[str, Any]) -> ConfigError:
        if "cfg_path" in arguments:
            return ConfigError(
                f"'cfg_path' ({arguments['cfg_path']!r}) asks for a model zoo config, which "
                "mutorch does not have; name the model itself with 'type'"
            )
        return MissingTypeError(f"{self.name} builds from a dict with a 'type'; this one has {list(arguments)}")

    def find(self, key: str, preferred: str | None = None) -> Callable[..., Any]:
        """What a config's `type` names; scope `preferred` is looked at first.

        Errors:
            RegistryError: unknown name or scope, with the nearest ones.
        """
        scope, _, name = key.rpartition(".")
        wanted = scope or preferred
        if wanted and wanted not in self._scopes():
            raise RegistryError(f"{self.name} has no scope {wanted!r}; {nearest(wanted, self._scopes())}")
        found = self._in_scope(name, wanted) if wanted else None
        if found is None and not scope:
            found = self._anywhere(name)
        if found is None:
            raise RegistryError(
                f"{self.name} has no {key!r}; {nearest(name, self._names())}; a class of yours "
                "needs @register_module() and its module in custom_imports"
            )
        return found

    def _in_scope(self, name: str, scope: str) -> Callable[..., Any] | None:
        registered = self._registered.get(name)
        if scope in LIBRARY_SCOPES:
            return registered or self._builtin(name)
        if scope in TORCH_SCOPES:
            return self._from_torch(name)
        return registered if registered and _package(registered) == scope else None

    def _anywhere(self, name: str) -> Callable[..., Any] | None:
        return self._in_scope(name, LIBRARY_SCOPES[0]) or self._from_torch(name)

    def _builtin(self, name: str) -> Callable[..., Any] | None:
        module = self._builtins.get(name)
        if module is None:
            return None
        try:
            found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise RegistryError(f"built-in {name!r} of {self.name} cannot be had from '{module}': {error}") from error
        return found

    def _from_torch(self, name: str) -> type | None:
        found = vars(self._torch_names).get(name) if self._torch_names else None
        return found if isinstance(found, type) and issubclass(found, self._kind) else None

    def _scopes(self) -> list[str]:
        torch_scopes = TORCH_SCOPES if self._torch_names else ()
        packages = {_package(module): None for module in self._registered.values()}
        return list(dict.fromkeys([*LIBRARY_SCOPES, *torch_scopes, *packages]))

    def _names(self) -> Iterator[str]:
        yield from self._registered
        yield from self._builtins
        yield from filter(self._from_torch, vars(self._torch_names) if self._torch_names else ())


def _package(module: Callable[..., Any]) -> str:
    return module.__module__.partition(".")[0]


def _same_definition(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    places = [(f.__module__, getattr(f, "__qualname__", None)) for f in (one, other)]
    return one is other or (places[0] == places[1] and places[0][1] is not None)


def _copied(value: Any) -> Any:
    """New dicts, lists and tuples around the same leaves (modules, tensors, classes)."""
    if isinstance(value, dict):
        clone = copy.copy(value)
        # dict's own update: a subclass may refuse to set a key twice.
        dict.update(clone, {key: _copied(item) for key, item in value.items()})
        return clone
    if type(value) in (list, tuple):
        return type(value)(_copied(item) for item in value)
    return value
