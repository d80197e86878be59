"""Static analysis of a policy's formula: which parameters its code reads."""

from __future__ import annotations

import dis
from collections.abc import Sequence
from types import FunctionType
from typing import Any

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
