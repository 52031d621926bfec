import io

import pytest
from rich.console import Console

from mutorch.cli.screen import Bars
from mutorch.search import Trial


@pytest.fixture
def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=100, height=30, color_system=None)


def drawn(bars, terminal):
    with terminal.capture() as found:
        terminal.print(bars._drawn())
    return found.get()


def test_what_a_search_finds_is_shown_below_its_bar_and_goes_when_the_next_stage_begins(terminal):
    with Bars(terminal) as bars:
        bars.show("searching", 0, 9, "")
        assert "best so far" not in drawn(bars, terminal)
        for index in range(3):
            bars.panel(Trial(index, {"op": f"conv{index}"}, index), 9)
            bars.show("searching", index + 1, 9, "accuracy 0.5")
        assert "3/9 trials, best 2 (trial 2)" in drawn(bars, terminal)
        assert "conv2" in drawn(bars, terminal)
        bars.show("training subnets alone", 0, 5, "")
        assert "best so far" not in drawn(bars, terminal)
        assert "searching" in drawn(bars, terminal)
    assert terminal.file.getvalue().endswith("\x1b[?25h")
