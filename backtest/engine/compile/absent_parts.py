"""The rules of several positions without options, which few accounts have."""

from __future__ import annotations

import ast
import types
from pathlib import Path
from typing import Any

from backtest.account import Terms

CALLS: dict[str, Any] = {
    "holds_options": False,
    "has_short_option": False,
    "is_adding_options": False,
    "is_walking": False,
    "count_options": 0,
    "take_option_step": None,
}
NO_LOOPS = frozenset({"range(len(state.options.targets))", "range(len(own.targets))"})


def pack_terms(terms: Terms) -> Terms:
    has_parts = len(terms.options.instruments) > 0
    return terms._replace(instruments=0 if has_parts else None)


class PartRemover(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        self.generic_visit(node)
        ends = [k for k, line in enumerate(node.body) if isinstance(line, ast.Return)]
        del node.body[ends[0] + 1 if ends else len(node.body) :]
        return node

    def visit_Call(self, node: ast.Call) -> Any:
        name = getattr(node.func, "id", "")
        return ast.Constant(CALLS[name]) if name in CALLS else self.generic_visit(node)

    def visit_For(self, node: ast.For) -> Any:
        return ast.Pass() if ast.unparse(node.iter) in NO_LOOPS else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> Any:
        self.generic_visit(node)
        if not isinstance(node.test, ast.Constant):
            return node
        return (node.body if node.test.value else node.orelse) or ast.Pass()

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        self.generic_visit(node)
        if not isinstance(node.test, ast.Constant):
            return node
        return node.body if node.test.value else node.orelse

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        self.generic_visit(node)
        is_known = isinstance(node.op, ast.Not) and isinstance(node.operand, ast.Constant)
        return ast.Constant(not node.operand.value) if is_known else node  # type: ignore[attr-defined]

    def visit_BoolOp(self, node: ast.BoolOp) -> Any:
        self.generic_visit(node)
        ends = isinstance(node.op, ast.Or)  # what decides the condition alone
        values = [getattr(each, "value", None) for each in node.values]
        if any(each is ends for each in values):
            return ast.Constant(ends)
        pairs = zip(node.values, values, strict=True)
        node.values = [each for each, value in pairs if value is not (not ends)]
        return node if len(node.values) > 1 else (*node.values, ast.Constant(not ends))[0]


def remove_parts(module: types.ModuleType, text: str, path: Path) -> dict[str, types.FunctionType]:
    scope, found = dict(vars(module)), {}
    words = (*CALLS, *NO_LOOPS)
    if not any(each in text for each in words):
        return {}
    lines = text.splitlines()
    for node in ast.parse(text).body:
        own = "\n".join(lines[node.lineno - 1 : node.end_lineno])
        if isinstance(node, ast.FunctionDef) and any(each in own for each in words):
            changed = ast.fix_missing_locations(PartRemover().visit(node))
            whole = ast.Module(body=[changed], type_ignores=[])
            exec(compile(whole, str(path), "exec"), scope)  # our own text, shortened
            found[node.name] = scope[node.name]
    return found
