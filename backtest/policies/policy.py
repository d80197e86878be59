"""The base class of policies, with their parameters, columns and memory."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np

from backtest import core
from backtest._compile.bytecode import rewrite_formula
from backtest.policies.parameters import Parameterized, freeze

Columns: TypeAlias = Mapping[str, core.FloatArray]

BAR_FIELDS = ("time", "open", "high", "low", "close", "mark", "volume", "funding")

ARGUMENTS = {"venue_leverage": "self, bar, account", "option_orders": "self, bar, account, chain"}


class Bar:
    """The closed bar a policy decides on; it also has the policy's own columns.

    ``time`` is the open in seconds since 1970, UTC, prices in quote currency, ``mark`` the mark
    close, ``funding`` the last settled funding rate (NaN before the first).

    A formula may also read ``stop_distance``: how far the nearest of stop-loss and trailing stop
    would be from an entry at this close with slippage, as a fraction of its price (NaN where a
    column gives none); and ``slippage`` and ``taker``, the rates of the venue. An account without a
    stop is refused then.
    """

    time: float
    open: float
    high: float
    low: float
    close: float
    mark: float
    volume: float
    funding: float
    stop_distance: float
    slippage: float
    taker: float

    def __getattr__(self, name: str) -> float:
        raise AttributeError(name)


class Promise(NamedTuple):
    """What a policy promises of an account: a measure at most, at least or about a bound.

    ``measure`` is one of a run, ``lowest_unit`` (the lowest unit value at a close) or
    ``margin_ratio_twice`` (the highest that two closes in a row reached, of the equity).
    ``tolerance`` is a share of the bound. With a ``horizon`` in bars: ``es_99`` or ``var_99`` of
    returns over it, or the probability of ``liquidations`` within it. The report judges them.
    """

    name: str
    measure: str
    bound: float
    tolerance: float
    rule: Literal["at most", "at least", "about"] = "at most"
    horizon: float = 0.0

    def limit(self) -> Promise:
        """Return what is left of it with less leverage: no more than what was about the bound."""
        return self._replace(rule="at most") if self.rule == "about" else self


@typing.dataclass_transform(frozen_default=True)
class Policy(Parameterized):
    """The base of all policies; a subclass becomes a frozen dataclass of its parameters.

    Declare parameters as ``name: Annotated[float, Range(low, high, unit)] = default`` (or int with
    a Range, str with a Choice, or bool, or ``tuple[float, ...]`` with a Range that has a length:
    the numbers of ``levels`` are ``levels.0`` and so on in sweeps). What must hold between them is
    said by ``faults(self)``, which yields a name and a rule, ``("levels.1", "must be below
    levels.0")``. Define ``leverage(self, bar, account)``. A policy with
    memory also defines ``start(self)``, which returns a NamedTuple of floats, and takes and returns
    it: ``leverage(self, bar, account, memory) -> (leverage, memory)``.

    A policy may also define ``venue_leverage(self, bar, account)``: the leverage setting of an
    isolated position from the next open on, to which its margin is brought. NaN leaves it alone.
    One that trades options defines ``option_orders(self, bar, account, chain)``: the contracts to
    hold after the next open, ``{leg: (contract, quantity)}``; ``chain`` has those that are listed.
    ParameterError is raised if a parameter is unknown, out of range or of the wrong type.
    """

    _has_tables: ClassVar[bool] = False
    fails_when: ClassVar[str] = ""
    """In one sentence, the market in which the rule does badly; optional."""
    charts: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Columns of ``observe`` that the page of a run draws, each with a sentence; optional."""
    takes_arrays: ClassVar[bool] = False
    """Whether ``observe`` also takes numbers of shape (k,), or prices of shape (n_bars, k).

    It then returns (n_bars, k): sweeps observe 64 sets at once, simulated paths 32. Said by the
    class that defines ``observe``."""
    may_hold_nothing: ClassVar[bool] = False
    """Whether ``backtest check`` passes where the policy held nothing in any account."""
    tolerance: ClassVar[float] = 1e-9
    """Share of a column's value by which later bars may change it, as rounding does.

    Columns computed by FFT or in single precision declare 1e-4, for example."""

    def __init_subclass__(cls) -> None:
        if isinstance(vars(cls).get("__init__"), FunctionType):
            raise core.PolicyError(
                f"a policy must not define __init__, {cls.__name__} does; its parameters are "
                "fields of the class: window: Annotated[int, bt.Range(1, 1000, 'bars')] = 24"
            )
        for name, taken in ARGUMENTS.items():
            rule = vars(cls).get(name)
            given = ", ".join(inspect.signature(rule).parameters) if callable(rule) else repr(rule)
            if rule is not None and given.count(",") != taken.count(","):
                raise core.PolicyError(
                    f"{cls.__name__}.{name} must be a plain method with the arguments ({taken}), "
                    f"got ({given})"
                )
        if "leverage" in vars(cls).get("__annotations__", {}) and "leverage" not in vars(cls):
            bare: Any = dataclasses.field()  # or it would inherit the formula as its default
            setattr(cls, "leverage", bare)  # noqa: B010 - a method for the type checker
        freeze(cls)

    @classmethod
    def summary(cls) -> str:
        """Return the first line of the docstring."""
        return (inspect.getdoc(cls) or "").partition("\n")[0]

    def observe(self, market: Any) -> Columns:  # noqa: ARG002 - for subclasses
        """Return named columns of shape (n_bars,), each value known at its bar's close."""
        return {}

    def promises(self) -> tuple[Promise, ...]:
        """Return what holds of an account that follows it, for the table of the report."""
        return ()

    def leverage(self, *_: Any, **__: Any) -> Any:
        """Return the target leverage, at least 0; NaN keeps the position unchanged.

        A subclass takes ``(self, bar, account)``, or ``(self, bar, account, memory)``.
        """
        raise core.PolicyError(
            f"a policy must define leverage, {type(self).__name__} does not; add "
            "def leverage(self, bar, account): return 1.0"
        )


def formula_of(cls: type[Policy]) -> Callable[..., Any]:
    if any(field.name == "leverage" for field in dataclasses.fields(cls)):  # type: ignore[arg-type]
        return return_parameter
    rule: Any = inspect.getattr_static(cls, "leverage")
    fault = find_rule_fault(rule, 3 + hasattr(cls, "start"))
    if fault and rule is not Policy.leverage and not hasattr(cls, "make_formula"):
        raise core.PolicyError(
            f"{cls.__name__}.leverage must be an undecorated method (it is compiled anyway) with "
            f"the arguments (self, bar, account{', memory' * hasattr(cls, 'start')}), got {fault}"
        )
    formula: Callable[..., Any] = rule
    return formula


@functools.cache
def find_rule_fault(rule: Any, n: int) -> str:
    """Return why something is no method that returns a number for ``n`` arguments, or nothing."""
    if not isinstance(rule, FunctionType):
        return repr(rule)
    odd = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    if any(is_odd(rule) for is_odd in odd):
        return "one that is async or yields"
    taken = inspect.signature(rule, follow_wrapped=False).parameters.values()
    needed = [each for each in taken if each.default is each.empty]
    n_most = sum(each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in taken)
    return "" if len(needed) <= n <= n_most else str(inspect.signature(rule))


def formula_for(policy: Policy, columns: tuple[str, ...]) -> Any:
    made = getattr(policy, "make_formula", None)
    return rewrite_formula(formula_of(type(policy)) if made is None else made(columns))


def margin_formula_for(policy: Policy, columns: tuple[str, ...]) -> Any:
    made = getattr(policy, "make_margin_formula", None)
    own = getattr(type(policy), "venue_leverage", None)
    return rewrite_formula(own if made is None else made(columns))


def sets_margin(given: object) -> bool:
    return defines(given, "venue_leverage")


def trades_options(given: object) -> bool:
    return defines(given, "option_orders")


def defines(given: object, method: str) -> bool:
    if isinstance(given, Mapping):
        return any(defines(each, method) for each in given.values())
    cls = given if isinstance(given, type) else type(given)
    if not issubclass(cls, Policy):
        return False
    parts = getattr(cls, "parts", ())
    return hasattr(cls, method) or any(defines(each.policy, method) for each in parts)


def return_parameter(self: Any, bar: Any, account: Any) -> Any:  # noqa: ARG001 - the signature of a formula
    return self.leverage


def start_memory(policy: Policy) -> Any:
    if not hasattr(policy, "start"):
        return None
    name = f"{type(policy).__name__}.start"
    try:
        memory = policy.start()
    except core.RAISED as error:
        raise core.PolicyError(f"{name} raised {type(error).__name__}: {error}") from error
    is_named = isinstance(memory, tuple) and bool(getattr(memory, "_fields", ()))
    numbers = (int, float, np.number)
    if not is_named or not all(isinstance(value, numbers) for value in memory):
        raise core.PolicyError(
            f"{name} must return a NamedTuple of floats, returned {core.repr_plain(memory)}; for "
            "example Memory(peak=0.0) of class Memory(NamedTuple): peak: float"
        )
    return memory
