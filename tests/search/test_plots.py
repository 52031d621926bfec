import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutorch.cost import Costs, Measured
from mutorch.errors import ConfigError, StateError
from mutorch.search import History, Trial
from mutorch.search.plots import (
    hypervolume_figure,
    importance,
    parallel_figure,
    pareto_figure,
    preference_figure,
    preferences,
    progress_figure,
)
from mutorch.search.plots.quantities import LARGEST
from mutorch.search.random_start import STARTS, random_start
from mutorch.search.strategies import STRATEGIES
from mutorch.space import Decision, SearchSpace
from mutorch.subnet import Remeasured

SPACE = SearchSpace([Decision("op", ("skip", "conv", "pool")), Decision("width", (8, 16, 32))])


def costs(macs):
    return Costs(macs=macs, params=macs // 10, act_mem_mb=0.5, size_mb=0.25, measured={"latency_ms": macs / 1e6})


def searched(count=30, objectives=(), space=SPACE, seed=0):
    """The operation decides nearly all; the width costs."""
    draw, trials = random.Random(seed), []
    for index in range(count):
        architecture = space.sample(draw)
        codes = space.encode(architecture)
        score = codes[0] + 0.1 * draw.random()
        macs = 1_000_000 * (1 + codes[-1])
        values = (score, *(-macs for _ in objectives[1:]))
        trials.append(Trial(index, architecture, score, {"accuracy": score}, costs(macs), 2.0, values))
    return History(trials, objectives=objectives, run={"strategy": "evolution"})


def labels(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def texts(figure):
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    return found + labels(figure)


def test_the_front_is_drawn_through_the_trials_that_history_says():
    history = searched()
    figure = pareto_figure(history)
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("macs, less is better", "accuracy")
    front = history.pareto()
    drawn = next(one for one in axes.collections if one.get_label() == f"Pareto front, {len(front)}")
    assert sorted(drawn.get_offsets().tolist()) == sorted([t.costs.macs, t.score] for t in front)
    star = next(one for one in axes.collections if one.get_label() == "best")
    assert star.get_offsets().tolist() == [[history.best.costs.macs, history.best.score]]


def test_the_front_of_three_objectives_is_that_of_the_history():
    draw = random.Random(0)
    values = [tuple(draw.randrange(6) for _ in range(3)) for _ in range(80)]
    history = History([Trial(n, {}, one[0], values=one) for n, one in enumerate(values)], objectives=("a", "b", "c"))
    front = history.pareto()
    for axes, (across, up) in zip(pareto_figure(history).axes, [(1, 0), (2, 0), (2, 1)], strict=True):
        drawn = next(one for one in axes.collections if one.get_label() == f"Pareto front, {len(front)}")
        assert sorted(drawn.get_offsets().tolist()) == sorted([t.values[across], t.values[up]] for t in front)


def test_objectives_to_minimise_are_drawn_in_their_own_unit_and_three_of_them_in_three_panels():
    two = pareto_figure(searched(objectives=("accuracy", "-macs")))
    assert [axes.get_xlabel() for axes in two.axes] == ["macs, less is better"]
    assert min(two.axes[0].get_xlim()) > 0
    three = searched(20, ("accuracy", "-macs", "-params"))
    panels = [(axes.get_xlabel(), axes.get_ylabel()) for axes in pareto_figure(three).axes]
    less = ", less is better"
    assert panels == [("macs" + less, "accuracy"), ("params" + less, "accuracy"), ("params" + less, "macs" + less)]


def test_baselines_are_drawn_and_one_without_a_number_is_refused():
    known = {"ResNet": {"accuracy": 0.5, "macs": 9e6}}
    figure = pareto_figure(searched(), baselines=known)
    drawn = next(one for one in figure.axes[0].collections if one.get_label() == "ResNet")
    assert drawn.get_offsets().tolist() == [[9e6, 0.5]]
    assert figure.axes[0].get_xlim()[1] > 9e6
    with pytest.raises(ConfigError, match="the baseline 'ResNet' has no 'latency_ms', which is an axis"):
        pareto_figure(searched(), "latency_ms", baselines=known)


def test_no_legend_lies_over_an_axes():
    for figure in (
        pareto_figure(searched(), baselines={"a": {"accuracy": 1, "macs": 2e6}}),
        progress_figure(searched()),
    ):
        figure.savefig("/dev/null", format="png")
        (legend,) = figure.legends
        assert legend.get_window_extent().y0 >= figure.axes[0].get_window_extent().y1


def test_an_unknown_axis_names_what_there_is():
    with pytest.raises(StateError, match="no trial has 'acuracy'; did you mean 'accuracy'"):
        pareto_figure(searched(), "acuracy")
    with pytest.raises(StateError, match="counted no costs"):
        pareto_figure(History([Trial(0, {}, 1.0)]))
    for draw in (pareto_figure, progress_figure):
        with pytest.raises(StateError, match="no trials yet"):
            draw(History([]))


def test_progress_shows_the_random_start_and_the_trials_that_do_not_count():
    trials = list(searched(30).trials)
    trials[3] = Trial(3, trials[3].architecture, 99.0, violation=0.5)
    trials[4] = Trial(4, trials[4].architecture, -math.inf, error="RuntimeError: out of memory")
    history = History(trials, run={"strategy": "evolution"})
    figure = progress_figure(history)
    start = max(trial.score for trial in trials[:20] if trial.is_feasible)
    assert {"first 20, random", f"best of these: {start:.6g}", "1 that break constraints", "1 failed"} <= {
        *labels(figure)
    }
    (best,) = (line for line in figure.axes[0].lines if line.get_label() == "best so far")
    assert best.get_ydata()[-1] == history.best.score
    assert np.all(np.diff(best.get_ydata()) >= 0)


def test_progress_over_time_adds_up_the_seconds_of_evaluations():
    figure = progress_figure(searched(90), by="time")
    (best,) = (line for line in figure.axes[0].lines if line.get_label() == "best so far")
    assert figure.axes[0].get_xlabel() == "time of evaluations, min"
    assert best.get_xdata()[-1] == pytest.approx(90 * 2 / 60)
    with pytest.raises(ConfigError, match="not by 'tim'; did you mean 'time'"):
        progress_figure(searched(), by="tim")


def test_a_baseline_search_is_drawn_beside_the_other():
    random_search = History(searched(10, seed=1).trials, run={"strategy": "random"})
    assert "random, best so far" in labels(progress_figure(searched(), baseline=random_search))
    assert "first 20, random" not in labels(progress_figure(random_search))


@pytest.mark.parametrize("name", STARTS)
def test_strategies_start_with_as_many_random_trials_as_figures_say(name):
    import inspect

    options = inspect.signature(STRATEGIES[name]).parameters
    assert options["starts" if "starts" in options else "population"].default == STARTS[name]
    assert random_start({"strategy": name}, 5) == 5


def test_the_decision_that_decides_explains_the_score_and_the_other_does_not():
    weights = importance(searched(200))
    assert weights["op"] > 0.95
    assert weights["width"] < 0.05


def test_preferences_are_shares_among_the_best_and_among_all():
    op, width = preferences(searched(100), share=0.2, space=SPACE)
    assert op.choices == ("skip", "conv", "pool")
    assert op.among_best == (0, 0, 1)
    assert op.winner == "pool"
    assert sum(op.among_all) == pytest.approx(1)
    assert width.choices == (8, 16, 32)
    with pytest.raises(ConfigError, match="between 0 and 1, got 0"):
        preferences(searched(), share=0)


def test_a_decision_in_a_candidate_that_was_not_chosen_does_not_count():
    inner = Decision("kernel", (3, 5), when=(("op", "conv"),))
    space = SearchSpace([Decision("op", ("skip", "conv")), inner])
    trials = [Trial(i, {"op": "skip" if i % 2 else "conv", "kernel": 3 if i % 2 else 5}, i % 2) for i in range(10)]
    assert preferences(History(trials), space=space)[1].among_all == (0, 1)
    assert preferences(History(trials))[1].among_all == (0.5, 0.5)


def test_few_decisions_are_bars_and_many_a_heat_map_with_every_choice_written_down():
    assert [axes.get_title(loc="left").split()[0] for axes in preference_figure(searched()).axes] == ["op", "width"]
    many = SearchSpace([Decision(f"block{number}", ("a", "b", "c")) for number in range(40)])
    history = searched(30, space=many)
    figure = preference_figure(history, space=many)
    cells = figure.axes[0]
    assert [text.get_text() for text in cells.get_yticklabels()] == list(many.names)
    assert len(cells.texts) == 40 * 3
    assert len(cells.patches) == 40  # the winner's


def test_of_very_many_decisions_those_that_explain_most_are_drawn():
    many = SearchSpace([Decision(f"block{number}", ("a", "b")) for number in range(70)])
    figure = preference_figure(searched(30, space=many), space=many)
    assert len(figure.axes[0].get_yticklabels()) == 60
    assert "block0" in [text.get_text() for text in figure.axes[0].get_yticklabels()]


def test_parallel_lines_pass_through_decisions_costs_and_objectives():
    figure = parallel_figure(searched(25, ("accuracy", "-macs")), space=SPACE)
    found = [text.get_text() for text in figure.axes[0].texts if text.get_fontweight() == "bold"]
    assert found == ["op", "width", "params", "latency_ms", "macs", "accuracy"]
    (lines,) = figure.axes[0].collections
    assert len(lines.get_segments()) == 25
    with pytest.raises(StateError, match="no trial has 'acuracy'"):
        parallel_figure(searched(), names=["acuracy"])


def test_the_hypervolume_never_falls_and_ends_where_history_says():
    history = searched(40, ("accuracy", "-macs"))
    reference = {"accuracy": 0.0, "macs": 1e7}
    (line,) = (line for line in hypervolume_figure(history, reference).axes[0].lines if "front" in line.get_label())
    assert np.all(np.diff(line.get_ydata()) >= 0)
    assert line.get_ydata()[-1] == pytest.approx(history.hypervolume(reference))
    with pytest.raises(StateError, match="the reference has no 'macs'"):
        hypervolume_figure(history, {"accuracy": 0.0})


def test_plot_takes_the_figure_that_is_apt_and_writes_it(tmp_path):
    file = tmp_path / "front.png"
    assert searched().plot(file).axes[0].get_xlabel() == "macs, less is better"
    assert file.read_bytes().startswith(b"\x89PNG")
    assert History([Trial(0, {}, 1.0), Trial(1, {}, 2.0)]).plot().axes[0].get_xlabel() == "trial"


def test_long_names_keep_what_tells_them_apart():
    names = [f"backbone.stages.{n}.a_block_with_a_long_name.conv.out_channels" for n in range(20)]
    space = SearchSpace([Decision(name, ("a", "b")) for name in names])
    figure = preference_figure(searched(30, space=space), space=space)
    shown = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len({*shown}) == 20
    assert max(map(len, shown)) <= 34


def test_a_figure_of_a_thousand_trials_stays_small_as_a_vector_graphic(tmp_path):
    history = searched(1000)
    for number, figure in enumerate((pareto_figure(history), progress_figure(history))):
        file = tmp_path / f"{number}.svg"
        figure.savefig(file)
        assert file.stat().st_size < 200_000


numbers = st.one_of(
    st.sampled_from([math.inf, -math.inf, math.nan, 0.0, 1.0, -1e300, 1e300, 1e-300]), st.floats(-1e6, 1e6)
)


@st.composite
def histories(draw):
    aims = draw(st.sampled_from([(), ("accuracy",), ("accuracy", "-macs"), ("a", "-b", "c")]))
    has_costs = draw(st.booleans()) or "-macs" in aims
    trials = []
    for index in range(draw(st.integers(1, 12))):
        values = tuple(draw(numbers) for _ in aims or (0,))
        values = tuple(-math.inf if math.isnan(value) else value for value in values)
        macs = draw(st.sampled_from([0, 1, 10**6, 10**12]))
        trials.append(
            Trial(
                index,
                SPACE.sample(draw(st.integers(0, 99))),
                values[0],
                {"loss": draw(numbers)},
                costs(macs) if has_costs else None,
                draw(st.floats(0, 1e5)),
                values,
                draw(st.sampled_from([0.0, 0.0, 0.5])),
                draw(st.sampled_from([None, None, None, "ValueError: no"])),
            )
        )
    return History(trials, objectives=aims, run={"strategy": draw(st.sampled_from(["evolution", "random", "mine"]))})


@settings(max_examples=10)
@given(histories())
def test_no_history_is_too_odd_to_draw(history):
    figures = [progress_figure(history, by="time"), history.plot()]
    if any(abs(t.values[0]) <= LARGEST and t.error is None for t in history):
        figures += [progress_figure(history), parallel_figure(history), preference_figure(history)]
    if any(t.is_feasible and max(map(abs, t.values)) <= LARGEST for t in history):
        figures.append(hypervolume_figure(history))
    for figure in figures:
        figure.draw_without_rendering()


def test_the_star_is_the_best_of_the_history_also_where_it_was_measured_again():
    history = searched()
    first, other = history.top(2)
    outside = Remeasured(first.architecture, Measured.of([1.0, 1.0], runtime="eager"), 1.0, within=False)
    history = replace(history, measured={first.index: outside})
    star = next(one for one in pareto_figure(history).axes[0].collections if one.get_label() == "best")
    assert star.get_offsets().tolist() == [[other.costs.macs, other.score]]
    assert preferences(history)[0].winner == other.architecture["op"]
