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

KEPT_CODE = 1024
"""Code objects whose instructions are read once: each run reads those of the same formulas."""


# The identity of code.


def describe_bytecode(code: types.CodeType) -> str:
    constants = [describe_constant(value) for value in code.co_consts]
    return repr((code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars))


def describe_constant(value: Any) -> str:
    """Return a text that differs where a constant of code does; sets in one order."""
    if isinstance(value, types.CodeType):
        return describe_bytecode(value)
    if isinstance(value, frozenset):
        return f"frozenset({sorted(map(repr, value))})"
    return repr(value)


def walk_code(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield a code object, and those of the functions and comprehensions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from walk_code(constant)


def find_code_names(function: Any) -> list[str]:
    """Return the names that a function, and those in it, look up outside of themselves."""
    names: list[str] = []
    for code in walk_code(function.__code__):
        names += code.co_names
    return names


def find_references(function: Any) -> dict[str, Any]:
    """Return what a function refers to outside of itself, by name, without Python's own."""
    scope = function.__globals__
    references = {name: scope[name] for name in find_code_names(function) if name in scope}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in cells:
        references[name] = cell.cell_contents
    return {name: value for name, value in references.items() if not is_builtin(name, value)}


def is_builtin(name: str, value: Any) -> bool:
    """Return whether a name is one of Python's own, as a user's is not."""
    if name.startswith("__") and hasattr(builtins, name):
        return True
    return hasattr(builtins, name) and value is getattr(builtins, name)


class CodeText(NamedTuple):
    """The text of code, the names in it, and whether the text tells all that it does."""

    text: str
    names: frozenset[str] = frozenset()
    is_complete: bool = True


def describe_function(function: Any, seen: dict[int, int], *, by_source: bool = True) -> CodeText:
    """Return a text that tells a function apart from others: its code, and all that it refers to.

    With ``by_source`` functions of this package are told by the hash of their file, so that the
    formula of a shipped policy has one identity in all versions of Python. All others are told by
    their bytecode. ``seen`` numbers the functions that were described already, by their ``id``: one
    that is met again, as in a recursion, is told by its number. It is written.
    """
    if function.__globals__.get("__name__") == "backtest.core.checked_calls":
        function = inspect.unwrap(function)  # how arguments are checked changes no result
    if id(function) in seen:
        return CodeText(f"again {seen[id(function)]}")
    seen[id(function)] = len(seen)

    module = str(function.__module__)
    path = function.__code__.co_filename
    is_shipped = path == getattr(sys.modules.get(module), "__file__", None)
    if by_source and is_shipped and module.startswith("backtest."):
        code = f"{function.__qualname__} of {hash_file(path)}"
    else:
        code = describe_bytecode(function.__code__)

    texts = [module, code, repr(function.__defaults__)]
    names = set(find_code_names(function))
    is_complete = True
    for name, value in sorted(find_references(function).items()):
        described = describe_value(value, seen, by_source=by_source)
        texts.append(f"{name}={described.text}")
        names |= described.names
        is_complete = is_complete and described.is_complete
    return CodeText("\n".join(texts), frozenset(names), is_complete)


@functools.cache
def hash_file(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def join_texts(one: CodeText, other: CodeText) -> CodeText:
    text = f"{one.text}\n{other.text}"
    return CodeText(text, one.names | other.names, one.is_complete and other.is_complete)


def describe_value(value: Any, seen: dict[int, int], *, by_source: bool = True) -> CodeText:
    """Return a text that tells a value apart from others, for the identity of code that uses it.

    Not ``is_complete`` for a value whose content the text does not tell, and which may change: a
    list, or a module of others. ``seen`` and ``by_source`` as in :func:`describe_function`.
    """
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

    # Compiled code refers to a record by the place of its class.
    if isinstance(value, type) and hasattr(value, "_fields"):
        place = f"{value.__module__}.{value.__qualname__}"
        return CodeText(f"{place}{value._fields}")
    return CodeText(repr(type(value)), is_complete=False)


def has_compiled_versions(function: types.FunctionType) -> bool:
    """Return whether compiled code has other functions in place of those of its module."""
    return hasattr(sys.modules.get(str(function.__module__)), "HAS_COMPILED_VERSIONS")


def name_callable(function: Any) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    return f"{name} sha256:{hashlib.sha256(describe_callable(function).encode()).hexdigest()}"


def describe_callable(function: Any) -> str:
    """Return a text that differs where a callable of a user may do something else.

    It is a function, with the tables that it reads; a partial call of one; or an object with the
    method ``__call__``.
    """
    if isinstance(function, types.FunctionType):
        text = describe_function(function, {}, by_source=False).text
        return "\n".join([text, *describe_tables(function, set())])

    if isinstance(function, functools.partial):
        bound = sorted(function.keywords.items())
        return f"{describe_callable(function.func)} {function.args!r} {bound!r}"

    # An object is its class's rule and its fields.
    rule: Any = type(function).__call__
    if not isinstance(rule, types.FunctionType):
        return repr(type(function))
    fields = sorted(getattr(function, "__dict__", {}).items())
    return f"{describe_callable(rule)} {fields!r}"


def describe_tables(function: types.FunctionType, seen: set[int]) -> Iterator[str]:
    """Yield the dicts and lists that a function, and those that it calls, refer to."""
    seen.add(id(function))
    for name, value in sorted(find_references(function).items()):
        if isinstance(value, (dict, list)):
            yield f"{name}={write_table(value)}"
        if isinstance(value, types.FunctionType) and id(value) not in seen:
            yield from describe_tables(value, seen)


def write_table(value: Any) -> str:
    """Return the text of a table; of what is no constant, its type."""
    if isinstance(value, dict):
        rows = [f"{key!r}: {write_table(row)}" for key, row in value.items()]
        return f"{{{', '.join(rows)}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(write_table, value))}]"

    if isinstance(value, CONSTANTS):
        return repr(value)
    return repr(type(value))


def list_all_steps(code: types.CodeType) -> Iterator[dis.Instruction]:
    """Yield the instructions of a function's code, and of that inside it."""
    for inner in walk_code(code):
        yield from dis.get_instructions(inner)


def catches_errors(function: types.FunctionType) -> bool:
    """Return whether a function has a ``try``, in which functions of math raise as ever."""
    return has_try(function.__code__)


@functools.lru_cache(KEPT_CODE)
def has_try(code: types.CodeType) -> bool:
    return any(step.opname == "PUSH_EXC_INFO" for step in list_all_steps(code))


# Formulas of users, with our powers and functions of math in place of Python's.

PREFIX = "_backtest_"
LARGEST_INTEGER = 2**53
"""Whole numbers up to this size are floats: constants of formulas and parameters have no larger."""
Identity: TypeAlias = "tuple[tuple[str, int], ...]"

_known: WeakKeyDictionary[Any, tuple[Any, Identity]] = WeakKeyDictionary()
"""What functions became, None for themselves, and the identity of what they refer to."""


def rewrite_formula(function: Any, above: frozenset[types.FunctionType] = frozenset()) -> Any:
    """Return a function of a user in which our functions stand for some of math and NumPy.

    Compiled and plain code then have the same bits (:data:`REPLACEMENTS`). It is the function
    itself if neither it nor what it calls has any of them. ``above`` are the functions that call
    it: a call of one of them, a recursion, stays as it is.
    """
    if not is_of_user(function):
        return function

    # A function that was rewritten before is taken again while it refers to the same objects.
    references = find_references(function)
    identity = identify(function, set())
    known = _known.get(function)
    if known is not None:
        rewritten_before, identity_before = known
        if identity_before == identity:
            return rewritten_before or function

    check_numbers(function, references)

    # Functions that it calls come first. One that calls it, or itself, stays as it is.
    helpers = {}
    above_helpers = above | {function}
    for name, value in references.items():
        if is_of_user(value) and value not in above_helpers:
            helper = rewrite_formula(value, above_helpers)
            if helper is not value:
                helpers[name] = helper
    rewritten = replace_code(function, helpers)

    # Only where all that it calls was rewritten: below another function, a recursion was left. None
    # stands for the function itself: a value that refers to its key would keep it in memory.
    if not above:
        remembered = None
        if rewritten is not function:
            remembered = rewritten
        _known[function] = (remembered, identity)
    return rewritten


def check_numbers(function: types.FunctionType, references: Mapping[str, Any]) -> None:
    """Raise PolicyError if a whole number of a formula is no float."""
    numbers = [*references.values()]
    for code in walk_code(function.__code__):
        numbers += list_numbers(code)
    for number in numbers:
        if type(number) is int and abs(number) > LARGEST_INTEGER:
            raise PolicyError(
                "a whole number in a formula must be at most 2^53 in size, beyond which "
                "numbers are not exact (write it with a point, as 2.0**70), "
                f"{function.__qualname__} has {number}"
            )


def list_numbers(code: types.CodeType) -> Iterator[Any]:
    """Yield the constants of code, and its powers of constants: Python folds no large ones.

    A power of two constants, 2**70, stands as three steps: load, load, and the operation.
    """
    for constant in code.co_consts:
        if isinstance(constant, tuple):
            yield from constant
        else:
            yield constant

    steps = list(dis.get_instructions(code))
    for base, power, step in zip(steps, steps[1:], steps[2:], strict=False):
        are_constants = {base.opname, power.opname} <= {"LOAD_CONST", "LOAD_SMALL_INT"}
        are_whole = type(base.argval) is type(power.argval) is int
        if step.argrepr == "**" and are_constants and are_whole:
            # To a power beyond 64 it is too large already, and costly.
            yield base.argval ** max(0, min(power.argval, 64))


def identify(function: types.FunctionType, seen: set[int]) -> Identity:
    """Return what a function refers to, and the user's functions that it calls: names and ids.

    If it is the same later, nothing that the function uses has been replaced. ``seen`` has the
    functions that were looked at already.
    """
    if id(function) in seen:
        return ()
    seen.add(id(function))

    pairs: list[tuple[str, int]] = []
    for name, value in find_references(function).items():
        pairs.append((name, id(value)))
        if is_of_user(value):
            pairs += identify(value, seen)
    return tuple(pairs)


def is_of_user(value: Any) -> bool:
    """Return whether a value is a function that is not of this package."""
    is_plain = isinstance(value, types.FunctionType)
    return is_plain and str(value.__module__).partition(".")[0] != "backtest"


def find_stored(function: types.FunctionType) -> frozenset[str]:
    """Return the names of its module and of functions around it that a function writes."""
    return list_stored(function.__code__)


@functools.lru_cache(KEPT_CODE)
def list_stored(code: types.CodeType) -> frozenset[str]:
    outside = {"STORE_GLOBAL", "STORE_DEREF", "DELETE_GLOBAL", "DELETE_DEREF"}
    steps = list_all_steps(code)
    return frozenset(str(step.argval) for step in steps if step.opname in outside)


def is_written_by_user(function: Any, seen: frozenset[Any] = frozenset()) -> bool:
    """Return whether a formula or a function that it calls is of a user."""
    if not isinstance(function, types.FunctionType) or function in seen:
        return False
    if is_of_user(function):
        return True
    helpers = find_references(function).values()
    return any(is_written_by_user(helper, seen | {function}) for helper in helpers)


def replace_code(function: types.FunctionType, helpers: Mapping[str, Any]) -> types.FunctionType:
    """Return a copy of a function that calls our power and math functions in place of Python's.

    Its source is edited and compiled again. ``helpers`` has other functions that it calls, by name,
    and what the copy shall call instead. The function itself is returned if nothing is replaced, if
    its source is not found, or if the file has changed since the function was compiled.
    """
    tree = parse_function(function)
    if tree is None:
        return function
    editor = Editor(function)
    edited = editor.visit(copy.deepcopy(tree))
    added = {**editor.added, **helpers}
    if not added:
        return function

    # The source is that of the function only if it compiles to the very same code.
    names = function.__code__.co_freevars
    compiled_again = compile_inner(tree, names, function)
    if describe_bytecode(compiled_again) != describe_bytecode(function.__code__):
        return function

    # The new functions are handed over in cells, as variables of an enclosing function are. So
    # nothing is written into the globals of the user's module.
    names_added = [name for name in added if name not in names]
    code = compile_inner(edited, (*names, *names_added), function)
    cells = dict(zip(names, function.__closure__ or (), strict=True))
    for name, value in added.items():
        cells[name] = types.CellType(value)
    closure = tuple(cells[name] for name in code.co_freevars)
    made = types.FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, closure
    )
    made.__kwdefaults__ = function.__kwdefaults__
    made.__qualname__ = function.__qualname__
    made.__module__ = function.__module__
    made.__doc__ = function.__doc__
    return made


def parse_function(function: types.FunctionType) -> ast.FunctionDef | None:
    """Return the syntax tree of a function's definition, ready to be compiled again; None if not.

    Annotations are removed, and defaults replaced by 0: both are evaluated outside of the function,
    and are not part of its code. None if there is no source; if the source there is not a plain
    definition (a lambda, a decorator, type parameters); or if the function has a ``try``, as it may
    catch errors of math functions that ours do not raise.
    """
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
    if any(isinstance(inner, ast.Try | ast.TryStar) for inner in ast.walk(node)):
        return None

    # Line numbers as in the file, so that errors name the right line. The code of a function knows
    # only how many defaults there are.
    ast.increment_lineno(node, first - 1)
    node.returns = None
    node.args.defaults = [ast.Constant(0) for _ in node.args.defaults]
    node.args.kw_defaults = [default and ast.Constant(0) for default in node.args.kw_defaults]
    for argument in ast.walk(node.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    return node


def compile_inner(
    node: ast.FunctionDef, names: tuple[str, ...], function: types.FunctionType
) -> types.CodeType:
    """Return the code of a definition inside a function that has some names.

    Python compiles a name as one of a function around only if there is such a function. So the
    definition is compiled inside one, ``make``, whose parameters are the ``names``::

        import math
        def make(names, ...):
            def formula(...): ...

    The modules that it refers to are imported before: Python compiles the call of a function of an
    imported module in another way than that of a method, and the code must equal that of
    ``function``, from whose source the definition is.
    """
    references = find_references(function).items()
    lines = []
    for name, value in references:
        if isinstance(value, types.ModuleType) and name not in names:
            lines.append(f"import {name}")
    lines.append(f"def make({', '.join(names)}): pass")

    # The definition takes the place of ``pass``.
    around = ast.parse("\n".join(lines))
    maker: Any = around.body[-1]
    maker.body = [node]
    tree = ast.fix_missing_locations(around)
    flags = function.__code__.co_flags & FUTURE_FLAGS
    code = compile(tree, function.__code__.co_filename, "exec", flags, dont_inherit=True)

    # Code holds that of the functions in it among its constants: ``make``, and in it ours.
    code_of_maker = list_inner_codes(code)[0]
    inner_codes = list_inner_codes(code_of_maker)
    return next(inner for inner in inner_codes if inner.co_name == node.name)


def list_inner_codes(code: types.CodeType) -> list[types.CodeType]:
    return [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]


FUTURE_FLAGS = 0x1FF0000
"""The flags of code that ``from __future__`` sets."""
BUILTIN = {"pow": pow, "round": round}
"""Functions of Python's own that are replaced."""
KINDS = (
    types.ModuleType, types.FunctionType, types.BuiltinFunctionType, np.ufunc, type(np.where),
)  # fmt: skip


class Editor(ast.NodeTransformer):
    """Replaces powers and calls in a definition; ``added`` are the functions called instead."""

    def __init__(self, function: types.FunctionType) -> None:
        self.added: dict[str, Any] = {}
        self._locals: set[str] = set()
        for code in walk_code(function.__code__):
            self._locals.update(code.co_varnames, code.co_cellvars)
        self._known = find_references(function)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        """Replace a power by our function; Python folds one of two constants itself."""
        self.generic_visit(node)
        are_constants = isinstance(node.left, ast.Constant) and isinstance(node.right, ast.Constant)
        if not isinstance(node.op, ast.Pow) or are_constants:
            return node
        return self._call(raise_to, [node.left, node.right], node)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        """Replace ``x **= y`` of a name by an assignment of our power."""
        self.generic_visit(node)
        if not isinstance(node.op, ast.Pow) or not isinstance(node.target, ast.Name):
            return node
        before = ast.copy_location(ast.Name(node.target.id, ast.Load()), node)
        value = self._call(raise_to, [before, node.value], node)
        return ast.copy_location(ast.Assign([node.target], value), node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Replace a call of a function that we have, with its usual number of arguments."""
        self.generic_visit(node)
        function, n_arguments = REPLACEMENTS.get(self._resolve(node.func), (None, 0))
        if function is None or node.keywords or len(node.args) != n_arguments:
            return node
        if any(isinstance(argument, ast.Starred) for argument in node.args):
            return node
        return self._call(function, node.args, node)

    def _resolve(self, node: ast.AST) -> Any:
        """Return the module or function that a name or an attribute is; it runs no code."""
        value = None
        if isinstance(node, ast.Attribute):
            owner = self._resolve(node.value)
            if isinstance(owner, types.ModuleType):
                value = vars(owner).get(node.attr)
        elif isinstance(node, ast.Name) and node.id not in self._locals:
            value = self._known.get(node.id, BUILTIN.get(node.id))

        if isinstance(value, KINDS):
            return value
        return None

    def _call(self, function: Any, arguments: list[ast.expr], node: ast.AST) -> ast.Call:
        """Return a call of one of our functions, at the place of a node; notes it as added."""
        name = f"{PREFIX}{function.__name__}"
        self.added[name] = function
        target = ast.copy_location(ast.Name(name, ast.Load()), node)
        return ast.copy_location(ast.Call(target, arguments, []), node)


# What a formula reads of its arguments.

BAR = 1
ACCOUNT = 2
"""Places of the bar and of the account among the arguments of a formula."""
READ = "fields_read"
"""Attribute of a formula that hands its arguments on: the fields read of each, by place."""


def may_read_of_account(rule: Any, names: frozenset[str]) -> bool:
    return bool(find_fields(rule, ACCOUNT) & {"*", *names})


def find_fields(rule: Any, place: int) -> frozenset[str]:
    """Return the fields that a formula reads of an argument, with ``*`` if it may read others.

    ``place`` is that of the argument, counted from 0. The instructions of the code are looked
    through. Each time the argument is loaded, one of two things may follow: a field of it is read
    (LOAD_ATTR), or it is the first argument of a function, which is looked through in turn.
    Whatever else is done with it, such as handing it on as a second argument, may read any field.
    So what is not understood makes too many fields, never too few.
    """
    noted: dict[int, frozenset[str]] = getattr(rule, READ, {})
    if place in noted:
        return noted[place]

    code = rule.__code__
    if place >= code.co_argcount:  # it is among *args
        return frozenset({"*"})
    name = code.co_varnames[place]
    steps = list_steps(code)
    fields = set()
    if name in code.co_cellvars:  # a function inside may read any
        fields.add("*")

    for k, step in enumerate(steps):
        # Newer versions of Python load two names by one instruction.
        names_loaded = step.argval
        if not isinstance(names_loaded, tuple):
            names_loaded = (names_loaded,)
        if name not in names_loaded:
            continue
        before = steps[max(k - 1, 0)]
        after = steps[min(k + 1, len(steps) - 1)]
        is_once = names_loaded.count(name) == 1

        # A field is read of the name that was loaded last. An instruction with two names may also
        # store the one and load the other.
        is_loaded_last = names_loaded[-1] == name
        is_load = len(names_loaded) == 1 or step.opname.endswith("LOAD_FAST")
        reads_field = is_loaded_last and is_load and after.opname == "LOAD_ATTR"

        # The first argument of a call is loaded right after the function.
        is_loaded_first = names_loaded[0] == name
        if is_once and reads_field:
            fields.add(str(after.argval))
        elif is_once and is_loaded_first and is_called(before, steps):
            function = rule.__globals__.get(before.argval)
            fields |= find_fields_of_call(function)
        else:
            fields.add("*")
    return frozenset(fields)


def find_fields_of_call(function: Any) -> frozenset[str]:
    """Return the fields that a function reads of its first argument; ``*`` of an unknown one."""
    if isinstance(function, FunctionType) and function.__code__.co_argcount:
        return find_fields(function, 0)
    return frozenset({"*"})


@functools.cache
def list_steps(code: types.CodeType) -> tuple[dis.Instruction, ...]:
    return tuple(dis.get_instructions(code))


def is_called(step: dis.Instruction, steps: Sequence[dis.Instruction]) -> bool:
    """Return whether a step loads a function that is called without keywords.

    Python marks the load of a name that is called right after: it pushes a NULL with it, where a
    method would have its object. Instructions of calls by keyword have names of their own; where
    the code has any, it is not asked which call they are of.
    """
    by_keywords = {"KW_NAMES", "CALL_KW", "CALL_FUNCTION_EX"}
    names = {other.opname for other in steps}
    if names & by_keywords:
        return False
    return step.opname == "LOAD_GLOBAL" and "NULL" in step.argrepr


# Where code fails, and why numba refuses it.


def format_location(error: BaseException, *functions: Callable[..., Any]) -> str:
    """Return the file and the line in which an error was raised, as a text.

    It is the innermost line of the traceback that lies in a file of one of the functions; without
    one, the line in which the first function begins.
    """
    codes = [inspect.unwrap(function).__code__ for function in functions]
    files = {code.co_filename for code in codes}

    file = codes[0].co_filename
    line = codes[0].co_firstlineno
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in files:
            file = trace.tb_frame.f_code.co_filename
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{file}, line {line}"


REASON = re.compile(
    r"unknown|untyped|cannot|unsupported|invalid|not supported|no implementation|can't",
    re.IGNORECASE,
)


def explain_refusal(error: BaseException, formula: Any, rules: Sequence[Any]) -> str:
    """Return a text that says in which line numba refuses a formula, and why.

    ``error`` is what numba raised, which names files and lines. ``rules`` are functions that the
    formula is made of: the first line that is of one of them is named, with that function. Else it
    is the last line in the file of the formula.
    """
    places = []
    for path, line in re.findall(r'File "([^"]+)", line (\d+)', str(error)):
        places.append((Path(path).name, int(line)))

    for file, line in places:
        for rule in rules:
            if is_line_of(rule, file, line):
                return f"{rule.__qualname__}, {file}, line {line}: {find_reason(error)}"

    file_of_formula = Path(formula.__code__.co_filename).name
    last_line = formula.__code__.co_firstlineno
    for file, line in places:
        if file == file_of_formula:
            last_line = line
    return f"{file_of_formula}, line {last_line}: {find_reason(error)}"


def is_line_of(rule: Any, name: str, line: int) -> bool:
    """Return whether a line of a file of some name is one of a rule."""
    if name != Path(rule.__code__.co_filename).name:
        return False
    numbers = {number for _, _, number in rule.__code__.co_lines()}
    return line in numbers


def find_reason(error: BaseException) -> str:
    """Return the first line of an error that gives a reason, without marks of objects."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = next(filter(REASON.search, lines), None)
    if reason is None:
        reason = lines[0] if lines else type(error).__name__

    named = re.sub(r"<(?:built-in )?(?:function|method) ([\w.]+)[^>]*>", r"\1", reason)
    return re.sub(r"<[^>]*>", "", named).strip(" :")[:200]
