import pytest
import torch
from torch import Tensor, nn

from mutorch import report, searchable, widths
from mutorch.errors import SpaceError
from mutorch.mutables import OneShotMutableOP


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.body = nn.Sequential(nn.Conv2d(8, 12, 1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 8, 1))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x + self.body(x)).mean((2, 3)))


IMAGES = torch.zeros(1, 3, 8, 8)


@pytest.fixture
def found():
    return report(searchable(Model(), IMAGES, rules=[widths(ratios=(0.5, 1.0)), widths("stem", counts=[2, 4, 6])]))


def test_units_are_listed_with_their_channels_and_choices(found):
    assert found.units == {"stem": (8, [2, 4, 6, 8]), "body.0": (12, [8, 12])}


def test_each_module_with_tensors_has_one_line(found):
    assert set(found.modules) == {"stem", "body.0", "body.1", "body.3", "head"}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (
            "stem",
            "searchable: 8 channels, 2 to 8; inputs frozen: tied to what is constant, by the input of a convolution",
        ),
        ("body.0", "searchable: 12 channels, 8 or 12; follows stem"),
        ("body.1", "follows body.0"),
        ("body.3", "follows stem, body.0"),
        ("head", "follows stem; outputs frozen: feeds the model's output"),
    ],
)
def test_a_line_says_what_is_searched_what_is_followed_and_what_stays(found, path, told):
    assert found.modules[path].startswith(told)


def test_the_last_line_counts_architectures_and_parameters(found):
    inside = 8 * 27 + 8 + 96 + 12 + 24 + 96 + 8 + 40
    assert found.covered == pytest.approx(inside / (inside + 5))
    assert f"2 units, 8 architectures; {found.covered:.1%} of the parameters are inside units" in str(found)


def test_paths_of_a_net_that_is_a_part_of_another_are_whole():
    whole = nn.Sequential(searchable(Model(), IMAGES), nn.Linear(5, 2))
    assert set(report(whole).units) == {"0.stem", "0.body.0"}
    assert "0.head" in report(whole).modules


def test_widths_that_rules_leave_alone_are_told():
    found = report(searchable(Model(), IMAGES, rules=[widths("body.0")]))
    assert "outputs frozen: one width only under the rules" in found.modules["stem"]


def test_candidates_of_a_block_have_lines_too():
    op = OneShotMutableOP({"one": nn.Conv2d(8, 8, 1), "none": nn.Identity()})
    net = searchable(nn.Sequential(nn.Conv2d(3, 8, 1), op, nn.Conv2d(8, 2, 1)), IMAGES)
    assert report(net).modules["1._candidates.one"] == "follows 0"


def test_a_model_that_is_not_searchable_has_no_report():
    with pytest.raises(SpaceError, match=r"this Model is no searchable model; make one with mutorch.searchable"):
        report(Model())
