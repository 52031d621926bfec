"""The report of a finished run, or of a bare log."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mutorch.cost import Measured
from mutorch.errors import LoadError
from mutorch.reporting import Picture, Section, Table, architecture_figure, write_page, write_report
from mutorch.search import History, read_history
from mutorch.search.plots import pareto_figure
from mutorch.search.plots.drawing import choice_text, legend_above, new_figure, quiet
from mutorch.space import SearchSpace
from mutorch.subnet import Remeasured


def report_run(path: Path, *, title: str) -> Path:
    """Write the report of a run's folder into it, or that of a log into a folder beside it. Needs the extra `report`.

    Args:
        path: the output folder of `mutorch search`, or a log of any search.
        title: of the page.

    Errors:
        LoadError: the folder holds no finished run.
        ResumeError: no log, or a damaged one.
        MissingExtraError: the extra is not installed.
    """
    if ":/" in str(path):
        raise LoadError(
            f"{path} is a storage that machines share: call the search again, which returns its history, and mutorch.reporting.write_report"
        )
    if not path.exists():
        raise LoadError(f"there is no folder or log {path}")
    if path.is_file():
        return _report_log(path, title)
    results, settings = _read(path, "results.json"), _read(path, "settings.json")
    space = SearchSpace.from_json(json.dumps(results["space"])) if "space" in results else None
    if results.get("recipe") == "differentiable":
        return _report_learning(path, title, results, settings, space)
    measured = {int(index): _remeasured(one) for index, one in results.get("measured", {}).items()}
    history = replace(read_history(path / results["log"]), measured=measured)
    metric = results.get("metric", "accuracy")
    return write_report(
        history,
        path,
        title=title,
        space=space,
        winner=results["rows"][0]["architecture"],
        settings=settings,
        sections=[_trained_alone(results, metric, settings["seed"], history), *_rounds(results.get("rounds", []))],
        notes=["Scored with the supernet's shared weights, which ranks subnets; it is not what they reach."],
    )


def _remeasured(one: Mapping[str, Any]) -> Remeasured:
    return Remeasured(**{**one, "measured": Measured(**one["measured"])})


def _read(folder: Path, name: str) -> Any:
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except OSError as error:
        raise LoadError(f"{folder} holds no finished run: {error}; run `mutorch search` first") from error


def _report_log(path: Path, title: str) -> Path:
    history = read_history(path)
    notes = ["The line that ends a log is missing: the search still runs, or was killed, or the log was cut."]
    return write_report(
        history, path.with_name(f"{path.stem}-report"), title=title, notes=notes if history.interrupted else []
    )


def _report_learning(
    folder: Path, title: str, results: Mapping[str, Any], settings: Mapping[str, Any], space: SearchSpace | None
) -> Path:
    """A search by gradient has no trials, but readings of what is learned."""
    lines = (folder / results["log"]).read_text(encoding="utf-8").splitlines()
    readings = [json.loads(line) for line in lines[1:]]
    winner = results["rows"][0]["architecture"]
    picture = Picture("architecture", architecture_figure(winner, space), "the winner's choices")
    sections = [
        _trained_alone(results, "accuracy", settings["seed"]),
        _learning(readings),
        Section("The winner", picture, code=json.dumps(winner)),
        Section("Settings", code=json.dumps(settings, indent=2)),
    ]
    return write_page(folder / "report.html", title, f"Method: {results['method']}.", sections)


def _trained_alone(results: Mapping[str, Any], metric: str, seed: int, history: History | None = None) -> Section:
    rows = results["rows"]
    head = ("", "architecture", f"test {metric}", f"validation {metric}", "macs", "params", "latency")
    cells = [
        [
            row["role"],
            _choices(row["architecture"]),
            f"{row['test_accuracy']:.1%}",
            f"{row['val_accuracy']:.1%}",
            f"{row['macs']:,}",
            f"{row['params']:,}",
            f"{row['latency_ms']:.2f} ms",
        ]
        for row in rows
    ]
    how = f"Method: {results['method']}." if "method" in results else f"Budget: {results['budget']}."
    text = [
        f"{how} Seed {seed}.",
        *(["The winner is the best on validation data among the best of the search."] if history is not None else []),
        "Test data were not used to choose. Latency: median of measured forwards of one sample, on the machine that ran this.",
    ]
    picture = None
    if history is not None:
        alone = {
            f"{row['role']}, alone": {metric: row["test_accuracy"], "macs": row["macs"]} for row in _distinct(rows)
        }
        figure = pareto_figure(history, "macs", metric, baselines=alone)
        picture = Picture("alone", figure, f"{metric} over macs, in the search and trained alone")
        text.insert(
            1,
            f"Dots: validation {metric} with shared weights. Black: test {metric} after training alone, from fresh weights.",
        )
    return Section(
        "Trained alone, equally long",
        picture,
        Table(head, cells, frozenset(range(2, 7)), frozenset({0})),
        text,
    )


def _distinct(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Runners-up share a role; numbered, each is drawn."""
    names: dict[str, int] = {}
    found = []
    for row in rows:
        names[row["role"]] = names.get(row["role"], 0) + 1
        number = names[row["role"]]
        found.append({**row, "role": row["role"] if number == 1 else f"{row['role']} {number}"})
    return found


def _rounds(rounds: Sequence[Mapping[str, Any]]) -> list[Section]:
    if not rounds:
        return []
    cells = [
        [
            str(one["number"]),
            _choices(one["architecture"]),
            f"{one['loss']:.3f}",
            f"{one['reward']:.3f}",
            f"{one['entropy']:.2f}",
        ]
        for one in rounds
    ]
    head = ("round", "likeliest", "loss of the weights", "reward", "entropy")
    text = [
        "Reward: accuracy of samples on validation batches, with the shared weights. Entropy, in nats, falls as the controller "
        "decides; if it does not, what is proposed is much like random."
    ]
    return [Section("How the controller was trained", table=Table(head, cells, frozenset({0, 2, 3, 4})), text=text)]


def _learning(readings: Sequence[Mapping[str, Any]]) -> Section:
    """Entropy and the share of skips over a search by gradient."""
    figure = new_figure(8, 3.2)
    axes = figure.subplots()
    numbers = [reading["reading"] for reading in readings]
    axes.plot(numbers, [reading["entropy"] for reading in readings], color="#1864ab", marker="o", label="entropy")
    skips = [reading["skip_share"] for reading in readings]
    axes.plot(numbers, skips, color="#d9480f", marker="o", label="share of operations without weights")
    axes.set(xlabel="reading", ylabel="share", ylim=(-0.03, 1.03))
    quiet(axes)
    legend_above(figure, axes)
    cells = [
        [
            str(reading["reading"]),
            _choices(reading["architecture"]),
            f"{reading['entropy']:.2f}",
            f"{reading['skip_share']:.0%}",
        ]
        for reading in readings
    ]
    head = ("reading", "most probable", "entropy", "without weights")
    text = [
        "Entropy 1 is undecided, 0 decided. Many operations without weights are a sign of collapse; look at the random "
        "architecture beside the winner."
    ]
    picture = Picture("learning", figure, "entropy and the share of operations without weights, over readings")
    return Section("How it was learned", picture, Table(head, cells, frozenset({0, 2, 3})), text)


def _choices(architecture: Mapping[str, Any]) -> str:
    return " ".join(choice_text(choice, 40) for choice in architecture.values())
