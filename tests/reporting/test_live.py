import io
import math
import statistics
import time

import pytest

from mutorch.errors import MissingExtraError
from mutorch.reporting import LiveView
from mutorch.reporting.panel import sparkline
from mutorch.search import Trial, search_space


class Clock:
    """Time that goes on by what each trial took."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def console(terminal):
    from rich.console import Console

    return Console(
        file=io.StringIO(), force_terminal=terminal, force_interactive=terminal, width=110, height=30, color_system=None
    )


def shown(console):
    return console.file.getvalue()


def feed(view, clock, trials, total=None, seconds=1.0):
    for trial in trials:
        clock.now += seconds
        view(trial, total or len(trials))


def screen(view):
    """What it shows now."""
    plain = console(terminal=False)
    plain.print(view.panel)
    return shown(plain)


def test_it_shows_the_best_five_speed_time_left_and_progress(make_history):
    clock, terminal = Clock(), console(terminal=True)
    history = make_history(40)
    with LiveView(console=terminal, clock=clock) as view:
        feed(view, clock, history.trials[:30], total=40)
        text = screen(view)
    status, bars, head, *rows = [line.rstrip() for line in text.splitlines() if line.strip()]
    best = max(history.trials[:30], key=lambda trial: trial.score)
    assert status.startswith(f"30/40 trials, best {best.score:.4g} (trial {best.index})")
    assert "0:10 left" in status
    assert "█" in bars
    assert head.split() == ["trial", "score", "macs", "params", "architecture"]
    assert len(rows) == 5
    assert rows[0].split()[0] == str(best.index)
    assert " ".join(map(str, best.architecture.values())) in rows[0]


def test_failures_and_broken_constraints_are_counted(make_history):
    clock = Clock()
    view = LiveView(console=console(terminal=False), clock=clock)
    good = make_history(3).trials
    bad = [Trial(3, {}, -math.inf, error="RuntimeError: no"), Trial(4, {"op": "conv"}, 9.0, violation=1.0)]
    feed(view, clock, [*good, *bad])
    assert "1 failed, 1 break constraints" in screen(view)
    assert f"best {max(t.score for t in good):.4g}" in screen(view)


def test_several_objectives_show_the_front_in_their_own_units(make_history):
    clock = Clock()
    history = make_history(30, ("accuracy", "-macs"))
    view = LiveView(("accuracy", "-macs"), console=console(terminal=False), clock=clock)
    feed(view, clock, history.trials)
    text = screen(view)
    assert view.panel.front_size == len(history.pareto())
    assert f"front of {len(history.pareto())}, hypervolume" in text
    assert "-" not in text.split("architecture")[1].split("pool")[0]  # macs are no negative numbers


def test_without_a_terminal_it_prints_a_line_now_and_then_and_at_the_end(make_history):
    clock, file = Clock(), console(terminal=False)
    with LiveView(console=file, clock=clock, line_every=10.0) as view:
        feed(view, clock, make_history(35).trials)
    lines = shown(file).splitlines()
    assert [line.split()[0] for line in lines] == ["11/35", "21/35", "31/35", "35/35"]
    assert "\x1b" not in shown(file)


def test_on_a_terminal_it_draws_only_so_often_and_gives_the_cursor_back(make_history):
    clock, terminal = Clock(), console(terminal=True)
    view = LiveView(console=terminal, clock=clock, every=0.5)
    feed(view, clock, make_history(100).trials, total=200, seconds=0.1)
    drawn = shown(terminal).count("best so far")
    assert 15 <= drawn <= 25
    view.close()
    view.close()
    assert shown(terminal).rstrip().endswith("\x1b[?25h")


def test_an_error_in_the_search_leaves_the_terminal_as_it_was(make_history):
    clock, terminal = Clock(), console(terminal=True)

    def search():
        with LiveView(console=terminal, clock=clock) as view:
            feed(view, clock, make_history(5).trials, total=9)
            raise KeyError

    with pytest.raises(KeyError):
        search()
    assert "\x1b[?25h" in shown(terminal)[-20:]


def test_a_search_takes_it_as_a_listener(space):
    file = console(terminal=False)
    view = LiveView(console=file)
    search_space(space, lambda a: a["width"], num_trials=9, on_trial=view)
    assert (view.panel.done, view.panel.total, view.panel.top[0].score) == (9, 9, 32)
    assert shown(file).startswith("9/9 trials, best 32")


def test_a_trial_costs_it_a_fraction_of_a_millisecond(make_history):
    trials = make_history(1000, ("accuracy", "-macs")).trials
    view = LiveView(console=console(terminal=True))
    took = []
    for trial in trials:
        start = time.perf_counter()
        view(trial, 2000)
        took.append(time.perf_counter() - start)
    view.close()
    assert statistics.median(took) < 0.0005


def test_bars_of_text_keep_the_shape_and_leave_gaps():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([math.nan, 1, 1], 8) == " ▁▁"
    assert sparkline(range(1000), 10)[-1] == "█"
    assert len(sparkline(range(1000), 10)) == 10
    assert sparkline([math.nan], 5) == " "


def test_it_needs_its_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(MissingExtraError, match=r'pip install "mutorch\[cli\]"'):
        LiveView()
