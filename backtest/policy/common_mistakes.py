"""Checks for common mistakes in a policy class, with the lines to write instead."""

from __future__ import annotations

import dis
import inspect
import re
import textwrap
from pathlib import Path
from types import CodeType, FunctionType

from backtest.base import PolicyError

DECIDING = ("leverage", "combine", "venue_leverage", "option_orders")
ARGUMENTS = {
    "venue_leverage": (("self", "bar", "account"), "return 10.0"),
    "option_orders": (("self", "bar", "account", "chain"), 'return {"put": (contract, 1.0)}'),
}


def check_class(cls: type) -> None:
    own = vars(cls).get("__init__")
    if isinstance(own, FunctionType):
        raise PolicyError(
            f"a policy must not define __init__, {cls.__name__} does: its parameters are "
            "annotated fields of the class",
            where=format_code_place(own.__code__, own.__code__.co_firstlineno),
            cure=f"delete __init__ and declare:\n{declare_parameters(cls, own)}",
        )
    for name in DECIDING:
        rule = vars(cls).get(name)
        if isinstance(rule, FunctionType):
            check_assignments(cls, rule)
    for name in ARGUMENTS:
        if name in vars(cls):
            check_arguments(cls, name, vars(cls)[name])


def check_arguments(cls: type, name: str, rule: object) -> None:
    arguments = list(inspect.signature(rule).parameters) if isinstance(rule, FunctionType) else []
    known, answer = ARGUMENTS[name]
    if len(arguments) != len(known):
        found = f"({', '.join(arguments)})" if arguments else repr(rule)
        taken = ", ".join(known)
        raise PolicyError(
            f"{name} must be a plain method that takes ({taken}), got {found}",
            where=f"class {cls.__name__}",
            cure=f"write def {name}({taken}): {answer}; it has no memory",
        )


def declare_parameters(cls: type, init: FunctionType) -> str:
    given = list(inspect.signature(init).parameters.values())[1:]
    named = [each for each in given if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    fields = [write_declaration(each.name, each.default) for each in named]
    lines = [f"class {cls.__name__}(bt.Policy):"]
    lines += [f"    {each}" for each in fields or [write_declaration("n", 10)]]
    return textwrap.indent("\n".join(lines), "    ")


def write_declaration(name: str, default: object) -> str:
    if isinstance(default, bool):
        return f"{name}: bool = {default}"
    if isinstance(default, str):
        return f"{name}: Annotated[str, bt.Choice({default!r}, 'other')] = {default!r}"
    if isinstance(default, int):
        bounds = f"{min(default, 1)}, {max(default, 1000)}"
        return f"{name}: Annotated[int, bt.Range({bounds}, 'bars')] = {default}"
    value = default if isinstance(default, float) else 1.0
    low, high = min(0.0, 10.0 * value), 10.0 * max(1.0, value)
    return f"{name}: Annotated[float, bt.Range({low}, {high}, 'unit')] = {value}"


def check_assignments(cls: type, rule: FunctionType) -> None:
    found = find_assignment(rule.__code__)
    if found is not None:
        name, line = found
        raise PolicyError(
            f"{rule.__name__} must not assign to self, {cls.__name__} assigns self.{name}: a "
            "policy is frozen, and what it remembers is its memory",
            where=format_code_place(rule.__code__, line),
            cure=f"return it as memory:\n{describe_memory(rule, name)}",
        )


def find_assignment(code: CodeType) -> tuple[str, int] | None:
    if not code.co_argcount:
        return None
    own, line, loaded = code.co_varnames[0], code.co_firstlineno, False
    for step in dis.get_instructions(code):
        if step.positions is not None and step.positions.lineno is not None:
            loaded = loaded and step.positions.lineno == line
            line = step.positions.lineno
        if step.opname.startswith("LOAD_FAST"):
            loaded = loaded or own in str(step.argval)
        elif step.opname == "STORE_ATTR" and loaded:
            return str(step.argval), line
    return None


def describe_memory(rule: FunctionType, name: str) -> str:
    names = rule.__code__.co_varnames[: rule.__code__.co_argcount]
    known = [*names, *("self", "bar", "account")[len(names) :]]
    words = known if "memory" in known else [*known, "memory"]
    return (
        f"    class Memory(NamedTuple): {name}: float\n"
        f"    def start(self): return Memory({name}=0.0)\n"
        f"    def {rule.__name__}({', '.join(words)}): ...; return leverage, Memory({name}=...)"
    )


def format_code_place(code: CodeType, line: int) -> str:
    return f"{code.co_qualname}, {Path(code.co_filename).name}, line {line}"


# --------------------------------------------------------------------------- messages of numba

FUNCTION = re.compile(r"Function\(<(?:built-in )?(?:function|method) ([\w.]+)[^>]*>\)")
PATTERNS = (
    (r"Unknown attribute '(\w+)' of type Bar\(", "bar has no {0!r}"),
    (r"Unknown attribute '(\w+)' of type AccountView\(", "account has no {0!r}"),
    (
        r"Unknown attribute '(\w+)' of type Params\(",
        "self.{0} is no declared parameter: write {0}: Annotated[float, bt.Range(low, high)] = ...",
    ),
    (r"Unknown attribute '(\w+)' of type Module\(<module '([\w.]+)'", "{1}.{0} is not supported"),
    (r"Untyped global name '(\w+)'", "{0} is not supported"),
    (
        r"Cannot unify (\S+) and (\S+) for '([\w]+)",
        "{2} is sometimes {0}, sometimes {1}: give it one type",
    ),
    (r"(?:Use of unsupported opcode|opcode) \(?(\w+)\)?", "{0} is not supported"),
    (r"The use of (a?\s?\w+) is not supported", "{0} is not supported"),
)


def explain_numba(line: str) -> str:
    for pattern, words in PATTERNS:
        found = re.search(pattern, line)
        if found:
            return words.format(*found.groups())
    function = FUNCTION.search(line)
    if function:
        return f"{function[1]} is not supported with these arguments"
    return re.sub(r"<[^>]*>", "", line).strip(" :")
