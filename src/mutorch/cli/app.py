"""The commands."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape

from mutorch.errors import ConfigError, InfeasibleBudgetError, MutorchError, nearest
from mutorch.recipes import (
    DCFFSettings,
    DetNASRun,
    DetNASSettings,
    DMCPSettings,
    EnasResult,
    EnasRun,
    EnasSettings,
    GradientResult,
    GradientSettings,
    Pruned,
    PruneSettings,
    Result,
    Run,
    Settings,
    SlimmableSettings,
    dcff,
    detnas,
    dmcp,
    enas,
    run_differentiable,
    slimmable,
    spos,
)
from mutorch.recipes import prune as prune_model
from mutorch.recipes.gradient_run import parts_of
from mutorch.recipes.slimmable_settings import RECIPES as SLIMMABLE
from mutorch.registry import import_custom, load_config
from mutorch.search import profile
from mutorch.search import repair as repair_log
from mutorch.subnet import export as export_subnet
from mutorch.subnet import save, save_program, to_onnx
from mutorch.training import recalibrate_

from .doctor import diagnose
from .program_check import check_program
from .report import report_run
from .screen import Bars, pruned_table, result_table, slim_table

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Make a PyTorch model searchable, search it under a budget, take home a plain model.",
)
console = Console()

PRUNERS: dict[str, tuple[Any, Callable[..., Pruned]]] = {
    "prune": (PruneSettings, prune_model),
    "dcff": (DCFFSettings, dcff),
    "dmcp": (DMCPSettings, dmcp),
}
"""The recipes of `mutorch prune`: what reads their settings, and what runs them."""

Searched = Settings | DetNASSettings | GradientSettings | EnasSettings
"""What `mutorch search` runs."""

SETTINGS: dict[str, Any] = {
    "spos": Settings,
    "detnas": DetNASSettings,
    "differentiable": GradientSettings,
    "enas": EnasSettings,
}
"""The recipes of `mutorch search`, and what reads their settings."""

RECIPES = {
    **dict.fromkeys(SETTINGS, "search"),
    **dict.fromkeys(PRUNERS, "prune"),
    **dict.fromkeys(SLIMMABLE, "slim"),
}
"""What a config's `recipe` may be, and the command that runs it."""

ConfigFile = Annotated[Path, typer.Argument(help="A .yaml or .py config, e.g. examples/digits.yaml.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Folder of the run, instead of the config's.")]


@app.command()
def search(config: ConfigFile, output: Output = None) -> None:
    """Train a supernet, search it, retrain and export the winner, write a report.

    One-shot under a budget; a detector's backbone where the config says `recipe: detnas`, by gradient where it says
    `recipe: differentiable`, with a controller where it says `recipe: enas`. The same line goes on where it was stopped; a
    finished run is shown again.
    """
    settings, folder = _read_any(config, output)
    with Bars(console) as bars:
        result = _searched(settings, folder, bars)
        bars.show("checking the exported file", 0, 1, "")
        off = check_program(result.program_file, result.subnet, result.example_inputs)
        report_file = report_run(folder, title=f"{config.stem}: {_kind(settings)} search")
        bars.show("checking the exported file", 1, 1, "")
    console.print(result_table(result))
    _say("checked", f"{result.program_file} loads without mutorch; outputs differ by at most {off:.1g}")
    _say("report", str(report_file))
    console.print("\nnext:")
    run_of = f"{config}" + (f" --output {output}" if output else "")
    _line(f"mutorch export {run_of} --to {folder / 'winner.onnx'}")
    _line(f"python -c \"import torch; print(torch.export.load('{result.program_file}').module())\"")
    _line(f"mutorch search mine.yaml  # a copy of {config} with your model, your data and another output")


@app.command()
def train(config: ConfigFile, output: Output = None) -> None:
    """Train the supernet alone; `search` and `export` go on from there."""
    settings, folder = _read(config, output)
    with Bars(console) as bars:
        _run_of(settings, folder, bars).train_supernet()
    _say("trained", str(folder / "supernet.ckpt"))
    console.print("\nnext:")
    _line(f"mutorch search {config}" + (f" --output {output}" if output else ""))


@app.command()
def export(
    config: ConfigFile,
    to: Annotated[Path, typer.Option(help="A file: .safetensors, .pt, .pt2 (torch.export) or .onnx.")],
    architecture: Annotated[
        str | None, typer.Option(help="Decision to choice, as JSON text or a .json file; the winner if not given.")
    ] = None,
    output: Output = None,
) -> None:
    """Export a subnet: the winner as it was retrained, or any architecture with the supernet's weights."""
    settings, folder = _read_any(config, output)
    if to.suffix not in (".safetensors", ".pt", ".pt2", ".onnx"):
        raise ConfigError(f"cannot export to {to.name!r}; write a .safetensors, .pt, .pt2 or .onnx file")
    with Bars(console) as bars:
        run = _run_of(settings, folder, bars)
        chosen = {} if architecture is None else _architecture(architecture)
        if architecture is None:
            result = _searched(settings, folder, bars)
            subnet, chosen = result.subnet, result.rows[0].architecture
        else:
            run.mutator.space.validate(chosen)
            if isinstance(settings, GradientSettings):
                net: Any = run_differentiable(settings, folder, progress=bars.show).net
            else:
                run.train_supernet()
                net = run.net
            subnet = export_subnet(net, chosen)
            recalibrate_(subnet, run.calibration_batches())
        example = run.data.example_inputs
    if to.suffix == ".onnx":
        to_onnx(subnet, to, torch.cat([example] * 2))
    elif to.suffix == ".pt2":
        save_program(subnet, to, torch.cat([example] * 2))
    else:
        save(subnet, to, architecture=chosen)
    _say("exported", f"{to}  {json.dumps(chosen)}")


@app.command()
def prune(config: ConfigFile, output: Output = None) -> None:
    """Prune a trained model to a budget: rank channels, cut, recalibrate, finetune; write the smaller model and a table.

    The config names the model, the data and the budget, and the model's weights, or how to train it first. With `recipe: dcff`
    or `recipe: dmcp` in it, the model is trained and pruned at once, as these papers have it.
    """
    content, folder = _content(config, output, *PRUNERS)
    kind, recipe = PRUNERS[content.get("recipe", "prune")]
    settings = kind.from_config(content)
    with Bars(console) as bars:
        result = recipe(settings, folder, progress=bars.show)
    console.print(pruned_table(result))
    _say("widths", json.dumps(result.shrunk.architecture))
    _say("saved", str(result.subnet_file))
    _say("report", str(result.report_file))
    console.print("\nnext:")
    _line(f"python -c \"import mutorch; print(mutorch.subnet.read_record('{result.subnet_file}'))\"")
    _line(
        f"mutorch.load('{result.subnet_file}', build)  # in Python: build makes the original; the file cuts and fills it"
    )


@app.command()
def slim(config: ConfigFile, output: Output = None) -> None:
    """Train one network of many sizes and take home a plain model for each budget, without training each alone.

    The config says which way: `recipe: slimmable`, `us-net`, `autoslim`, `bignas` or `ofa`. The same line goes on where it was
    stopped; other budgets are met with the network that was trained, unless it is slimmable, which is made for its budgets.
    """
    content, folder = _content(config, output, *SLIMMABLE)
    with Bars(console) as bars:
        result = slimmable(SlimmableSettings.from_config(content), folder, progress=bars.show)
    console.print(slim_table(result))
    for row in result.rows[1:]:
        _say("saved", f"{folder / row.file}  {json.dumps(row.architecture)}")
    console.print("\nnext:")
    _line(f"mutorch.load('{folder / result.rows[-1].file}', build)  # in Python: build makes the original")
    if result.recipe != "slimmable":
        _line(f"mutorch slim {config}  # with other budgets in it: the network stays as it was trained")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="The output folder of a finished run, or the log of any search.")],
) -> None:
    """Write the HTML report of a finished run again, or that of a log, also while its search runs."""
    _say("report", str(report_run(run, title=f"{run.stem}: search")))


@app.command()
def space(config: ConfigFile) -> None:
    """Show the search space of a config's model, what its architectures cost, and how many are within the budget."""
    run = _run_of(*_read_any(config, None))
    console.print(run.table.space.report(), highlight=False, markup=False)
    try:
        costs = profile(run.table, run.budget)
    except InfeasibleBudgetError:
        console.print(str(profile(run.table)), highlight=False, markup=False, soft_wrap=True)
        raise
    console.print(str(costs), highlight=False, markup=False, soft_wrap=True)


@app.command()
def repair(
    log: Annotated[Path, typer.Argument(help="The log of a search, e.g. run.jsonl.")],
    keep_following: Annotated[
        bool, typer.Option(help="Keep also what comes after the first wrong line, where it is as it was written.")
    ] = False,
) -> None:
    """Take out of a damaged log what cannot be trusted, so that its search goes on; what is taken out is kept beside it."""
    console.print(str(repair_log(log, keep_following=keep_following)), highlight=False, soft_wrap=True, markup=False)


@app.command()
def doctor() -> None:
    """Versions, devices and extras: what is on, what is off and why. Paste it into bug reports."""
    console.print(diagnose(), highlight=False, soft_wrap=True, markup=False)


def run() -> None:
    """The entry point: errors of mutorch are a line, not a traceback."""
    try:
        app()
    except MutorchError as error:
        for line in (str(error), *getattr(error, "__notes__", [])):
            console.print(f"[red]error[/] {escape(line)}", soft_wrap=True, highlight=False)
        sys.exit(2)


def _read(config: Path, output: Path | None) -> tuple[Settings, Path]:
    content, folder = _content(config, output, "spos", "detnas")
    return SETTINGS[content.get("recipe", "spos")].from_config(content), folder


def _read_any(config: Path, output: Path | None) -> tuple[Searched, Path]:
    content, folder = _content(config, output, *SETTINGS)
    return SETTINGS[content.get("recipe", "spos")].from_config(content), folder


def _searched(settings: Searched, folder: Path, bars: Bars) -> Result | GradientResult | EnasResult:
    if isinstance(settings, GradientSettings):
        return run_differentiable(settings, folder, progress=bars.show)
    if isinstance(settings, EnasSettings):
        return enas(settings, folder, progress=bars.show, on_trial=[bars.panel])
    if isinstance(settings, DetNASSettings):
        return detnas(settings, folder, progress=bars.show, on_trial=[bars.panel])
    return spos(settings, folder, progress=bars.show, on_trial=[bars.panel])


def _run_of(settings: Searched, folder: Path, bars: Bars | None = None) -> Run:
    show = None if bars is None else bars.show
    if isinstance(settings, EnasSettings):
        return EnasRun(settings, folder, show)
    if isinstance(settings, DetNASSettings):
        return DetNASRun(settings, folder, show)
    return parts_of(settings, folder, show) if isinstance(settings, GradientSettings) else Run(settings, folder, show)


def _kind(settings: Searched) -> str:
    kinds = {GradientSettings: "differentiable", EnasSettings: "controller"}
    return kinds.get(type(settings), "one-shot")


def _content(config: Path, output: Path | None, *expected: str) -> tuple[dict[str, Any], Path]:
    content: dict[str, Any] = load_config(config)
    recipe = content.get("recipe", expected[0])
    if recipe not in RECIPES:
        raise ConfigError(f"no recipe {recipe!r}; {nearest(recipe, RECIPES)}")
    if recipe not in expected:
        raise ConfigError(f"{config} is for `mutorch {RECIPES[recipe]}`: its recipe is {recipe!r}")
    # Modules that a config names may lie beside it.
    sys.path.insert(0, str(config.resolve().parent))
    import_custom(content)
    return content, output or Path(content.get("output", Path("runs") / config.stem))


def _architecture(text: str) -> dict[str, Any]:
    path = Path(text)
    try:
        content = json.loads(path.read_text(encoding="utf-8") if path.suffix == ".json" else text)
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"cannot read the architecture {text!r}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"an architecture is a JSON object from decision to choice, got {text!r}")
    return content


def _say(what: str, text: str) -> None:
    console.print(f"[green]{what:<9}[/]{escape(text)}", soft_wrap=True, highlight=False)


def _line(text: str) -> None:
    console.print(f"  {escape(text)}", soft_wrap=True, highlight=False)
