"""A check that everything a config can name is there."""

from mutorch.registry import DATASETS, MODELS


def register_all_modules(init_default_scope: bool = True) -> list[str]:
    """The names of all built-in classes, after importing each of them.

    The older library has to be told to fill its registries; here they read a table, so nothing
    needs this call and nothing is changed by it. `init_default_scope` is accepted for old
    scripts and changes nothing either: there is no global scope. An entry that cannot be
    imported raises `RegistryError`.
    """
    return MODELS.import_builtins() + DATASETS.import_builtins()
