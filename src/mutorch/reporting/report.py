"""The report of a search: one HTML file, the pictures beside it, and the run card as JSON."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from mutorch.cost import CostTable
from mutorch.errors import StateError
from mutorch.mutators import Mutator
from mutorch.search import History
from mutorch.search.plots import (
    hypervolume_figure,
    parallel_figure,
    pareto_figure,
    preference_figure,
    progress_figure,
)
from mutorch.search.plots.importance import distinct
from mutorch.search.repeat import Repeated
from mutorch.space import Decision, SearchSpace
from mutorch.utils import whole_file

from .architecture import architecture_figure
from .figures import has_choices, has_front, has_volume
from .page import Picture, Section, Table, write_page
from .run_card import readable, run_card
from .tables import facts, trial_table

_BEST, _FRONT = 10, 30
_MANY = 400


def write_report(
    history: History,
    folder: str | os.PathLike[str],
    *,
    title: str = "Search",
    space: SearchSpace | None = None,
    mutator: Mutator | None = None,
    table: CostTable | None = None,
    subnet: nn.Module | None = None,
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    baseline: History | None = None,
    repeated: Repeated | None = None,
    winner: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    wall_seconds: float | None = None,
    code: str | os.PathLike[str] = ".",
    sections: Sequence[Section] = (),
    notes: Sequence[str] = (),
) -> Path:
    """Write `report.html`, its pictures as PNGs, and `card.json` into a folder; returns the page. Needs the extra `report`.

    The page is one file that needs neither scripts nor network: what was searched, the best trials, the Pareto front, figures with how
    to read them, the winner drawn, the run card.

    Args:
        history: what `search` returned, or `read_history` of its log.
        space: of the search; that of `mutator` or `table` unless given. Without any, choices that no trial took are not shown.
        table: for the costs of the largest and the smallest architecture.
        subnet: the exported winner, whose parts are listed.
        baselines: points of the Pareto picture: `{"ResNet-18": {"accuracy": 0.89, "macs": 1.8e9}}`.
        baseline: another search, of `strategy="random"` say.
        repeated: what `mutorch.search.repeat` returned.
        winner: the architecture to draw, where it is not that of the best trial.
        settings: shown as they are.
        wall_seconds: how long all of it took, for the card.
        code: the folder of your code, for its revision in the card.
        sections: of your own; they come first.
        notes: lines below the first table.

    Errors:
        StateError: no trials.
        SpaceError, ChoiceError: the space is not that of the search.
        MissingExtraError: the extra is not installed.

    Example:
        >>> import tempfile
        >>> from mutorch.search import search_space
        >>> from mutorch.space import Decision
        >>> space = SearchSpace([Decision("depth", (1, 2, 3)), Decision("width", (8, 16))])
        >>> history = search_space(space, lambda a: a["depth"] * a["width"], num_trials=6)
        >>> page = write_report(history, tempfile.mkdtemp(), space=space)
        >>> sorted(path.name for path in page.parent.iterdir())
        ['architecture.png', 'card.json', 'parallel.png', 'preferences.png', 'progress.png', 'report.html']
    """
    if not history.trials:
        raise StateError("the search has no trials yet, so there is nothing to report")
    space = space or (None if mutator is None else mutator.space) or (None if table is None else table.space)
    if space is not None:
        space.validate_choices(history.best.architecture)
    folder = Path(folder)
    card = run_card(
        history,
        space=space,
        table=table,
        baseline=baseline,
        repeated=repeated,
        folder=code,
        wall_seconds=wall_seconds,
    )
    content = [
        *sections,
        _searched(history, card, notes),
        *_front(history, baselines),
        *_measured(history),
        *_figures(history, space, baseline),
        _winner(history, winner, space),
        *_parts(subnet),
        Section("Run card", table=facts(readable(card)), text=["The same as data: card.json beside this page."]),
        _checklist(card),
        *_settings(settings),
    ]
    with whole_file(folder / "card.json") as partial:
        partial.write_text(json.dumps(_json(card), indent=1), encoding="utf-8")
    return write_page(folder / "report.html", title, _subtitle(card), content)


def _subtitle(card: Mapping[str, Any]) -> str:
    size = card["space"].get("size")
    of = f" of {size:,}" if size is not None else ""
    goals = ", ".join(
        f"less {name.removeprefix('-')}" if name.startswith("-") else f"more {name}" for name in card["objectives"]
    )
    return f"{card['trials']:,}{of} architectures evaluated with {card['strategy'] or 'a strategy of its own'}, for {goals}; best {card['best']['score']:.6g}."


def _searched(history: History, card: Mapping[str, Any], notes: Sequence[str]) -> Section:
    text = [f"The {min(_BEST, len(history))} best of {len(history):,} trials."]
    if card["failed"] or card["infeasible"] or card["without_number"]:
        text.append(
            f"{card['failed']} failed, {card['infeasible']} broke constraints, {card['without_number']} gave no finite number; "
            "they rank last."
        )
    if card["random"] is not None and card["random"]["best"] is not None and card["strategy"] != "random":
        one = card["random"]
        text.append(
            f"Its first {one['trials']} trials are random: the best of them has {one['best']:.6g}, and the best of all "
            f"{card['best']['score']:.6g}."
        )
    return Section("The best", table=trial_table(history, history.top(_BEST)), text=[*text, *notes])


def _front(history: History, baselines: Mapping[str, Mapping[str, float]] | None) -> list[Section]:
    if not has_front(history):
        return []
    front = history.pareto()
    figure = pareto_figure(history, baselines=baselines)
    drawn = Section(
        "Pareto front",
        Picture("pareto", figure, f"{len(history)} trials and the {len(front)} of the Pareto front"),
        trial_table(history, front[:_FRONT]),
        [
            f"Blue: no other trial is better in everything. Beyond the line nothing was found. {_many(history)}",
            *([f"The first {_FRONT} of {len(front)} trials of the front."] if len(front) > _FRONT else []),
        ],
    )
    return [drawn]


def _measured(history: History) -> list[Section]:
    """The latency of the best, where a runner measured it again."""
    words = {True: "within", False: "outside", None: ""}
    rows = [
        [
            str(index),
            f"{one.measured.median_ms:.4g} ms",
            "" if one.predicted_ms is None else f"{one.predicted_ms:.4g} ms",
            "" if one.off is None else f"{one.off:+.1%}",
            words[one.within],
        ]
        for index, one in history.measured.items()
    ]
    table = Table(("trial", "measured", "predicted", "off", "the bound"), rows, frozenset({0, 1, 2, 3}))
    return [Section("Latency, measured again", table=table)] if rows else []


def _figures(history: History, space: SearchSpace | None, baseline: History | None) -> list[Section]:
    found = [
        Section(
            "Progress",
            Picture(
                "progress", progress_figure(history, baseline=baseline), "the score of each trial, and the best so far"
            ),
            text=[
                "Dots: trials. Blue: the best so far. A line that still rises at its end says that more trials would help; one "
                f"that stays at the dotted line says that random search was as good. {_many(history)}"
            ],
        )
    ]
    if has_volume(history):
        figure = hypervolume_figure(history, baseline=baseline)
        text = ["How much of the objectives the front covers, from the worst trial on; flat: nothing new was found."]
        found.append(Section("Hypervolume", Picture("hypervolume", figure, "the hypervolume over trials"), text=text))
    if has_choices(history):
        figure = preference_figure(history, space=space)
        text = [
            "What the best trials chose, beside what all trials chose: a longer bar than its mark, or blue, is preferred. "
            "“Explains”: the share of the differences in score that this decision explains alone."
        ]
        found.append(
            Section(
                "What decisions prefer",
                Picture("preferences", figure, "choices among the best trials and among all"),
                text=text,
            )
        )
        lines = parallel_figure(history, space=space)
        text = [
            "A line for each trial, coloured by score, through the decisions that explain most, costs and objectives; better is "
            "up. Orange: the best. Lines of one colour that run together are what good architectures share. "
            f"{_many(history)}"
        ]
        found.append(
            Section("All trials", Picture("parallel", lines, "trials as lines through decisions and scores"), text=text)
        )
    return found


def _winner(history: History, winner: Mapping[str, Any] | None, space: SearchSpace | None) -> Section:
    architecture = history.best.architecture if winner is None else winner
    if not architecture:
        return Section("The winner", text=["The space has no decisions."])
    others = "what else could have been" if space is not None else "what other trials chose"
    space = space or _seen([*(trial.architecture for trial in history.trials), architecture], architecture)
    picture = Picture("architecture", architecture_figure(architecture, space), "the winner's choices")
    text = [f"Blue: what was chosen; grey: {others}."]
    return Section("The winner", picture, text=text, code=json.dumps(architecture))


def _seen(architectures: Sequence[Mapping[str, Any]], names: Iterable[str]) -> SearchSpace:
    """A space of the choices that were taken, where nobody says what else there was."""
    return SearchSpace(
        Decision(name, tuple(distinct(one[name] for one in architectures if name in one))) for name in names
    )


def _parts(subnet: nn.Module | None) -> list[Section]:
    if subnet is None:
        return []
    parts = [(name, child) for name, child in subnet.named_children()]
    total = max(sum(p.numel() for p in subnet.parameters()), 1)
    rows = []
    for name, child in parts:
        count = sum(p.numel() for p in child.parameters())
        rows.append([name, type(child).__name__, f"{count:,}", f"{count / total:.0%}"])
    table = Table(("part", "class", "parameters", "share"), rows, frozenset({2, 3}))
    text = [f"A {type(subnet).__name__} of {total:,} parameters."]
    return [Section("The winner as a model", table=table, text=text)]


def _checklist(card: Mapping[str, Any]) -> Section:
    words = {"yes": "yes", "missing": "missing", "yours": "yours to say"}
    rows = [[item["question"], words[item["status"]], item["detail"]] for item in card["checklist"]]
    missing = sum(item["status"] == "missing" for item in card["checklist"])
    text = [
        f"After the best practices of Lindauer and Hutter, arXiv 1909.02453. {missing} missing.",
    ]
    return Section("Checklist", table=Table(("question", "", "answer, or how to give it"), rows), text=text)


def _settings(settings: Mapping[str, Any] | None) -> list[Section]:
    return [] if settings is None else [Section("Settings", code=json.dumps(settings, indent=2))]


def _many(history: History) -> str:
    if len(history) <= _MANY:
        return ""
    return f"{len(history):,} trials are drawn as an image, so that this page stays small."


def _json(value: Any) -> Any:
    """JSON has no infinities and no not-a-number: they become texts."""
    if isinstance(value, Mapping):
        return {name: _json(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_json(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
