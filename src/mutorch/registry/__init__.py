"""Classes by name, and the configs that name them."""

from .builtins import DATASETS as DATASETS
from .builtins import MODELS as MODELS
from .config_file import load_config as load_config
from .custom_imports import import_custom as import_custom
from .registry import Registry as Registry
