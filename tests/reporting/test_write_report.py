import json
import math
import re
import struct
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from torch import nn

from mutorch.cost import Costs, Measured
from mutorch.errors import SpaceError, StateError
from mutorch.reporting import Section, Table, write_report
from mutorch.search import History, Trial
from mutorch.space import Decision, SearchSpace
from mutorch.subnet.remeasure import Remeasured


def elements(page, tag):
    return ElementTree.fromstring(page.read_text(encoding="utf-8")).iter(tag)


def headings(page):
    return [one.text for one in elements(page, "h2")]


def text(page):
    return " ".join("".join(ElementTree.fromstring(page.read_text(encoding="utf-8")).itertext()).split())


def size_of(png):
    content = png.read_bytes()
    assert content.startswith(b"\x89PNG")
    return struct.unpack(">II", content[16:24])


@pytest.fixture(scope="module")
def page(tmp_path_factory, make_history, space):
    history = make_history(40, ("accuracy", "-macs"))
    subnet = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(8, 2))
    return write_report(
        history,
        tmp_path_factory.mktemp("report"),
        title="Digits",
        space=space,
        subnet=subnet,
        baselines={"by hand": {"accuracy": 0.5, "macs": 2e6}},
        settings={"lr": 0.1},
        notes=["A note of mine."],
        sections=[Section("Mine", table=Table(("name", "value"), [["a", "<1>"]], frozenset({1})), text=["Below it."])],
    )


def test_the_page_is_well_formed_and_needs_no_network_and_no_script(page):
    content = page.read_text(encoding="utf-8")
    assert "http" not in content
    assert not list(elements(page, "script"))
    sources = re.findall(r'(?:src|href)="([^"]{1,20})', content)
    assert all(source.startswith(("#", "data:image/png")) for source in sources)


def test_no_two_elements_of_a_page_have_one_id_and_all_that_are_named_are_there(page):
    content = page.read_text(encoding="utf-8")
    names = re.findall(r' id="([^"]+)"', content)
    assert len(names) == len({*names})
    assert {*re.findall(r'(?:href="#|url\(#)([^")]+)', content)} <= {*names}


def test_the_sections_come_in_order_with_those_of_the_caller_first(page):
    assert headings(page) == [
        "Mine",
        "The best",
        "Pareto front",
        "Progress",
        "Hypervolume",
        "What decisions prefer",
        "All trials",
        "The winner",
        "The winner as a model",
        "Run card",
        "Checklist",
        "Settings",
    ]


def test_the_page_names_the_winner_the_budget_the_parts_and_what_the_caller_added(page, make_history):
    best = make_history(40, ("accuracy", "-macs")).best
    words = text(page)
    assert json.dumps(best.architecture) in words
    for expected in (
        "40 of 9 architectures",
        "macs <= 5M",
        "loss 0 to 2",
        "Conv2d",
        "98",
        "<1>",
        "A note of mine.",
        '"lr": 0.1',
    ):
        assert expected in words
    marked = [row for row in elements(page, "tr") if row.get("class") == "marked"]
    assert len(marked) == 2  # among the best and on the front
    assert all(row[0].text == str(best.index) for row in marked)


def test_pictures_are_in_the_page_and_beside_it(page):
    found = {path.stem: size_of(path) for path in page.parent.glob("*.png")}
    assert {*found} == {"pareto", "progress", "hypervolume", "preferences", "parallel", "architecture"}
    assert found["progress"] == (1040, 624)
    assert all(width > 600 and height > 100 for width, height in found.values())
    figures = list(elements(page, "figure"))
    assert len(figures) == 6
    assert all(figure.get("aria-label") and len(figure) == 1 for figure in figures)


def test_the_same_history_gives_the_same_page(tmp_path, make_history, space):
    one, other = (write_report(make_history(), tmp_path / name, space=space) for name in "ab")
    assert one.read_text() == other.read_text()


def test_the_page_of_a_long_search_stays_small_and_says_how(tmp_path, make_history, space):
    page = write_report(make_history(1200), tmp_path, space=space)
    assert page.stat().st_size < 1_000_000
    assert "1,200 trials are drawn as an image" in text(page)


def test_odd_names_and_numbers_are_shown_as_they_are(tmp_path):
    name = '<b>&"]]>'
    priced = Trial(0, {name: "<script>alert(1)</script>"}, math.inf, {"[red]": math.nan}, Costs(10, 1, 0.1, 0.1))
    page = write_report(
        History([priced, Trial(1, {name: "x" * 300}, 1e300), Trial(2, {name: "y"}, 2.0)]), tmp_path, title="<i>"
    )
    assert "<i>" in text(page)
    assert json.dumps({name: "<script>alert(1)</script>"}) in text(page)
    assert not list(elements(page, "script"))
    assert json.loads((tmp_path / "card.json").read_text())["best"]["score"] == "inf"


def test_latency_that_was_measured_again_is_shown(tmp_path, make_history):
    history = make_history(3)
    again = Remeasured(history.trials[1].architecture, Measured.of([2.0, 2.5, 3.0], runtime="eager"), 2.0, False)
    page = write_report(replace(history, measured={1: again}), tmp_path)
    assert "Latency, measured again" in headings(page)
    assert "1 2.5 ms 2 ms +25.0% outside" in " ".join(
        " ".join(cell.text or "" for cell in row) for row in elements(page, "tr")
    )


def test_without_costs_there_is_no_front_and_without_numbers_no_preferences(tmp_path):
    plain = write_report(History([Trial(0, {"op": "a"}, 0.1), Trial(1, {"op": "b"}, 0.3)]), tmp_path / "plain")
    assert "Pareto front" not in headings(plain)
    assert "grey: what other trials chose" in text(plain)
    failed = [Trial(n, {"op": "a"}, -math.inf, error="RuntimeError: no <memory>") for n in range(2)]
    broken = write_report(History(failed), tmp_path / "broken")
    assert headings(broken)[:3] == ["The best", "Progress", "The winner"]
    assert "2 failed" in text(broken)
    assert "RuntimeError: no <memory>" in text(broken)


def test_a_search_without_trials_or_of_another_space_is_refused(tmp_path, make_history):
    with pytest.raises(StateError, match="no trials yet, so there is nothing to report"):
        write_report(History([]), tmp_path)
    other = SearchSpace([Decision("kernel", (3, 5))])
    with pytest.raises(SpaceError, match="no decision 'op'"):
        write_report(make_history(), tmp_path, space=other)
    assert not list(tmp_path.iterdir())


def test_architectures_of_many_decisions_are_told_by_how_they_differ(tmp_path, make_history):
    space = SearchSpace([Decision(f"block{number}", ("a", "b")) for number in range(20)])
    words = text(write_report(make_history(30, space=space), tmp_path, space=space))
    assert "the best" in words
    assert re.search(r"as the best but block\d+ [ab]", words)


def test_a_report_needs_its_extra(monkeypatch, tmp_path, make_history):
    import sys

    from mutorch.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r'pip install "mutorch\[report\]"'):
        write_report(make_history(), tmp_path)
