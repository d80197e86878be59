"""What compiled formulas of users may do: what gives the bits of plain Python, and nothing else.

A pass of numba's over the typed code of a formula. Operations on whole numbers are replaced by ones
that raise where 64 bits do not hold Python's number; a function whose last digit may differ is
refused by its name. What is refused, or raises, runs in plain Python.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir as llvm
from numba.core import cgutils, ir, types
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.errors import UnsupportedError
from numba.core.imputils import lower_builtin
from numba.core.typed_passes import NopythonTypeInference
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature

from backtest._compile.bytecode import catches_errors, find_code_names, find_references

WHOLE, FLOAT = types.int64, types.float64
LEAST, MOST = -(2**63), 2**63 - 1
EXACT = 2**53
"""Whole numbers up to this size are floats."""

ALLOWED = frozenset({
    abs, bool, enumerate, float, int, len, max, min, range, round, sum, zip,
    math.ceil, math.copysign, math.fabs, math.floor, math.isfinite, math.isinf, math.isnan,
    math.sqrt, math.trunc, np.abs, np.ceil, np.copysign, np.fabs, np.floor, np.isfinite, np.isinf,
    np.isnan, np.negative, np.rint, np.signbit, np.sqrt, np.square, np.trunc,
})  # fmt: skip
"""Functions with the bits of plain Python; those of this package have them too."""


def fail(context: Any, builder: Any, condition: Any) -> None:
    """Write code that raises if a condition holds."""
    with builder.if_then(condition, likely=False):
        context.call_conv.return_user_exc(builder, OverflowError, ("beyond 64 bits",))


def is_beyond(builder: Any, number: Any, size: int) -> Any:
    """Write code for whether a whole number is larger in size."""
    low = builder.icmp_signed("<", number, WHOLE_TYPE(-size))
    return builder.or_(low, builder.icmp_signed(">", number, WHOLE_TYPE(size)))


WHOLE_TYPE: Any = llvm.IntType(64)
allocate: Any = cgutils.alloca_once
Build = Callable[[Any, Any, Any, Any], Any]
"""Writes the code of an operation, given a context, a builder and two values."""


def build_sum(name: str) -> Build:
    def build(context: Any, builder: Any, x: Any, y: Any) -> Any:
        both = getattr(builder, f"{name}_with_overflow")(x, y)
        fail(context, builder, builder.extract_value(both, 1))
        return builder.extract_value(both, 0)

    return build


def build_shift(context: Any, builder: Any, x: Any, y: Any) -> Any:
    fail(context, builder, builder.icmp_unsigned(">", y, WHOLE_TYPE(62)))
    shifted = builder.shl(x, y)
    fail(context, builder, builder.icmp_signed("!=", builder.ashr(shifted, y), x))
    return shifted


def build_shift_back(context: Any, builder: Any, x: Any, y: Any) -> Any:
    fail(context, builder, builder.icmp_unsigned(">", y, WHOLE_TYPE(63)))
    return builder.ashr(x, y)


def build_quotient(context: Any, builder: Any, x: Any, y: Any) -> Any:
    """Write x / y of whole numbers, which is exact to half a digit only if both are floats."""
    fail(context, builder, builder.icmp_signed("==", y, WHOLE_TYPE(0)))
    fail(context, builder, is_beyond(builder, x, EXACT))
    fail(context, builder, is_beyond(builder, y, EXACT))
    kind = llvm.DoubleType()
    return builder.fdiv(builder.sitofp(x, kind), builder.sitofp(y, kind))


def divide_down(context: Any, builder: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """Write the quotient, rounded down, and the rest, which has the sign of y."""
    fail(context, builder, builder.icmp_signed("==", y, WHOLE_TYPE(0)))
    is_least = builder.icmp_signed("==", x, WHOLE_TYPE(LEAST))
    fail(context, builder, builder.and_(is_least, builder.icmp_signed("==", y, WHOLE_TYPE(-1))))
    quotient, rest = builder.sdiv(x, y), builder.srem(x, y)
    is_other = builder.icmp_signed("<", builder.xor(rest, y), WHOLE_TYPE(0))
    is_off = builder.and_(is_other, builder.icmp_signed("!=", rest, WHOLE_TYPE(0)))
    less = builder.sub(quotient, builder.zext(is_off, WHOLE_TYPE))
    return less, builder.select(is_off, builder.add(rest, y), rest)


def build_floor(context: Any, builder: Any, x: Any, y: Any) -> Any:
    return divide_down(context, builder, x, y)[0]


def build_rest(context: Any, builder: Any, x: Any, y: Any) -> Any:
    return divide_down(context, builder, x, y)[1]


def build_power(context: Any, builder: Any, x: Any, y: Any) -> Any:
    """Write x to the power of y by squares, of y that is at least 0."""
    fail(context, builder, builder.icmp_signed("<", y, WHOLE_TYPE(0)))
    multiply = build_sum("smul")
    found, square, left = (allocate(builder, WHOLE_TYPE) for _ in range(3))
    builder.store(WHOLE_TYPE(1), found)
    builder.store(x, square)
    builder.store(y, left)
    head, body = builder.append_basic_block("head"), builder.append_basic_block("body")
    end = builder.append_basic_block("end")
    builder.branch(head)
    builder.position_at_end(head)
    rest = builder.load(left)
    builder.cbranch(builder.icmp_signed(">", rest, WHOLE_TYPE(0)), body, end)
    builder.position_at_end(body)
    with builder.if_then(builder.trunc(rest, llvm.IntType(1))):
        builder.store(multiply(context, builder, builder.load(found), builder.load(square)), found)
    builder.store(builder.lshr(rest, WHOLE_TYPE(1)), left)
    with builder.if_then(builder.icmp_signed(">", rest, WHOLE_TYPE(1))):
        last = builder.load(square)
        builder.store(multiply(context, builder, last, last), square)
    builder.branch(head)
    builder.position_at_end(end)
    return builder.load(found)


def build_comparison(sign: str, *, is_whole_first: bool) -> Build:
    """Write the comparison of a whole number and a float, which Python compares exactly."""

    def build(context: Any, builder: Any, x: Any, y: Any) -> Any:
        whole = x if is_whole_first else y
        fail(context, builder, is_beyond(builder, whole, EXACT))
        number = builder.sitofp(whole, llvm.DoubleType())
        pair = (number, y) if is_whole_first else (x, number)
        compare = builder.fcmp_unordered if sign == "!=" else builder.fcmp_ordered
        return compare(sign, *pair)

    return build


def build_whole(round_first: str) -> Callable[[Any, Any, Any], Any]:
    """Write the whole number of a float, after an intrinsic function of LLVM if one is given."""

    def build(context: Any, builder: Any, x: Any) -> Any:
        if round_first:
            function = builder.module.declare_intrinsic(round_first, [x.type])
            x = builder.call(function, [x])
        is_in = builder.and_(
            builder.fcmp_ordered(">=", x, x.type(-(2.0**63))),
            builder.fcmp_ordered("<", x, x.type(2.0**63)),
        )
        fail(context, builder, builder.not_(is_in))
        return builder.fptosi(x, WHOLE_TYPE)

    return build


def build_size(context: Any, builder: Any, x: Any) -> Any:
    negated = build_negative(context, builder, x)
    return builder.select(builder.icmp_signed("<", x, WHOLE_TYPE(0)), negated, x)


def build_negative(context: Any, builder: Any, x: Any) -> Any:
    fail(context, builder, builder.icmp_signed("==", x, WHOLE_TYPE(LEAST)))
    return builder.neg(x)


OF_OPERATION: dict[Any, tuple[Any, ...]] = {}
"""The kinds of what the operations that are declared here take."""


def declare(build: Any, returned: Any, *kinds: Any) -> Any:
    """Return an operation for compiled code that ``build`` writes."""

    def operation(*_: Any) -> None:
        """Stand for the operation in numba's tables."""

    case = signature(returned, *kinds)  # type: ignore[no-untyped-call]
    OF_OPERATION[operation] = kinds
    template: Any = type("Operation", (ConcreteTemplate,), {"key": operation, "cases": [case]})
    register: Any = infer_global
    register(operation, types.Function(template))
    write: Any = lower_builtin(operation, *kinds)  # type: ignore[no-untyped-call]
    write(lambda context, builder, _signature, given: build(context, builder, *given))
    return operation


COMPARED = {
    operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=", operator.eq: "==",
    operator.ne: "!=",
}  # fmt: skip
OF_WHOLE: dict[Any, Any] = {
    operator.add: declare(build_sum("sadd"), WHOLE, WHOLE, WHOLE),
    operator.sub: declare(build_sum("ssub"), WHOLE, WHOLE, WHOLE),
    operator.mul: declare(build_sum("smul"), WHOLE, WHOLE, WHOLE),
    operator.pow: declare(build_power, WHOLE, WHOLE, WHOLE),
    operator.lshift: declare(build_shift, WHOLE, WHOLE, WHOLE),
    operator.rshift: declare(build_shift_back, WHOLE, WHOLE, WHOLE),
    operator.floordiv: declare(build_floor, WHOLE, WHOLE, WHOLE),
    operator.mod: declare(build_rest, WHOLE, WHOLE, WHOLE),
    operator.truediv: declare(build_quotient, FLOAT, WHOLE, WHOLE),
}
"""Checked operations of two whole numbers."""
FREE = frozenset({operator.and_, operator.or_, operator.xor, *COMPARED})
"""Operations of two whole numbers that cannot overflow."""
MIXED: dict[Any, Any] = {
    (function, is_whole_first): declare(
        build_comparison(sign, is_whole_first=is_whole_first),
        types.boolean,
        *((WHOLE, FLOAT) if is_whole_first else (FLOAT, WHOLE)),
    )
    for function, sign in COMPARED.items()
    for is_whole_first in (True, False)
}
"""Comparisons of a whole number and a float."""
TO_WHOLE: dict[Any, Any] = {
    int: declare(build_whole(""), WHOLE, FLOAT),
    math.trunc: declare(build_whole(""), WHOLE, FLOAT),
    math.floor: declare(build_whole("llvm.floor"), WHOLE, FLOAT),
    math.ceil: declare(build_whole("llvm.ceil"), WHOLE, FLOAT),
    round: declare(build_whole("llvm.rint"), WHOLE, FLOAT),
}
"""Functions of a float that return a whole number."""
NEGATIVE, SIZE = declare(build_negative, WHOLE, WHOLE), declare(build_size, WHOLE, WHOLE)
POWER_OF_WHOLE = OF_WHOLE[operator.pow]


OF_KINDS = frozenset({"callable", "getattr", "hasattr", "isinstance", "issubclass", "type"})
"""Functions that numba answers while it compiles, for kinds that plain Python does not have."""


def check_names(function: Any) -> None:
    """Refuse what numba would drop before the types are known: errors caught, kinds asked for."""
    if catches_errors(function):
        raise TypeError(f"try is not supported in compiled code, {function.__qualname__} has it")
    asked = sorted(OF_KINDS.intersection(find_code_names(function)) - {*find_references(function)})
    if asked:
        raise TypeError(f"{asked[0]} is not supported in compiled code")


class RefusedError(UnsupportedError):
    """Says in a sentence what a compiled formula may not do, and where."""


@register_pass(mutates_CFG=False, analysis_only=False)  # type: ignore[no-untyped-call]
class CheckFormula(FunctionPass):
    """Replace and refuse, see the module; it reads the types that numba has found."""

    _name = "check_formula"

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def run_pass(self, state: Any) -> bool:
        for block in state.func_ir.blocks.values():
            for line in block.find_insts(ir.Assign):
                check_kind(state.typemap[line.target.name], line.loc)
                if isinstance(line.value, ir.Expr):
                    line.value = check_expression(line.value, state)
        return True


def check_kind(kind: Any, loc: Any) -> None:
    is_whole = isinstance(kind, types.Integer)
    if is_whole and not (kind.signed and kind.bitwidth == 64):
        raise RefusedError(f"a whole number of {kind} is not supported in compiled code", loc)


def check_expression(expression: Any, state: Any) -> Any:
    """Return what stands in the place of an expression, often the same."""
    if expression.op in ("binop", "inplace_binop"):
        return check_operation(expression, state)
    if expression.op == "unary":
        return check_unary(expression, state)
    return check_call(expression, state) if expression.op == "call" else expression


def check_operation(expression: Any, state: Any) -> Any:
    is_inplace = expression.op == "inplace_binop"
    function = expression.immutable_fn if is_inplace else expression.fn
    pair = (expression.lhs, expression.rhs)
    kinds = [state.typemap[each.name] for each in pair]
    are_whole = [isinstance(kind, types.Integer) for kind in kinds]
    are_small = [isinstance(kind, (types.Boolean, types.IntegerLiteral)) for kind in kinds]
    if all(
        one or isinstance(kind, types.Boolean) for one, kind in zip(are_whole, kinds, strict=True)
    ):
        checked = OF_WHOLE.get(function)
        if checked is None or function in FREE:
            return expression
        return replace(expression, state, checked, *pair)
    if any(are_whole) and function in COMPARED and not any(are_small):
        checked = MIXED[function, are_whole[0]]
        return replace(expression, state, checked, *pair)
    if function is operator.pow and any(isinstance(kind, types.Float) for kind in kinds):
        raise RefusedError("** is not supported in code whose text is not found", expression.loc)
    return expression


def check_unary(expression: Any, state: Any) -> Any:
    kind = state.typemap[expression.value.name]
    is_bool = isinstance(kind, types.Boolean)
    if expression.fn is operator.invert and is_bool:
        raise RefusedError("~ of True or False is not supported in compiled code", expression.loc)
    if expression.fn is operator.neg and (is_bool or isinstance(kind, types.Integer)):
        return replace(expression, state, NEGATIVE, expression.value)
    return expression


def check_call(expression: Any, state: Any) -> Any:
    kind, returned = state.typemap[expression.func.name], state.calltypes[expression].return_type
    if not isinstance(kind, types.Function):
        is_known = isinstance(kind, (types.Dispatcher, types.NamedTupleClass))
        if not is_known:
            raise RefusedError(f"{kind} is not supported in compiled code", expression.loc)
        return expression
    function = kind.typing_key
    if str(getattr(function, "__module__", "")).partition(".")[0] == "backtest":
        return expression
    name = name_function(function)
    if not is_allowed(function):
        text = f"{name} is not supported in compiled code, where its last digit may differ"
        raise RefusedError(text, expression.loc)
    given = [state.typemap[each.name] for each in expression.args]
    is_whole = isinstance(returned, types.Integer)
    if (is_whole and name.startswith("np.")) or (is_whole and function is sum):
        raise RefusedError(
            f"{name} of whole numbers is not supported in compiled code", expression.loc
        )
    is_one = len(given) == 1 and not expression.kws and expression.vararg is None
    checked = None
    if is_one and isinstance(given[0], types.Float):
        checked = TO_WHOLE.get(function)
    elif is_one and function is abs and isinstance(given[0], types.Integer):
        checked = SIZE
    elif function is round:
        raise RefusedError(
            "round with more is not supported in code whose text is not found", expression.loc
        )
    if checked is None:
        return expression
    return replace(expression, state, checked, expression.args[0])


def is_allowed(function: Any) -> bool:
    try:
        return function in ALLOWED
    except TypeError:  # it cannot be hashed
        return False


def name_function(function: Any) -> str:
    owner = str(getattr(function, "__module__", "") or "").partition(".")[0]
    name = str(getattr(function, "__name__", function))
    if isinstance(function, np.ufunc):
        owner = "numpy"
    prefix = {"numpy": "np.", "math": "math."}.get(owner, "")
    return f"{prefix}{name}"


def replace(before: Any, state: Any, operation: Any, *given: Any) -> Any:
    """Return the call of an operation that :func:`declare` made, in the place of an expression."""
    write: Any = ir.Expr
    if len(given) == 1:
        made = write("unary", before.loc, fn=operation, value=given[0])
    else:
        left, right = given
        unknown = {"static_lhs": ir.UNDEFINED, "static_rhs": ir.UNDEFINED}
        made = write("binop", before.loc, fn=operation, lhs=left, rhs=right, **unknown)
    state.calltypes.pop(before, None)
    kind = state.typingctx.resolve_value_type(operation)
    state.calltypes[made] = kind.get_call_type(state.typingctx, OF_OPERATION[operation], {})
    return made


class CheckedCompiler(CompilerBase):
    """numba's compiler, with the check of formulas after its types are known."""

    def define_pipelines(self) -> list[Any]:
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)  # type: ignore[no-untyped-call]
        passes.add_pass_after(CheckFormula, NopythonTypeInference)
        passes.finalize()
        return [passes]
