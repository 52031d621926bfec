"""What a run shows on the terminal."""

from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Eta
from rich.table import Table

from mutorch.recipes import EnasResult, GradientResult, Pruned, Result, Slim
from mutorch.recipes.spos import SEARCHING
from mutorch.reporting import SearchPanel


class Bars:
    """One progress bar with the time left for each stage, made when the stage begins; below them what a search finds, while it goes on.

    Attributes:
        panel: for `on_trial` of recipes.
    """

    def __init__(self, console: Console) -> None:
        self.panel = SearchPanel()
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description:<26}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            Eta(),
            TextColumn("[dim]{task.fields[note]}"),
        )
        self._stage = ""
        self._live = Live(console=console, get_renderable=self._drawn, refresh_per_second=8)

    def show(self, stage: str, done: int, total: int, note: str) -> None:
        """A `Progress` for recipes."""
        self._stage = stage
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, note=note)
        self._progress.update(self._tasks[stage], completed=done, total=total, note=note)

    def __enter__(self) -> "Bars":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stage = ""
        self._live.stop()
        if not self._live.console.is_interactive:
            self._live.console.print()  # in a file, what is drawn last has no end of line

    def _drawn(self) -> RenderableType:
        if self._stage != SEARCHING or not self.panel.top:
            return self._progress
        return Group(self._progress, Padding(self.panel, (1, 0, 0, 2)))


def result_table(result: Result | GradientResult | EnasResult) -> Table:
    """Winner and baselines, one line each."""
    metric = result.metric if isinstance(result, Result) else "accuracy"
    how = f"budget {result.budget}" if isinstance(result, Result) else result.method
    table = Table(
        title=f"{result.space_size:,} architectures, {how}; every line trained alone, equally long",
        title_justify="left",
        caption=f"{metric} on test data; latency: median of measured forwards of one sample on this machine",
        caption_justify="left",
    )
    for name in ("", "architecture"):
        table.add_column(name)
    for name in (metric, "macs", "params", "latency"):
        table.add_column(name, justify="right")
    for row in result.rows:
        table.add_row(
            row.role,
            " ".join(str(choice) for choice in row.architecture.values()),
            f"{100 * row.test_accuracy:.1f}%",
            f"{row.macs:,}",
            f"{row.params:,}",
            f"{row.latency_ms:.2f} ms",
            style="bold" if row.role == "winner" else None,
        )
    return table


def pruned_table(result: Pruned) -> Table:
    """Before and after, a line for each figure."""
    shrunk = result.shrunk
    table = Table(
        title=f"budget {shrunk.budget}; finetuned {shrunk.steps} steps",
        title_justify="left",
        caption="latency: median of measured forwards of one sample on this machine; accuracy on test data",
        caption_justify="left",
    )
    table.add_column("")
    for name in ("before", "after", "ratio"):
        table.add_column(name, justify="right")
    for metric, before in shrunk.comparison.first.items():
        after = shrunk.comparison.second[metric]
        table.add_row(metric, f"{before:,.6g}", f"{after:,.6g}", f"{after / before:.2f}")
    original, pruned = result.test_accuracy
    shown = "" if original is None else f"{100 * original:.1f}%"
    table.add_row("accuracy", shown, f"{100 * pruned:.1f}%", "", style="bold")
    for stage, score in shrunk.scores.items():
        table.add_row(f"validation, {stage}", "", f"{100 * score:.1f}%", "", style="dim")
    return table


def slim_table(result: Slim) -> Table:
    """The whole network and a subnet for each budget, one line each."""
    table = Table(
        title=f"{result.recipe}: one network, trained for {result.passes:,} passes",
        title_justify="left",
        caption="accuracy on test data, with the weights that all sizes share",
        caption_justify="left",
    )
    table.add_column("budget")
    is_finetuned = any(row.finetuned for row in result.rows)
    for name in ("macs", "params", "accuracy", *(["finetuned"] if is_finetuned else [])):
        table.add_column(name, justify="right")
    for row in result.rows:
        finetuned = [] if row.finetuned is None else [f"{100 * row.finetuned[1]:.1f}%"]
        table.add_row(row.budget, f"{row.macs:,}", f"{row.params:,}", f"{100 * row.test_accuracy:.1f}%", *finetuned)
    return table
