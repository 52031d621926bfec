import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutorch.channels.atoms import ALWAYS, Atoms, distinct


def resolved(atoms, ids):
    return [component.tolist() for component in atoms.resolve(ids)]


def test_new_atoms_are_all_different_and_free():
    atoms = Atoms()
    ids = atoms.new(3000)  # more than there is room for at first
    assert len(set(ids.tolist())) == 3000
    assert ALWAYS not in ids
    assert atoms.reason(ids) is None


def test_united_atoms_are_one():
    atoms = Atoms()
    a, b, c = atoms.new(2), atoms.new(2), atoms.new(2)
    atoms.unite(a, b)
    atoms.unite(b, c)
    assert np.array_equal(atoms.find(a), atoms.find(c))
    assert atoms.find(a)[0] != atoms.find(a)[1]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_uniting_is_an_equivalence_whatever_the_order(pairs):
    atoms = Atoms()
    ids = atoms.new(10)
    expected = list(range(10))
    for a, b in pairs:
        atoms.unite(ids[[a]], ids[[b]])
        expected = [expected[a] if x == expected[b] else x for x in expected]
    roots = atoms.find(ids).tolist()
    assert [[x == y for y in roots] for x in roots] == [[x == y for y in expected] for x in expected]


def test_what_is_united_with_a_frozen_atom_is_frozen_for_its_reason():
    atoms = Atoms()
    a, b = atoms.new(1), atoms.new(1)
    atoms.freeze(a, "because")
    atoms.unite(a, b)
    assert atoms.reason(b) == "because"
    assert resolved(atoms, b) == []


def test_the_first_reason_is_kept():
    atoms = Atoms()
    a = atoms.new(1)
    atoms.freeze(a, "first")
    atoms.freeze(a, "second")
    assert atoms.reason(a) == "first"


def test_an_atom_can_stand_for_a_row_and_a_column():
    atoms = Atoms()
    table, rows, columns = atoms.new(6), atoms.new(2), atoms.new(3)
    atoms.define(table, rows.repeat(3), np.tile(columns, 2), "a rectangle")
    assert resolved(atoms, table) == [rows.repeat(3).tolist(), np.tile(columns, 2).tolist()]


def test_freezing_what_stands_for_others_freezes_these():
    atoms = Atoms()
    table, rows, columns = atoms.new(6), atoms.new(2), atoms.new(3)
    atoms.define(table, rows.repeat(3), np.tile(columns, 2), "a rectangle")
    atoms.freeze(table[:1], "fixed")
    assert atoms.reason(rows[:1]) == atoms.reason(columns[:1]) == "fixed"
    assert atoms.reason(rows[1:]) is atoms.reason(columns[1:]) is None


def test_with_frozen_rows_an_atom_stands_for_its_column_alone():
    atoms = Atoms()
    table, rows, columns = atoms.new(6), atoms.new(2), atoms.new(3)
    atoms.freeze(rows, "fixed")
    atoms.define(table, rows.repeat(3), np.tile(columns, 2), "a rectangle")
    assert resolved(atoms, table) == [atoms.find(np.tile(columns, 2)).tolist()]


def test_uniting_two_rectangles_unites_their_rows_and_columns():
    atoms = Atoms()
    sides = []
    for _ in range(2):
        table, rows, columns = atoms.new(6), atoms.new(2), atoms.new(3)
        atoms.define(table, rows.repeat(3), np.tile(columns, 2), "a rectangle")
        sides.append((table, rows, columns))
    atoms.unite(sides[0][0], sides[1][0])
    assert np.array_equal(atoms.find(sides[0][1]), atoms.find(sides[1][1]))
    assert np.array_equal(atoms.find(sides[0][2]), atoms.find(sides[1][2]))


@pytest.mark.parametrize("part", [1, 2])
def test_an_atom_that_would_be_a_part_of_itself_is_frozen(part):
    atoms = Atoms()
    whole, other = atoms.new(1), atoms.new(1)
    arguments = [whole, whole, other] if part == 1 else [whole, other, whole]
    atoms.define(*arguments, "a part of itself")
    assert atoms.reason(whole) == "a part of itself"


def test_two_definitions_in_a_circle_are_frozen():
    atoms = Atoms()
    a, b, c = atoms.new(1), atoms.new(1), atoms.new(1)
    atoms.define(a, b, c, "a circle")
    atoms.unite(a, b)
    assert atoms.reason(a) == "channels that would be a part of themselves"


def test_a_component_that_repeats_another_says_nothing():
    kept = distinct([np.array([5, 6]), np.array([5, 7]), np.array([5, 6])])
    assert [component.tolist() for component in kept] == [[5, 6], [ALWAYS, 7]]
