"""What a candidate costs: counted once from an observed forward, then a table."""

from mutorch.utils import ExampleInputs as ExampleInputs
from mutorch.utils import call as call

from .budget import Budget as Budget
from .count import Costs as Costs
from .count import count as count
from .latency import measure_latency as measure_latency
from .observe import Convention as Convention
from .table import METRICS as METRICS
from .table import CostTable as CostTable
