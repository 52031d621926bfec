"""The modules that a config asks to import, so that their classes register themselves."""

import importlib
import warnings
from collections.abc import Mapping
from typing import Any

from mutorch.errors import ConfigError


def import_custom(cfg: Mapping[str, Any]) -> list[str]:
    """Imports what `custom_imports` names; gives the names that were imported.

    `cfg` is a whole config (`custom_imports` may be absent) or the block itself:
    `dict(imports="my_ops" or ["my_ops", ...], allow_failed_imports=False)`. A module that is not
    found raises `ConfigError`, or warns with `allow_failed_imports=True`. Other errors in the
    module's own code come through as they are.

    Example:
        >>> import_custom({"custom_imports": {"imports": ["json"]}})
        ['json']
    """
    block = cfg.get("custom_imports", cfg if "imports" in cfg else {"imports": []})
    if not isinstance(block, Mapping) or "imports" not in block:
        raise ConfigError(f"custom_imports is written dict(imports=['my_package.my_module']), got {block!r}")
    modules = block["imports"]
    if isinstance(modules, str):
        modules = [modules]
    if not isinstance(modules, list | tuple) or not all(isinstance(m, str) for m in modules):
        raise ConfigError(f"custom_imports.imports is a name or a list of names, got {modules!r}")
    allow_failed = bool(block.get("allow_failed_imports", False))
    return [module for module in modules if _imported(module, allow_failed=allow_failed)]


def _imported(module: str, *, allow_failed: bool) -> bool:
    try:
        importlib.import_module(module)
    except ImportError as error:
        problem = f"custom_imports: '{module}' cannot be imported: {error}"
        if allow_failed:
            warnings.warn(problem, stacklevel=3)
            return False
        raise ConfigError(
            f"{problem}; install it, put its folder on PYTHONPATH, or set allow_failed_imports"
        ) from error
    return True
