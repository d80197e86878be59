"""The base class of policies, with their parameters, columns and memory."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from types import FunctionType, MappingProxyType
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
        if self.rule == "about":
            return self._replace(rule="at most")
        return self


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
        for name, arguments in ARGUMENTS.items():
            check_method(cls, name, arguments)

        # A parameter called leverage would inherit the formula as its default.
        if "leverage" in vars(cls).get("__annotations__", {}) and "leverage" not in vars(cls):
            field: Any = dataclasses.field()
            setattr(cls, "leverage", field)  # noqa: B010 - a method for the type checker
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


def check_method(cls: type[Policy], name: str, arguments: str) -> None:
    """Require that an optional method, if there is one, takes as many arguments as it must.

    ``arguments`` are their names, such as ``"self, bar, account"``.
    """
    rule = vars(cls).get(name)
    if rule is None:
        return

    # Names are free, their number is not. What is no function takes none of them.
    taken = repr(rule)
    n_taken = 0
    if callable(rule):
        names = inspect.signature(rule).parameters
        taken = ", ".join(names)
        n_taken = len(names)
    if n_taken != len(arguments.split(",")):
        raise core.PolicyError(
            f"{cls.__name__}.{name} must be a plain method with the arguments ({arguments}), "
            f"got ({taken})"
        )


def formula_of(cls: type[Policy]) -> Callable[..., Any]:
    """Return the formula of a class: its method, or that of a parameter called leverage."""
    fields: Any = cls
    if any(field.name == "leverage" for field in dataclasses.fields(fields)):
        return return_parameter

    # The method of the base raises what is wrong, and a formula that is made replaces it.
    rule: Callable[..., Any] = inspect.getattr_static(cls, "leverage")
    if rule is Policy.leverage or hasattr(cls, "make_formula"):
        return rule
    arguments = "self, bar, account"
    n_arguments = 3
    if hasattr(cls, "start"):
        arguments = "self, bar, account, memory"
        n_arguments = 4
    fault = find_rule_fault(rule, n_arguments)
    if fault:
        raise core.PolicyError(
            f"{cls.__name__}.leverage must be an undecorated method (it is compiled anyway) with "
            f"the arguments ({arguments}), got {fault}"
        )
    return rule


@functools.cache
def find_rule_fault(rule: Any, n: int) -> str:
    """Return why something is no method that returns a number for ``n`` arguments, "" if it is one.

    ``n`` counts ``self``. What is returned says what it is instead, for an error.
    """
    if not isinstance(rule, FunctionType):
        return repr(rule)
    is_async = inspect.iscoroutinefunction(rule) or inspect.isasyncgenfunction(rule)
    if is_async or inspect.isgeneratorfunction(rule):
        return "one that is async or yields"

    # ``n`` must lie between the arguments without a default and those that may be given at all.
    n_required = 0
    n_most = 0
    signature = inspect.signature(rule, follow_wrapped=False)
    for argument in signature.parameters.values():
        if argument.default is argument.empty:
            n_required += 1
        if argument.kind in (argument.POSITIONAL_ONLY, argument.POSITIONAL_OR_KEYWORD):
            n_most += 1
    if n_required <= n <= n_most:
        return ""
    return str(inspect.signature(rule))


def formula_for(policy: Policy, columns: tuple[str, ...]) -> Any:
    """Return the formula of a policy over some columns, as a function that compiles."""
    make = getattr(policy, "make_formula", None)
    formula = formula_of(type(policy)) if make is None else make(columns)
    return rewrite_formula(formula)


def margin_formula_for(policy: Policy, columns: tuple[str, ...]) -> Any:
    """Return that of ``venue_leverage``, as a function that compiles, or None without one."""
    make = getattr(policy, "make_margin_formula", None)
    if make is not None:
        return rewrite_formula(make(columns))
    return rewrite_formula(getattr(type(policy), "venue_leverage", None))


def sets_margin(policies: object) -> bool:
    """Return whether a policy, or one of several by name, decides its margin setting."""
    return defines(policies, "venue_leverage")


def trades_options(policies: object) -> bool:
    """Return whether a policy, or one of several by name, trades options."""
    return defines(policies, "option_orders")


def defines(policies: object, method: str) -> bool:
    """Return whether a policy or its class, or one among several or inside it, has a method.

    ``policies`` are one policy, a class of policies, or either by name.
    """
    if isinstance(policies, Mapping):
        return any(defines(policy, method) for policy in policies.values())

    cls: type = type(policies)
    if isinstance(policies, type):
        cls = policies
    if not issubclass(cls, Policy):
        return False
    if hasattr(cls, method):
        return True

    # A combinator has it if one of its policies does.
    parts = getattr(cls, "parts", ())
    return any(defines(part.policy, method) for part in parts)


def return_parameter(self: Any, bar: Any, account: Any) -> Any:  # noqa: ARG001 - the signature of a formula
    """Return the parameter called leverage: the formula of a policy that declares one."""
    return self.leverage


def start_memory(policy: Policy) -> Any:
    """Return the first memory of a policy, None without one; raise PolicyError for a bad one."""
    if not hasattr(policy, "start"):
        return None

    name = f"{type(policy).__name__}.start"
    try:
        memory = policy.start()
    except core.RAISED as error:
        raise core.PolicyError(f"{name} raised {type(error).__name__}: {error}") from error

    is_named = isinstance(memory, tuple) and bool(getattr(memory, "_fields", ()))
    kinds = (int, float, np.number)
    if not is_named or not all(isinstance(value, kinds) for value in memory):
        raise core.PolicyError(
            f"{name} must return a NamedTuple of floats, returned {core.repr_plain(memory)}; for "
            "example Memory(peak=0.0) of class Memory(NamedTuple): peak: float"
        )
    return memory
