"""Compile the rules and the loop, once for all accounts, and a formula for each policy."""

from __future__ import annotations

import functools
import hashlib
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
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
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, intrinsic, overload, register_model
from numba.np.arrayobj import populate_array

from backtest import _compile, core
from backtest._compile import mirror_modules, object_code
from backtest._compile.code_identity import find_references, has_compiled_versions
from backtest._compile.compiler import compile_entry, compile_formula, jit, read_kinds
from backtest.account import InstrumentRules, orders, records
from backtest.account.records import FLAGS, NUMBERS
from backtest.engine import loop
from backtest.engine.recipe import CORE, MODULES, Recipe
from backtest.margin import brackets, portfolio_kernels
from backtest.margin import functions as margin
from backtest.options import implied_kernels, pricing
from backtest.options.pricing import SIGNS

PUBLIC = (
    (margin.maintenance, "scalar_maintenance"),
    (margin.largest_notional, "scalar_largest_notional"),
    (margin.survivable_notional, "scalar_survivable_notional"),
    (margin.liquidation_price, "scalar_liquidation_price"),
    (margin.bankruptcy_price, "scalar_bankruptcy_price"),
)
OPTION_FUNCTIONS: tuple[tuple[Any, str], ...] = (
    (pricing.price, "scalar_price"),
    (pricing.greeks, "scalar_greeks"),
    (pricing.implied_volatility, "scalar_implied"),
    (pricing.bs, "scalar_bs"),
)
MATH: tuple[Any, ...] = (
    core.elementary.exp,
    core.elementary.log,
    core.elementary.power,
    core.elementary.mills_ratio,
    core.elementary.normal_density,
    core.elementary.normal_cdf,
)
PUBLIC_NAMES = frozenset(function.__name__ for function, _ in PUBLIC)


@functools.cache
def compile_core() -> dict[int, Any]:
    """Return the scalar rules, inlined into what calls them, and let formulas call public ones."""
    twins: dict[int, Any] = {}

    def compile_one(rule: Any, twin: Any) -> Any:
        return jit(twin, forceinline="is_cold" not in vars(rule))

    make_twins(CORE, {}, twins, compile_one)
    found = _compile.compile_functions(implied_kernels)
    for public, scalar in (*PUBLIC, *OPTION_FUNCTIONS):
        own = vars(margin).get(scalar)
        register_overload(public, found[scalar] if own is None else twins[id(own)])
    for public in MATH:
        register_overload(public, found[public.__name__], is_inlined=True)
    register_overload(core.elementary.natural_exp, found["exp"], is_inlined=True)
    register_overload(core.elementary.natural_log, found["log"], is_inlined=True)
    register_power(found["power"])
    return twins


def make_twins(
    modules: Sequence[types.ModuleType],
    spaces: dict[types.ModuleType, dict[str, Any]],
    twins: dict[int, Any],
    compile_one: Callable[[Any, Any], Any],
) -> None:
    """Compile the functions of modules, whose globals are in ``spaces``, for one another.

    ``twins`` are compiled functions by the identity of the plain ones, to which these are added.
    """
    twins.setdefault(id(orders.floor), jit(floor_as_number, forceinline=True))
    twins.setdefault(id(brackets.choose), jit(choose_number, forceinline=True))
    for module in modules:
        space = spaces.setdefault(module, {})
        space |= vars(module)
        path = Path(str(module.__file__))
        for _, own in _compile.find_own_functions(module, PUBLIC_NAMES):
            if id(own) not in twins:
                twins[id(own)] = compile_one(own, _compile.make_twin(own, space, path))
    for space in spaces.values():
        found = {name: twins[id(value)] for name, value in space.items() if id(value) in twins}
        space.update(found | mirror_modules(space, lambda _, each: twins.get(id(each), each)))
        space.update({name: number(value) for name, value in space.items() if is_enum(value)})


def is_enum(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, IntEnum)


def number(kind: type[IntEnum]) -> types.ModuleType:
    """Return the members of an enumeration as plain numbers, for which numba adds no types."""
    found = types.ModuleType(kind.__name__)
    vars(found).update({name: int(each) for name, each in kind.__members__.items()})
    return found


def floor_as_number(size: float) -> Any:
    return np.floor(size)


def register_overload(public: Callable[..., Any], scalar: Any, *, is_inlined: bool = False) -> None:
    names = public.__code__.co_varnames[: public.__code__.co_argcount]
    defaults = dict(zip(reversed(names), reversed(public.__defaults__ or ()), strict=False))
    head = ", ".join(f"{each}=default_{each}" if each in defaults else each for each in names)
    given = ", ".join(REPLACED.get(each, each) for each in names)
    words = ", ".join(each for each in ("kind", "settlement") if each in names)
    literals = f"    sign, is_coin = read_literals({words})\n" if words else ""
    text = (
        f"def choose({head}):\n"
        f"{literals}"
        f"    def implementation({head}):\n"
        f"        return scalar({given})\n"
        f"    return implementation\n"
    )
    scope: dict[str, Any] = {"scalar": scalar, "read_literals": read_literals}
    scope |= {f"default_{name}": value for name, value in defaults.items()}
    exec(compile(text, "<public overload>", "exec"), scope)  # our own text, nothing of the user's
    options: Any = {"forceinline": is_inlined}
    overload(public, jit_options=options, prefer_literal=bool(literals))(scope["choose"])


def register_power(power: Any) -> None:
    options: Any = {"forceinline": True}

    @overload(core.elementary.raise_to, jit_options=options)
    def choose(x, y):  # type: ignore[no-untyped-def] # numba compares the signatures
        are_whole = isinstance(x, numba.types.Integer) and isinstance(y, numba.types.Integer)
        if are_whole:
            return lambda x, y: x**y
        return lambda x, y: power(x, y)  # noqa: PLW0108 - numba compiles it


REPLACED = {
    "multiplier": "(venue.multiplier if multiplier is None else multiplier)",
    "kind": "sign",
    "settlement": "is_coin",
}


def read_literals(kind: Any, settlement: Any = "cash") -> tuple[float, bool]:
    """Return the sign of an option and whether it settles in coins, from numba's types."""
    words = [
        getattr(each, "literal_value", getattr(each, "value", each)) for each in (kind, settlement)
    ]
    if words[0] not in SIGNS or words[1] not in ("cash", "coin"):
        raise TypingError("kind and settlement must be written as literals, such as 'call', 'cash'")
    return SIGNS[words[0]], words[1] == "coin"


def compile_part(
    recipe: Recipe, kinds: tuple[Any, ...], names: Mapping[str, Any], *, has_counts: bool
) -> _compile.ObjectFile:
    """Return the object of a policy's formula, for arguments of these kinds."""
    compile_core()  # lets formulas call public functions
    rule = jit_tree(recipe.rule, {})
    scope = {**names, "carray": carray, "np": np, "NamedTuple": NamedTuple}
    scope |= {"rule": rule, "Memory": recipe.memory}
    if recipe.margin_rule is not None:
        scope["margin_rule"] = jit_tree(recipe.margin_rule, {})
    decide = import_source(recipe.name, recipe.text, scope).decide
    function = jit(decide, is_linked=False, _nrt=has_counts)
    return compile_formula(function, recipe.name, tuple(KINDS[each] for each in kinds))


def import_source(name: str, text: str, names: Mapping[str, Any]) -> types.ModuleType:
    """Return a module of our own text, in which ``names`` are global."""
    module = sys.modules[name] = types.ModuleType(name)
    module.__dict__.update({k: v for k, v in names.items() if not k.startswith("__")})
    exec(compile(text, f"<{name}>", "exec"), module.__dict__)  # nothing of the user's
    return module


def jit_tree(function: Any, done: dict[int, Any]) -> Any:
    if id(function) in done:
        return done[id(function)]
    scope = dict(function.__globals__)
    names = function.__code__.co_freevars
    cells = dict(zip(names, function.__closure__ or (), strict=True))
    closure = tuple(types.CellType(cells[name].cell_contents) for name in names)
    copy = types.FunctionType(
        function.__code__, scope, function.__name__, function.__defaults__, closure
    )
    done[id(function)] = numba.njit(error_model="numpy", forceinline=True)(copy)
    for name, value in find_references(function).items():
        if not isinstance(value, types.FunctionType) or has_compiled_versions(value):
            continue
        if name in names:
            closure[names.index(name)].cell_contents = jit_tree(value, done)
        else:
            scope[name] = jit_tree(value, done)
    return done[id(function)]


# ---------------------------------------------------------------------------------------- the loop

POINTER = numba.types.CPointer(numba.float64)  # type: ignore[no-untyped-call]
KINDS = {"pointer": POINTER, "whole": numba.int64}
"""What formulas take: arrays by address, and whole numbers."""


def choose_number(condition: Any, yes: Any, no: Any) -> Any:
    return yes if condition else no


def return_always(value: Any) -> Callable[..., Any]:
    return lambda *_: value


def compile_loop(
    name: str, own: str, given: tuple[Any, ...], *, has_parts: bool
) -> _compile.ObjectFile:
    """Return the object ``own`` of a function of the loop that is called from Python."""
    compile_general_rules(has_parts=has_parts)
    space = SPACES[has_parts][loop]
    twin = _compile.make_twin(getattr(loop, name), space, Path(str(loop.__file__)))
    return compile_entry(jit(twin, is_linked=False), own, read_kinds(given))


SPACES: dict[bool, dict[types.ModuleType, dict[str, Any]]] = {}
"""The globals of compiled modules, by whether the account may hold options."""


@functools.cache
def compile_general_rules(*, has_parts: bool) -> dict[int, Any]:
    pick = jit(portfolio_kernels.pick_rules, forceinline=True)
    twins: dict[int, Any] = {
        id(records.write_tuple): jit(return_always(None), forceinline=True),
        id(loop.locate): locate_function,
        id(loop.ask): jit(ask_address, forceinline=True),
        id(portfolio_kernels.ask_own): jit(return_always(0.0), forceinline=True),
        # not inside a function, whose stack would be gone
        id(records.share): share_record,
        id(object_code.view_numbers): view_memory,
        id(portfolio_kernels.pick_rules): pick,
        id(records.pick_instrument): jit(write_pick(pick), forceinline=True),
    }

    def compile_one(rule: Any, twin: Any) -> Any:
        marks = vars(rule)
        if not has_parts and "without_options" in marks:
            return jit(return_always(marks["without_options"]), forceinline=True)
        return jit(twin, forceinline="is_inlined" in marks)

    make_twins((*CORE, *MODULES), SPACES.setdefault(has_parts, {}), twins, compile_one)
    return twins


def write_pick(pick_rules: Any) -> Callable[..., Any]:
    fields = {name: f"terms.numbers[{k}, i]" for k, name in enumerate(NUMBERS)}
    fields |= {name: f"terms.flags[{k}, i] != 0" for k, name in enumerate(FLAGS)}
    fields |= {
        "margin": "pick_rules(terms.rules.brackets, i)",
        "liquidation_mode": "terms.modes[i]",
    }
    given = ", ".join(f"{name}={text}" for name, text in fields.items())
    text = f"def pick_instrument(terms, i):\n    return InstrumentRules({given})\n"
    scope = {"pick_rules": pick_rules, "InstrumentRules": InstrumentRules}
    found: Callable[..., Any] = import_source("pick_instrument", text, scope).pick_instrument
    return found


# ------------------------------------------------------------------- records passed by reference


class Shared(kinds_of.Type):
    def __init__(self, inner: Any) -> None:
        self.inner = inner
        mark = hashlib.sha256(str(inner).encode()).hexdigest()[:16]
        super().__init__(name=f"Shared({mark})")  # it stands in the name of each compiled function


@register_model(Shared)
class SharedModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Shared) -> None:
        super().__init__(manager, kind, manager.lookup(kind.inner).get_value_type().as_pointer())  # type: ignore[no-untyped-call]


def find_field(kind: Shared, name: str) -> tuple[int, Any]:
    fields = kind.inner.fields
    if name not in fields:
        return -1, None
    at = fields.index(name)
    return at, tuple(kind.inner.types)[at]


@infer_getattr
class SharedFields(AttributeTemplate):
    key = Shared

    def generic_resolve(self, kind: Any, name: str) -> Any:  # type: ignore[override]
        at, found = find_field(kind, name)
        if at < 0:
            return None
        return Shared(found) if isinstance(found, kinds_of.BaseNamedTuple) else found


@lower_getattr_generic(Shared)  # type: ignore[no-untyped-call, untyped-decorator]
def read_field(context: Any, builder: Any, kind: Shared, pointer: Any, name: str) -> Any:
    at, found = find_field(kind, name)
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


# ------------------------------------------------------------------------------ records of numbers


@intrinsic
def view_memory(_context: Any, record: Any) -> Any:
    """Return the memory of a record, or of an array of them, as an array of floats."""
    is_many = isinstance(record, kinds_of.Array)
    fields = len((record.dtype if is_many else record).fields)
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


# ----------------------------------------------------------------------------------- policies


@intrinsic
def call_formula(  # noqa: PLR0913, PLR0917 - what a formula takes
    _context: Any,
    address: Any,
    shown: Any,
    bar: Any,
    params: Any,
    params_at: Any,
    columns: Any,
    columns_at: Any,
    memory: Any,
    memory_at: Any,
    margin: Any,
    levels: Any,
    count: Any,
    time: Any,
    local: Any,
    length: Any,
) -> Any:
    given = (
        address, shown, bar, params, params_at, columns, columns_at, memory, memory_at, margin,
        levels, count, time, local, length,
    )  # fmt: skip
    arrays = ((1, None), (2, None), (3, 4), (5, 6), (7, 8), (9, None), (10, None))
    return numba.float64(*given), build_call(ir.DoubleType(), arrays, n_numbers=4)


def build_call(
    returned: Any, arrays: Sequence[tuple[int, int | None]], n_numbers: int
) -> Callable[[Any, Any, Any, Any], Any]:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def point(k: int, at: int | None) -> Any:
            array = context.make_array(signature.args[k])(context, builder, arguments[k])
            return array.data if at is None else builder.gep(array.data, [arguments[at]])

        taken = [ir.DoubleType().as_pointer()] * len(arrays) + [ir.IntType(64)] * n_numbers
        function = builder.inttoptr(arguments[0], ir.FunctionType(returned, taken).as_pointer())
        pointers = [point(k, at) for k, at in arrays]
        return builder.call(function, [*pointers, *arguments[-n_numbers:]])

    return build


@intrinsic
def locate_function(context: Any, function: Any, arguments: Any) -> Any:
    """Return the address of a compiled function, as it is called with these arguments."""
    kinds = function.get_call_type(context, tuple(arguments.types), {}).args

    def build(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        compiled = function.dispatcher.overloads[kinds]
        context.add_linking_libs([compiled.library])
        place = context.declare_function(builder.module, compiled.fndesc)
        return builder.ptrtoint(place, ir.IntType(64))

    return numba.int64(function, arguments), build


def ask_address(deciders: Any, terms: Any, _quotes: Any, i: int, time: int, local: int) -> Any:
    count, width, margin = 1, deciders.width, deciders.margin
    if i < len(deciders.addresses) - 1 and deciders.wants_table[i] == 1:
        tables, levels = terms.rules.brackets, deciders.levels
        count = tables.counts[i]
        for k in range(count):
            levels[0 * width + k], levels[1 * width + k] = tables.floors[i, k], tables.caps[i, k]
            levels[2 * width + k], levels[3 * width + k] = tables.rates[i, k], tables.amounts[i, k]
            levels[4 * width + k] = tables.leverages[i, k]
        margin[0], margin[1] = tables.close_fees[i], tables.takers[i]
        margin[2], margin[3] = tables.sizes[i], tables.settings[i]
        margin[4] = 1.0 if tables.are_inverse[i] else 0.0
        margin[5] = 1.0 if tables.are_isolated[i] else 0.0
        margin[6] = 1.0 if tables.are_valued_at_entry[i] else 0.0
        margin[7], margin[8] = tables.multipliers[i], tables.initial_multipliers[i]
    return call_formula(  # type: ignore[call-arg] # the first is numba's
        deciders.addresses[i], deciders.shown, deciders.bar, deciders.params,
        deciders.params_at[i], deciders.columns, deciders.columns_at[i], deciders.memory,
        deciders.memory_at[i], margin, deciders.levels, count, time, local, deciders.lengths[i],
    )  # fmt: skip
