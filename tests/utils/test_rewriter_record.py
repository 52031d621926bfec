from types import SimpleNamespace

from mutorch.utils import pop_rewriter_function_record


def test_named_records_are_popped_and_absent_ones_ignored():
    records = {"a.forward": object(), "b.forward": object()}
    popped = records["a.forward"]
    registry = SimpleNamespace(_registry=SimpleNamespace(_rewrite_records=records))
    manager = SimpleNamespace(function_rewriter=registry)
    context = SimpleNamespace(_rewriter_manager=manager)
    assert pop_rewriter_function_record(context, ["a.forward", "absent"]) == {"a.forward": popped}
    assert list(records) == ["b.forward"]
