"""Make any PyTorch model searchable, train it once, search it under a budget, take home a plain model."""

from mutorch import errors as errors
from mutorch import nn as nn
from mutorch import training as training
from mutorch.channels import depth as depth
from mutorch.channels import register_label_rule as register_label_rule
from mutorch.channels import report as report
from mutorch.channels import searchable as searchable
from mutorch.channels import set_mode_ as set_mode_
from mutorch.channels import widths as widths
from mutorch.cost import Budget as Budget
from mutorch.cost import CostTable as CostTable
from mutorch.cost import LatencyTable as LatencyTable
from mutorch.cost import count as count
from mutorch.errors import MutorchError as MutorchError
from mutorch.mutables import DerivedMutable as DerivedMutable
from mutorch.mutables import InputChoice as InputChoice
from mutorch.mutables import LayerChoice as LayerChoice
from mutorch.mutables import MutableScope as MutableScope
from mutorch.mutables import MutableValue as MutableValue
from mutorch.mutables import OneShotMutableOP as OneShotMutableOP
from mutorch.mutables import OneShotMutableValue as OneShotMutableValue
from mutorch.mutables import Require as Require
from mutorch.mutables import ValueChoice as ValueChoice
from mutorch.mutators import Mutator as Mutator
from mutorch.pruning import sensitivity as sensitivity
from mutorch.pruning import shrink as shrink
from mutorch.search import search as search  # the function: `from mutorch.search import History` works all the same
from mutorch.space import SearchSpace as SearchSpace
from mutorch.subnet import LatencyRunner as LatencyRunner
from mutorch.subnet import check as check
from mutorch.subnet import compare as compare
from mutorch.subnet import export as export
from mutorch.subnet import freeze as freeze
from mutorch.subnet import latency_table as latency_table
from mutorch.subnet import load as load
from mutorch.subnet import remeasure as remeasure
from mutorch.subnet import save as save
from mutorch.subnet import save_program as save_program
from mutorch.subnet import shrink_like as shrink_like
from mutorch.subnet import to_onnx as to_onnx

__version__ = "0.1.0"
