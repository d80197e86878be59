"""Functions that need a sentence have one: of a tuple, of an argument written into, of a bound."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import backtest as bt

ROOT = Path(bt.__file__).parents[1]

SPOKEN = {
    "engine": "loop.py", "sweep": "lanes", "risk": "", "results": "", "search": "", "margin": "",
    "account": "",
}  # fmt: skip
"""Rooms whose functions have sentences, and the part of a room that has not all yet."""


def list_functions(node: ast.AST) -> Iterator[ast.FunctionDef]:
    """Yield the functions and methods of a module, nested ones too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield child
        if not isinstance(child, ast.expr):
            yield from list_functions(child)


def find_root(node: ast.expr) -> str:
    """Return the name whose element or attribute an expression is."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def needs_sentence(function: ast.FunctionDef, *, has_values: bool) -> bool:
    """Return whether it returns a tuple, writes into an argument, has a value, or is a bound."""
    returned = ast.unparse(function.returns) if function.returns else ""
    if returned.startswith("tuple[") and not returned.endswith("...]"):
        return True

    names = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}
    stored = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store):
            stored.add(find_root(node))
    if (names - {"self"}) & stored:
        return True

    floats = set()
    for argument in function.args.args:
        if argument.annotation and ast.unparse(argument.annotation) == "float":
            floats.add(argument.arg)
    if has_values and {"u", "value"} & floats:
        return True

    return "bound" in function.name.split("_")


@pytest.mark.parametrize("room", SPOKEN)
def test_functions_that_need_a_sentence_have_one(room: str) -> None:
    """A sentence for what returns a tuple, writes into an argument, has a value, or is a bound."""
    silent = []
    for path in sorted((ROOT / "backtest" / room).rglob("*.py")):
        if SPOKEN[room] in path.parts:
            continue
        for function in list_functions(ast.parse(path.read_text(encoding="utf-8"))):
            is_silent = not ast.get_docstring(function) and not function.name.startswith("__")
            if is_silent and needs_sentence(function, has_values=room == "margin"):
                silent.append(f"{path.relative_to(ROOT)}:{function.lineno} {function.name}")
    assert not silent, silent
