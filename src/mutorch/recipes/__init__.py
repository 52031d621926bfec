"""Published methods, each one file that composes the parts below."""

from .differentiable import METHODS as METHODS
from .differentiable import Found as Found
from .differentiable import Method as Method
from .differentiable import differentiable as differentiable
from .differentiable import search_by_gradient as search_by_gradient
from .differentiable import train_alone as train_alone
from .prune import Pruned as Pruned
from .prune import prune as prune
from .prune_settings import PruneSettings as PruneSettings
from .settings import Searching as Searching
from .settings import Settings as Settings
from .settings import Training as Training
from .spos import Data as Data
from .spos import Progress as Progress
from .spos import Result as Result
from .spos import Row as Row
from .spos import Run as Run
from .spos import spos as spos
