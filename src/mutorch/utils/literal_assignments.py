"""Python text made of assignments of plain values, read without running it."""

import ast
from typing import Any

from mutorch.errors import ConfigError


class _DictCalls(ast.NodeTransformer):
    """Turns `dict(a=1)` into `{"a": 1}`, as configs write it."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        names = [keyword.arg for keyword in node.keywords]
        is_dict = isinstance(node.func, ast.Name) and node.func.id == "dict"
        if not is_dict or node.args or None in names:
            return node
        return ast.Dict(
            keys=[ast.Constant(name) for name in names],
            values=[keyword.value for keyword in node.keywords],
        )


def parse_assignments(text: str) -> dict[str, Any]:
    """The names and values of `name = literal` lines; `dict(a=1)` counts as a literal.

    Example:
        >>> parse_assignments("lr = 0.1\\nmodel = dict(type='ChainNet', widths=[8, 16])")
        {'lr': 0.1, 'model': {'type': 'ChainNet', 'widths': [8, 16]}}
    """
    try:
        body = ast.parse(text).body
    except SyntaxError as error:
        raise ConfigError(f"config text, line {error.lineno}: {error.msg}") from error
    values: dict[str, Any] = {}
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                values[name] = _literal(value)
            case _:
                raise ConfigError(f"config text, line {statement.lineno}: only 'name = value' lines are read")
    return values


def _literal(value: ast.expr) -> Any:
    try:
        return ast.literal_eval(_DictCalls().visit(value))
    except ValueError as error:
        raise ConfigError(
            f"config text, line {value.lineno}: {ast.unparse(value)!r} is not a plain value; "
            "write numbers, strings, lists, dicts, True, False or None"
        ) from error
