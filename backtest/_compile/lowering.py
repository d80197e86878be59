"""What rules and their values are to numba: records by reference, calls by address, overloads.

An intrinsic is a function of compiled code whose machine code we write ourselves. numba calls it
once for each call that it compiles, with the types of the arguments; it returns the types of the
call, and ``build``, which writes instructions of LLVM for values of these types. ``builder`` is
where they are written, ``arguments`` are the values: both exist only while numba compiles.
"""

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
from backtest._compile.formula_checks import (
    POWER_OF_WHOLE,
    CheckedCompiler,
    allocate,
    check_names,
)
from backtest._compile.object_code import ObjectFile

WORD = ir.IntType(64)
FLOAT_BYTES = 8
POINTER = numba.types.CPointer(numba.float64)  # type: ignore[no-untyped-call]
KINDS = {"pointer": POINTER, "whole": numba.int64}
"""What formulas have as arguments: arrays by address, and whole numbers."""


# Records by reference.


class Shared(kinds_of.Type):
    """The type of a record that is passed by its address."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        mark = hashlib.sha256(str(inner).encode()).hexdigest()[:16]
        super().__init__(name=f"Shared({mark})")  # it stands in the name of each compiled function


@register_model(Shared)
class SharedModel(models.PrimitiveModel):
    """Tells numba that a value of the type :class:`Shared` is a pointer to the record."""

    def __init__(self, manager: Any, kind: Shared) -> None:
        address = manager.lookup(kind.inner).get_value_type().as_pointer()
        super().__init__(manager, kind, address)  # type: ignore[no-untyped-call]


@infer_getattr
class SharedFields(AttributeTemplate):
    """Tells numba the types of the fields of a shared record: a record inside is shared too."""

    key = Shared

    def generic_resolve(self, kind: Any, name: str) -> Any:  # type: ignore[override]
        if name not in kind.inner.fields:
            return None
        field = kind.inner.types[kind.inner.fields.index(name)]
        return share_kind(field)


def share_kind(kind: Any) -> Any:
    """Return the kind in which a value is passed: of a record its address."""
    if isinstance(kind, kinds_of.BaseNamedTuple):
        return Shared(kind)
    return kind


@lower_getattr_generic(Shared)  # type: ignore[no-untyped-call, untyped-decorator]
def read_field(context: Any, builder: Any, kind: Shared, pointer: Any, name: str) -> Any:
    """Write LLVM instructions that read a field of a record, which is passed by its address.

    numba calls this while it compiles ``record.name``. ``pointer`` is the address of the record in
    the code that is written. One field is loaded; for a field that is a record itself, the address
    is returned. So a record of fifty fields is not copied at each call that gets it.
    """
    index = kind.inner.fields.index(name)
    kind_of_field = kind.inner.types[index]

    # The address of a field: 0 records on from the pointer, and in the record field ``index``.
    no_records_on = ir.Constant(ir.IntType(32), 0)
    field_of_record = ir.Constant(ir.IntType(32), index)
    address = builder.gep(pointer, [no_records_on, field_of_record], inbounds=True)
    if isinstance(kind_of_field, kinds_of.BaseNamedTuple):
        return address

    value = builder.load(address)
    return impl_ret_borrowed(context, builder, kind_of_field, value)  # type: ignore[no-untyped-call]


@intrinsic
def share_record(_context: Any, record: Any) -> Any:
    """Put a record into memory, in compiled code, and return its address.

    The memory is on the stack of the calling function. So the address may be passed to functions
    that it calls, but must not be kept longer than it runs.
    """

    def build(_context: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
        """Write the memory, and a store of the record into it."""
        (record_value,) = arguments
        address = cgutils.alloca_once(builder, record_value.type)  # type: ignore[no-untyped-call]
        builder.store(record_value, address)
        return address

    # The type of this call: it takes the record, and returns one that is passed by its address.
    return Shared(record)(record), build


@intrinsic
def read_record(_context: Any, record: Any) -> Any:
    """Return a record that is passed by its address: all of its fields are read here, once."""

    def build(_context: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
        """Write one load of the whole record."""
        return builder.load(arguments[0])

    return record.inner(record), build


@intrinsic
def view_memory(_context: Any, record: Any) -> Any:
    """Return, in compiled code, the numbers of a struct as an array that shares its memory.

    Of shape (fields,) for one struct, or (n, fields) for an array of structs. Nothing is copied:
    what is written into the array is read in the struct. A struct has only floats, of 8 bytes each,
    without gaps. The array does not keep the struct alive, so the struct must outlive it.

    numba calls this function while it compiles a call: ``record`` is the type of the argument. The
    function returns the types of the call, and ``build``, which writes its instructions.
    """
    is_many = isinstance(record, kinds_of.Array)
    struct = record
    n_dimensions = 1
    if is_many:
        struct = record.dtype
        n_dimensions = 2
    n_fields = struct.size // FLOAT_BYTES
    kind = kinds_of.Array(numba.float64, n_dimensions, "C")

    def build(context: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
        """Write LLVM instructions that make the array, and return it.

        In compiled code an array is a record of the address of its data, its shape, and its strides
        in bytes. A struct gives a row of ``n_fields`` floats; an array of structs (``is_many``)
        gives a row for each of them.
        """
        (struct_value,) = arguments

        # A struct is its address already; of an array of them it is that of its data.
        address = struct_value
        float_size = ir.Constant(WORD, FLOAT_BYTES)
        shape = [ir.Constant(WORD, n_fields)]
        strides = [float_size]
        if is_many:
            structs = context.make_array(record)(context, builder, struct_value)
            address = structs.data
            (n_structs,) = cgutils.unpack_tuple(builder, structs.shape)  # type: ignore[no-untyped-call]
            row_size = ir.Constant(WORD, FLOAT_BYTES * n_fields)
            shape = [n_structs, *shape]
            strides = [row_size, *strides]

        # ``meminfo`` owns memory for numba; without one, the struct keeps it.
        view = context.make_array(kind)(context, builder)
        data = builder.bitcast(address, view.data.type)
        populate_array(view, data, shape, strides, float_size, meminfo=None)  # type: ignore[no-untyped-call]
        return view._getvalue()

    # The type of this call: it takes the record, and returns an array of that kind.
    return kind(record), build


# Calls by address.


def make_call(result: str, arrays: Sequence[tuple[int, int | None]], n_numbers: int) -> Any:
    """Return a call of a C function at an address, for compiled code: ``call(address, *given)``.

    So compiled code calls the formula of a policy that was compiled later, and not linked with it.
    ``result`` is "d" if the function returns a float, "q" if it returns an integer. Its parameters
    are pointers to floats, and then the last ``n_numbers`` of the arguments, which are integers.
    ``arrays`` has a pair for each pointer: the place of the array among the arguments, and that of
    the argument with the index of the element to point at, or None for the first.

    For example, ``make_call("d", [(0, 1), (2, None)], n_numbers=1)`` is called as
    ``call(address, params, first, bar, time)``, and calls ``f(&params[first], &bar[0], time)``.
    """
    returned = {"d": ir.DoubleType(), "q": WORD}[result]
    returned_kind = {"d": numba.float64, "q": numba.int64}[result]
    pointer_kind = ir.DoubleType().as_pointer()
    parameter_kinds = [pointer_kind] * len(arrays) + [WORD] * n_numbers
    function_kind = ir.FunctionType(returned, parameter_kinds)

    @intrinsic
    def call(_context: Any, address: Any, *given: Any) -> Any:
        """Return the types of a call with arguments of such types, and what writes its code.

        ``given`` are arrays and numbers, as :func:`make_call` lays them out. numba asks while it
        compiles a call; the types are what it returns and takes, the address and a tuple.
        """
        # A constant of the code has a type of its own, which is taken as that of any such number.
        kinds = tuple(map(unliteral, given))

        def build(
            context: Any, builder: ir.IRBuilder, _signature: Any, arguments: tuple[Any, Any]
        ) -> ir.Value:
            """Write LLVM instructions that call a C function, and return its result.

            ``builder`` writes the instructions. ``arguments`` are values of the code that is
            written, not numbers: the address of the function, and a tuple of arrays and whole
            numbers. C gets a pointer for each pair of ``arrays`` (the place of an array, and that
            of the index of its element), and then the last ``n_numbers`` numbers.
            """
            address_value, packed = arguments
            values = cgutils.unpack_tuple(builder, packed)  # type: ignore[no-untyped-call]

            # C knows no arrays of numba: of each it gets the address of an element.
            pointers = []
            for array_place, index_place in arrays:
                read_array = context.make_array(kinds[array_place])
                pointer = read_array(context, builder, values[array_place]).data
                if index_place is not None:
                    pointer = builder.gep(pointer, [values[index_place]])
                pointers.append(pointer)

            # The address is an integer, which becomes a function of the declared parameters.
            first_number = len(values) - n_numbers
            numbers = values[first_number:]
            function = builder.inttoptr(address_value, function_kind.as_pointer())
            return builder.call(function, [*pointers, *numbers])

        arguments_kind = kinds_of.StarArgTuple(kinds)  # type: ignore[no-untyped-call]
        return returned_kind(address, arguments_kind), build

    return call


@intrinsic
def locate_function(context: Any, function: Any, arguments: Any) -> Any:
    """Return the address of a function that is compiled for some arguments.

    Writes the address as an integer, and links the machine code of that function into the one that
    asks for it: else the address would be of nothing. ``arguments`` is a tuple, of which only the
    types count: nothing is called.
    """
    # numba compiles a function when it finds the types of a call of it, so it is asked for those
    # of a call that is never made.
    kinds = function.get_call_type(context, tuple(arguments.types), {}).args

    def build(context: Any, builder: ir.IRBuilder, _signature: Any, _arguments: Any) -> Any:
        """Write the address of the function as an integer, and link its library."""
        compiled = function.dispatcher.overloads[kinds]
        context.add_linking_libs([compiled.library])
        pointer = context.declare_function(builder.module, compiled.fndesc)
        return builder.ptrtoint(pointer, WORD)

    return numba.int64(function, arguments), build


# Texts and formulas.


def import_source(name: str, text: str, names: Mapping[str, Any]) -> ModuleType:
    """Return a new module of a text that sees some names."""
    module = ModuleType(name)
    sys.modules[name] = module
    public = {key: value for key, value in names.items() if not key.startswith("__")}
    module.__dict__.update(public)
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
    """Return the object of the function ``decide`` of a text, which calls formulas by name.

    ``name`` is that of the object. ``formulas`` are functions of Python, compiled here with all
    that they call; ``names`` are other names that the text sees. ``kinds`` are those of the
    arguments of ``decide``: "pointer" to floats, "whole" numbers. ``has_counts``: the code makes
    arrays, whose references numba counts.
    """
    scope = {**names, "carray": carray, "np": np, "NamedTuple": NamedTuple}
    for formula_name, formula in formulas.items():
        scope[formula_name] = jit_tree(formula, {})

    function = jit(import_source(name, text, scope).decide, is_linked=False, _nrt=has_counts)
    return compile_formula(function, name, tuple(map(KINDS.__getitem__, kinds)))


def jit_tree(function: Any, done: dict[int, Any]) -> Any:
    """Return a function compiled, with those that it calls.

    ``done`` has the functions compiled before, by the ``id`` of the plain one, and is written.
    Formulas of users are compiled with checks (:class:`.CheckedCompiler`), for which the text of
    the function must fit (:func:`.check_names`).
    """
    if id(function) in done:
        return done[id(function)]

    # A copy of the function, in whose globals and cells (the variables of functions around it) its
    # own names can be bound to compiled functions.
    scope = dict(function.__globals__)
    names_of_cells = function.__code__.co_freevars
    cells = tuple(CellType(cell.cell_contents) for cell in function.__closure__ or ())
    copy = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, cells)

    options: Any = {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    if is_of_user(function):
        check_names(function)
        options["pipeline_class"] = CheckedCompiler
    compiled = numba.njit(error_model="numpy", **options)(copy)

    # numba compiles at the first call, so names may be bound afterwards. The function is noted as
    # done before what it refers to, which may be itself. Functions of which this package has
    # compiled versions are left to numba, which finds these.
    done[id(function)] = compiled
    for name, value in find_references(function).items():
        if not isinstance(value, FunctionType) or has_compiled_versions(value):
            continue
        helper = jit_tree(value, done)
        if name in names_of_cells:
            cells[names_of_cells.index(name)].cell_contents = helper
        else:
            scope[name] = helper
    return compiled


# Public functions in compiled code.


def register_overload(
    public: Callable[..., Any],
    scalar: Any,
    *,
    replaced: Mapping[str, str] = MappingProxyType({}),
    literals: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType({}),
    is_inlined: bool = False,
) -> None:
    """Let compiled code call a public function: the call becomes one of the compiled ``scalar``.

    ``scalar`` gets the arguments of the call. ``replaced`` has, by the name of an argument, what it
    gets in place of it, as a text of Python. ``literals`` has the arguments that must be constant
    texts, such as "call" or "put": the name that ``scalar`` sees, and the values of the texts.

    numba wants a function with the parameters of the public one, which returns what to compile. It
    reads their names and defaults, so that function is written here as a text::

        def choose(kind, price, years=default_years):
            sign = read_kind(kind)
            def implementation(kind, price, years=default_years):
                return scalar(sign, price, years)
            return implementation
    """
    names = public.__code__.co_varnames[: public.__code__.co_argcount]
    defaults = dict(zip(reversed(names), reversed(public.__defaults__ or ()), strict=False))
    scope: dict[str, Any] = {"scalar": scalar}
    parameters = []
    for name in names:
        parameter = name
        if name in defaults:
            parameter = f"{name}=default_{name}"
            scope[f"default_{name}"] = defaults[name]
        parameters.append(parameter)
    head = ", ".join(parameters)

    # The lines of the text above. An argument among ``literals`` is read in ``choose``, where a
    # call is compiled, and has a name of its own from there on; ``replaced`` is what ``scalar``
    # gets of an argument where that is not the argument itself.
    arguments = []
    lines = [f"def choose({head}):"]
    for name in names:
        argument = replaced.get(name, name)
        if name in literals:
            argument, table = literals[name]
            scope[f"read_{name}"] = partial(read_literal, name, table)
            lines.append(f"    {argument} = read_{name}({name})")
        arguments.append(argument)
    lines += [
        f"    def implementation({head}):",
        f"        return scalar({', '.join(arguments)})",
        "    return implementation",
    ]
    text = "\n".join(lines) + "\n"
    exec(compile(text, "<public overload>", "exec"), scope)  # our own text, nothing of the user's

    options: Any = {"forceinline": is_inlined}
    has_literals = not literals.keys().isdisjoint(names)
    overload(public, jit_options=options, prefer_literal=has_literals)(scope["choose"])


def read_literal(name: str, table: Mapping[str, Any], kind: Any) -> Any:
    """Return the value of a constant text, given by its type, or as the default of an argument."""
    text = getattr(kind, "literal_value", getattr(kind, "value", kind))
    if text not in table:
        raise TypingError(f"{name} must be the literal {' or '.join(map(repr, table))}, got {text}")
    return table[text]


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
    """Return ``call(address, *given)`` for compiled code: it calls a function of numba by address.

    The function returns two integers. ``given`` are examples of its arguments, whose types count;
    records are passed by reference. numba calls its functions in its own way, not in that of C
    (``context.call_conv``): first the addresses for result and fault, then all arguments, flat.
    """
    kinds = tuple(map(share_kind, read_kinds(given)))
    result = kinds_of.UniTuple(numba.int64, 2)  # type: ignore[no-untyped-call]

    @intrinsic
    def call(_context: Any, address: Any, *_given: Any) -> Any:
        """Return the types of a call, and the function that writes its instructions.

        numba calls this while it compiles a call. The types are ``result`` and ``kinds`` of
        :func:`make_loop_call`, whatever types numba finds for the arguments.
        """

        def build(
            context: Any, builder: ir.IRBuilder, _signature: Any, arguments: tuple[Any, Any]
        ) -> ir.Value:
            """Write LLVM instructions that call the function, and return its two results.

            ``builder`` writes the instructions. ``arguments`` are values of the code that is
            written, not numbers: the address of the function, and a tuple of what it is called
            with. A function of numba could report an error as its "fault"; this one raises none, so
            the fault is not read.
            """
            address_value, packed = arguments
            values = cgutils.unpack_tuple(builder, packed)  # type: ignore[no-untyped-call]

            # The address is an integer, which becomes a function as numba declares it.
            function_kind = context.call_conv.get_function_type(result, kinds)
            function = builder.inttoptr(address_value, function_kind.as_pointer())

            # numba's functions write their result and their fault into memory of the caller, whose
            # addresses are their first two arguments.
            pointer_to_result, pointer_to_fault, *_ = function_kind.args
            result_memory = allocate(builder, pointer_to_result.pointee)
            fault_memory = allocate(builder, pointer_to_fault.pointee)
            flat_arguments = context.get_arg_packer(kinds).as_arguments(builder, values)
            builder.call(function, [result_memory, fault_memory, *flat_arguments])
            returned = builder.load(result_memory)
            return context.get_returned_value(builder, result, returned)

        arguments_kind = kinds_of.StarArgTuple(kinds)  # type: ignore[no-untyped-call]
        return result(address, arguments_kind), build

    return call


@intrinsic
def find_lowest(_context: Any, bits: Any) -> Any:
    """Return the place of the lowest bit that is set, of a number that is not 0.

    Writes the instruction that counts zeros from the lowest bit on; of 0, which has no such bit,
    its result is undefined, as the flag 1 says.
    """

    def build(_context: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
        """Write the count of trailing zeros."""
        is_undefined_of_0 = ir.Constant(ir.IntType(1), 1)
        return builder.cttz(arguments[0], is_undefined_of_0)

    return bits(bits), build


@intrinsic
def choose_number(_context: Any, _is_so: Any, one: Any, other: Any) -> Any:
    """Return, in compiled code, the first number if a condition holds, else the second.

    Without a branch. Both numbers pass through LLVM's instruction "freeze", which returns its value
    unchanged, for speed alone. Without it, ``a[i] = choose(condition, x, a[i])`` becomes a masked
    store, which takes dozens of cycles on AMD processors without AVX-512.
    """

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        """Write both numbers as floats, each frozen, and the choice between them.

        ``arguments`` are the values of the condition and the two numbers, ``signature.args`` their
        types. llvmlite has no function for "freeze", so the instruction is inserted by hand.
        """
        is_so, *numbers = arguments
        _, *kinds = signature.args
        frozen_numbers = []
        for number, kind in zip(numbers, kinds, strict=True):
            as_float = context.cast(builder, number, kind, numba.float64)
            operands = [as_float]
            frozen = ir.instructions.Instruction(builder.block, as_float.type, "freeze", operands)
            builder._insert(frozen)
            frozen_numbers.append(frozen)
        return builder.select(is_so, *frozen_numbers)

    return numba.float64(numba.boolean, one, other), build


@intrinsic
def read_number(_context: Any, address: Any, k: Any) -> Any:
    """Return float k of those at an address, an integer: writes a load, without a check."""

    def build(_context: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
        """Write a load from the address and k floats on."""
        address_value, k_value = arguments
        pointer = builder.inttoptr(address_value, ir.DoubleType().as_pointer())
        return builder.load(builder.gep(pointer, [k_value]))

    return numba.float64(address, k), build
