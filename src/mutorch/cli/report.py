"""The HTML report of a run: one file, no network."""

import io
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from mutorch.errors import LoadError
from mutorch.utils import require


def write_report(folder: Path, *, title: str) -> Path:
    """Write `report.html` into the folder of a finished run. Needs the extra `report`.

    Errors:
        LoadError: the folder holds no finished run.
        MissingExtraError: the extra is not installed.
    """
    jinja2 = require("jinja2", extra="report")
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        lines = (folder / results["log"]).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise LoadError(f"{folder} holds no finished run: {error}; run `mutorch search` first") from error
    logged = [json.loads(line) for line in lines[1:]]
    is_learned = results.get("recipe") == "differentiable"
    template = jinja2.Template((files("mutorch.cli") / "report.html").read_text(encoding="utf-8"), autoescape=True)
    page = template.render(
        title=title,
        results=results,
        # A log writes what is not finite as text.
        trials=[] if is_learned else sorted(logged, key=lambda trial: -float(trial["score"])),
        readings=logged if is_learned else [],
        rounds=results.get("rounds", []),
        settings=json.loads((folder / "settings.json").read_text(encoding="utf-8")),
        metric=results.get("metric", "accuracy"),
        picture=learning_picture(logged) if is_learned else _pareto(logged, results),
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _pareto(trials: list[dict[str, Any]], results: dict[str, Any]) -> str:
    """Accuracy over macs, as SVG: every trial with the supernet's weights, and what was trained alone."""
    rows, metric = results["rows"], results.get("metric", "accuracy")
    figures = require("matplotlib.figure", extra="report")
    figure = figures.Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    points = [(t["costs"][0] / 1e3, 100 * float(t["metrics"][metric])) for t in trials]
    axes.scatter(*zip(*points, strict=True), s=14, color="#9aa5b1", label=f"{len(points)} searched, supernet's weights")
    front = _front(points)
    axes.step(*zip(*front, strict=True), where="post", color="#9aa5b1", linewidth=1, label="their Pareto front")
    runners_up = [row for row in rows if row["role"] == "runner-up"]
    if runners_up:
        axes.scatter(
            *zip(*map(_point, runners_up), strict=True), s=30, color="#74a9d8", label="runners-up, trained alone"
        )
    for row in rows:
        if row["role"] == "runner-up":
            continue
        is_winner = row["role"] == "winner"
        color = "#d9480f" if is_winner else "#1864ab"
        axes.scatter(*_point(row), s=130 if is_winner else 36, marker="*" if is_winner else "o", color=color)
        above = {"xytext": (6, 6)} if is_winner else {"xytext": (6, -12)}
        axes.annotate(row["role"], _point(row), textcoords="offset points", fontsize=8, color=color, **above)
    axes.set(xlabel="thousand macs", ylabel=f"{metric}, %")
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    return _svg(figure, axes)


def learning_picture(readings: list[dict[str, Any]]) -> str:
    """Entropy and the share of skips over a search by gradient, as SVG."""
    figures = require("matplotlib.figure", extra="report")
    figure = figures.Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    numbers = [reading["reading"] for reading in readings]
    axes.plot(numbers, [reading["entropy"] for reading in readings], color="#1864ab", marker="o", label="entropy")
    skips = [reading["skip_share"] for reading in readings]
    axes.plot(numbers, skips, color="#d9480f", marker="o", label="share of operations without weights")
    axes.set(xlabel="reading", ylabel="share", ylim=(-0.03, 1.03))
    axes.legend(loc="lower left", frameon=False, fontsize=8)
    return _svg(figure, axes)


def _svg(figure: Any, axes: Any) -> str:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _point(row: dict[str, Any]) -> tuple[float, float]:
    return row["macs"] / 1e3, 100 * row["test_accuracy"]


def _front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    front: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or accuracy > front[-1][1]:
            front.append((cost, accuracy))
    return front
