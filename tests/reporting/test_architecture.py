import pytest

from mutorch.errors import ChoiceError, StateError
from mutorch.reporting import architecture_figure
from mutorch.search.plots.drawing import BLUE
from mutorch.space import Decision, SearchSpace

NESTED = SearchSpace(
    [
        Decision("op", ("light", "heavy")),
        Decision("heavy.kernel", (3, 5, 7), when=(("op", "heavy"),)),
        Decision("light.kernel", (3, 5), when=(("op", "light"),)),
        Decision("inputs", tuple([bool(number >> bit & 1) for bit in range(4)] for number in range(16))),
    ]
)
CHOSEN = {"op": "heavy", "heavy.kernel": 5, "light.kernel": 3, "inputs": [True, False, True, False]}


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def filled(figure):
    """The texts of the boxes in colour."""
    from matplotlib.colors import to_hex

    boxes = [patch for patch in figure.axes[0].patches if to_hex(patch.get_facecolor()) == BLUE]
    found = []
    for box in boxes:
        x, y = box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2
        found += [t.get_text() for t in figure.axes[0].texts if t.get_position() == pytest.approx((x, y))]
    return found


def test_what_was_chosen_is_in_colour_beside_its_alternatives():
    figure = architecture_figure(CHOSEN, NESTED)
    assert texts(figure)[:7] == ["op", "light", "heavy", "heavy.kernel", "3", "5", "7"]
    assert filled(figure) == ["heavy", "5", "1010   (one of 16)"]


def test_a_nested_decision_is_indented_and_one_of_another_candidate_left_out():
    figure = architecture_figure(CHOSEN, NESTED)
    left = {text.get_text(): text.get_position()[0] for text in figure.axes[0].texts}
    assert left["op"] == 0 < left["heavy.kernel"]
    assert "light.kernel" not in left
    assert figure.get_supxlabel() == "not shown, since their candidate was not chosen: 1 decision"


def test_widths_are_bars_of_what_is_kept():
    space = SearchSpace([Decision(f"layer{number}", tuple(range(8, 65, 8))) for number in range(3)])
    figure = architecture_figure({"layer0": 8, "layer1": 32, "layer2": 64}, space)
    assert texts(figure) == ["layer0", "8 of 64", "layer1", "32 of 64", "layer2", "64 of 64"]
    whole, kept = [bar[0].get_width() for bar in figure.axes[0].containers[2:4]]
    assert kept / whole == 0.5


@pytest.mark.parametrize(("count", "columns"), [(4, 1), (20, 1), (53, 2), (120, 3)])
def test_many_decisions_stand_in_columns_and_none_is_lost(count, columns):
    space = SearchSpace([Decision(f"unit{number}", (8, 16, 32)) for number in range(count)])
    figure = architecture_figure(space.default, space)
    assert len(figure.axes) == columns
    assert sum(text.startswith("unit") for text in texts(figure)) == count
    assert max(figure.get_size_inches()) < 16


def test_without_a_space_the_choices_alone_are_drawn():
    assert texts(architecture_figure({"op": "conv", "width": 8})) == ["op", "conv", "width", "8"]


def test_nothing_to_draw_and_foreign_choices_are_refused():
    with pytest.raises(StateError, match="the architecture has no decisions"):
        architecture_figure({})
    with pytest.raises(ChoiceError, match="decision 'op' has no choice 'heavi'; did you mean 'heavy'"):
        architecture_figure({**CHOSEN, "op": "heavi"}, NESTED)
