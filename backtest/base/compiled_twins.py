"""Twins: copies of functions with other globals, from which compiled and array code is made."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.metadata
import os
import types
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np


def count_all_brackets(rules: Any, notional: Any) -> int:  # noqa: ARG001 - as the scalar one
    return len(rules.floors)


def select(condition: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
    if np.ndim(condition) == 0:
        return yes() if condition else no()
    one, other = yes(), no()
    if isinstance(one, tuple):
        return tuple(np.where(condition, *pair) for pair in zip(one, other, strict=True))
    return np.where(condition, one, other)


ON_ARRAYS = {
    "choose": np.where,
    "is_any": np.any,
    "min": np.minimum,
    "max": np.maximum,
    "count_brackets": count_all_brackets,
    "select": select,
    "math": np,
    "float": np.asarray,
}


def make_twin(
    function: types.FunctionType, names: dict[str, Any], path: Path
) -> types.FunctionType:
    code = function.__code__.replace(co_filename=str(path))
    copy = types.FunctionType(
        code, names, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__qualname__ = function.__qualname__
    copy.__module__ = names["__name__"]
    return copy


def find_own_functions(
    module: types.ModuleType, left_out: Collection[str] = ()
) -> Iterator[tuple[str, types.FunctionType]]:
    for name, value in vars(module).items():
        is_own = isinstance(value, types.FunctionType) and value.__module__ == module.__name__
        if is_own and name not in left_out and not name.startswith("_"):
            yield name, value


def bind_functions(module: types.ModuleType, **names: Any) -> dict[str, Any]:
    bound = {**vars(module), **names}
    for name, function in find_own_functions(module, names):
        bound[name] = make_twin(function, bound, Path(function.__code__.co_filename))
    return bound


def make_array_twins(*modules: types.ModuleType) -> Any:
    """Return a namespace of some modules in which every function takes arrays.

    A choice becomes :func:`select`: both sides are computed, and one is taken for each element.
    """
    names: dict[str, Any] = {"__name__": __name__}
    for module in modules:
        names |= {k: v for k, v in vars(module).items() if not k.startswith("__")}
    for module in modules:
        codes = read_selecting_code(module)
        for name, function in find_own_functions(module):
            names[name] = types.FunctionType(codes[name], names, name, function.__defaults__)
    names |= ON_ARRAYS
    return types.SimpleNamespace(**names)


class Selecting(ast.NodeTransformer):
    """Replace the choices of a function by calls of :func:`select`.

    These are conditional expressions, ``and``, ``or``, ``not``, an ``if`` and ``else`` that assign
    the same name, and an ``if`` that returns just before the last line does; ``a -= b`` becomes
    ``a = a - b``. What is left chooses by the rules, which are the same for all elements.
    """

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        return make_select(node.test, node.body, node.orelse)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        last = node.values[-1]
        for each in reversed(node.values[:-1]):
            is_and = isinstance(node.op, ast.And)
            sides = (last, ast.Constant(False)) if is_and else (ast.Constant(True), last)
            last = make_select(each, *sides)
        return last

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.op, ast.Not):
            return node
        return ast.Compare(node.operand, [ast.Eq()], [ast.Constant(False)])

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        self.generic_visit(node)
        now = ast.Name(node.target.id, ast.Load()) if isinstance(node.target, ast.Name) else None
        return ast.Assign([node.target], ast.BinOp(now, node.op, node.value)) if now else node

    def visit_If(self, node: ast.If) -> ast.AST:
        self.generic_visit(node)
        match (node.body, node.orelse):
            case ([ast.Assign() as yes], [ast.Assign() as no]) if is_same(yes, no):
                return ast.Assign(yes.targets, make_select(node.test, yes.value, no.value))
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        match node.body:
            case [*rest, ast.If(body=[ast.Return(ast.expr() as yes)], orelse=[]) as choice,
                  ast.Return(ast.expr() as no)]:  # fmt: skip
                last = ast.Return(make_select(choice.test, yes, no))
                node.body = [*rest, last]
        return node


def is_same(one: ast.Assign, other: ast.Assign) -> bool:
    return [*map(ast.dump, one.targets)] == [*map(ast.dump, other.targets)]


def make_select(condition: ast.expr, yes: ast.expr, no: ast.expr) -> ast.Call:
    nothing = ast.arguments([], [], None, [], [], None, [])
    sides = [ast.Lambda(nothing, each) for each in (yes, no)]
    return ast.Call(ast.Name("select", ast.Load()), [condition, *sides], [])


@functools.cache
def read_selecting_code(module: types.ModuleType) -> dict[str, types.CodeType]:
    path = str(module.__file__)
    tree = Selecting().visit(ast.parse(Path(path).read_text(encoding="utf-8")))
    whole = compile(ast.fix_missing_locations(tree), path, "exec")
    return {each.co_name: each for each in whole.co_consts if isinstance(each, types.CodeType)}


def find_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return str(importlib.import_module(name).__version__)


@functools.cache
def describe_target() -> tuple[str, ...]:
    from llvmlite import binding  # noqa: PLC0415 - only needed where code runs

    versions = [find_version(name) for name in ("numba", "llvmlite", "numpy")]
    chosen = [os.environ.get(f"NUMBA_CPU_{word}", "") for word in ("NAME", "FEATURES")]
    features = binding.get_host_cpu_features().flatten()
    host = (binding.get_process_triple(), binding.get_host_cpu_name(), features)
    here, switch = Path(__file__), os.environ.get("BACKTEST_FAST_LINK", "")
    names = ("rule_passes", "compiler", "fast_link")
    own = [here.with_name(f"{name}.py").read_text("utf-8") for name in names]
    return (*versions, *chosen, *map(str, host), switch, *own)
