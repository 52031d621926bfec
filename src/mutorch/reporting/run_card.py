"""The card of a run: all that somebody else needs to run it again, and to know what to compare it with."""

import importlib.metadata
import math
import os
import platform
import subprocess
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mutorch.cost import Costs, CostTable
from mutorch.errors import SpaceError, StateError
from mutorch.search import History
from mutorch.search.plots.drawing import number_text
from mutorch.search.random_start import random_start
from mutorch.search.repeat import Repeated
from mutorch.space import SearchSpace

from .checklist import checklist


def run_card(
    history: History,
    *,
    space: SearchSpace | None = None,
    table: CostTable | None = None,
    baseline: History | None = None,
    repeated: Repeated | None = None,
    folder: str | os.PathLike[str] = ".",
    wall_seconds: float | None = None,
) -> dict[str, Any]:
    """What a search was, on what, with what, and beside what, as plain data for JSON.

    `checklist` in it goes through the best practices of arXiv 1909.02453, and names what is missing.

    Args:
        history: what `search` returned.
        space: of the search, that of the table unless given.
        table: for the costs of the largest and the smallest architecture.
        baseline: a search of the same space with `strategy="random"`; both are compared at the same number of trials.
        repeated: what `mutorch.search.repeat` returned, of the same search with several seeds.
        folder: of your code, for the revision that git says.
        wall_seconds: how long all of it took; only you know what belongs to it.

    Errors:
        StateError: no trials.

    Example:
        >>> from mutorch.search import search_space
        >>> from mutorch.space import Decision
        >>> space = SearchSpace([Decision("depth", tuple(range(99)))])
        >>> card = run_card(search_space(space, lambda a: a["depth"], num_trials=30), space=space)
        >>> card["trials"], card["random"]["trials"], card["space"]["size"]
        (30, 20, 99)
    """
    if not history.trials:
        raise StateError("the search has no trials yet")
    space = space or (None if table is None else table.space)
    run, trials = history.run, history.trials
    best = history.best
    card: dict[str, Any] = {
        "space": {"fingerprint": run.get("space"), **_space(space)},
        "budget": run.get("budget"),
        "objectives": list(history.objectives) or ["score"],
        "constraints": run.get("constraints"),
        "strategy": run.get("strategy"),
        "seed": run.get("seed"),
        "ahead": run.get("ahead"),
        "trials": len(trials),
        "failed": sum(trial.error is not None for trial in trials),
        "infeasible": sum(trial.error is None and not trial.is_feasible for trial in trials),
        "without_number": sum(trial.error is None and not math.isfinite(trial.score) for trial in trials),
        "interrupted": history.interrupted,
        "exhausted": history.exhausted,
        "evaluation_seconds": float(sum(trial.seconds for trial in trials)),
        "wall_seconds": wall_seconds,
        "best": {
            "trial": best.index,
            "architecture": best.architecture,
            "score": best.score,
            "metrics": dict(best.metrics),
            "costs": _costs(best.costs),
        },
        "random": _random(history),
        "baseline": None if baseline is None else _baseline(history, baseline),
        "repeated": None if repeated is None else repeated.to_dict(),
        "costs": None if table is None else _ends(table),
        "versions": versions(),
        "git": revision(folder),
    }
    card["checklist"] = [item.to_dict() for item in checklist(card)]
    return card


def versions() -> dict[str, str]:
    """The versions that results depend on."""
    return {
        "mutorch": importlib.metadata.version("mutorch"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def revision(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The commit that a folder is at, and whether files differ from it; `None` where git knows of none."""
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", folder, *command], capture_output=True, text=True, check=True, timeout=20
            ).stdout
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"revision": commit.strip(), "dirty": bool(changes.strip())}


def _space(space: SearchSpace | None) -> dict[str, Any]:
    if space is None:
        return {}
    try:
        size = space.size
    except SpaceError:  # constraints tie too many decisions together to count
        size = None
    return {"fingerprint": space.fingerprint, "decisions": len(space), "size": size}


def _costs(costs: Costs | None) -> dict[str, float] | None:
    if costs is None:
        return None
    counted = {name: getattr(costs, name) for name in ("macs", "params", "act_mem_mb", "size_mb")}
    return {**counted, **costs.measured}


def _ends(table: CostTable) -> dict[str, Any]:
    return {"largest": _costs(table(table.largest())), "smallest": _costs(table(table.cheapest()))}


def _random(history: History) -> dict[str, Any] | None:
    """What the trials at the beginning found, which random search would have found as well."""
    count = random_start(history.run, len(history))
    if not count:
        return None
    return {"trials": count, **_best_and_mean(history, count)}


def _baseline(history: History, baseline: History) -> dict[str, Any]:
    count = min(len(history), len(baseline))
    return {
        "strategy": baseline.run.get("strategy"),
        "same_space": baseline.run.get("space") == history.run.get("space"),
        "trials": count,
        "search": _best_and_mean(history, count),
        "baseline": _best_and_mean(baseline, count),
    }


def _best_and_mean(history: History, count: int) -> dict[str, float | None]:
    """Of the scores of the first trials that keep to all constraints."""
    scores = [trial.score for trial in history.trials[:count] if trial.is_feasible and math.isfinite(trial.score)]
    return {"best": max(scores, default=None), "mean": float(np.mean(scores)) if scores else None}


def readable(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The card as lines of a table."""
    space, best = card["space"], card["best"]
    lines = [
        (
            "space",
            _joined(
                f"{space['decisions']} decisions" if "decisions" in space else "", _size(space), space["fingerprint"]
            ),
        ),
        ("budget", _bounds(card["budget"])),
        ("objectives", ", ".join(card["objectives"])),
        ("constraints", _bounds(card["constraints"])),
        ("strategy", _joined(card["strategy"], f"seed {card['seed']}", f"{card['ahead']} ahead")),
        (
            "trials",
            f"{card['trials']}: {card['failed']} failed, {card['infeasible']} broke constraints, {card['without_number']} gave no number",
        ),
        (
            "ended",
            "interrupted" if card["interrupted"] else "nothing was left" if card["exhausted"] else "all trials done",
        ),
        ("evaluations took", f"{card['evaluation_seconds']:.4g} s"),
        ("all of it took", "not given" if card["wall_seconds"] is None else f"{card['wall_seconds']:.4g} s"),
        ("best", f"{best['score']:.6g}, trial {best['trial']}"),
    ]
    if card["random"] is not None:
        lines.append((f"first {card['random']['trials']}, random", _found(card["random"])))
    if card["baseline"] is not None:
        one = card["baseline"]
        lines.append((f"{one['strategy']}, {one['trials']} trials", _found(one["baseline"])))
        lines.append((f"this search, {one['trials']} trials", _found(one["search"])))
    if card["repeated"] is not None:
        one = card["repeated"]
        scores = ", ".join(f"{each['seed']}: {each['score']:.6g}" for each in one["best"])
        lines.append((f"{len(one['seeds'])} seeds", f"best {one['mean']:.6g} ± {one['spread']:.4g} ({scores})"))
    for name, costs in (card["costs"] or {}).items():
        lines.append((f"{name} architecture", ", ".join(f"{metric} {value:,.6g}" for metric, value in costs.items())))
    lines.append(("versions", ", ".join(f"{name} {version}" for name, version in card["versions"].items())))
    git = card["git"]
    lines.append(
        ("code", "in no git repository" if git is None else git["revision"] + (", changed" if git["dirty"] else ""))
    )
    return lines


def _bounds(bounds: Mapping[str, Any] | None) -> str:
    """What a log writes of a budget, for people."""
    texts = []
    for name, (low, high) in (bounds or {}).items():
        known = [number_text(bound) for bound in (low, high) if bound is not None]
        texts.append(
            f"{name} {' to '.join(known)}" if len(known) == 2 else f"{name} {'<=' if low is None else '>='} {known[0]}"
        )
    return ", ".join(texts) or "none"


def _size(space: Mapping[str, Any]) -> str:
    if "decisions" not in space:
        return ""
    return "too many architectures to count" if space["size"] is None else f"{space['size']:,} architectures"


def _found(one: Mapping[str, Any]) -> str:
    return "no score" if one["best"] is None else f"best {one['best']:.6g}, mean {one['mean']:.6g}"


def _joined(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)
