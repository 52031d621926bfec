"""What a search found, for people: a report, a run card, a live view, loggers."""

from .architecture import architecture_figure as architecture_figure
from .live import LiveView as LiveView
from .mlflow_logger import MLflowLogger as MLflowLogger
from .page import Picture as Picture
from .page import Section as Section
from .page import Table as Table
from .page import write_page as write_page
from .panel import SearchPanel as SearchPanel
from .report import write_report as write_report
from .run_card import run_card as run_card
from .tensorboard_logger import TensorBoardLogger as TensorBoardLogger
