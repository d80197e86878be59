"""sensitivity(): how a result changes with single assumptions, one at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.account import Account
from backtest.base.errors import ParameterError, did_you_mean
from backtest.base.number_text import format_percent
from backtest.base.units import FloatArray
from backtest.engine.named_signals import change_rule, read_named, resolve_signal
from backtest.engine.run import run
from backtest.engine.signal_rule import SignalRule
from backtest.market import Market
from backtest.paths import Paths, liquidation_risk
from backtest.paths.risk_record import RiskRecord
from backtest.policy import Policy
from backtest.scenarios.stress_run import MULTIPLIERS
from backtest.venue import Venue

WHERE = "bt.sensitivity"
HALF_AND_DOUBLE = (0.5, 2.0)
SCANNED = tuple(2.0 ** (k / 2) for k in range(1, 13))
"""Factors, up to 64, among which a break-even is looked for, and one over them."""
STEPS = 20

Progress = Callable[[int, int], None]


class Setup(NamedTuple):
    """What a factor may change; ``rule`` is that of the signal, None if it is no rule."""

    market: Market
    venue: Venue
    signal: Any = None
    rule: SignalRule | None = None


SIGNAL_STEPS = (0.5, 0.8, 1.25, 2.0)
"""Multiples of the parameters of a signal's rule."""


class Factor(NamedTuple):
    """One assumption: how it changes a setup, its steps, and whether they are added or multiplied.

    ``unit`` is the size of an added step.
    """

    change: Callable[[Setup, float], Setup]
    steps: tuple[float, ...]
    is_shift: bool = False
    unit: float = 1.0


def change_rates(setup: Setup, shift: float) -> Setup:
    """Return a setup in which what is borrowed costs more, and cash earns as much more."""
    venue = setup.venue
    names = ["borrow_rate", "cash_rate"] if venue.interest_on else []
    names += ["short_rate"] if venue.interest_on == "loan" else []
    changes = {name: getattr(venue, name) + shift for name in names}
    return setup._replace(venue=venue.override(changes))


def scale_funding(setup: Setup, factor: float) -> Setup:
    """Return a setup with all funding rates multiplied."""
    market = setup.market
    return setup._replace(market=replace_rates(market, market.funding_rate * factor))


def shift_funding(setup: Setup, shift: float) -> Setup:
    """Return a setup with all funding rates raised."""
    market = setup.market
    return setup._replace(market=replace_rates(market, market.funding_rate + shift))


def replace_rates(market: Market, rates: FloatArray) -> Market:
    """Return a market with other funding rates."""
    return Market(**market.fields() | {"funding_rate": rates}, source=f"{market.source}, funding")


def scale_fees(setup: Setup, factor: float) -> Setup:
    """Return a setup with trading fees multiplied."""
    fees = setup.venue.fees
    changes = {"fees.taker": fees.taker * factor, "fees.maker": fees.maker * factor}
    return setup._replace(venue=setup.venue.override(changes))


def scale_slippage(setup: Setup, factor: float) -> Setup:
    """Return a setup with slippage and impact multiplied."""
    slippage = setup.venue.slippage
    changes = {
        "slippage.rate": min(slippage.rate * factor, 0.99),
        "slippage.impact": slippage.impact * factor,
    }
    return setup._replace(venue=setup.venue.override(changes))


def scale_margin(setup: Setup, factor: float) -> Setup:
    """Return a setup with initial and maintenance margin multiplied."""
    given = {name: getattr(setup.venue, name) for name in MULTIPLIERS}
    changes = {name: value * factor for name, value in given.items() if value is not None}
    return setup._replace(venue=setup.venue.override(changes))


def scale_volatility(setup: Setup, factor: float) -> Setup:
    """Return a setup in which log moves are multiplied, around their mean."""
    market = setup.market
    logs = np.log(market.close)
    moves = np.diff(logs)
    mean = float(np.mean(moves))
    close = logs[0] + np.concatenate([[0.0], np.cumsum(factor * moves + (1.0 - factor) * mean)])
    before = np.concatenate([[logs[0]], logs[:-1]])
    base = np.concatenate([[close[0]], close[:-1]])
    fields = market.fields()
    for prefix in ("", "mark_"):
        for name in ("open", "high", "low", "close"):
            away = np.log(getattr(market, prefix + name)) - before
            away[1:] = factor * away[1:] + (1.0 - factor) * mean
            fields[prefix + name] = np.exp(base + away)
    return setup._replace(market=Market(**fields, source=f"{market.source}, volatility"))


FACTORS: dict[str, Factor] = {
    "rates": Factor(change_rates, (-0.01, 0.01), is_shift=True, unit=0.01),
    "funding": Factor(scale_funding, HALF_AND_DOUBLE),
    "funding shift": Factor(shift_funding, (-1e-4, 1e-4), is_shift=True, unit=1e-4),
    "fees": Factor(scale_fees, HALF_AND_DOUBLE),
    "slippage": Factor(scale_slippage, HALF_AND_DOUBLE),
    "margin": Factor(scale_margin, HALF_AND_DOUBLE),
    "volatility": Factor(scale_volatility, (0.75, 1.25)),
}
"""The assumptions that are changed, by name."""


def scale_parameter(name: str, setup: Setup, factor: float) -> Setup:
    """Return a setup in which a parameter of the signal's rule is multiplied, within its range.

    The signal is None where the rule refuses the value.
    """
    rule = setup.rule
    value = None if rule is None else scale_value(rule, name, factor)
    if rule is None or value is None:
        return setup._replace(signal=None)
    try:
        signal = change_rule(rule, {name: value}).apply(setup.market)
    except ParameterError:
        return setup._replace(signal=None)
    return setup._replace(signal=signal)


def scale_value(rule: SignalRule, name: str, factor: float) -> float:
    """Return a multiple of a parameter, rounded if it is whole, and cut to its range."""
    declared = rule.parameters()[name]
    space: Any = declared.space
    value = min(max(rule.settings()[name] * factor, space.low), space.high)
    return round(value) if declared.kind is int else float(value)


def describe_value(rule: SignalRule | None, name: str, step: float) -> dict[str, float]:
    """Return the ``value`` of a parameter at a step, NaN for other factors; or nothing."""
    if rule is None:
        return {}
    own = name.startswith("signal.")
    return {"value": scale_value(rule, name.removeprefix("signal."), step) if own else math.nan}


def list_signal_factors(rule: SignalRule | None) -> dict[str, Factor]:
    """Return a factor for each number among the parameters of a signal's rule."""
    if rule is None:
        return {}
    return {
        f"signal.{name}": Factor(partial(scale_parameter, name), SIGNAL_STEPS)
        for name, each in rule.parameters().items()
        if each.kind in (int, float)
    }


@dataclass(frozen=True, eq=False)
class Sensitivity(RiskRecord):
    """Results under single changed assumptions.

    Attributes
    ----------
    table : DataFrame
        A row per ``factor`` and ``step``: ``growth`` (the CAGR), ``p_ruin`` (NaN without paths),
        ``change_of_growth`` against the unchanged run, and ``break_even``: the multiple, or the
        shift, at which the growth is 0 (NaN if it is nowhere, and for parameters of a signal).
        Where the signal is a rule, ``value`` has its parameter; the growth is NaN if the rule
        refuses it.
    base : float
        The growth of the unchanged run.
    settings : dict
        What the numbers come from.
    """

    table: pd.DataFrame
    base: float
    settings: dict[str, Any]
    market: Market | None = None

    kind = "sensitivity"
    names = ("table",)
    numbers = ("base",)

    def find_history(self) -> Market | None:
        """Return the market; None for a loaded result."""
        return self.market

    @property
    def note(self) -> str:
        """The growth of the unchanged run."""
        return f"growth {format_percent(self.base)} a year"

    def __repr__(self) -> str:
        return f"<Sensitivity: growth {self.base:.4g} a year, {len(self.table)} changes>"

    def summary(self) -> str:
        """Return the table as text for a terminal."""
        return f"growth {100 * self.base:.2f} % a year as run\n{self.table.to_string()}"


def sensitivity(
    market: Market,
    policy: Policy,
    *,
    venue: Venue,
    account: Account,
    signal: pd.Series | FloatArray | float | str | SignalRule | None = None,
    factors: Sequence[str] | None = None,
    paths: Paths | None = None,
    compile: bool = True,  # noqa: A002 - the word of bt.run
    progress: Progress | None = None,
    **settings: Any,
) -> Sensitivity:
    """Return how growth and ruin change with one assumption at a time.

    Parameters
    ----------
    market, policy, venue, account, signal, compile
        As in :func:`backtest.run`.
    factors : sequence of str, optional
        Some of ``"rates"`` (shifted by 100 bp; only where interest is charged), ``"funding"``
        (halved and doubled), ``"funding shift"`` (by 1 bp per settlement), ``"fees"``,
        ``"slippage"`` (with impact), ``"margin"``, ``"volatility"`` (three and five quarters);
        and, where ``signal`` is a rule, ``"signal.window"`` and its other numbers (multiplied by
        0.5, 0.8, 1.25 and 2, within their ranges), or ``"signal"`` for all of them; by default all
        that apply.
    paths : Paths, optional
        For the probability of ruin over their horizon, on plain paths of the same seed: those of
        a changed market continue it, and their model is fitted to it.
    progress : callable, optional
        Called with factors done and factors in all.
    **settings
        ``sampling``, ``calendar`` and ``start`` of :func:`backtest.run`.

    Returns
    -------
    Sensitivity

    Raises
    ------
    ParameterError
        If a factor is unknown, or does not apply.

    Notes
    -----
    A break-even is looked for among multiples from 1/64 to 64 (or as many units of a shift, of
    either sign), the nearest change of sign first, and found by bisection.
    """

    def grow(setup: Setup) -> float:
        result = run(
            setup.market, policy, venue=setup.venue, account=account, signal=setup.signal,
            compile=compile, **settings,
        )  # fmt: skip
        return float(result.metrics["cagr"])

    def ruin(setup: Setup) -> float:
        if paths is None:
            return math.nan
        own = paths
        if setup.market is not market:
            changed = setup.market.prefix(paths.history.n_bars)
            own = paths.with_settings(history=changed, model=type(paths.model).fit(changed))
        held = 1.0 if setup.signal is None else setup.signal
        direction = float(np.atleast_1d(np.asarray(held))[-1])
        found = liquidation_risk(
            own, policy, venue=setup.venue, account=account, signal=direction, method="plain",
            compile=compile,
        )  # fmt: skip
        return float(found.table["p_ruin"].iloc[-1])

    base = read_setup(market, venue, signal)
    known = {**FACTORS, **list_signal_factors(base.rule)}
    chosen = choose_factors(factors, base, known)
    first = grow(base)
    rows: list[dict[str, Any]] = []
    for done, name in enumerate(chosen, 1):
        factor = known[name]
        of_signal = name not in FACTORS
        even = math.nan if of_signal else find_even(factor, base, first, grow)
        for step in factor.steps:
            growth, risk = measure(factor.change(base, step), grow, ruin)
            row = {"factor": name, "step": step, "growth": growth, "p_ruin": risk,
                   "change_of_growth": growth - first, "break_even": even}  # fmt: skip
            rows.append(row | describe_value(base.rule, name, step))
        if progress is not None:
            progress(done, len(chosen))
    table = pd.DataFrame(rows).set_index(["factor", "step"])
    described = {
        "policy": repr(policy), "venue": venue.to_dict(), "account": account.to_dict(),
        "factors": list(chosen), "paths": None if paths is None else paths.describe(),
    }  # fmt: skip
    return Sensitivity(table, first, described, market)


def read_setup(market: Market, venue: Venue, signal: Any) -> Setup:
    """Return what is run without changes, with the signal as a Series if it has a name."""
    named = read_named(signal, market)
    rule = named if isinstance(named, SignalRule) else None
    return Setup(market, venue, resolve_signal(named, market), rule)


def measure(
    setup: Setup, grow: Callable[[Setup], float], ruin: Callable[[Setup], float]
) -> tuple[float, float]:
    """Return growth and probability of ruin, NaN where the rule of the signal refused a value."""
    is_refused = setup.rule is not None and setup.signal is None
    return (math.nan, math.nan) if is_refused else (grow(setup), ruin(setup))


def choose_factors(
    factors: Sequence[str] | None, setup: Setup, known: Mapping[str, Factor]
) -> tuple[str, ...]:
    """Return the factors to change, checked to be known and to apply."""
    idle = set() if setup.venue.interest_on else {"rates"}
    if not setup.market.funding_time.size:
        idle |= {"funding", "funding shift"}
    if factors is None:
        return tuple(name for name in known if name not in idle)
    if isinstance(factors, str) or not factors:
        raise ParameterError(
            f"factors must be a list of names, was {factors!r}",
            where=f"{WHERE}, factors",
            cure="give for example ['fees', 'funding']",
        )
    of_signal = [name for name in known if name.startswith("signal.")]
    spelled = [
        each
        for name in factors
        for each in (of_signal if name == "signal" and of_signal else [name])
    ]
    for name in spelled:
        if name not in known or name in idle:
            rule = "apply to this venue and market" if name in idle else "be known"
            raise ParameterError(
                f"a factor must {rule}, was {name!r}{did_you_mean(name, known)}",
                where=f"{WHERE}, factors",
                cure=f"choose from {', '.join(each for each in known if each not in idle)}",
            )
    return tuple(dict.fromkeys(spelled))


def find_even(factor: Factor, base: Setup, first: float, grow: Callable[[Setup], float]) -> float:
    """Return the step at which the growth is 0, the nearest one; NaN if there is none."""

    def at(step: float) -> float:
        return grow(factor.change(base, step))

    none = 0.0 if factor.is_shift else 1.0
    if first == 0.0:
        return none
    before = {1: none, -1: none}
    for scale in SCANNED:
        for side in (1, -1):
            step = side * scale * factor.unit if factor.is_shift else scale**side
            if (at(step) > 0.0) != (first > 0.0):
                return bisect_even(at, before[side], step, is_gain=first > 0.0)
            before[side] = step
    return math.nan


def bisect_even(at: Callable[[float], float], low: float, high: float, *, is_gain: bool) -> float:
    """Return the step between two at which growth changes its sign."""
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        if (at(middle) > 0.0) == is_gain:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)
