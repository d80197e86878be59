"""The code of functions: what it is and refers to, what it reads, and its powers made ours.

All that reads bytecode or code objects stands here.
"""

from __future__ import annotations

import ast
import builtins
import copy
import dis
import functools
import hashlib
import inspect
import itertools
import re
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np

from backtest.core.elementary import REPLACEMENTS, raise_to
from backtest.core.errors import PolicyError

CONSTANTS = (bool, int, float, str, type(None), types.BuiltinFunctionType, np.ufunc, np.generic)


def describe_bytecode(code: types.CodeType) -> str:
    constants = list(map(describe_constant, code.co_consts))
    return repr((code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars))


def describe_constant(value: Any) -> str:
    if isinstance(value, types.CodeType):
        return describe_bytecode(value)
    return f"frozenset({sorted(map(repr, value))})" if isinstance(value, frozenset) else repr(value)


def walk_code(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield a code object, and those of the functions and comprehensions in it."""
    yield code
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from walk_code(each)


def find_code_names(function: Any) -> list[str]:
    return [name for each in walk_code(function.__code__) for name in each.co_names]


def find_references(function: Any) -> dict[str, Any]:
    scope = function.__globals__
    found = {name: scope[name] for name in find_code_names(function) if name in scope}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found |= {name: cell.cell_contents for name, cell in cells}
    return {name: value for name, value in found.items() if not is_builtin(name, value)}


def is_builtin(name: str, value: Any) -> bool:
    is_special = name.startswith("__") and hasattr(builtins, name)
    return is_special or value is getattr(builtins, name, is_builtin)


class CodeText(NamedTuple):
    text: str
    names: frozenset[str] = frozenset()
    is_complete: bool = True


def describe_function(function: Any, seen: dict[int, int], *, by_source: bool = True) -> CodeText:
    """Return what a function is: its code, and all that it refers to.

    ``by_source`` names functions of this package by their files, so that the formula of a shipped
    policy has one name in all versions of Python; else all code is bytecode.
    """
    if function.__globals__.get("__name__") == "backtest.core.checked_calls":
        function = inspect.unwrap(function)  # how arguments are checked changes no result
    if id(function) in seen:
        return CodeText(f"again {seen[id(function)]}")
    seen[id(function)] = len(seen)
    texts, names, is_complete = [], set(find_code_names(function)), True
    module, path = str(function.__module__), function.__code__.co_filename
    is_shipped = path == getattr(sys.modules.get(module), "__file__", None)
    if by_source and is_shipped and module.startswith("backtest."):
        code = f"{function.__qualname__} of {hash_file(path)}"
    else:
        code = describe_bytecode(function.__code__)
    texts += [module, code, repr(function.__defaults__)]
    for name, value in sorted(find_references(function).items()):
        found = describe_value(value, seen, by_source=by_source)
        texts.append(f"{name}={found.text}")
        names |= found.names
        is_complete &= found.is_complete
    return CodeText("\n".join(texts), frozenset(names), is_complete)


@functools.cache
def hash_file(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def join_texts(one: CodeText, other: CodeText) -> CodeText:
    text = f"{one.text}\n{other.text}"
    return CodeText(text, one.names | other.names, one.is_complete and other.is_complete)


def describe_value(value: Any, seen: dict[int, int], *, by_source: bool = True) -> CodeText:
    is_plain = isinstance(value, tuple) and all(isinstance(x, (int, float, str)) for x in value)
    if is_plain or isinstance(value, CONSTANTS):
        return CodeText(repr(value))
    if isinstance(value, types.ModuleType):
        is_known = value.__name__.partition(".")[0] in ("math", "numpy", "backtest")
        text = f"{value.__name__} {getattr(value, '__version__', '')}"
        return CodeText(text, is_complete=is_known)
    if isinstance(value, types.FunctionType):
        if has_compiled_versions(value):
            return CodeText(f"{value.__module__}.{value.__qualname__}")
        return describe_function(value, seen, by_source=by_source)
    if isinstance(value, type) and hasattr(value, "_fields"):
        place = f"{value.__module__}.{value.__qualname__}"  # compiled code refers to it there
        return CodeText(f"{place}{value._fields}")
    return CodeText(repr(type(value)), is_complete=False)


def has_compiled_versions(function: types.FunctionType) -> bool:
    """Return whether compiled code has other functions in place of those of its module."""
    return hasattr(sys.modules.get(str(function.__module__)), "HAS_COMPILED_VERSIONS")


def name_callable(function: Any) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    return f"{name} sha256:{hashlib.sha256(describe_callable(function).encode()).hexdigest()}"


def describe_callable(function: Any) -> str:
    if isinstance(function, types.FunctionType):
        text = describe_function(function, {}, by_source=False).text
        return "\n".join([text, *describe_tables(function, set())])
    if isinstance(function, functools.partial):
        bound = sorted(function.keywords.items())
        return f"{describe_callable(function.func)} {function.args!r} {bound!r}"
    rule: Any = type(function).__call__
    kept = sorted(getattr(function, "__dict__", {}).items())
    is_plain = isinstance(rule, types.FunctionType)
    return f"{describe_callable(rule)} {kept!r}" if is_plain else repr(type(function))


def describe_tables(function: types.FunctionType, seen: set[int]) -> Iterator[str]:
    seen.add(id(function))
    for name, value in sorted(find_references(function).items()):
        if isinstance(value, (dict, list)):
            yield f"{name}={write_table(value)}"
        if isinstance(value, types.FunctionType) and id(value) not in seen:
            yield from describe_tables(value, seen)


def write_table(value: Any) -> str:
    if isinstance(value, dict):
        pairs = (f"{key!r}: {write_table(each)}" for key, each in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(write_table, value))}]"
    return repr(value if isinstance(value, CONSTANTS) else type(value))


def catches_errors(function: types.FunctionType) -> bool:
    """Return whether a function has a ``try``, in which functions of math raise as ever."""
    steps = (each for code in walk_code(function.__code__) for each in dis.get_instructions(code))
    return any(each.opname == "PUSH_EXC_INFO" for each in steps)


PREFIX = "_backtest_"
LARGEST_INTEGER = 2**53
"""Whole numbers up to this size are floats: constants of formulas and parameters have no larger."""
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
    numbers = [x for code in walk_code(function.__code__) for x in list_numbers(code)]
    for number in (*numbers, *references.values()):
        if type(number) is int and abs(number) > LARGEST_INTEGER:
            raise PolicyError(
                "a whole number in a formula must be at most 2^53 in size, beyond which "
                "numbers are not exact (write it with a point, as 2.0**70), "
                f"{function.__qualname__} has {number}"
            )
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


def list_numbers(code: types.CodeType) -> Iterator[Any]:
    for each in code.co_consts:
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


def find_stored(function: types.FunctionType) -> frozenset[str]:
    """Return the names of its module and of functions around it that a function writes."""
    steps = (each for code in walk_code(function.__code__) for each in dis.get_instructions(code))
    outside = {"STORE_GLOBAL", "STORE_DEREF", "DELETE_GLOBAL", "DELETE_DEREF"}
    return frozenset(str(each.argval) for each in steps if each.opname in outside)


def is_written_by_user(function: Any, seen: frozenset[Any] = frozenset()) -> bool:
    """Return whether a formula or a function that it calls is of a user."""
    if not isinstance(function, types.FunctionType) or function in seen:
        return False
    inner = find_references(function).values()
    return is_of_user(function) or any(
        is_written_by_user(each, seen | {function}) for each in inner
    )


def replace_code(function: types.FunctionType, helpers: Mapping[str, Any]) -> types.FunctionType:
    tree = parse_function(function)
    if tree is None:
        return function
    editor = Editor(function)
    edited = editor.visit(copy.deepcopy(tree))
    own = function.__code__.co_freevars
    given = dict(zip(own, function.__closure__ or (), strict=True))
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
    node = tree.body[0]
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
    known = find_references(function).items()
    modules = [name for name, each in known if isinstance(each, types.ModuleType)]
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
BUILTIN = {"pow": pow, "round": round}
"""Functions of Python's own that are replaced."""
KINDS = (
    types.ModuleType, types.FunctionType, types.BuiltinFunctionType, np.ufunc, type(np.where),
)  # fmt: skip


class Editor(ast.NodeTransformer):
    def __init__(self, function: types.FunctionType) -> None:
        self.added: dict[str, Any] = {}
        codes = walk_code(function.__code__)
        self._locals = {name for code in codes for name in (*code.co_varnames, *code.co_cellvars)}
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
            is_module = isinstance(owner, types.ModuleType)
            found = vars(owner).get(node.attr) if is_module else None  # runs no code
        elif isinstance(node, ast.Name) and node.id not in self._locals:
            found = self._known.get(node.id, BUILTIN.get(node.id))
        else:
            found = None
        return found if isinstance(found, KINDS) else None

    def _call(self, function: Any, arguments: list[ast.expr], node: ast.AST) -> ast.Call:
        name = f"{PREFIX}{function.__name__}"
        self.added[name] = function
        target = ast.copy_location(ast.Name(name, ast.Load()), node)
        return ast.copy_location(ast.Call(target, arguments, []), node)


ACCOUNT = 2
"""Place of the account among the arguments of a formula."""


def may_read_of_account(rule: Any, names: frozenset[str]) -> bool:
    return bool(find_fields(rule, ACCOUNT) & {"*", *names})


def find_fields(rule: Any, place: int) -> frozenset[str]:
    """Return the fields that a formula reads of an argument, with ``*`` if it may read others."""
    code = rule.__code__
    name = code.co_varnames[place]
    steps = list_steps(code)
    found = {"*"} if name in code.co_cellvars else set()
    around = zip([steps[0], *steps[:-1]], steps, [*steps[1:], steps[-1]], strict=True)
    for before, step, after in around:
        names = step.argval if isinstance(step.argval, tuple) else (step.argval,)
        if name not in names:
            continue
        is_last = names[-1] == name and names.count(name) == 1  # of two that are loaded together
        is_loaded = len(names) == 1 or step.opname.endswith("LOAD_FAST")
        if is_last and is_loaded and after.opname == "LOAD_ATTR":
            found.add(str(after.argval))
        elif names[0] == name and names.count(name) == 1 and is_called(before, steps):
            called = rule.__globals__.get(before.argval)
            is_known = isinstance(called, FunctionType) and called.__code__.co_argcount
            found |= find_fields(called, 0) if is_known else {"*"}
        else:
            found.add("*")
    return frozenset(found)


@functools.cache
def list_steps(code: types.CodeType) -> tuple[dis.Instruction, ...]:
    return tuple(dis.get_instructions(code))


def is_called(step: dis.Instruction, steps: Sequence[dis.Instruction]) -> bool:
    has_keywords = any(each.opname in ("KW_NAMES", "CALL_KW", "CALL_FUNCTION_EX") for each in steps)
    return step.opname == "LOAD_GLOBAL" and "NULL" in step.argrepr and not has_keywords


def format_location(error: BaseException, *functions: Callable[..., Any]) -> str:
    codes = [inspect.unwrap(each).__code__ for each in functions]
    files = {code.co_filename for code in codes}
    place, trace = (codes[0].co_filename, codes[0].co_firstlineno), error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file in files:
            place = file, trace.tb_lineno
        trace = trace.tb_next
    return f"{place[0]}, line {place[1]}"


REASON = re.compile(
    r"unknown|untyped|cannot|unsupported|invalid|not supported|no implementation|can't",
    re.IGNORECASE,
)


def explain_refusal(error: BaseException, formula: Any, rules: Sequence[Any]) -> str:
    """Return where numba refuses a formula, a line of one of the ``rules`` if any, and why."""
    places = re.findall(r'File "([^"]+)", line (\d+)', str(error))
    code, numbers = formula.__code__, [formula.__code__.co_firstlineno]
    file = Path(code.co_filename).name
    numbers += [int(line) for path, line in places if Path(path).name == file]
    head = f"{file}, line {numbers[-1]}"
    for (path, line), rule in reversed([*itertools.product(places, rules)]):
        lines = {each for *_, each in rule.__code__.co_lines()}
        if int(line) in lines and Path(path).name == Path(rule.__code__.co_filename).name:
            head = f"{rule.__qualname__}, {Path(path).name}, line {line}"
    texts = [part.strip() for part in str(error).splitlines() if part.strip()]
    reasons = [x for x in texts if REASON.search(x)] or texts or [type(error).__name__]
    named = re.sub(r"<(?:built-in )?(?:function|method) ([\w.]+)[^>]*>", r"\1", reasons[0])
    return f"{head}: {re.sub(r'<[^>]*>', '', named).strip(' :')[:200]}"
