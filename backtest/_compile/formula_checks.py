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

WHOLE = types.int64
FLOAT = types.float64
LEAST = -(2**63)
"""The least whole number of 64 bits, whose negative is none."""
EXACT = 2**53
"""Whole numbers up to this size are floats."""

ALLOWED = frozenset({
    abs, bool, enumerate, float, int, len, max, min, range, round, sum, zip,
    math.ceil, math.copysign, math.fabs, math.floor, math.isfinite, math.isinf, math.isnan,
    math.sqrt, math.trunc, np.abs, np.ceil, np.copysign, np.fabs, np.floor, np.isfinite, np.isinf,
    np.isnan, np.negative, np.rint, np.signbit, np.sqrt, np.square, np.trunc,
})  # fmt: skip
"""Functions with the bits of plain Python; those of this package have them too."""


# Writing code that raises where 64 bits do not hold a number.
#
# Whole numbers of Python have no end, those of compiled code 64 bits, and wrap without a word. So
# each ``build_*`` writes the instructions of one operation and, before or behind them, a test that
# raises OverflowError. ``x`` and ``y`` are values of the code that is written, not numbers.


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
    """Return a function that writes the code of a sum, difference or product of whole numbers.

    ``name`` is LLVM's: "sadd", "ssub" or "smul". Its operations "with overflow" return the result
    and a flag, which is set where 64 bits do not hold it: there the written code raises.
    """

    def build(context: Any, builder: Any, x: Any, y: Any) -> Any:
        """Write the operation of x and y, and a test of its flag."""
        both = getattr(builder, f"{name}_with_overflow")(x, y)
        fail(context, builder, builder.extract_value(both, 1))
        return builder.extract_value(both, 0)

    return build


def build_shift(context: Any, builder: Any, x: Any, y: Any) -> Any:
    """Write x << y, which shifts back to x if no bit is lost."""
    fail(context, builder, builder.icmp_unsigned(">", y, WHOLE_TYPE(62)))
    shifted = builder.shl(x, y)
    fail(context, builder, builder.icmp_signed("!=", builder.ashr(shifted, y), x))
    return shifted


def build_shift_back(context: Any, builder: Any, x: Any, y: Any) -> Any:
    """Write x >> y, which keeps the sign; a negative y is over 63 as an unsigned number."""
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
    """Write the code of x // y and x % y of whole numbers, as Python computes them.

    The quotient is rounded down, and the rest has the sign of y. The written code raises where y is
    0, and where 64 bits do not hold the quotient. Returns quotient and rest, as values of the code
    that is written; so are x and y.
    """
    zero = WHOLE_TYPE(0)
    fail(context, builder, builder.icmp_signed("==", y, zero))

    # The opposite of the least number is beyond 64 bits.
    is_least = builder.icmp_signed("==", x, WHOLE_TYPE(LEAST))
    is_minus_one = builder.icmp_signed("==", y, WHOLE_TYPE(-1))
    fail(context, builder, builder.and_(is_least, is_minus_one))

    # LLVM rounds towards 0: where the rest has another sign than y, that is one too many.
    quotient = builder.sdiv(x, y)
    rest = builder.srem(x, y)
    has_rest = builder.icmp_signed("!=", rest, zero)
    has_other_sign = builder.icmp_signed("<", builder.xor(rest, y), zero)
    is_one_too_many = builder.and_(has_other_sign, has_rest)

    rounded_down = builder.sub(quotient, builder.zext(is_one_too_many, WHOLE_TYPE))
    rest_of_lower = builder.add(rest, y)
    return rounded_down, builder.select(is_one_too_many, rest_of_lower, rest)


def build_floor(context: Any, builder: Any, x: Any, y: Any) -> Any:
    """Write x // y of whole numbers."""
    return divide_down(context, builder, x, y)[0]


def build_rest(context: Any, builder: Any, x: Any, y: Any) -> Any:
    """Write x % y of whole numbers."""
    return divide_down(context, builder, x, y)[1]


def build_power(context: Any, builder: Any, x: Any, y: Any) -> Any:
    """Write x to the power of y by squares; the code raises for a y under 0, or beyond 64 bits.

    It is this loop, whose variables are places in memory, which LLVM turns into registers::

        product = 1
        square = x
        left = y
        while left > 0:
            if left & 1:
                product *= square
            if left > 1:
                square *= square
            left >>= 1
        return product
    """
    zero = WHOLE_TYPE(0)
    one = WHOLE_TYPE(1)
    fail(context, builder, builder.icmp_signed("<", y, zero))
    multiply = build_sum("smul")

    product = allocate(builder, WHOLE_TYPE)
    square = allocate(builder, WHOLE_TYPE)
    left = allocate(builder, WHOLE_TYPE)
    builder.store(one, product)
    builder.store(x, square)
    builder.store(y, left)

    head = builder.append_basic_block("head")
    body = builder.append_basic_block("body")
    end = builder.append_basic_block("end")
    builder.branch(head)

    # The head of the loop: while a bit of y is left.
    builder.position_at_end(head)
    bits = builder.load(left)
    builder.cbranch(builder.icmp_signed(">", bits, zero), body, end)

    # Its body. The last square is not squared again, as it may be beyond 64 bits.
    builder.position_at_end(body)
    is_lowest_bit_set = builder.trunc(bits, llvm.IntType(1))
    with builder.if_then(is_lowest_bit_set):
        larger = multiply(context, builder, builder.load(product), builder.load(square))
        builder.store(larger, product)
    builder.store(builder.lshr(bits, one), left)
    has_more_bits = builder.icmp_signed(">", bits, one)
    with builder.if_then(has_more_bits):
        last = builder.load(square)
        builder.store(multiply(context, builder, last, last), square)
    builder.branch(head)

    builder.position_at_end(end)
    return builder.load(product)


def build_comparison(sign: str, *, is_whole_first: bool) -> Build:
    """Return a function that writes the code of ``x < y`` and its like, of a whole and a float.

    ``sign`` is the comparison. Python compares the two exactly; here the whole number becomes a
    float first. Where it is too large to be exact as a float, the written code raises.
    """

    def build(context: Any, builder: Any, x: Any, y: Any) -> Any:
        """Write the comparison of x and y as floats; which of them is whole is known before."""
        # With NaN all comparisons are false but that for another number.
        compare = builder.fcmp_ordered
        if sign == "!=":
            compare = builder.fcmp_unordered

        if is_whole_first:
            return compare(sign, read_whole(context, builder, x), y)
        return compare(sign, x, read_whole(context, builder, y))

    return build


def read_whole(context: Any, builder: Any, whole: Any) -> Any:
    """Write the float of a whole number; it raises beyond those that are floats."""
    fail(context, builder, is_beyond(builder, whole, EXACT))
    return builder.sitofp(whole, llvm.DoubleType())


def build_whole(round_first: str) -> Callable[[Any, Any, Any], Any]:
    """Return a function that writes the code of ``int(x)``, or of ``math.floor`` and its like.

    ``round_first`` names LLVM's function that rounds the float first, such as "llvm.floor"; if it
    is empty, the digits after the point are cut. The written code raises OverflowError for NaN, and
    where 64 bits do not hold the number.
    """

    def build(context: Any, builder: Any, x: Any) -> Any:
        """Write the whole number of the float x, and a test that 64 bits hold it."""
        if round_first:
            function = builder.module.declare_intrinsic(round_first, [x.type])
            x = builder.call(function, [x])

        # Comparisons that are ordered fail for NaN too.
        is_over_least = builder.fcmp_ordered(">=", x, x.type(-(2.0**63)))
        is_under_limit = builder.fcmp_ordered("<", x, x.type(2.0**63))
        is_held = builder.and_(is_over_least, is_under_limit)
        fail(context, builder, builder.not_(is_held))
        return builder.fptosi(x, WHOLE_TYPE)

    return build


def build_size(context: Any, builder: Any, x: Any) -> Any:
    """Write abs(x); it raises for the least number, also where that is not chosen."""
    negated = build_negative(context, builder, x)
    return builder.select(builder.icmp_signed("<", x, WHOLE_TYPE(0)), negated, x)


def build_negative(context: Any, builder: Any, x: Any) -> Any:
    """Write -x; it raises for the least number, whose opposite is beyond 64 bits."""
    fail(context, builder, builder.icmp_signed("==", x, WHOLE_TYPE(LEAST)))
    return builder.neg(x)


OF_OPERATION: dict[Any, tuple[Any, ...]] = {}
"""The kinds of what the operations that are declared here take."""


def declare(build: Any, returned: Any, *kinds: Any) -> Any:
    """Return a new operation that compiled code may call, whose machine code ``build`` writes.

    ``returned`` and ``kinds`` are numba's types of its result and its arguments. numba learns of an
    operation in two tables: one of types, for inference, and one of the code that is written. What
    is returned is a function of Python that stands for the operation in both, and is put into the
    place of an operator in the code of a formula.
    """

    def operation(*_: Any) -> None:
        """Stand for the operation in the tables of numba; Python never calls it."""

    # The kinds that the operation takes, to which arguments are cast.
    OF_OPERATION[operation] = kinds

    # Its type: a function of these kinds, and no others.
    case = signature(returned, *kinds)  # type: ignore[no-untyped-call]
    template: Any = type("Operation", (ConcreteTemplate,), {"key": operation, "cases": [case]})
    register_type: Any = infer_global
    register_type(operation, types.Function(template))

    # Its code. Builders need no signature: it is always this one.
    def write_code(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        """Write the machine code of a call with some values."""
        return build(context, builder, *values)

    register_code: Any = lower_builtin(operation, *kinds)  # type: ignore[no-untyped-call]
    register_code(write_code)
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
MIXED: dict[Any, Any] = {}
"""Comparisons of a whole number and a float, and whether the whole number comes first."""
for _function, _sign in COMPARED.items():
    _whole_first = build_comparison(_sign, is_whole_first=True)
    _float_first = build_comparison(_sign, is_whole_first=False)
    MIXED[_function, True] = declare(_whole_first, types.boolean, WHOLE, FLOAT)
    MIXED[_function, False] = declare(_float_first, types.boolean, FLOAT, WHOLE)
TO_WHOLE: dict[Any, Any] = {
    int: declare(build_whole(""), WHOLE, FLOAT),
    math.trunc: declare(build_whole(""), WHOLE, FLOAT),
    math.floor: declare(build_whole("llvm.floor"), WHOLE, FLOAT),
    math.ceil: declare(build_whole("llvm.ceil"), WHOLE, FLOAT),
    round: declare(build_whole("llvm.rint"), WHOLE, FLOAT),
}
"""Functions of a float that return a whole number."""
NEGATIVE = declare(build_negative, WHOLE, WHOLE)
SIZE = declare(build_size, WHOLE, WHOLE)
POWER_OF_WHOLE = OF_WHOLE[operator.pow]


# Checking a formula.

OF_KINDS = frozenset({"callable", "getattr", "hasattr", "isinstance", "issubclass", "type"})
"""Functions that numba answers while it compiles, for kinds that plain Python does not have."""


def check_names(function: Any) -> None:
    """Refuse what numba would drop before the types are known: errors caught, kinds asked for."""
    if catches_errors(function):
        raise TypeError(f"try is not supported in compiled code, {function.__qualname__} has it")
    names = OF_KINDS.intersection(find_code_names(function)) - {*find_references(function)}
    if names:
        raise TypeError(f"{min(names)} is not supported in compiled code")


class RefusedError(UnsupportedError):
    """Says in a sentence what a compiled formula may not do, and where."""


@register_pass(mutates_CFG=False, analysis_only=False)  # type: ignore[no-untyped-call]
class CheckFormula(FunctionPass):
    """Replace and refuse, see the module; it reads the types that numba has found."""

    _name = "check_formula"

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def run_pass(self, state: Any) -> bool:
        """Check the kind of each value that is assigned, and replace its expression."""
        for block in state.func_ir.blocks.values():
            for line in block.find_insts(ir.Assign):
                check_kind(state.typemap[line.target.name], line.loc)
                if isinstance(line.value, ir.Expr):
                    line.value = check_expression(line.value, state)
        return True


def check_kind(kind: Any, loc: Any) -> None:
    """Raise RefusedError for whole numbers other than signed ones of 64 bits."""
    is_whole = isinstance(kind, types.Integer)
    if is_whole and not (kind.signed and kind.bitwidth == 64):
        raise RefusedError(f"a whole number of {kind} is not supported in compiled code", loc)


def check_expression(expression: Any, state: Any) -> Any:
    """Return what stands in the place of an expression, often the same."""
    if expression.op in ("binop", "inplace_binop"):
        return check_operation(expression, state)
    if expression.op == "unary":
        return check_unary(expression, state)
    if expression.op == "call":
        return check_call(expression, state)
    return expression


def check_operation(expression: Any, state: Any) -> Any:
    """Return the operation that replaces one of two values, such as x + y; often it is the same.

    ``expression`` and ``state`` are numba's: the operation in a formula, and the compiler with the
    types that it has found. Whole numbers have 64 bits in compiled code, and no end in Python. So
    an operation of two of them that may overflow is replaced by one that raises then (OF_WHOLE),
    and a comparison of one with a float by one that is exact (MIXED). Raises RefusedError for a
    power that could not be replaced.
    """
    function = expression.fn if expression.op == "binop" else expression.immutable_fn
    left = expression.lhs
    right = expression.rhs
    kinds = [state.typemap[left.name], state.typemap[right.name]]
    if all(isinstance(kind, (types.Integer, types.Boolean)) for kind in kinds):
        # Those that cannot overflow stay: bits, comparisons, and what has no checked version.
        checked = OF_WHOLE.get(function)
        if checked is None or function in FREE:
            return expression
        return replace(expression, state, checked, left, right)

    # A comparison of a whole number and a float. Constants (IntegerLiteral) and bools are small: as
    # floats they are the same numbers, so numba's own comparison is exact.
    is_whole_first = isinstance(kinds[0], types.Integer)
    is_any_whole = is_whole_first or isinstance(kinds[1], types.Integer)
    is_any_small = any(isinstance(kind, (types.Boolean, types.IntegerLiteral)) for kind in kinds)
    if is_any_whole and function in COMPARED and not is_any_small:
        checked = MIXED[function, is_whole_first]
        return replace(expression, state, checked, left, right)

    if function is operator.pow and any(isinstance(kind, types.Float) for kind in kinds):
        raise RefusedError("** is not supported in code whose text is not found", expression.loc)
    return expression


def check_unary(expression: Any, state: Any) -> Any:
    """Return the operation that replaces one of a single value, such as -x; often it is the same.

    ``expression`` and ``state`` are numba's: the operation in a formula, and the compiler with the
    types that it has found. The negative of a whole number is replaced by one that raises beyond 64
    bits. Raises RefusedError for ~ of a bool, which is a whole number in plain Python.
    """
    kind = state.typemap[expression.value.name]
    is_bool = isinstance(kind, types.Boolean)
    if expression.fn is operator.invert and is_bool:
        raise RefusedError("~ of True or False is not supported in compiled code", expression.loc)
    if expression.fn is operator.neg and (is_bool or isinstance(kind, types.Integer)):
        return replace(expression, state, NEGATIVE, expression.value)
    return expression


def check_call(expression: Any, state: Any) -> Any:
    """Return the call that replaces one in a formula, so that it gives the bits of plain Python.

    Calls of functions of this package, of formulas compiled with these checks, and of records stay
    as they are. Of other functions only those in ALLOWED may be called; some are replaced by one
    that raises beyond 64 bits. Raises RefusedError for any other. ``expression`` and ``state`` are
    numba's: the call, and the compiler with the types that it has found.
    """
    kind = state.typemap[expression.func.name]
    is_compiled_function = isinstance(kind, types.Dispatcher)
    if is_compiled_function or isinstance(kind, types.NamedTupleClass):
        return expression
    if not isinstance(kind, types.Function):
        raise RefusedError(f"{kind} is not supported in compiled code", expression.loc)
    function = kind.typing_key
    if str(getattr(function, "__module__", "")).partition(".")[0] == "backtest":
        return expression

    name = name_function(function)
    if not is_allowed(function):
        text = f"{name} is not supported in compiled code, where its last digit may differ"
        raise RefusedError(text, expression.loc)

    # Sums and functions of NumPy wrap whole numbers, and have no version here that raises.
    returned = state.calltypes[expression].return_type
    is_whole = isinstance(returned, types.Integer)
    if is_whole and (name.startswith("np.") or function is sum):
        raise RefusedError(
            f"{name} of whole numbers is not supported in compiled code", expression.loc
        )
    checked = find_checked(expression, state, function)
    if checked is None:
        return expression
    return replace(expression, state, checked, expression.args[0])


def find_checked(expression: Any, state: Any, function: Any) -> Any:
    """Return the checked operation for an allowed call, None where the call may stay."""
    has_one = len(expression.args) == 1 and not expression.kws and expression.vararg is None
    if has_one:
        kind = state.typemap[expression.args[0].name]
        if isinstance(kind, types.Float):
            return TO_WHOLE.get(function)
        if function is abs and isinstance(kind, types.Integer):
            return SIZE

    # ``round`` to digits is replaced in the text of a formula, where that is found.
    if function is round:
        raise RefusedError(
            "round with more is not supported in code whose text is not found", expression.loc
        )
    return None


def is_allowed(function: Any) -> bool:
    """Return whether a function of math or NumPy gives the bits of plain Python."""
    try:
        return function in ALLOWED
    except TypeError:  # it cannot be hashed
        return False


def name_function(function: Any) -> str:
    """Return the name of a function as users write it: ``np.sin``, ``math.sin``."""
    owner = str(getattr(function, "__module__", "") or "").partition(".")[0]
    name = str(getattr(function, "__name__", function))
    if isinstance(function, np.ufunc):
        owner = "numpy"
    prefix = {"numpy": "np.", "math": "math."}.get(owner, "")
    return f"{prefix}{name}"


def replace(before: Any, state: Any, operation: Any, *operands: Any) -> Any:
    """Return an expression of numba that calls an operation, in the place of the one before.

    ``operation`` is one that :func:`declare` made, of one operand or of two; ``state`` is that of
    numba's compiler, and is told of the change.
    """
    expression: Any = ir.Expr
    if len(operands) == 1:
        after = expression("unary", before.loc, fn=operation, value=operands[0])
    else:
        after = expression(
            "binop",
            before.loc,
            fn=operation,
            lhs=operands[0],
            rhs=operands[1],
            static_lhs=ir.UNDEFINED,
            static_rhs=ir.UNDEFINED,
        )

    # numba looks the types of a call up by its expression.
    state.calltypes.pop(before, None)
    kind = state.typingctx.resolve_value_type(operation)
    state.calltypes[after] = kind.get_call_type(state.typingctx, OF_OPERATION[operation], {})
    return after


class CheckedCompiler(CompilerBase):
    """numba's compiler, with the check of formulas after its types are known."""

    def define_pipelines(self) -> list[Any]:
        """Return numba's usual steps, with the check after the types are known."""
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)  # type: ignore[no-untyped-call]
        passes.add_pass_after(CheckFormula, NopythonTypeInference)
        passes.finalize()
        return [passes]
