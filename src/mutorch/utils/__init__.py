"""Small helpers that know nothing of search spaces or models."""

from .checkpointing import checkpointed as checkpointed
from .class_path import str2class as str2class
from .differences import differences as differences
from .divisible import make_divisible as make_divisible
from .evaluating import evaluating as evaluating
from .example_inputs import ExampleInputs as ExampleInputs
from .example_inputs import call as call
from .latest_checkpoint import find_latest_checkpoint as find_latest_checkpoint
from .multi_processes import setup_multi_processes as setup_multi_processes
from .optional_library import get_package_placeholder as get_package_placeholder
from .optional_library import get_placeholder as get_placeholder
from .optional_library import require as require
from .parameters import get_module_device as get_module_device
from .parameters import has_weights as has_weights
from .parameters import set_requires_grad as set_requires_grad
from .prefix import add_prefix as add_prefix
from .ranges import IndexDict as IndexDict
from .ranges import RangeError as RangeError
from .ranges import parse_values as parse_values
from .register_modules import register_all_modules as register_all_modules
from .rewriter_record import pop_rewriter_function_record as pop_rewriter_function_record
from .runtime_info import RuntimeInfo as RuntimeInfo
from .runtime_info import RuntimeInfoError as RuntimeInfoError
from .tensors_in import tensors_in as tensors_in
from .unchanged import unchanged as unchanged
from .whole_file import whole_file as whole_file
