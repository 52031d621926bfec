"""Published methods, each one file that composes the parts below."""

from .settings import Searching as Searching
from .settings import Settings as Settings
from .settings import Training as Training
from .spos import Data as Data
from .spos import Progress as Progress
from .spos import Result as Result
from .spos import Row as Row
from .spos import Run as Run
from .spos import spos as spos
