"""Formulas of policies: what their code reads, and their powers, exp and log made ours."""

from __future__ import annotations

import ast
import copy
import dis
import inspect
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from types import FunctionType
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np

from backtest._compile.code_identity import describe_bytecode, find_references
from backtest.core import PolicyError, raise_to
from backtest.core.elementary import REPLACEMENTS

PREFIX = "_backtest_"
LARGEST_INTEGER = 2**53
"""Python's integers have no end and those of compiled code wrap after 64 bits."""
Identity: TypeAlias = "tuple[tuple[str, int], ...]"

_known: WeakKeyDictionary[Any, tuple[Any, Identity]] = WeakKeyDictionary()
"""What functions became, None for themselves, and the identity of what they refer to."""


def rewrite_formula(function: Any, above: frozenset[types.FunctionType] = frozenset()) -> Any:
    if not is_of_user(function):
        return function
    references, identity = find_references(function), identify(function, set())
    known = _known.get(function)
    if known is not None and known[1] == identity:
        return known[0] or function
    refuse_large_integers(function, references)
    helpers = {
        name: rewrite_formula(value, above | {function})
        for name, value in references.items()
        if is_of_user(value) and value not in above | {function}
    }
    helpers = {name: each for name, each in helpers.items() if each is not references[name]}
    found = replace_code(function, helpers)
    if not above:
        _known[function] = None if found is function else found, identity
    return found


def refuse_large_integers(function: FunctionType, references: Mapping[str, Any]) -> None:
    for number in (*list_numbers(function.__code__), *references.values()):
        if type(number) is int and abs(number) > LARGEST_INTEGER:
            raise PolicyError(
                "a whole number in a formula must be at most 2^53 in size, beyond which compiled "
                "code wraps and Python does not (write it with a point, as 2.0**70), "
                f"{function.__qualname__} has {number}"
            )


def list_numbers(code: types.CodeType) -> Iterator[Any]:
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from list_numbers(each)
        else:
            yield from each if isinstance(each, tuple) else (each,)
    steps = list(dis.get_instructions(code))
    for one, power, step in zip(steps, steps[1:], steps[2:], strict=False):
        are_constants = {one.opname, power.opname} <= {"LOAD_CONST", "LOAD_SMALL_INT"}
        if step.argrepr == "**" and are_constants and type(one.argval) is type(power.argval) is int:
            yield one.argval ** max(0, min(power.argval, 64))  # Python folds no large ones


def identify(function: types.FunctionType, seen: set[int]) -> Identity:
    if id(function) in seen:
        return ()
    seen.add(id(function))
    found: list[tuple[str, int]] = []
    for name, value in find_references(function).items():
        found.append((name, id(value)))
        if is_of_user(value):
            found += identify(value, seen)
    return tuple(found)


def is_of_user(value: Any) -> bool:
    is_plain = isinstance(value, types.FunctionType)
    return is_plain and str(value.__module__).partition(".")[0] != "backtest"


def replace_code(function: types.FunctionType, helpers: Mapping[str, Any]) -> types.FunctionType:
    tree = parse_function(function)
    if tree is None:
        return function
    editor = Editor(function)
    edited = editor.visit(copy.deepcopy(tree))
    own = function.__code__.co_freevars
    given = {**dict(zip(own, function.__closure__ or (), strict=True))}
    added = {**editor.added, **helpers}
    if not added or describe_bytecode(compile_inner(tree, own, function)) != describe_bytecode(
        function.__code__
    ):
        return function
    code = compile_inner(edited, (*own, *(name for name in added if name not in own)), function)
    cells = {**given, **{name: types.CellType(value) for name, value in added.items()}}
    closure = tuple(cells[name] for name in code.co_freevars)
    made = types.FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, closure
    )
    made.__kwdefaults__ = function.__kwdefaults__
    made.__qualname__, made.__module__ = function.__qualname__, function.__module__
    made.__doc__ = function.__doc__
    return made


def parse_function(function: types.FunctionType) -> ast.FunctionDef | None:
    try:
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return None
    node = tree.body[0] if len(tree.body) == 1 else None
    if not isinstance(node, ast.FunctionDef):
        return None
    if node.decorator_list or getattr(node, "type_params", []):
        return None
    if any(isinstance(each, ast.Try | ast.TryStar) for each in ast.walk(node)):
        return None  # the functions of math raise, ours do not
    ast.increment_lineno(node, first - 1)
    node.returns, node.args.defaults = None, [ast.Constant(0) for _ in node.args.defaults]
    node.args.kw_defaults = [each and ast.Constant(0) for each in node.args.kw_defaults]
    for each in ast.walk(node.args):
        if isinstance(each, ast.arg):
            each.annotation = None
    return node


def compile_inner(
    node: ast.FunctionDef, names: tuple[str, ...], function: types.FunctionType
) -> types.CodeType:
    modules = [name for name, each in find_references(function).items() if is_module(each)]
    imports = "".join(f"import {name}\n" for name in modules if name not in names)
    around = ast.parse(f"{imports}def make({', '.join(names)}): pass")
    maker: Any = around.body[-1]
    maker.body = [node]
    tree = ast.fix_missing_locations(around)
    flags = function.__code__.co_flags & FUTURE_FLAGS
    code = compile(tree, function.__code__.co_filename, "exec", flags, dont_inherit=True)
    outer = next(each for each in code.co_consts if isinstance(each, types.CodeType))
    inner = (each for each in outer.co_consts if isinstance(each, types.CodeType))
    return next(each for each in inner if each.co_name == node.name)


FUTURE_FLAGS = 0x1FF0000
"""The flags of code that ``from __future__`` sets."""
KINDS = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, np.ufunc)


class Editor(ast.NodeTransformer):
    def __init__(self, function: types.FunctionType) -> None:
        self.added: dict[str, Any] = {}
        self._locals = set(find_local_names(function.__code__))
        self._known = find_references(function)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        is_constant = isinstance(node.left, ast.Constant) and isinstance(node.right, ast.Constant)
        if not isinstance(node.op, ast.Pow) or is_constant:
            return node
        return self._call(raise_to, [node.left, node.right], node)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.op, ast.Pow) or not isinstance(node.target, ast.Name):
            return node
        before = ast.copy_location(ast.Name(node.target.id, ast.Load()), node)
        value = self._call(raise_to, [before, node.value], node)
        return ast.copy_location(ast.Assign([node.target], value), node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        function, n_arguments = REPLACEMENTS.get(self._resolve(node.func), (None, 0))
        is_starred = any(isinstance(each, ast.Starred) for each in node.args)
        if function is None or node.keywords or len(node.args) != n_arguments or is_starred:
            return node
        return self._call(function, node.args, node)

    def _resolve(self, node: ast.AST) -> Any:
        if isinstance(node, ast.Attribute):
            owner = self._resolve(node.value)
            found = vars(owner).get(node.attr) if is_module(owner) else None  # runs no code
        elif isinstance(node, ast.Name) and node.id not in self._locals:
            found = self._known.get(node.id, pow if node.id == "pow" else None)
        else:
            found = None
        return found if isinstance(found, KINDS) else None

    def _call(self, function: Any, arguments: list[ast.expr], node: ast.AST) -> ast.Call:
        name = f"{PREFIX}{function.__name__}"
        self.added[name] = function
        target = ast.copy_location(ast.Name(name, ast.Load()), node)
        return ast.copy_location(ast.Call(target, arguments, []), node)


def find_local_names(code: types.CodeType) -> Iterator[str]:
    yield from (*code.co_varnames, *code.co_cellvars)
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from find_local_names(each)


def is_module(value: Any) -> bool:
    return isinstance(value, types.ModuleType)


ACCOUNT = 2
"""Place of the account among the arguments of a formula."""


def may_read_of_account(rule: Any, names: frozenset[str]) -> bool:
    return bool(find_fields(rule, ACCOUNT) & {"*", *names})


def find_fields(rule: Any, place: int) -> frozenset[str]:
    """Return the fields that a formula reads of an argument, with ``*`` if it may read others."""
    code = rule.__code__
    name = code.co_varnames[place]
    steps = list(dis.get_instructions(code))
    found = {"*"} if name in code.co_cellvars else set()
    around = zip([steps[0], *steps[:-1]], steps, [*steps[1:], steps[-1]], strict=True)
    for before, step, after in around:
        names = step.argval if isinstance(step.argval, tuple) else (step.argval,)
        if name not in names:
            continue
        if names == (name,) and after.opname == "LOAD_ATTR":
            found.add(str(after.argval))
        elif names[0] == name and names.count(name) == 1 and is_called(before, steps):
            found |= find_fields_of(rule.__globals__.get(before.argval))
        else:
            found.add("*")  # one of two that are loaded together, or something else
    return frozenset(found)


def is_called(step: dis.Instruction, steps: Sequence[dis.Instruction]) -> bool:
    has_keywords = any(each.opname in ("KW_NAMES", "CALL_KW", "CALL_FUNCTION_EX") for each in steps)
    return step.opname == "LOAD_GLOBAL" and "NULL" in step.argrepr and not has_keywords


def find_fields_of(function: object) -> frozenset[str]:
    if isinstance(function, FunctionType) and function.__code__.co_argcount:
        return find_fields(function, 0)
    return frozenset("*")
