"""Published methods, each one file that composes the parts below."""

from .data import Batches as Batches
from .data import Data as Data
from .data import Splits as Splits
from .differentiable import differentiable as differentiable
from .differentiable import train_alone as train_alone
from .gradient_run import GradientResult as GradientResult
from .gradient_run import run_differentiable as run_differentiable
from .gradient_search import Found as Found
from .gradient_search import search_by_gradient as search_by_gradient
from .gradient_settings import GradientSearching as GradientSearching
from .gradient_settings import GradientSettings as GradientSettings
from .methods import METHODS as METHODS
from .methods import Method as Method
from .methods import as_method as as_method
from .progress import Progress as Progress
from .prune import Pruned as Pruned
from .prune import prune as prune
from .prune_settings import PruneSettings as PruneSettings
from .settings import Searching as Searching
from .settings import Settings as Settings
from .settings import Training as Training
from .spos import Result as Result
from .spos import Row as Row
from .spos import Run as Run
from .spos import spos as spos
