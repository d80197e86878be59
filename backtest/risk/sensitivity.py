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
from backtest.base import (
    FloatArray,
    Head,
    Headline,
    ParameterError,
    Part,
    SettingsResult,
    ShownChart,
    ShownTable,
    checked_only,
    did_you_mean,
    format_percent,
    format_table,
    repr_plain,
)
from backtest.engine import (
    Progress,
    SignalRule,
    change_rule,
    read_named,
    read_venues,
    resolve_signal,
    run,
    warn_once,
)
from backtest.market import Market, Markets, as_markets, read_weights
from backtest.policy import Policy
from backtest.risk.liquidation_risk import describe_each, liquidation_risk, name_policies
from backtest.risk.paths import Paths
from backtest.risk.paths_runner import AnyPolicy, AnyVenue
from backtest.risk.stress_account import MULTIPLIERS, list_worsenings, scale
from backtest.venue import Venue

HALF_AND_DOUBLE = (0.5, 2.0)


class VariedTerms(NamedTuple):
    market: Markets
    venue: Mapping[str, Venue]
    signal: Any = None
    rule: SignalRule | None = None
    joined: float = 0.0

    def with_venues(self, change: Callable[[Venue], Venue]) -> VariedTerms:
        return self._replace(venue={name: change(each) for name, each in self.venue.items()})

    def with_markets(self, change: Callable[[Market], Market]) -> VariedTerms:
        changed = {name: change(each) for name, each in self.market.items()}
        return self._replace(market=self.market.with_markets(changed))


PRICES = ("open", "high", "low", "close")
SIGNAL_STEPS = (0.5, 0.8, 1.25, 2.0)
"""Multiples of the parameters of a signal's rule."""


class Factor(NamedTuple):
    change: Callable[[VariedTerms, float], VariedTerms]
    steps: tuple[float, ...]
    is_shift: bool = False
    unit: float = 1.0


def change_rates(setup: VariedTerms, shift: float) -> VariedTerms:
    def change(venue: Venue) -> Venue:
        names = ["borrow_rate", "cash_rate"] if venue.interest_on else []
        names += ["short_rate"] if venue.interest_on == "loan" else []
        return venue.override({name: getattr(venue, name) + shift for name in names})

    return setup.with_venues(change)


def scale_funding(setup: VariedTerms, factor: float) -> VariedTerms:
    return setup.with_markets(lambda market: replace_rates(market, market.funding_rate * factor))


def shift_funding(setup: VariedTerms, shift: float) -> VariedTerms:
    return setup.with_markets(lambda market: replace_rates(market, market.funding_rate + shift))


def replace_rates(market: Market, rates: FloatArray) -> Market:
    return Market(**market.fields() | {"funding_rate": rates}, source=f"{market.source}, funding")


def scale_fees(setup: VariedTerms, factor: float) -> VariedTerms:
    def change(venue: Venue) -> Venue:
        names = ("fees.taker", "fees.maker")
        return venue.override({name: scale(venue, name, factor, math.inf) for name in names})

    return setup.with_venues(change)


def scale_slippage(setup: VariedTerms, factor: float) -> VariedTerms:
    def change(venue: Venue) -> Venue:
        changes = {name: scale(venue, name, factor, 0.99) for name in list_worsenings(venue)}
        return venue.override({**changes, "slippage.impact": venue.slippage.impact * factor})

    return setup.with_venues(change)


def scale_margin(setup: VariedTerms, factor: float) -> VariedTerms:
    def change(venue: Venue) -> Venue:
        given = {name: getattr(venue, name) for name in MULTIPLIERS}
        return venue.override(
            {name: value * factor for name, value in given.items() if value is not None}
        )

    return setup.with_venues(change)


def scale_volatility(setup: VariedTerms, factor: float) -> VariedTerms:
    return setup.with_markets(lambda market: scale_moves(market, factor))


def scale_moves(market: Market, factor: float) -> Market:
    logs = np.log(market.close)
    moves = np.diff(logs)
    mean = float(np.mean(moves))
    close = logs[0] + np.concatenate([[0.0], np.cumsum(factor * moves + (1.0 - factor) * mean)])
    before = np.concatenate([[logs[0]], logs[:-1]])
    base = np.concatenate([[close[0]], close[:-1]])
    fields = market.fields()
    for prefix in ("", "mark_"):
        for name in PRICES:
            away = np.log(getattr(market, prefix + name)) - before
            away[1:] = factor * away[1:] + (1.0 - factor) * mean
            fields[prefix + name] = np.exp(base + away)
    return Market(**fields, source=f"{market.source}, volatility")


def change_correlation(setup: VariedTerms, step: float) -> VariedTerms:
    markets = setup.market
    s = min(max(step, -1.0), 1.0)
    first, stop = int(markets.spans[:, 0].max()), int(markets.spans[:, 1].min())
    logs = np.array(
        [np.log(m.close)[first - f : stop - f] for m, f in zip(
            markets.values(), markets.spans[:, 0], strict=True)]
    )  # fmt: skip
    moves = np.diff(logs, axis=1)
    mean, deviation = moves.mean(axis=1, keepdims=True), moves.std(axis=1, keepdims=True)
    known = np.where(deviation > 0.0, deviation, 1.0)
    correlation = np.corrcoef(moves)
    turned = find_root(mix_correlation(correlation, s)) @ find_root(correlation, is_inverse=True)
    shifts = mean + deviation * (turned @ ((moves - mean) / known)) - moves
    changed = {
        name: shift_prices(market, shift, first - int(listed))
        for (name, market), shift, listed in zip(
            markets.items(), shifts, markets.spans[:, 0], strict=True
        )
    }
    return setup._replace(market=markets.with_markets(changed), joined=s)


def mix_correlation(correlation: FloatArray, step: float) -> FloatArray:
    end = np.ones_like(correlation) if step > 0.0 else np.eye(len(correlation))
    return np.asarray((1.0 - abs(step)) * correlation + abs(step) * end)


def find_root(matrix: FloatArray, *, is_inverse: bool = False) -> FloatArray:
    values, vectors = np.linalg.eigh(np.nan_to_num(matrix))
    roots = np.sqrt(np.maximum(values, 0.0))
    if is_inverse:
        roots = np.where(roots > 1e-6, 1.0 / np.maximum(roots, 1e-6), 0.0)
    return np.asarray((vectors * roots) @ vectors.T)


def shift_prices(market: Market, shift: FloatArray, first: int) -> Market:
    moved = np.zeros(market.n_bars)
    moved[first + 1 : first + 1 + len(shift)] = shift
    close = np.cumsum(moved)
    start = np.concatenate([[0.0], close[:-1]])
    middle = 0.5 * (start + close)
    fields = market.fields()
    for prefix in ("", "mark_"):
        own = {name: getattr(market, prefix + name) for name in PRICES}
        ends = own["open"] * np.exp(start), own["close"] * np.exp(close)
        high = np.maximum(own["high"] * np.exp(middle), np.maximum(*ends))
        low = np.minimum(own["low"] * np.exp(middle), np.minimum(*ends))
        for name, values in zip(PRICES, (ends[0], high, low, ends[1]), strict=True):
            fields[prefix + name] = values
    return Market(**fields, source=f"{market.source}, correlation")


FACTORS: dict[str, Factor] = {
    "rates": Factor(change_rates, (-0.01, 0.01), is_shift=True, unit=0.01),
    "funding": Factor(scale_funding, HALF_AND_DOUBLE),
    "funding shift": Factor(shift_funding, (-1e-4, 1e-4), is_shift=True, unit=1e-4),
    "fees": Factor(scale_fees, HALF_AND_DOUBLE),
    "slippage": Factor(scale_slippage, HALF_AND_DOUBLE),
    "margin": Factor(scale_margin, HALF_AND_DOUBLE),
    "volatility": Factor(scale_volatility, (0.75, 1.25)),
    "correlation": Factor(change_correlation, (-0.5, 0.5), is_shift=True, unit=1.0 / 64.0),
}


def scale_parameter(name: str, setup: VariedTerms, factor: float) -> VariedTerms:
    if setup.rule is None:
        return setup._replace(signal=None)
    try:
        rule = change_rule(setup.rule, {name: scale_value(setup.rule, name, factor)})
        return setup._replace(signal=resolve_signal(rule, setup.market))
    except ParameterError:
        return setup._replace(signal=None)


def scale_value(rule: SignalRule, name: str, factor: float) -> float:
    declared = rule.parameters()[name]
    space: Any = declared.space
    value = min(max(rule.settings()[name] * factor, space.low), space.high)
    return round(value) if declared.kind is int else float(value)


def describe_value(rule: SignalRule | None, name: str, step: float) -> dict[str, float]:
    if rule is None:
        return {}
    own = name.startswith("signal.")
    return {"value": scale_value(rule, name.removeprefix("signal."), step) if own else math.nan}


def list_signal_factors(rule: SignalRule | None) -> dict[str, Factor]:
    if rule is None:
        return {}
    return {
        f"signal.{name}": Factor(partial(scale_parameter, name), SIGNAL_STEPS)
        for name, each in rule.parameters().items()
        if each.kind in (int, float)
    }


SCANNED = tuple(2.0 ** (k / 2) for k in range(1, 13))
LEAST_CHANGE = 0.00005
"""Change of growth that is not 0.00 %."""


@dataclass(frozen=True, eq=False)
class Sensitivity(SettingsResult):
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
    market: Market | Markets | None = None

    kind = "sensitivity"
    plural = "sensitivities"
    table_names = ("table",)
    numbers = ("base",)

    @property
    def note(self) -> str:
        """The growth of the unchanged run."""
        return f"growth {format_percent(self.base)} a year"

    @property
    def verdict(self) -> str:
        """The growth as run, and the assumption on which it depends most."""
        change = self.table["change_of_growth"].dropna()
        text = f"Growth is {format_percent(self.base)} a year as run"
        if not len(change) or not change.abs().max() >= LEAST_CHANGE:
            return f"{text}, and no factor changes it."
        most: Any = change.abs().idxmax()
        moved = format_percent(float(change.loc[most]), is_signed=True)
        return f"{text}. It depends most on {most[0]}: step {most[1]:g} changes it by {moved}."

    @property
    def details(self) -> str:
        """How the assumptions were changed."""
        return "One assumption is changed at a time; the others stay as they are."

    def list_numbers(self) -> list[Headline]:
        """Return the growth as run."""
        return [Headline("growth", "growth as run", self.base, "percent", "per year", "more")]

    def list_parts(self) -> list[Part]:
        """Return the changes by factor."""
        caption = "Change of growth, % a year, for the lowest step (orange) and the highest (blue)."
        heads = {
            "step": Head("step"), "value": Head("value of the parameter"),
            "break_even": Head("break-even", "step at which growth is 0"),
        }  # fmt: skip
        return [
            Part("factors", "By factor", "Steps are multiples, or shifts.", (
                ShownChart("tornado", "Tornado", caption, 100.0 * self.table["change_of_growth"],
                           "tornado"),
                ShownTable(self.table, labels=Head("factor"), heads=heads),
            ))
        ]  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return the result as data for JSON."""
        return {**super().to_dict(), "growth": self.base}

    def __repr__(self) -> str:
        return f"<Sensitivity: growth {self.base:.4g} a year, {len(self.table)} changes>"

    def summary(self) -> str:
        """Return the table as text for a terminal."""
        return f"growth {format_percent(self.base)} a year as run\n{format_table(self.table)}"


@checked_only("progress", "market", "overlay", "paths", "venue")
def sensitivity(
    market: Market | Markets,
    policy: AnyPolicy,
    *,
    venue: AnyVenue,
    account: Account,
    signal: Any = None,
    overlay: Policy | None = None,
    factors: Sequence[str] | None = None,
    paths: Paths | None = None,
    compile: bool = True,  # noqa: A002 - the word of bt.run
    progress: Progress | None = None,
    **settings: Any,
) -> Sensitivity:
    """Return how growth and ruin change with one assumption at a time.

    Parameters
    ----------
    market, policy, venue, account, signal, overlay, compile
        As in :func:`backtest.run`; several instruments are changed together.
    factors : sequence of str, optional
        Some of ``"rates"`` (shifted by 100 bp; only where interest is charged), ``"funding"``
        (halved and doubled), ``"funding shift"`` (by 1 bp per settlement), ``"fees"``,
        ``"slippage"`` (with impact), ``"margin"``, ``"volatility"`` (three and five quarters);
        and, where ``signal`` is a rule, ``"signal.window"`` and its other numbers (multiplied by
        0.5, 0.8, 1.25 and 2, within their ranges), or ``"signal"`` for all of them; of several
        instruments ``"correlation"`` (half the way to independence, and half the way to 1); by
        default all that apply.
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
    more: dict[str, Any] = {"compile": compile, **settings}
    more |= {} if overlay is None else {"overlay": overlay}

    grown: list[float] = []

    def grow(setup: VariedTerms) -> float:
        terms: dict[str, Any] = {"policy": policy, "signal": setup.signal, **more}
        with warn_once(is_first=not grown):
            result = run(setup.market, venue=setup.venue, account=account, **terms)
        grown.append(float(result.metrics["cagr"]))
        return grown[-1]

    def ruin(setup: VariedTerms) -> float:
        if paths is None:
            return math.nan
        found = liquidation_risk(
            paths if setup.market is base.market else continue_changed(paths, setup), policy,
            venue=setup.venue, account=account, signal=find_last_signal(setup), overlay=overlay,
            method="plain", compile=compile,
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
        "policy": name_policies(policy),
        "venue": describe_each(venue, lambda each: each.to_dict()), "account": account.to_dict(),
        "factors": list(chosen), "paths": None if paths is None else paths.describe(),
    }  # fmt: skip
    return Sensitivity(table, first, described, market)


def continue_changed(paths: Paths, setup: VariedTerms) -> Paths:
    changed = setup.market
    first, stop = (int(paths.markets.time[k]) for k in (0, -1))
    rows = np.searchsorted(changed.time, [first, stop])
    history = changed.slice(int(rows[0]), int(rows[1]) + 1)
    models = {name: type(paths.models[name]).fit(market) for name, market in history.items()}
    if paths.is_resampled and len(models) > 1:
        models = {
            name: each.override(block=paths.models[name].block)  # type: ignore[attr-defined] # rows
            for name, each in models.items()
        }
    turned = mix_correlation(np.array(paths.correlation), setup.joined)
    return paths.with_settings(
        history=history, models=models, correlation=tuple(tuple(map(float, row)) for row in turned)
    )


def find_last_signal(setup: VariedTerms) -> Any:
    signal = setup.signal
    if signal is None or (np.ndim(signal) < 2 and not isinstance(signal, Mapping)):
        return None if signal is None else float(np.atleast_1d(np.asarray(signal))[-1])
    weights = read_weights(signal, setup.market)
    return dict(zip(setup.market.names, map(float, weights[:, -1]), strict=True))


def read_setup(market: Market | Markets, venue: AnyVenue, signal: Any) -> VariedTerms:
    named, markets = read_named(signal, market), as_markets(market)
    rule = named if isinstance(named, SignalRule) else None
    return VariedTerms(markets, read_venues(venue, markets), resolve_signal(named, markets), rule)


def measure(
    setup: VariedTerms, grow: Callable[[VariedTerms], float], ruin: Callable[[VariedTerms], float]
) -> tuple[float, float]:
    is_refused = setup.rule is not None and setup.signal is None
    return (math.nan, math.nan) if is_refused else (grow(setup), ruin(setup))


def choose_factors(
    factors: Sequence[str] | None, setup: VariedTerms, known: Mapping[str, Factor]
) -> tuple[str, ...]:
    idle = set() if any(each.interest_on for each in setup.venue.values()) else {"rates"}
    if not any(each.funding_time.size for each in setup.market.values()):
        idle |= {"funding", "funding shift"}
    idle |= {"correlation"} if len(setup.market) < 2 else set()
    if factors is None:
        return tuple(name for name in known if name not in idle)
    if isinstance(factors, str) or not isinstance(factors, Sequence) or not len(factors):
        raise ParameterError(f"factors must be a list of names, got {repr_plain(factors)}")
    of_signal = [name for name in known if name.startswith("signal.")]
    spelled = [
        each
        for name in factors
        for each in (of_signal if name == "signal" and of_signal else [name])
    ]
    for name in spelled:
        if name == "signal":
            raise ParameterError(
                "the factor 'signal' varies the parameters of a signal rule, the signal is none"
            )
        if name not in known or name in idle:
            raise ParameterError(
                "factors with an effect on this venue and market are "
                f"{', '.join(each for each in known if each not in idle)}, got "
                f"{name!r}{did_you_mean(name, known)}"
            )
    return tuple(dict.fromkeys(spelled))


def find_even(
    factor: Factor, base: VariedTerms, first: float, grow: Callable[[VariedTerms], float]
) -> float:
    from scipy.optimize import brentq  # noqa: PLC0415 - slow to load

    def at(step: float) -> float:
        return grow(factor.change(base, step))

    none = 0.0 if factor.is_shift else 1.0
    if first == 0.0:
        return none
    before = {1: none, -1: none}
    for size in SCANNED:
        for side in (1, -1):
            step = side * size * factor.unit if factor.is_shift else size**side
            if (at(step) > 0.0) != (first > 0.0):
                return float(brentq(at, before[side], step, xtol=1e-6 * abs(step)))
            before[side] = step
    return math.nan
