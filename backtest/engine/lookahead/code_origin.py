"""Where the code of a policy or a rule comes from, what it needs, and the text that names it."""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import sys
import types
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from backtest.base import (
    describe_bytecode,
    describe_value,
    find_references,
    hash_texts,
)
from backtest.engine.manifest import find_functions, is_constant
from backtest.policy import combinator_of

OURS = ("backtest", "builtins", "numpy", "pandas")
MAIN = "__main__"
STORES = ("STORE_GLOBAL", "STORE_ATTR", "DELETE_GLOBAL", "DELETE_ATTR")


class NoSourceError(Exception):
    """Another process cannot read the source of the code; the message has the reason."""


class ModuleOrigin(NamedTuple):
    file: str
    text: str


class CodeOrigin(NamedTuple):
    owners: tuple[Any, ...]
    key: str


def find_origin(subject: Any) -> CodeOrigin | None:
    owners = tuple(dict.fromkeys(list_owners(subject)))
    return CodeOrigin(owners, hash_code(owners)) if owners else None


def is_ours(subject: Any) -> bool:
    return next(list_owners(subject), None) is None


def list_owners(subject: Any) -> Iterator[Any]:
    if isinstance(subject, functools.partial):
        for each in (subject.func, *subject.args, *subject.keywords.values()):
            yield from list_owners(each)
    elif isinstance(subject, types.MethodType):
        yield from list_owners(subject.__self__)
    elif isinstance(subject, types.FunctionType):
        yield from [subject] if is_foreign(subject.__module__) else []
    else:
        yield from list_classes(subject if isinstance(subject, type) else type(subject))


def list_classes(cls: type) -> Iterator[type]:
    written = combinator_of(cls) if getattr(cls, "parts", ()) else cls
    yield from (base for base in written.__mro__ if is_foreign(base.__module__))
    for part in getattr(cls, "parts", ()):
        yield from list_classes(part.policy)


def is_foreign(module: str | None) -> bool:
    top = str(module).partition(".")[0]
    return module == MAIN or (top not in OURS and top not in sys.stdlib_module_names)


# ------------------------------------------------------------------------------ what it consists of


def hash_code(owners: tuple[Any, ...]) -> str:
    functions = [each for owner in owners for each in list_functions(owner)]
    seen: dict[int, Any] = {}
    for function in functions:
        collect_functions(function, seen)
    codes = [each.__code__ for each in seen.values()]
    stored = {name for code in codes for name in list_stored(code)}
    texts = [describe_code(each, stored) for each in seen.values()]
    texts += [text for each in owners if isinstance(each, type) for text in describe(each, stored)]
    return hash_texts(*texts)


def list_functions(owner: Any) -> Iterator[types.FunctionType]:
    if isinstance(owner, types.FunctionType):
        yield owner
        return
    for value in vars(owner).values():
        if isinstance(value, types.FunctionType):
            yield value
        else:
            yield from find_functions(value)


def collect_functions(function: types.FunctionType, seen: dict[int, Any]) -> None:
    if id(function) in seen:
        return
    seen[id(function)] = function
    for value in find_references(function).values():
        inner = getattr(value, "__wrapped__", value)
        if isinstance(inner, types.FunctionType) and is_foreign(inner.__module__):
            collect_functions(inner, seen)


def describe_code(function: types.FunctionType, stored: set[str]) -> str:
    found = sorted(find_references(function).items())
    constants = [
        f"{name}={describe_value(value, {}).text}"
        for name, value in found
        if name not in stored and is_constant(value)
    ]
    return "\n".join([function.__qualname__, describe_bytecode(function.__code__), *constants])


def describe(cls: type, stored: set[str]) -> Iterator[str]:
    yield cls.__qualname__
    for name, value in vars(cls).items():
        if not name.startswith("__") and name not in stored and is_constant(value):
            yield f"{name}={value!r}"


def list_stored(code: types.CodeType) -> Iterator[str]:
    for step in dis.get_instructions(code):
        if step.opname in STORES:
            yield str(step.argval)
    for item in code.co_consts:
        if isinstance(item, types.CodeType):
            yield from list_stored(item)


# ----------------------------------------------------------------------------- where it comes from


def list_modules(owners: tuple[Any, ...]) -> dict[str, ModuleOrigin]:
    names: dict[str, set[str]] = {}
    for owner in owners:
        if "<" in owner.__qualname__:
            raise NoSourceError(f"{owner.__name__} is defined inside a function")
        names.setdefault(owner.__module__, set()).add(owner.__qualname__.partition(".")[0])
    return {module: find_module(module, wanted) for module, wanted in names.items()}


def find_module(name: str, wanted: set[str]) -> ModuleOrigin:
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is not None and Path(file).is_file():
        text = Path(file).read_text(encoding="utf-8")
        return ModuleOrigin(str(Path(file).resolve()), select_statements([text], wanted))
    cells = getattr(module, "In", ()) if name == MAIN else ()  # of a notebook
    texts = [each for each in cells if isinstance(each, str)]
    if not texts:
        raise NoSourceError(f"its module {name} has no file, or it was typed at a prompt")
    return ModuleOrigin("", select_statements(texts, wanted))


def hash_file(file: str) -> str:
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return ""


LOOPS = (ast.For, ast.While, ast.With, ast.AsyncFor, ast.AsyncWith)


def select_statements(texts: Sequence[str], names: Iterable[str]) -> str:
    statements = [each for text in texts for each in parse_statements(text)]
    bound = [set(list_bound(each)) for each in statements]
    wanted, kept = set(names), [is_always_kept(each) for each in statements]
    is_growing = True
    while is_growing:
        is_growing = False
        for k, statement in enumerate(statements):
            if not kept[k] and bound[k] & wanted:
                kept[k] = is_growing = True
                wanted |= set(list_used(statement))
    chosen = [each for each, is_kept in zip(statements, kept, strict=True) if is_kept]
    return "\n".join(map(ast.unparse, chosen))


def parse_statements(text: str) -> list[ast.stmt]:
    lines = ("" if line.lstrip()[:1] in ("%", "!", "?") else line for line in text.splitlines())
    try:
        parsed = ast.parse("\n".join(lines))
    except SyntaxError:
        return []
    return [each for each in parsed.body if not isinstance(each, LOOPS) and not is_main(each)]


def is_main(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and "__name__" in list_used(statement.test)


def is_always_kept(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.ImportFrom):
        return False
    return statement.module == "__future__" or any(each.name == "*" for each in statement.names)


def list_bound(statement: ast.AST) -> Iterator[str]:
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield statement.name
        case ast.Import() | ast.ImportFrom():
            yield from (each.asname or each.name.partition(".")[0] for each in statement.names)
        case ast.Assign():
            yield from (name for target in statement.targets for name in list_used(target))
        case ast.AnnAssign() | ast.AugAssign():
            yield from list_used(statement.target)
        case ast.If() | ast.Try() | ast.ExceptHandler():
            for inner in ast.iter_child_nodes(statement):
                yield from list_bound(inner)


def list_used(statement: ast.AST) -> Iterator[str]:
    yield from (each.id for each in ast.walk(statement) if isinstance(each, ast.Name))
