"""Compile the rules and the loop, once for all accounts, and a formula for each policy."""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import carray  # type: ignore[attr-defined]
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload

from backtest import base
from backtest.account import (
    AccountBar,
    InstrumentRules,
    Terms,
    balance,
    bar,
    fills,
    options,
    order_limits,
    orders,
    payments,
    pool_liquidation,
    price_walk,
    records,
)
from backtest.account.records import FLAGS, NUMBERS
from backtest.base.compiler import cfunc, jit
from backtest.engine import loop, shared_records
from backtest.engine.code_identity import OWN_VERSION, CodeText
from backtest.engine.held_signals import hold_signals
from backtest.engine.inputs import pack_terms
from backtest.engine.loop import N_SHOWN, PART, SETTING, WHOLE, Deciders
from backtest.engine.policy_errors import explain_numba
from backtest.engine.recipe import (
    CORE,
    Place,
    Recipe,
    find_rules_folder,
    make_recipe,
    may_raise,
    may_refer_to,
    read_parameter,
    write_decide,
)
from backtest.engine.twins import mirror_modules
from backtest.options import implied_kernels, pricing
from backtest.options.pricing import SIGNS
from backtest.policy import (
    AccountView,
    Policy,
    find_fields,
    formula_for,
    margin_formula_for,
    sets_margin,
    trades_options,
)
from backtest.policy.policy import BAR_FIELDS
from backtest.venue import (
    LEVELS,
    MarginRules,
    margin,
    option_kernels,
    portfolio_kernels,
    requirement,
)

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
    base.elementary.exp,
    base.elementary.log,
    base.elementary.power,
    base.elementary.mills_ratio,
    base.elementary.normal_density,
    base.elementary.normal_cdf,
)
PUBLIC_NAMES = frozenset(function.__name__ for function, _ in PUBLIC)
OPTIONS: dict[str, Any] = {"cache": True, "error_model": "numpy", "_nrt": False}
INNER: dict[str, Any] = {**OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

RARE = frozenset(
    {
        "apply_flow", "top_up", "liquidate", "forfeit", "choose_reduction", "close_contracts",
        "record_shortfall", "compute_liquidation_value", "reduce_to_ratio",
        "stop_out", "end_account", "close_ruined", "pay_in", "add_from_wallet", "answer_call",
        "end_grace", "close_call", "enter_call", "is_unhealthy", "repay_all",
    }
)  # fmt: skip
REASON = re.compile(
    r"unknown|untyped|cannot|unsupported|invalid|not supported|no implementation|can't",
    re.IGNORECASE,
)


@functools.cache
def compile_core() -> dict[int, Any]:
    """Return the scalar rules, inlined into what calls them, and let formulas call public ones."""
    twins: dict[int, Any] = {}

    def compile_one(name: str, twin: Any) -> Any:
        return jit(twin, **INNER, forceinline=name not in RARE)

    make_twins(CORE, find_rules_folder() / "inlined", {}, twins, compile_one)
    found = base.compile_functions(implied_kernels)
    for public, scalar in (*PUBLIC, *OPTION_FUNCTIONS):
        own = vars(margin).get(scalar)
        register_overload(public, found[scalar] if own is None else twins[id(own)])
    for public in MATH:
        register_overload(public, found[public.__name__], is_inlined=True)
    register_overload(base.elementary.natural_exp, found["exp"], is_inlined=True)
    register_overload(base.elementary.natural_log, found["log"], is_inlined=True)
    register_power(found["power"])
    return twins


def make_twins(
    modules: Sequence[types.ModuleType],
    place: Path,
    spaces: dict[types.ModuleType, dict[str, Any]],
    twins: dict[int, Any],
    compile_one: Callable[[str, Any], Any],
    *,
    mark: str = "",
) -> None:
    """Compile the functions of modules, whose globals are in ``spaces``, for one another.

    ``twins`` are compiled functions by the identity of the plain ones, to which these are added.
    """
    inner: dict[str, Any] = {**OPTIONS, "cache": False, "forceinline": True}
    twins.setdefault(id(orders.floor), jit(floor_as_number, **inner))
    twins.setdefault(id(requirement.choose), jit(choose_number, **inner))
    for module in modules:
        space = spaces.setdefault(module, {})
        space |= vars(module)
        text = Path(str(module.__file__)).read_text(encoding="utf-8")
        path = base.write_once(place / f"{module.__name__}{mark}.py", text)
        for name, own in base.find_own_functions(module, PUBLIC_NAMES):
            if id(own) not in twins:
                twins[id(own)] = compile_one(name, base.make_twin(own, space, path))
    for space in spaces.values():
        found = {name: twins[id(value)] for name, value in space.items() if id(value) in twins}
        space.update(found | mirror_modules(space, lambda _, each: twins.get(id(each), each)))


def floor_as_number(size: float) -> Any:
    return np.floor(size)


def as_unsigned(t: int) -> Any:
    return np.uint64(t)


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

    @overload(base.elementary.raise_to, jit_options=options)
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


_addressed: dict[str, Any] = {}


def compile_at_address(
    recipe: Recipe, folder: Path, signature: Any, names: Mapping[str, Any], *, has_counts: bool
) -> Any:
    if recipe.is_complete and recipe.name in _addressed:
        return _addressed[recipe.name]
    module = import_part(recipe, folder, names)
    options: dict[str, Any] = {"error_model": "numpy", "cache": recipe.is_complete}
    options |= {} if has_counts else {"_nrt": False}

    options["prepare"] = compile_core
    _addressed[recipe.name] = cfunc(signature, module.decide, **options)  # keeps the address valid
    return _addressed[recipe.name]


def import_part(recipe: Recipe, folder: Path, names: Mapping[str, Any]) -> types.ModuleType:
    rule = jit_tree(recipe.rule, {})
    scope = {**names, "NamedTuple": NamedTuple, "rule": rule, "Memory": recipe.memory}
    if recipe.margin_rule is not None:
        scope["margin_rule"] = jit_tree(recipe.margin_rule, {})
    return import_source(folder / f"{recipe.name}.py", recipe.text, scope)


def import_source(path: Path, text: str, names: Mapping[str, Any]) -> types.ModuleType:
    base.write_once(path, text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    module.__dict__.update({k: v for k, v in names.items() if not k.startswith("__")})
    spec.loader.exec_module(module)
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
    for name, value in base.find_references(function).items():
        if not isinstance(value, types.FunctionType) or value.__module__ in OWN_VERSION:
            continue
        if name in names:
            closure[names.index(name)].cell_contents = jit_tree(value, done)
        else:
            scope[name] = jit_tree(value, done)
    return done[id(function)]


def explain_compile_error(error: BaseException, policy: Policy) -> str:
    code = formula_for(policy, ()).__code__
    lines = [part.strip() for part in str(error).splitlines() if part.strip()]
    places = re.findall(r'File "([^"]+)", line (\d+)', str(error))
    own = [int(line) for name, line in places if Path(name).name == Path(code.co_filename).name]
    reasons = [line for line in lines if REASON.search(line)]
    reason = next(iter(reasons or lines), type(error).__name__)
    number = own[-1] if own else code.co_firstlineno
    return f"{Path(code.co_filename).name}, line {number}: {explain_numba(reason)[:200]}"


# ---------------------------------------------------------------------------------------- the loop

MODULES = (
    portfolio_kernels, base.elementary, base.black_kernels, option_kernels, records, options,
    balance, pool_liquidation, order_limits, fills, payments, price_walk,
    bar, loop,
)  # fmt: skip

INLINED = frozenset(
    {
        "is_held", "is_isolated", "is_spot", "is_spot_leg", "is_in_pool", "pick_position",
        "put_position", "pick_quote", "pick_rules", "pick_margin", "compute_value", "has_exits",
        "has_stops", "choose",
        "compute_exposure", "move", "total", "find_maintenance", "scale_rate",
        "is_cross", "find_least", "is_isolated_near", "is_stopped", "compute_stop", "worsen",
        "find_side", "find_adverse", "measure_target", "compute_target", "find_limit", "is_outside",
        "can_order", "compute_order_fee", "is_deciding", "is_ending", "value_at",
        "compute_cost", "decide", "count_bar", "add_free", "grow_free", "mark_drawdown",
        "is_deeper", "expose", "note_first", "is_over_cap", "count_decay",
        "fold_product", "needs_folding", "is_trading",
        "add_cut", "add_to", "invert", "is_far",
        "is_balanced", "holds_options", "count_options",
    }
)  # fmt: skip

ENTRIES = ("simulate_batch", "fill_closes")

POINTER = numba.types.CPointer(numba.float64)  # type: ignore[no-untyped-call]
TABLE = frozenset({"venue"})
OF_MARGIN = frozenset({"*", "maintenance", "margin_ratio", "liquidation_price"})
"""Fields of the account for which the requirement of a close is computed."""
MARGIN_NUMBERS = (
    "close_fee", "taker", "size", "setting", "is_inverse", "is_isolated", "is_valued_at_entry",
    "multiplier", "initial_multiplier",
)  # fmt: skip

WITHOUT_OPTIONS: dict[str, Any] = {
    **dict.fromkeys(
        ("has_short_option", "holds_options", "is_adding_options", "is_far_with_options",
         "is_moved_by", "is_walking"),
        False,
    ),
    **dict.fromkeys(
        ("add_option_shares", "add_options", "begin_forced", "begin_options", "book_options",
         "book_profits", "close_options", "cut_premiums", "end_close", "end_forfeit", "end_trial",
         "expire_options", "open_options", "price_options", "record_option", "stop_options",
         "take_option_step", "trade_option"),
        None,
    ),
    **dict.fromkeys(
        ("bound_option_slope", "compute_counted_value", "compute_options_value",
         "compute_with_options", "find_index", "find_place_with_options",
         "find_stop_with_options", "find_value_with_options", "sum_option_gains",
         "sum_notionals_on", "sum_options_on", "try_options"),
        0.0,
    ),
    **dict.fromkeys(("close_options_of_pool", "forfeit_options", "sum_premiums"), (0.0, 0.0)),
    **dict.fromkeys(("choose_option_step", "name_option"), -1),
    "count_options": 0,
}  # fmt: skip
"""What functions return for an account without options, for which nothing else of them compiles."""

LOCK = threading.RLock()


@functools.cache
def find_general_folder() -> Path:
    own = (Path(__file__), Path(str(shared_records.__file__)))
    paths = [*(Path(str(each.__file__)) for each in MODULES), *own]
    mark = base.hash_texts(*(path.read_text(encoding="utf-8") for path in paths))
    return find_rules_folder() / f"general-{mark}"


def choose_number(condition: Any, yes: Any, no: Any) -> Any:
    return yes if condition else no


def return_always(value: Any) -> Callable[..., Any]:
    return lambda *_: value


@functools.cache
def find_entry(name: str, *, has_parts: bool) -> Any:
    """Return a kernel that is called from Python; what it calls is made if it is not kept."""
    write_pick({})  # kept code names the module that is written for it
    folder = find_general_folder() / ("all" if has_parts else "usual")
    path = base.write_once(
        folder / f"{loop.__name__}.py", Path(str(loop.__file__)).read_text(encoding="utf-8")
    )
    space = SPACES.setdefault(has_parts, {}).setdefault(loop, {"__name__": loop.__name__})
    twin = base.make_twin(getattr(loop, name), space, path)
    options = {**OPTIONS, "nogil": True}
    return jit(twin, prepare=lambda: compile_general_rules(has_parts=has_parts), **options)


SPACES: dict[bool, dict[types.ModuleType, dict[str, Any]]] = {}
"""The globals of compiled modules, by whether the account may hold options."""


@functools.cache
def compile_general_rules(*, has_parts: bool) -> dict[int, Any]:
    inner: dict[str, Any] = {**OPTIONS, "cache": False, "forceinline": True}
    pick = jit(portfolio_kernels.pick_rules, **inner)
    twins: dict[int, Any] = {
        id(records.write_tuple): jit(return_always(None), **inner),
        id(loop.locate): locate_function,
        id(loop.ask): jit(ask_address, **inner),
        id(portfolio_kernels.ask_own): jit(return_always(0.0), **inner),
        # not inside a function, whose stack would be gone
        id(records.share): shared_records.share_record,
        id(portfolio_kernels.pick_rules): pick,
        id(records.pick_instrument): jit(write_pick({"pick_rules": pick}), **inner),
        **{id(getattr(loop, name)): find_entry(name, has_parts=has_parts) for name in ENTRIES},
    }

    def compile_one(name: str, twin: Any) -> Any:
        options = {**INNER, "cache": False, "forceinline": name in INLINED}
        if not has_parts and name in WITHOUT_OPTIONS:
            twin, options["forceinline"] = return_always(WITHOUT_OPTIONS[name]), True
        return jit(twin, **options)

    folder = find_general_folder() / ("all" if has_parts else "usual")
    spaces = SPACES.setdefault(has_parts, {})
    make_twins((*CORE, *MODULES), folder, spaces, twins, compile_one)
    return twins


def find_general_loop(terms: Terms) -> Any:
    with LOCK:
        return find_entry("simulate_batch", has_parts=terms.instruments is not None)


def simulate_compiled(terms: Terms, *given: Any) -> Any:
    return find_general_loop(terms)(terms, *given)


def simulate_held(terms: Terms, *given: Any) -> Any:
    """Do what :func:`simulate_compiled` does; signals wait until it has returned."""
    loop = find_general_loop(terms)
    with hold_signals():
        return loop(terms, *given)


def fill_compiled(bar: AccountBar, *given: Any) -> Any:
    bar = bar._replace(terms=pack_terms(bar.terms))
    with LOCK:
        fill = find_entry("fill_closes", has_parts=bar.terms.instruments is not None)
    with hold_signals():
        return fill(bar, *given)


def write_pick(names: Mapping[str, Any]) -> Callable[..., Any]:
    fields = {name: f"terms.numbers[{k}, i]" for k, name in enumerate(NUMBERS)}
    fields |= {name: f"terms.flags[{k}, i] != 0" for k, name in enumerate(FLAGS)}
    fields |= {
        "margin": "pick_rules(terms.rules.brackets, i)",
        "liquidation_mode": "terms.modes[i]",
    }
    given = ", ".join(f"{name}={text}" for name, text in fields.items())
    text = f"def pick_instrument(terms, i):\n    return InstrumentRules({given})\n"
    path = find_general_folder() / f"pick_instrument_{base.hash_texts(text)}.py"
    module: Any = import_source(path, text, {**names, "InstrumentRules": InstrumentRules})
    found: Callable[..., Any] = module.pick_instrument
    return found


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


class Formula(NamedTuple):
    address: int
    has_table: bool
    account: int
    has_bar: bool


def compile_formula(policy: Policy, columns: tuple[str, ...], width: int) -> Formula:
    def write(memory: type | None, code: CodeText) -> list[str]:
        seen = width if may_refer_to(code, TABLE) else 0
        return write_formula_part(policy, columns, memory, seen)

    recipe = make_recipe(policy, columns, write, "portfolio_policy")
    has_table = may_refer_to(recipe, TABLE)
    records = {"MarginRules": MarginRules, "AccountView": AccountView, "carray": carray}
    whole = numba.int64
    signature = numba.float64(*[POINTER] * 7, whole, whole, whole, whole)
    folder = find_general_folder()
    function = compile_at_address(recipe, folder, signature, records, has_counts=has_table)
    rules = [each for each in (recipe.rule, recipe.margin_rule) if each is not None]
    return Formula(
        int(function.address),
        has_table,
        max(map(find_wanted, rules)),
        not all(find_fields(each, 1) <= {*columns} for each in rules),
    )


def find_wanted(rule: Callable[..., Any]) -> int:
    read = find_fields(rule, 2)
    return (WHOLE if read & OF_MARGIN else PART) if read else 0


def write_formula_part(
    policy: Policy, columns: tuple[str, ...], memory: type | None, width: int
) -> list[str]:
    settings = policy.settings()
    bar = ["time / 1e9", *(f"seen[{k}]" for k in range(len(BAR_FIELDS) - 1))]
    view = [f"shown[{k}]" for k in range(N_SHOWN)]
    table = [f"{name}=table[{k * width}:{k * width} + count]" for k, name in enumerate(LEVELS)]
    if width == 0:  # the formula does not read it
        table = [f"{name}=(0.0,)" for name in LEVELS]
    numbers = [
        f"{name}=margin[{k}]" + (" != 0.0" if name.startswith("is_") else "")
        for k, name in enumerate(MARGIN_NUMBERS)
    ]
    place = Place(
        head=[
            "def decide(",
            "    shown, seen, params, columns, memory, margin, levels, count, time, local, length",
            "):",
            *([f"    table = carray(levels, ({len(LEVELS) * width},))"] if width else []),
        ],
        settings=[read_parameter(f"params[{k}]", x) for k, x in enumerate(settings.values())],
        bar=[*bar, *(f"columns[{k} * length + local]" for k in range(len(columns)))],
        account=[
            f"venue = MarginRules({', '.join([*table, *numbers])})",
            f"account = AccountView({', '.join(view)}, venue)",
        ],
        also=[f"shown[{SETTING}] = 1.0 * margin_rule(settings, bar, account)"]
        if sets_margin(policy)
        else [],
        end=["    return leverage"],
    )
    rules = (formula_for(policy, columns), margin_formula_for(policy, columns))
    raises = any(may_raise(rule, set()) for rule in rules if rule is not None)
    return write_decide(memory, place, catches=raises)


def bind_compiled(
    deciders: Deciders,
    policies: list[tuple[Policy, tuple[str, ...]]],
    *,
    call_back: Callable[..., int] | None = None,
    has_orders: bool = False,
) -> Deciders:
    """Return the policies by address; ``call_back`` gives that of one which stays in Python.

    So do those that order options, if ``has_orders``; else each that numba refuses.
    """
    addresses, wants = deciders.addresses.copy(), np.zeros((3, len(deciders.addresses)), np.int64)
    for i, (policy, columns) in enumerate(policies):
        refusal, called = None, has_orders and trades_options(policy)
        formula: Any
        try:
            formula = None if called else compile_formula(policy, columns, deciders.width)
        except Exception as error:  # numba raises what it likes; no policy runs here
            if call_back is None:
                raise
            formula, refusal = None, error
        if formula is None and call_back is not None:
            address = call_back(refusal, deciders, policy, columns, i)
            formula = Formula(address, has_table=False, account=WHOLE, has_bar=True)
        addresses[i] = formula.address
        wants[:, i] = formula.has_table, formula.account, formula.has_bar
    return deciders._replace(
        addresses=addresses,
        wants_table=wants[0],
        wants_account=wants[1],
        wants_bar=wants[2],
        methods=0,
    )
