"""What a candidate costs: counted once from an observed forward, then a table."""

from mutorch.utils import ExampleInputs as ExampleInputs
from mutorch.utils import call as call

from .budget import Budget as Budget
from .count import METRICS as METRICS
from .count import Costs as Costs
from .count import count as count
from .latency import Measured as Measured
from .latency import measure_latency as measure_latency
from .latency_fit import Accuracy as Accuracy
from .latency_table import LatencyTable as LatencyTable
from .observe import Convention as Convention
from .table import CostTable as CostTable
