"""What rules and their values are to numba: records by reference, calls by address, overloads."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import CellType, FunctionType, MappingProxyType, ModuleType
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import carray  # type: ignore[attr-defined]
from numba.core import cgutils
from numba.core import types as kinds_of
from numba.core.datamodel import models
from numba.core.errors import TypingError
from numba.core.imputils import impl_ret_borrowed, lower_getattr_generic
from numba.core.types import unliteral
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, intrinsic, overload, register_model
from numba.np.arrayobj import populate_array

from backtest._compile.bytecode import (
    find_references,
    has_compiled_versions,
    is_of_user,
)
from backtest._compile.compiler import compile_formula, jit, read_kinds
from backtest._compile.formula_checks import POWER_OF_WHOLE, CheckedCompiler, check_names
from backtest._compile.object_code import ObjectFile

POINTER = numba.types.CPointer(numba.float64)  # type: ignore[no-untyped-call]
KINDS = {"pointer": POINTER, "whole": numba.int64}
"""What formulas take: arrays by address, and whole numbers."""


class Shared(kinds_of.Type):
    def __init__(self, inner: Any) -> None:
        self.inner = inner
        mark = hashlib.sha256(str(inner).encode()).hexdigest()[:16]
        super().__init__(name=f"Shared({mark})")  # it stands in the name of each compiled function


@register_model(Shared)
class SharedModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Shared) -> None:
        super().__init__(manager, kind, manager.lookup(kind.inner).get_value_type().as_pointer())  # type: ignore[no-untyped-call]


@infer_getattr
class SharedFields(AttributeTemplate):
    key = Shared

    def generic_resolve(self, kind: Any, name: str) -> Any:  # type: ignore[override]
        if name not in kind.inner.fields:
            return None
        found = kind.inner.types[kind.inner.fields.index(name)]
        return Shared(found) if isinstance(found, kinds_of.BaseNamedTuple) else found


@lower_getattr_generic(Shared)  # type: ignore[no-untyped-call, untyped-decorator]
def read_field(context: Any, builder: Any, kind: Shared, pointer: Any, name: str) -> Any:
    at = kind.inner.fields.index(name)
    found = kind.inner.types[at]
    zero, position = ir.Constant(ir.IntType(32), 0), ir.Constant(ir.IntType(32), at)
    place = builder.gep(pointer, [zero, position], inbounds=True)
    if isinstance(found, kinds_of.BaseNamedTuple):
        return place
    value = builder.load(place)
    return impl_ret_borrowed(context, builder, found, value)  # type: ignore[no-untyped-call]


@intrinsic
def share_record(_context: Any, record: Any) -> Any:
    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        place = cgutils.alloca_once(builder, kind)  # type: ignore[no-untyped-call]
        builder.store(arguments[0], place)
        return place

    return Shared(record)(record), build


@intrinsic
def view_memory(_context: Any, record: Any) -> Any:
    is_many = isinstance(record, kinds_of.Array)
    fields = (record.dtype if is_many else record).size // 8
    kind = kinds_of.Array(numba.float64, 2 if is_many else 1, "C")

    def build(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        place, word = arguments[0], ir.IntType(64)
        shape, strides = [ir.Constant(word, fields)], [ir.Constant(word, 8)]
        if is_many:
            given = context.make_array(record)(context, builder, place)
            place, (n,) = given.data, cgutils.unpack_tuple(builder, given.shape)  # type: ignore[no-untyped-call]
            shape, strides = [n, *shape], [ir.Constant(word, 8 * fields), *strides]
        found = context.make_array(kind)(context, builder)
        data = builder.bitcast(place, found.data.type)
        populate_array(found, data, shape, strides, ir.Constant(word, 8), meminfo=None)  # type: ignore[no-untyped-call]
        return found._getvalue()

    return kind(record), build


def make_call(result: str, arrays: Sequence[tuple[int, int | None]], n_numbers: int) -> Any:
    """Return a call of a C function at an address, for compiled code: ``call(address, *given)``.

    ``result`` is ``"d"`` of a float or ``"q"`` of an integer. The function takes the data of some
    arguments that are arrays, each with the place of the argument that moves it, if any; then the
    last ``n_numbers`` arguments, which are integers.
    """
    returned = {"d": ir.DoubleType(), "q": ir.IntType(64)}[result]

    @intrinsic
    def call(_context: Any, address: Any, *given: Any) -> Any:
        kinds = tuple(map(unliteral, given))

        def build(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            values = cgutils.unpack_tuple(builder, arguments[1])  # type: ignore[no-untyped-call]

            def point(k: int, at: int | None) -> Any:
                array = context.make_array(kinds[k])(context, builder, values[k])
                return array.data if at is None else builder.gep(array.data, [values[at]])

            taken = [ir.DoubleType().as_pointer()] * len(arrays) + [ir.IntType(64)] * n_numbers
            function = builder.inttoptr(arguments[0], ir.FunctionType(returned, taken).as_pointer())
            pointers = [point(k, at) for k, at in arrays]
            return builder.call(function, [*pointers, *values[-n_numbers:]])

        kind = numba.float64 if result == "d" else numba.int64
        return kind(address, kinds_of.StarArgTuple(kinds)), build  # type: ignore[no-untyped-call]

    return call


@intrinsic
def locate_function(context: Any, function: Any, arguments: Any) -> Any:
    kinds = function.get_call_type(context, tuple(arguments.types), {}).args

    def build(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        compiled = function.dispatcher.overloads[kinds]
        context.add_linking_libs([compiled.library])
        place = context.declare_function(builder.module, compiled.fndesc)
        return builder.ptrtoint(place, ir.IntType(64))

    return numba.int64(function, arguments), build


def import_source(name: str, text: str, names: Mapping[str, Any]) -> ModuleType:
    module = sys.modules[name] = ModuleType(name)
    module.__dict__.update({k: v for k, v in names.items() if not k.startswith("__")})
    exec(compile(text, f"<{name}>", "exec"), module.__dict__)  # nothing of the user's
    return module


def compile_text(
    name: str,
    text: str,
    formulas: Mapping[str, Any],
    names: Mapping[str, Any],
    kinds: tuple[str, ...],
    *,
    has_counts: bool,
) -> ObjectFile:
    """Return the object of ``decide`` of a text, which calls formulas of users by name.

    ``kinds`` are those of its arguments: "pointer" to floats, "whole" numbers.
    """
    scope = {**names, "carray": carray, "np": np, "NamedTuple": NamedTuple}
    scope |= {each: jit_tree(formula, {}) for each, formula in formulas.items()}
    function = jit(import_source(name, text, scope).decide, is_linked=False, _nrt=has_counts)
    return compile_formula(function, name, tuple(KINDS[each] for each in kinds))


def jit_tree(function: Any, done: dict[int, Any]) -> Any:
    if id(function) in done:
        return done[id(function)]
    scope = dict(function.__globals__)
    names = function.__code__.co_freevars
    cells = dict(zip(names, function.__closure__ or (), strict=True))
    closure = tuple(CellType(cells[name].cell_contents) for name in names)
    copy = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, closure)
    options: Any = {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    if is_of_user(function):
        check_names(function)
        options["pipeline_class"] = CheckedCompiler
    done[id(function)] = numba.njit(error_model="numpy", **options)(copy)
    for name, value in find_references(function).items():
        if not isinstance(value, FunctionType) or has_compiled_versions(value):
            continue
        if name in names:
            closure[names.index(name)].cell_contents = jit_tree(value, done)
        else:
            scope[name] = jit_tree(value, done)
    return done[id(function)]


def register_overload(
    public: Callable[..., Any],
    scalar: Any,
    *,
    replaced: Mapping[str, str] = MappingProxyType({}),
    literals: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType({}),
    is_inlined: bool = False,
) -> None:
    """Let compiled code call a public function: what it calls is the compiled ``scalar``.

    ``scalar`` takes the same arguments, or the texts in their place that ``replaced`` has. An
    argument among ``literals`` is a constant text of the code; ``scalar`` takes its value.
    """
    names = public.__code__.co_varnames[: public.__code__.co_argcount]
    defaults = dict(zip(reversed(names), reversed(public.__defaults__ or ()), strict=False))
    head = ", ".join(f"{each}=default_{each}" if each in defaults else each for each in names)
    known = {name: literals[name] for name in names if name in literals}
    texts = {**replaced, **{name: value for name, (value, _) in known.items()}}
    given = ", ".join(texts.get(each, each) for each in names)
    read = "".join(f"    {value} = read_{name}({name})\n" for name, (value, _) in known.items())
    text = (
        f"def choose({head}):\n"
        f"{read}"
        f"    def implementation({head}):\n"
        f"        return scalar({given})\n"
        f"    return implementation\n"
    )
    scope: dict[str, Any] = {"scalar": scalar}

    def read_literal(name: str, kind: Any) -> Any:  # given by its type, or as the default
        table, text = known[name][1], getattr(kind, "literal_value", getattr(kind, "value", kind))
        if text not in table:
            raise TypingError(
                f"{name} must be the literal {' or '.join(map(repr, table))}, got {text}"
            )
        return table[text]

    scope |= {f"read_{name}": partial(read_literal, name) for name in known}
    scope |= {f"default_{name}": value for name, value in defaults.items()}
    exec(compile(text, "<public overload>", "exec"), scope)  # our own text, nothing of the user's
    options: Any = {"forceinline": is_inlined}
    overload(public, jit_options=options, prefer_literal=bool(known))(scope["choose"])


def register_power(public: Callable[..., Any], power: Any) -> None:
    """Let compiled code call a power: of two integers it is checked, else ``power``."""
    options: Any = {"forceinline": True}

    @overload(public, jit_options=options)
    def choose(x, y):  # type: ignore[no-untyped-def] # numba compares the signatures
        are_whole = isinstance(x, kinds_of.Integer) and isinstance(y, kinds_of.Integer)
        if are_whole:
            return lambda x, y: POWER_OF_WHOLE(x, y)  # noqa: PLW0108 - numba compiles it
        return lambda x, y: power(x, y)  # noqa: PLW0108 - numba compiles it


def make_loop_call(given: tuple[Any, ...]) -> Any:
    """Return a call, for compiled code, of a compiled function at an address: two integers.

    ``given`` are such arguments as it is called with; records are passed by reference.
    """
    kinds = tuple(
        Shared(each) if isinstance(each, kinds_of.BaseNamedTuple) else each
        for each in read_kinds(given)
    )
    result = kinds_of.UniTuple(numba.int64, 2)  # type: ignore[no-untyped-call]

    @intrinsic
    def call(_context: Any, address: Any, *_given: Any) -> Any:
        def build(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            taken = cgutils.unpack_tuple(builder, arguments[1])  # type: ignore[no-untyped-call]
            kind = context.call_conv.get_function_type(result, kinds)
            found, fault = (each.pointee for each in kind.args[:2])
            function = builder.inttoptr(arguments[0], kind.as_pointer())
            place = cgutils.alloca_once(builder, found)  # type: ignore[no-untyped-call]
            packed = context.get_arg_packer(kinds).as_arguments(builder, taken)
            status = cgutils.alloca_once(builder, fault)  # type: ignore[no-untyped-call]
            builder.call(function, [place, status, *packed])
            return context.get_returned_value(builder, result, builder.load(place))

        taken = kinds_of.StarArgTuple(kinds)  # type: ignore[no-untyped-call]
        return result(address, taken), build

    return call


@intrinsic
def find_lowest(_context: Any, bits: Any) -> Any:
    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return bits(bits), build


@intrinsic
def read_number(_context: Any, address: Any, k: Any) -> Any:
    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.DoubleType().as_pointer())
        return builder.load(builder.gep(pointer, [arguments[1]]))

    return numba.float64(address, k), build
