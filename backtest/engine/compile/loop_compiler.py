"""Compile the bar loop around a policy's formula, and cache the compiled code on disk."""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from numba.core.errors import TypingError
from numba.extending import overload

from backtest.base import (
    cache_folder,
    cfunc,
    compile_helpers,
    count_all_brackets,
    elementary,
    find_own_functions,
    find_references,
    formula_functions,
    hash_texts,
    jit,
    make_twin,
    normal,
)
from backtest.base.code_identity import OWN_VERSION
from backtest.engine.compile.recipe import CORE, Recipe, find_rules_folder
from backtest.options import bs_kernels, pricing
from backtest.options.pricing import SIGNS
from backtest.policy import Policy, explain_numba, formula_for
from backtest.venue import margin

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
    (pricing.bs_greeks, "scalar_bs_greeks"),
    (pricing.bs_implied_volatility, "scalar_bs_implied"),
)
MATH: tuple[Any, ...] = (
    elementary.exp,
    elementary.log,
    elementary.power,
    normal.mills_ratio,
    normal.normal_density,
    normal.normal_cdf,
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


class Core(NamedTuple):
    folder: Path
    names: dict[str, Any]


@functools.cache
def compile_core(*, is_inlined: bool = True) -> Core:
    folder = find_rules_folder()

    def choose(name: str) -> dict[str, Any]:
        return {**INNER, "forceinline": is_inlined and name not in RARE}

    names: dict[str, Any] = {}
    jit_modules(CORE, names, folder / ("inlined" if is_inlined else "called"), choose)
    options = {**OPTIONS, "cache": False, "forceinline": True}
    names["as_index"] = jit(as_unsigned, **options)
    names["floor"] = jit(floor_as_number, **options)
    names["count_brackets"] = jit(count_all_brackets, **options)
    if is_inlined:
        found = names | compile_helpers(bs_kernels)
        for public, scalar in (*PUBLIC, *OPTION_FUNCTIONS):
            register_overload(public, found[scalar])
        for public in MATH:
            register_overload(public, found[public.__name__], is_inlined=True)
        register_overload(formula_functions.natural_exp, found["exp"], is_inlined=True)
        register_overload(formula_functions.natural_log, found["log"], is_inlined=True)
        register_power(found["power"])
    return Core(folder, names)


def jit_modules(
    modules: Sequence[types.ModuleType],
    names: dict[str, Any],
    place: Path,
    choose: Callable[[str], dict[str, Any]],
    *,
    mark: str = "",
) -> dict[types.ModuleType, Path]:
    paths = {}
    for module in modules:
        names |= {k: v for k, v in vars(module).items() if not isinstance(v, types.FunctionType)}
    names["__name__"] = modules[-1].__name__
    for module in modules:
        text = Path(str(module.__file__)).read_text(encoding="utf-8")
        paths[module] = path = cache_folder.write_once(place / f"{module.__name__}{mark}.py", text)
        for name, own in find_own_functions(module, PUBLIC_NAMES):
            names[name] = jit(make_twin(own, names, path), **choose(name))
    return paths


def mark_sources(*modules: types.ModuleType, compiler: str) -> str:
    paths = [*(str(each.__file__) for each in modules), compiler]
    return f"-{hash_texts(*(Path(each).read_text(encoding='utf-8') for each in paths))}"


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

    @overload(formula_functions.raise_to, jit_options=options)
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
    module = import_part(recipe, folder, {**compile_core().names, **names})
    options: dict[str, Any] = {"error_model": "numpy", "cache": recipe.is_complete}
    options |= {} if has_counts else {"_nrt": False}
    _addressed[recipe.name] = cfunc(signature, module.decide, **options)  # keeps the address valid
    return _addressed[recipe.name]


def import_part(recipe: Recipe, folder: Path, names: Mapping[str, Any]) -> types.ModuleType:
    rule = jit_tree(recipe.rule, {})
    scope = {**names, "NamedTuple": NamedTuple, "rule": rule, "Memory": recipe.memory}
    if recipe.margin_rule is not None:
        scope["margin_rule"] = jit_tree(recipe.margin_rule, {})
    return import_source(folder / f"{recipe.name}.py", recipe.text, scope)


def import_source(path: Path, text: str, names: Mapping[str, Any]) -> types.ModuleType:
    cache_folder.write_once(path, text)
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
    for name, value in find_references(function).items():
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
