"""The table of what a config can name without any import, and the registries that read it."""

from torch import nn
from torch.utils.data import Dataset

from .registry import Registry

MODEL_MODULES = {
    "OneShotMutableOP": "mutorch.mutables",
    "DiffMutableOP": "mutorch.mutables",
    "OneHotMutableOP": "mutorch.mutables",
    "DiffChoiceRoute": "mutorch.mutables",
    "GumbelChoiceRoute": "mutorch.mutables",
    "MutableEdge": "mutorch.mutables",
    "DifferentiableEdge": "mutorch.mutables",
    "GumbelEdge": "mutorch.mutables",
    "MutableValue": "mutorch.mutables",
    "OneShotMutableValue": "mutorch.mutables",
    "SimpleMutableChannel": "mutorch.mutables",
    "SequentialMutableChannel": "mutorch.mutables",
    "SquentialMutableChannel": "mutorch.mutables",
    "OneShotMutableChannel": "mutorch.mutables",
    "MutableChannelContainer": "mutorch.mutables",
    "Mutator": "mutorch.mutators",
    "ShuffleBlock": "mutorch.models",
    "ShuffleXception": "mutorch.models",
    "MBBlock": "mutorch.models",
    "Identity": "mutorch.models",
    "SearchableShuffleNetV2": "mutorch.models",
    "SearchableMobileNetV2": "mutorch.models",
    "ImageClassifier": "mutorch.models",
    "LinearClsHead": "mutorch.models",
    "ChainNet": "mutorch.models",
    "DartsZero": "mutorch.models",
    "DartsSkipConnect": "mutorch.models",
    "DartsPoolBN": "mutorch.models",
    "DartsDilConv": "mutorch.models",
    "DartsSepConv": "mutorch.models",
    "DartsBackbone": "mutorch.models",
    "DartsClsHead": "mutorch.models",
    "NB201Conv": "mutorch.models",
    "NB201AvgPool": "mutorch.models",
    "NB201Net": "mutorch.models",
}
"""Class name -> the module that has it. The module is imported when the class is first built."""

DATASET_MODULES = {"ClutteredDigits": "mutorch.testing"}

MODELS = Registry("models", kind=nn.Module, builtins=MODEL_MODULES, torch_names=nn)
DATASETS = Registry("datasets", kind=Dataset, builtins=DATASET_MODULES)
