import copy
import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import rules, spaces

from mutorch.errors import ExpressionError, SpaceError
from mutorch.space import (
    Expression,
    Operation,
    Ref,
    case,
    condition,
    maximum,
    minimum,
    switch_case,
    to_float,
    to_int,
)
from mutorch.space.outcomes import may_hold

a, b = Ref("a"), Ref("b")
numbers = st.integers(-6, 6) | st.floats(-4, 4, width=16)
OPERATIONS = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x / y,
    "//": lambda x, y: x // y,
    "%": lambda x, y: x % y,
    "**": lambda x, y: x**y,
    "<": lambda x, y: x < y,
    "<=": lambda x, y: x <= y,
    ">": lambda x, y: x > y,
    ">=": lambda x, y: x >= y,
}
UNARY = {
    "neg": lambda x: -x,
    "abs": abs,
    "round": round,
    "round to 1": lambda x: round(x, 1),
    "floor": math.floor,
    "ceil": math.ceil,
}


def outcome(function, *operands):
    """What a function gives, or that it fails."""
    try:
        return repr(function(*operands))
    except (ArithmeticError, SpaceError):
        return "fails"


# ---- properties ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPERATIONS)
@given(numbers, numbers)
def test_an_operator_computes_what_python_computes(name, x, y):
    operation = OPERATIONS[name]
    expected = outcome(operation, x, y)
    values = {"a": x, "b": y}
    assert outcome(operation(a, b).evaluate, values) == expected
    assert outcome(operation(a, y).evaluate, values) == expected
    assert outcome(operation(x, b).evaluate, values) == expected


@pytest.mark.parametrize("name", UNARY)
@given(numbers)
def test_a_function_of_one_number_computes_what_python_computes(name, x):
    assert repr(UNARY[name](a).evaluate({"a": x})) == repr(UNARY[name](x))


@given(numbers, numbers, st.booleans())
def test_functions_compute_the_same_of_values_and_of_expressions(x, y, holds):
    values = {"a": x, "b": y, "p": holds}
    assert to_int(a).evaluate(values) == to_int(x) == int(x)
    assert to_float(a).evaluate(values) == to_float(x) == float(x)
    assert maximum(a, b, 0).evaluate(values) == maximum(x, y, 0) == max(x, y, 0)
    assert minimum(a, b, 0).evaluate(values) == minimum(x, y, 0) == min(x, y, 0)
    assert condition(Ref("p"), a, b).evaluate(values) == condition(holds, x, y) == (x if holds else y)
    assert case([(a < b, 1), (a > b, 2), (True, 3)]).evaluate(values) == case([(x < y, 1), (x > y, 2), (True, 3)])


def random_rules():
    return spaces().flatmap(lambda space: st.tuples(st.just(space), rules(space), st.integers(0, 2**32)))


@given(random_rules())
def test_an_expression_as_data_is_the_same_expression(drawn):
    space, rule, seed = drawn
    data = json.loads(json.dumps(rule.to_data()))
    for again in (Expression.from_data(data), pickle.loads(pickle.dumps(rule)), copy.deepcopy(rule)):
        assert (again.to_data(), again.names()) == (data, rule.names())
        assert again.evaluate(space.sample(seed)) == rule.evaluate(space.sample(seed))


@given(random_rules())
def test_what_is_ruled_out_early_is_false_everywhere(drawn):
    space, rule, seed = drawn
    some = space.sample(seed)
    half = {d.name: [some[d.name]] if n % 2 else list(d.choices) for n, d in enumerate(space)}
    everything = {d.name: list(d.choices) for d in space}
    if rule.evaluate(some):
        assert may_hold(rule, half)
        assert may_hold(rule, everything)
    assert may_hold(rule, {name: [choice] for name, choice in some.items()}) >= rule.evaluate(some)


arithmetic = st.recursive(
    st.sampled_from((a, b)) | st.integers(-3, 3),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from([*OPERATIONS, "&", "|", "=="]), inner, inner).map(lambda t: Operation(t[0], t[1:])),
        st.tuples(st.sampled_from(("neg", "abs", "~")), inner).map(lambda t: Operation(t[0], t[1:])),
    ),
    max_leaves=6,
).filter(lambda tree: isinstance(tree, Expression) and "==" not in str(tree) and tree.names())


@given(arithmetic)
def test_the_text_of_an_expression_reads_back_as_the_same_expression(tree):
    try:
        again = eval(str(tree), {"a": a, "b": b})
    except (ArithmeticError, ExpressionError, TypeError):  # of plain numbers Python computes the value at once
        return
    if all(map(_stays_as_written, _parts(tree))):
        assert again.to_data() == tree.to_data()


def _parts(tree):
    """All operators in a tree."""
    yield tree
    for operand in tree.operands if isinstance(tree, Operation) else ():
        if isinstance(operand, Expression):
            yield from _parts(operand)


def _stays_as_written(tree):
    """Whether Python leaves an operator alone: it computes `1 + 2`, and turns `0 < a` into `a > 0`."""
    turned = isinstance(tree, Operation) and "<>".find(tree.operator[0]) >= 0 and isinstance(tree.operands[0], int)
    return bool(tree.names()) and not turned


# ---- examples --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (a * 2 <= 64, "a * 2 <= 64"),
        (a * (b + 1) - (b - a), "a * (b + 1) - (b - a)"),
        ((a < 3) & a.eq("skip") | ~a.isin([1, 2]), "(a < 3) & (a == 'skip') | ~(a in [1, 2])"),
        (-(a**2), "-a ** 2"),
        ((-a) ** 2, "(-a) ** 2"),
        ((-1) ** a, "(-1) ** a"),
        ((a**2) ** b, "(a ** 2) ** b"),
        (a[0] + abs(b), "a[0] + abs(b)"),
        (condition(a.ne(1), a, b[a]), "condition(a != 1, a, b[a])"),
        (switch_case(a, {"x": 1, "y": b}), "switch_case(a, ['x', 'y'], 1, b)"),
        (round(to_int(Ref("layer.0")), 1), "round(to_int(layer.0), 1)"),
    ],
)
def test_expressions_read_like_python(expression, text):
    assert str(expression) == text
    assert repr(expression) == f"Expression({text})"


def test_lists_and_tuples_are_equal():
    assert a.eq((1, 7)).evaluate({"a": [1, 7]})
    assert a.isin([(1, 7), (3, 3)]).evaluate({"a": [3, 3]})
    assert not a.ne([1, 7]).evaluate({"a": (1, 7)})
    assert switch_case(a, {(1, 7): "wide", (3, 3): "square"}).evaluate({"a": [3, 3]}) == "square"


def test_only_the_side_that_decides_is_evaluated():
    safe = (a.ne(0)) & (b / a > 1)
    assert safe.evaluate({"a": 0, "b": 3}) is False
    assert (a.eq(0) | (b / a > 1)).evaluate({"a": 0, "b": 3}) is True
    assert condition(a.eq(0), 0, b / a).evaluate({"a": 0, "b": 3}) == 0
    assert case([(a.eq(0), 0), (True, b / a)]).evaluate({"a": 0, "b": 3}) == 0
    assert may_hold(safe, {"a": [0, 1], "b": [3]})


def test_equality_is_identity_so_that_expressions_can_be_members_and_keys():
    assert a in [b, a]
    assert Ref("a") not in [a, b]
    assert {a: 1}[a] == 1


@pytest.mark.parametrize(
    ("use", "advice"),
    [
        (lambda e: bool(e), "a < 3 is decided later and has no truth value now; combine with `&`, `|`, `~`"),
        (lambda e: 1 < e < 2, "choose with `condition`, `minimum`, `maximum`"),
        (lambda e: min(e, 2), "or read the value in force: `.current_choice` of a mutable, `.evaluate"),
        (lambda e: int(e), "write `to_int"),
        (lambda e: float(e), "write `to_float"),
        (lambda e: range(e), "build as many as there may be, and use some"),
        (lambda e: [1, 2][e], "no number to count, index or slice with"),
        (lambda e: list(e), "index it with"),
        (lambda e: 2 in e, "test members with `.isin"),
    ],
)
@pytest.mark.parametrize("error", [ExpressionError, RuntimeError])
def test_an_expression_is_no_value_and_says_what_to_write(use, advice, error):
    with pytest.raises(error) as caught:
        use(a < 3)
    assert advice in str(caught.value)


def test_what_cannot_be_part_of_an_expression_is_refused():
    with pytest.raises(TypeError, match="unsupported operand"):
        a + {1}
    with pytest.raises(TypeError, match="object.* cannot be part of an expression"):
        a.eq(object())
    with pytest.raises(TypeError, match="cannot be part of an expression"):
        a.isin([b])
    with pytest.raises(SpaceError, match="no operator 'plus'; allowed"):
        Operation("plus", (a, 1))
    with pytest.raises(SpaceError, match="name of a decision, got ''"):
        Ref("")


def test_a_failing_evaluation_says_where():
    with pytest.raises(SpaceError, match=r"a / b has no value where a = 1, b = 0: .*zero"):
        (a / b).evaluate({"a": 1, "b": 0})
    with pytest.raises(SpaceError, match=r"a \+ b needs decision 'b'; .*allowed: 'a', 'bb'"):
        (a + b).evaluate({"a": 1, "bb": 0})
    with pytest.raises(SpaceError, match="no case holds"):
        case([(a < 0, 1)]).evaluate({"a": 0})
    with pytest.raises(SpaceError, match="3 is none of the cases"):
        switch_case(a, {1: 2}).evaluate({"a": 3})


def test_functions_without_anything_to_choose_from_are_refused():
    with pytest.raises(SpaceError, match="case needs"):
        case([])
    with pytest.raises(SpaceError, match="switch_case needs"):
        switch_case(a, {})
    with pytest.raises(TypeError, match="maximum takes two values or more, got 1"):
        maximum(a)


@pytest.mark.parametrize("data", [None, 3, {"ref": 1}, {"op": "+"}, {"op": "+", "of": 1}, ["+", 1, 2]])
def test_data_that_is_no_expression_is_refused(data):
    with pytest.raises(SpaceError, match="not an expression"):
        Expression.from_data(data)


def test_renaming_reaches_every_reference():
    assert str((a * b < a).renamed({"a": "depth"})) == "depth * b < depth"
