"""Find out from its bytecode whether a formula gives the same bits compiled and in plain Python."""

from __future__ import annotations

import builtins
import dis
import types
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from backtest.base import find_references, formula_functions, public_math
from backtest.policy import Policy

STEPS = frozenset(
    {
        "BUILD_TUPLE", "CACHE", "CALL", "CALL_KW", "COMPARE_OP", "COPY", "COPY_FREE_VARS",
        "EXTENDED_ARG",
        "FOR_ITER", "END_FOR", "GET_ITER", "JUMP_BACKWARD", "JUMP_FORWARD",
        "JUMP_IF_FALSE_OR_POP", "JUMP_IF_TRUE_OR_POP", "KW_NAMES", "LOAD_FAST",
        "LOAD_FAST_BORROW", "LOAD_FAST_CHECK", "NOP", "NOT_TAKEN", "POP_ITER",
        "POP_JUMP_BACKWARD_IF_FALSE", "POP_JUMP_BACKWARD_IF_TRUE", "POP_JUMP_FORWARD_IF_FALSE",
        "POP_JUMP_FORWARD_IF_TRUE", "POP_JUMP_IF_FALSE", "POP_JUMP_IF_TRUE", "POP_TOP", "PRECALL",
        "PUSH_NULL", "RESUME", "RETURN_VALUE", "STORE_FAST", "SWAP", "TO_BOOL", "UNARY_NEGATIVE",
        "UNARY_NOT", "UNARY_POSITIVE", "UNPACK_SEQUENCE",
    }
)  # fmt: skip
OPERATORS = frozenset({"+", "-", "*", "/", "+=", "-=", "*=", "/="})
BUILT_IN = frozenset({"abs", "float", "max", "min", "range"})
OF_MATH = frozenset(
    {
        "acos", "asin", "atan", "atan2", "copysign", "cos", "cosh", "e", "erf", "erfc", "exp",
        "expm1", "fabs", "inf", "isfinite", "isinf", "isnan", "log", "log10", "log1p", "nan",
        "pi", "sin", "sinh", "sqrt", "tan", "tanh", "tau",
    }
)  # fmt: skip
OF_NUMPY = frozenset({"inf", "isfinite", "isinf", "isnan", "nan", "pi"})
ALLOWED = {
    "math": OF_MATH,
    "numpy": OF_NUMPY,
    public_math.__name__: frozenset(public_math.__all__),
}
LOADS = ("LOAD_ATTR", "LOAD_METHOD")
BASES = (*LOADS, "BINARY_OP", "CALL")
LARGEST = 2**31
"""Integers below this multiply within 64 bits."""


def gives_same_bits(rule: Any, policy: Policy) -> bool:
    wholes = {name for name, value in policy.settings().items() if not isinstance(value, float)}
    return is_function_same(rule, frozenset(wholes), frozenset())


def is_function_same(function: Any, wholes: frozenset[str], above: frozenset[int]) -> bool:
    shadowed = BUILT_IN & {*function.__code__.co_names} & function.__globals__.keys()
    if id(function) in above or shadowed or not has_functions_only(function):
        return False
    above |= {id(function)}
    steps = [each for each in dis.get_instructions(function) if each.opname != "CACHE"]
    known = find_references(function)
    if may_grow_whole(steps, wholes) or has_written_base(steps) or counts_comparisons(steps):
        return False
    if formula_functions.raise_to in known.values() and reads_whole(steps, wholes):
        return False
    return all(
        is_step_same(step, before, known, wholes)
        for before, step in zip([None, *steps], steps, strict=False)
    ) and all(
        is_function_same(value, wholes, above)
        for value in known.values()
        if isinstance(value, types.FunctionType) and not is_written(value)
    )


def has_functions_only(function: Any) -> bool:
    cells = function.__closure__ or ()
    return all(isinstance(cell.cell_contents, types.FunctionType) for cell in cells)


def is_written(value: Any) -> bool:
    return bool(value.__module__ == formula_functions.__name__)


def reads_whole(steps: Sequence[dis.Instruction], wholes: frozenset[str]) -> bool:
    return any(step.opname in LOADS and step.argval in wholes for step in steps)


def may_grow_whole(steps: Sequence[dis.Instruction], wholes: frozenset[str]) -> bool:
    if not any("BACKWARD" in step.opname for step in steps):
        return False
    return any(
        (before.opname == "LOAD_CONST" and type(before.argval) is int)
        or (before.opname in LOADS and before.argval in wholes)
        for before, step in pairwise(steps)
        if is_store(step)
    )


def counts_comparisons(steps: Sequence[dis.Instruction]) -> bool:
    tests = ("POP_JUMP", "JUMP_IF", "COPY", "TO_BOOL", "UNARY_NOT")
    return any(
        step.opname == "COMPARE_OP" and not after.opname.startswith(tests)
        for step, after in pairwise(steps)
    )


def has_written_base(steps: Sequence[dis.Instruction]) -> bool:
    stores = [(each.opname, step.argval) for each, step in pairwise(steps) if is_store(step)]
    made = [name for opname, name in stores if opname in BASES]
    stored = [name for _, name in stores]
    free = {name for name in stored if made.count(name) == stored.count(name)}
    bases = [steps[k - 3] for k, step in enumerate(steps) if step.argrepr in ("**", "**=")]
    return any(
        base.opname not in BASES
        and not (base.opname.startswith("LOAD_FAST") and base.argval in free)
        for base in bases
    )


def is_store(step: dis.Instruction) -> bool:
    return step.opname == "STORE_FAST"


def is_number(value: object) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < LARGEST)


def is_step_same(
    step: dis.Instruction,
    before: dis.Instruction | None,
    known: Mapping[str, Any],
    wholes: frozenset[str],
) -> bool:
    name = step.opname
    if name in ("LOAD_CONST", "RETURN_CONST", "LOAD_SMALL_INT"):
        return is_number(step.argval)
    if name in ("LOAD_GLOBAL", "LOAD_DEREF"):
        return is_known(step.argval, known)
    if name in LOADS:
        return is_attribute(step, before, known)
    if name == "BINARY_OP":
        is_power = step.argrepr == "**" and before is not None and before.opname in LOADS
        is_free = is_power and before is not None and before.argval not in wholes
        return step.argrepr in OPERATORS or is_free
    return name in STEPS


def is_known(name: str, known: Mapping[str, Any]) -> bool:
    if name not in known:
        return name in BUILT_IN and hasattr(builtins, name)
    value = known[name]
    if isinstance(value, types.ModuleType):
        return value.__name__ in ALLOWED
    is_record = isinstance(value, type) and hasattr(value, "_fields")
    is_function = isinstance(value, types.FunctionType)
    is_replaced = is_function and value.__module__ == "backtest.venue.margin"
    return is_record or (is_function and not is_replaced) or is_number(value)


def is_attribute(
    step: dis.Instruction, before: dis.Instruction | None, known: Mapping[str, Any]
) -> bool:
    if before is None or before.opname.startswith("LOAD_FAST"):
        return before is not None and step.opname == "LOAD_ATTR"
    if before.opname != "LOAD_GLOBAL":
        return False
    module = getattr(known.get(before.argval), "__name__", "")
    return step.argval in ALLOWED.get(module, frozenset())
