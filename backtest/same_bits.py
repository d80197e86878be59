"""Whether a formula gives the same bits compiled and in plain Python, told from its code.

Arithmetic, comparisons, and the functions of ``math`` do. A power with a number written out does
not, nor do numpy's functions; what is not known here counts as different. What passes also
compiles.
"""

from __future__ import annotations

import builtins
import dis
import types
from collections.abc import Mapping
from typing import Any

from backtest.code import referenced
from backtest.policy import Policy

STEPS = frozenset(
    {
        "BUILD_TUPLE", "CACHE", "CALL", "CALL_KW", "COMPARE_OP", "COPY", "EXTENDED_ARG",
        "FOR_ITER", "END_FOR", "GET_ITER", "JUMP_BACKWARD", "JUMP_FORWARD",
        "JUMP_IF_FALSE_OR_POP", "JUMP_IF_TRUE_OR_POP", "KW_NAMES", "LOAD_FAST",
        "LOAD_FAST_BORROW", "LOAD_FAST_CHECK", "NOP", "NOT_TAKEN", "POP_ITER",
        "POP_JUMP_BACKWARD_IF_FALSE", "POP_JUMP_BACKWARD_IF_TRUE", "POP_JUMP_FORWARD_IF_FALSE",
        "POP_JUMP_FORWARD_IF_TRUE", "POP_JUMP_IF_FALSE", "POP_JUMP_IF_TRUE", "POP_TOP", "PRECALL",
        "PUSH_NULL", "RESUME", "RETURN_VALUE", "STORE_FAST", "SWAP", "TO_BOOL", "UNARY_NEGATIVE",
        "UNARY_NOT", "UNARY_POSITIVE", "UNPACK_SEQUENCE",
    }
)  # fmt: skip
"""Instructions that may stand anywhere."""
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
LOADS = ("LOAD_ATTR", "LOAD_METHOD")


def gives_same_bits(rule: Any, policy: Policy) -> bool:
    """Tell whether a policy's formula certainly compiles, to the bits of plain Python."""
    wholes = {name for name, value in policy.settings().items() if not isinstance(value, float)}
    return is_same(rule, frozenset(wholes), frozenset())


def is_same(function: Any, wholes: frozenset[str], above: frozenset[int]) -> bool:
    """Tell it of a function; ``wholes`` are attributes that are no floats."""
    shadowed = BUILT_IN & {*function.__code__.co_names} & function.__globals__.keys()
    if id(function) in above or function.__closure__ or shadowed:
        return False
    above |= {id(function)}
    steps = [each for each in dis.get_instructions(function) if each.opname != "CACHE"]
    known = referenced(function)
    return all(
        is_step_same(step, before, known, wholes)
        for before, step in zip([None, *steps], steps, strict=False)
    ) and all(
        is_same(value, wholes, above)
        for value in known.values()
        if isinstance(value, types.FunctionType)
    )


def is_step_same(
    step: dis.Instruction,
    before: dis.Instruction | None,
    known: Mapping[str, Any],
    wholes: frozenset[str],
) -> bool:
    """Tell it of one instruction, given the one before it."""
    name = step.opname
    if name in ("LOAD_CONST", "RETURN_CONST", "LOAD_SMALL_INT"):
        return isinstance(step.argval, (int, float))
    if name == "LOAD_GLOBAL":
        return is_known(step.argval, known)
    if name in LOADS:
        return is_attribute(step, before, known)
    if name == "BINARY_OP":
        is_power = step.argrepr == "**" and before is not None and before.opname in LOADS
        is_free = is_power and before is not None and before.argval not in wholes
        return step.argrepr in OPERATORS or is_free
    return name in STEPS


def is_known(name: str, known: Mapping[str, Any]) -> bool:
    """Tell whether a global is a number, a function to look into, or one that is the same."""
    if name not in known:
        return name in BUILT_IN and hasattr(builtins, name)
    value = known[name]
    if isinstance(value, types.ModuleType):
        return value.__name__ in ("math", "numpy")
    is_record = isinstance(value, type) and hasattr(value, "_fields")
    is_function = isinstance(value, types.FunctionType) and value.__module__ != "backtest.margin"
    return is_record or is_function or isinstance(value, (int, float))


def is_attribute(
    step: dis.Instruction, before: dis.Instruction | None, known: Mapping[str, Any]
) -> bool:
    """Tell whether an attribute is one of a local, or a function of ``math`` that is the same."""
    if before is None or before.opname.startswith("LOAD_FAST"):
        return before is not None and step.opname == "LOAD_ATTR"
    if before.opname != "LOAD_GLOBAL":
        return False
    module = getattr(known.get(before.argval), "__name__", "")
    return step.argval in {"math": OF_MATH, "numpy": OF_NUMPY}.get(module, frozenset())
