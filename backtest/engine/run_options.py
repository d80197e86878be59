"""The options of a run: what it held of them, their Greeks, profits and hedges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from backtest.account.ledger import FILL
from backtest.account.pool_liquidation import CAUSED
from backtest.base import Choice, FloatArray, IntArray, format_money, utc_index
from backtest.base.units import DAY, YEAR_DAYS
from backtest.engine.record import OptionFields
from backtest.engine.tables import OWN, OWNER, divide_by_equity
from backtest.measures import (
    OptionQuotes,
    OptionTerms,
    Period,
    compute_prices,
    compute_volatilities,
    explain_profit,
    find_periods,
    measure_greeks,
    multiply,
    weigh_gamma,
)
from backtest.measures.attribution import CALENDAR_PERIODS
from backtest.measures.measure_table import OPTION_COSTS
from backtest.measures.option_profit import EXPLAINED
from backtest.venue import ScenarioMargin

if TYPE_CHECKING:
    from backtest.engine.record import Outcome
    from backtest.venue import Option


@dataclass(frozen=True, eq=False)
class RunOptions:
    """The options that a run held, in the order of the markets; arrays of shape (n_bars, K).

    ``legs`` name the leg of a policy that ordered each first, empty for one held by a schedule.
    ``owners`` (K,) are their numbers in the log. ``opened`` are signed contracts after the fills at
    the open, ``entries`` the average prices of what is held, ``settled`` the prices of the
    underlying at which contracts expired inside a bar, and ``ages`` the days since the surface.
    ``hedged`` are the places of the instruments that policies ordered in contracts beside options.
    """

    contracts: tuple[Option, ...]
    legs: tuple[str, ...]
    owners: IntArray
    terms: OptionTerms
    quotes: OptionQuotes
    record: OptionFields
    opened: FloatArray
    entries: FloatArray
    settled: FloatArray
    ages: FloatArray
    hedged: tuple[int, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        pairs = zip(self.legs, self.terms.names, strict=True)
        return tuple(f"{leg}:{name}" if leg else name for leg, name in pairs)

    @property
    def named(self) -> dict[int, str]:
        return dict(zip(self.owners.tolist(), self.names, strict=True))

    @property
    def profits(self) -> FloatArray:
        held = self.record.quantity
        return multiply(held, self.record.value - self.entries)

    @property
    def carried(self) -> FloatArray:
        held = self.record.quantity
        return np.concatenate((np.zeros_like(held[:1]), held[:-1]))

    @cached_property
    def greeks(self) -> dict[str, FloatArray]:
        return measure_greeks(self.terms, self.quotes, self.record.quantity)

    @cached_property
    def parts(self) -> dict[str, FloatArray]:
        return explain_profit(
            self.terms, self.quotes, self.carried, self.opened, self.record.quantity,
            self.record.price_pnl, self.settled,
        )  # fmt: skip

    def sum_by_underlying(self, values: FloatArray, n: int) -> FloatArray:
        """Return the sums of values over the options of each instrument, of shape (n_bars, n)."""
        found = np.zeros((len(values), n))
        np.add.at(found.T, self.terms.instruments, values.T)
        return found


def read_options(setup: Any, outcome: Outcome) -> RunOptions | None:
    record: Any = outcome.record.options
    listed = setup.markets.options
    if not listed or record is None:
        return None
    after = len(setup.markets.names) + len(setup.account.collateral)
    entries, first = outcome.entries, setup.first
    is_own = (entries[:, OWNER] >= after) & (entries[:, 1] != CAUSED)  # causes have numbers too
    kept = np.unique(entries[is_own, OWNER].astype(np.int64)) - after
    kept = np.union1d(kept, np.flatnonzero(record.quantity.any(axis=0)))
    if not len(kept):
        return None
    feed, names = setup.inputs.feed.options, tuple(listed)
    terms = OptionTerms(
        names=tuple(names[k] for k in kept),
        signs=feed.signs[kept],
        strikes=feed.strikes[kept],
        sizes=feed.sizes[kept],
        are_coin=feed.are_coin[kept],
        instruments=feed.instruments[kept],
        expiries=feed.expiry_times[kept],
        rates=feed.rates[kept],
    )
    held = OptionFields(*(each[:, kept] for each in record))
    shape = (len(setup.markets.time), len(setup.markets.names))
    opens, closes = (
        np.broadcast_to(getattr(setup.inputs.feed, name), shape)[first:]
        for name in ("mark_open", "mark_close")
    )
    expired = np.zeros((2, *held.quantity.shape), dtype=bool)  # at the open, or inside the bar
    for place, k in enumerate(kept):
        bar = int(feed.expiry_bars[k]) - first
        if 0 <= bar < len(held.quantity):
            expired[int(feed.are_inside[k]), bar, place] = True
    at, legs = (slice(first, None), kept), outcome.legs
    gone, spots = expired[0], feed.expiry_spots[kept]
    index = np.where(gone, spots, opens[:, terms.instruments])
    bases = np.where(gone, 1.0, feed.bases_open[at])
    years = np.where(gone, 0.0, feed.years_open[at])
    marks = np.where(gone, np.nan, feed.marks_open[at])
    volatilities = np.where(gone, 0.0, feed.volatilities_open[at])
    index_close = closes[:, terms.instruments]
    forward = index_close * feed.bases_close[at]
    at_close = (feed.volatilities_close[at], feed.years_close[at], feed.marks_close[at])
    quotes = OptionQuotes(
        index,
        index * bases,
        *value_state(terms, index * bases, volatilities, years, marks),
        index_close,
        forward,
        *value_state(terms, forward, *at_close),
    )
    return RunOptions(
        contracts=tuple(listed[name] for name in terms.names),
        legs=tuple(legs.get(k, "") for k in kept.tolist()),
        owners=kept + after,
        terms=terms,
        quotes=quotes,
        record=held,
        opened=find_opened(entries, held.quantity, kept + after, first, gone),
        entries=find_entries(entries, held.quantity, kept + after, first),
        settled=np.where(expired[1], spots, np.nan),
        ages=feed.ages[at],
        hedged=tuple(sorted(outcome.hedged)),
    )


def value_state(
    terms: OptionTerms,
    forward: FloatArray,
    volatility: FloatArray,
    years: FloatArray,
    marks: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    bars, options = np.nonzero(years >= 0.0)
    state = np.stack([forward[bars, options], volatility[bars, options], years[bars, options]])
    value, found = np.full(forward.shape, np.nan), volatility.copy()
    value[bars, options] = compute_prices(terms, options, state)
    rows = np.flatnonzero(~np.isnan(marks[bars, options]))
    if len(rows):
        own, at = (bars[rows], options[rows]), state[:, rows]
        value[own] = marks[own]
        found[own] = compute_volatilities(terms, options[rows], at[0], marks[own], at[2])
    return found, years, value * terms.sizes


def find_opened(
    entries: FloatArray, held: FloatArray, owners: IntArray, first: int, expired: FloatArray
) -> FloatArray:
    """Return the contracts after the fills at the open of each bar, of shape (n_bars, K)."""
    opened = np.where(expired, 0.0, np.concatenate((np.zeros_like(held[:1]), held[:-1])))
    is_fill = (entries[:, 1] == FILL) & np.isin(entries[:, OWNER], owners)
    own = entries[is_fill]
    places = np.searchsorted(owners, own[:, OWNER].astype(np.int64))
    np.add.at(opened, (own[:, 0].astype(np.int64) - first, places), own[:, 3])
    return opened


def find_entries(entries: FloatArray, held: FloatArray, owners: IntArray, first: int) -> FloatArray:
    """Return the average prices of what is held at each close, of shape (n_bars, K)."""
    found = np.full(held.shape, np.nan)
    for place, owner in enumerate(owners.tolist()):
        quantity, average = 0.0, np.nan
        for entry in entries[(entries[:, OWNER] == owner) & (entries[:, 3] != 0.0)]:
            after = quantity + entry[3]
            if quantity * entry[3] > 0.0:
                average = (quantity * average + entry[3] * entry[2]) / after
            elif quantity * after <= 0.0:
                average = entry[2]
            quantity = after
            found[int(entry[0]) - first :, place] = average
    return np.where(held != 0.0, found, np.nan)


def explain_idle_options(run: Any) -> str:
    """Say what the long options at the last close are worth if that backs no position."""
    rule = run.account.requirement
    is_counted = isinstance(rule, ScenarioMargin) or getattr(rule, "option_value", "") == "long"
    if run.options is None or is_counted or getattr(rule, "loan_value", 0.0) > 0.0:
        return ""
    held, value = run.options.record.quantity[-1], run.options.record.value[-1]
    worth = float(np.nansum(np.where(held > 0.0, held * value, 0.0)))
    if worth == 0.0:
        return ""
    return (
        f"the options held are worth {format_money(worth)}, which back no position before they are "
        "sold: the requirement counts no option as money"
    )


# ------------------------------------------------------------------------------------------- hedges

HedgeSplit: TypeAlias = Literal["instrument", "bar"]
HEDGE_SPLITS = Choice("instrument", "bar")
MONEY = ("options", "hedge", "profit", "theory", "error")
COLUMNS = (
    *MONEY, "deviation", "expected_deviation", "volatility", "implied_volatility", "costs", "bars",
)  # fmt: skip
PAID = ("fees", "slippage", "impact", "funding", "liquidation_loss")


def tabulate_hedging(run: Any, options: RunOptions | None, by: HedgeSplit) -> pd.DataFrame:
    moneys, rows = ({}, {}) if options is None else follow_hedges(run, options)
    if by == "instrument":
        index = pd.Index([*rows], name="instrument")
        return pd.DataFrame([*rows.values()], columns=[*COLUMNS], index=index)
    time = utc_index(run.time if moneys else run.time[:0])
    nothing = np.zeros(len(time))
    sums = {name: sum((each[name] for each in moneys.values()), nothing) for name in MONEY}
    return pd.DataFrame(sums, index=time)


def follow_hedges(
    run: Any, options: RunOptions
) -> tuple[dict[str, dict[str, FloatArray]], dict[str, dict[str, float]]]:
    """Return the money of each hedged instrument by bar, and its row of the table."""
    given = (options.terms, options.quotes, options.carried, options.opened)
    weights, implied = weigh_gamma(*given)
    is_exposed = (options.carried != 0.0) | (options.opened != 0.0)
    ends = np.diff(run.span.closes) / (YEAR_DAYS * DAY)
    moneys, rows = {}, {}
    for i in options.hedged:
        own = options.terms.instruments == i
        exposed, quantity = is_exposed[:, own].any(axis=1), run.of_positions("quantity")[:, i]
        moves = np.diff(np.log(run.marks[:, i]))
        seen = exposed[1:] & np.isfinite(moves)
        variance = math.nan  # per year, while options on it were held
        if seen.any():
            variance = float((moves[seen] ** 2).sum() / ends[seen].sum())
        made = options.record.price_pnl[:, own].sum(axis=1)
        hedged, weight = run.of_positions("price_pnl")[:, i], weights[:, own].sum(axis=1)
        meant = implied[:, own].sum(axis=1)
        profit, theory = made + hedged, 0.5 * (variance * weight - meant)
        money = dict(zip(MONEY, (made, hedged, profit, theory, profit - theory), strict=True))
        held = exposed | (quantity != 0.0)
        errors, n, size = money["error"][held], int(held.sum()), float(np.abs(weight).sum())
        mean = float(np.abs(meant).sum()) / size if size > 0.0 else math.nan
        moneys[run.names[i]] = money
        rows[run.names[i]] = {
            **{name: float(each.sum()) for name, each in money.items()},
            "deviation": float(errors.std(ddof=1)) * math.sqrt(n) if n > 1 else math.nan,
            "expected_deviation": variance * math.sqrt(0.5 * float((weight**2).sum())),
            "volatility": math.sqrt(variance),
            "implied_volatility": math.sqrt(mean),
            "costs": sum(float(run.of_positions(each)[:, i].sum()) for each in PAID),
            "bars": n,
        }
    return moneys, rows


# ------------------------------------------------------------------------------------------- tables

OptionSplit: TypeAlias = Literal["option", "bar"] | Period
SPLITS = Choice("option", "bar", *CALENDAR_PERIODS)
GREEKS = ("delta", "gamma", "vega", "theta", "vanna", "volga", "rho")
MEASURES = (
    "mean_options_leverage", "peak_options_leverage", "premium_decay", "unexplained_share",
    *OPTION_COSTS,
)  # fmt: skip


def tabulate_options(run: Any, options: RunOptions) -> list[pd.DataFrame]:
    held, quotes = options.record, options.quotes
    equity, nothing = run.of_account("equity"), np.zeros(len(run.time))
    prices = run.liquidation_prices[:, options.terms.instruments]
    parts = []
    for k, name in enumerate(options.names):
        rows = np.flatnonzero((held.quantity[:, k] != 0.0) | (held.price_pnl[:, k] != 0.0))
        quantity, entry = held.quantity[:, k], options.entries[:, k]
        is_held = quantity != 0.0
        value = np.where(is_held, quantity * held.value[:, k], 0.0)
        delta = options.greeks["delta"][:, k]
        own = {
            "time": utc_index(run.time),
            "instrument": name,
            "quantity": quantity,
            "entry": entry,
            "mark": np.where(is_held, held.value[:, k], np.nan),
            "notional": delta,
            "leverage": divide_by_equity(delta, equity),
            "profit": np.where(is_held, value - quantity * entry, 0.0),
            "price_pnl": held.price_pnl[:, k],
            "fees": held.fees[:, k],
            "slippage": held.slippage[:, k],
            "impact": nothing,
            "funding": nothing,
            "liquidation_loss": held.liquidation_loss[:, k],
            "margin": nothing,
            "liquidation_price": np.where(is_held, prices[:, k], np.nan),
            "value": value,
            **{each: options.greeks[each][:, k] for each in GREEKS},
            "volatility": np.where(is_held, quotes.volatility_close[:, k], np.nan),
            "days": np.where(is_held, 365.0 * quotes.years_close[:, k], np.nan),
            "surface_age": np.where(is_held, options.ages[:, k], np.nan),
        }
        parts.append(pd.DataFrame(own).iloc[rows])
    return parts


def sum_greeks(run: Any, options: RunOptions) -> dict[str, FloatArray]:
    equity, held = run.of_account("equity"), options.record
    delta = options.sum_by_underlying(options.greeks["delta"], len(run.names))
    total = {name: options.greeks[name].sum(axis=1) for name in GREEKS}
    value = np.where(held.quantity != 0.0, held.quantity * held.value, 0.0).sum(axis=1)
    return {
        "options_value": value,
        **total,
        "net_delta": divide_by_equity(total["delta"] + run.notionals.sum(axis=1), equity),
        "options_leverage": divide_by_equity(np.abs(delta).sum(axis=1), equity),
        "premium_decay": divide_by_equity(-total["theta"], equity),
    }


def list_held(run: Any) -> tuple[tuple[str, ...], dict[str, FloatArray]]:
    held, options = run.record.positions._asdict(), run.options
    if options is None:
        return run.names, held
    own: dict[str, FloatArray] = options.record._asdict()
    nothing = np.zeros_like(options.opened)
    joined = {name: np.hstack((held[name], own.get(name, nothing))) for name in OWN}
    return (*run.names, *options.names), joined


def tabulate_greeks(run: Any, options: RunOptions | None) -> pd.DataFrame:
    """Return the Greeks of the options of an account at each close; no rows without options.

    Columns, in the settlement currency: ``options_value`` at marks; ``delta``, ``gamma`` (change of
    delta per 1 %), ``vega`` (per point), ``theta`` (per day), ``vanna``, ``volga`` and ``rho``, as
    :func:`backtest.options.greeks` with ``in_money=True``. In turns of the equity: ``net_delta``
    with the notionals of all instruments, ``options_leverage``, the sum over underlyings of the
    absolute delta of their options, and ``premium_decay``, what time alone takes in a day.
    """
    if options is None:
        columns = ("options_value", *GREEKS, "net_delta", "options_leverage", "premium_decay")
        return pd.DataFrame({name: [] for name in columns}, index=utc_index(run.time[:0]))
    return pd.DataFrame(sum_greeks(run, options), index=utc_index(run.time))


def measure_options(run: Any, options: RunOptions) -> dict[str, float]:
    """Return the measures of an account with options.

    ``premium_decay`` is the mean over closes at which options were held, ``unexplained_share`` the
    sum of absolute rests over that of absolute profits, of each option in each bar. Cost is what
    the options lost after all costs, spread what fills were worse than marks, both as fractions of
    the mean equity per year.
    """
    found, own, base = sum_greeks(run, options), options.record, measure_equity(run)
    is_held, spread = own.quantity.any(axis=1), float(own.slippage.sum())
    paid = float(own.fees.sum() + own.liquidation_loss.sum()) + spread
    cost = paid - float(own.price_pnl.sum())
    moved, rest = np.abs(own.price_pnl).sum(), np.abs(options.parts["rest"]).sum()
    values = (
        found["options_leverage"].mean(),
        found["options_leverage"].max(),
        found["premium_decay"][is_held].mean() if is_held.any() else 0.0,
        rest / moved if moved > 0.0 else np.nan,
        cost / base if base > 0.0 else np.nan,
        spread / base if base > 0.0 else np.nan,
    )
    return dict(zip(MEASURES, map(float, values), strict=True))


def measure_equity(run: Any) -> float:
    years: float = (int(run.span.closes[-1]) - run.span.start) / (YEAR_DAYS * DAY)
    return float(run.of_account("equity").mean()) * years


def explain_options(run: Any, options: RunOptions | None, by: OptionSplit) -> pd.DataFrame:
    columns = [*EXPLAINED, "price_pnl"]
    if options is None:
        return pd.DataFrame({name: [] for name in columns}, dtype=np.float64)
    parts: Mapping[str, FloatArray] = {**options.parts, "price_pnl": options.record.price_pnl}
    if by == "option":
        table = pd.DataFrame({name: each.sum(axis=0) for name, each in parts.items()})
        table.index = pd.Index([*options.names], name="option")
        table.loc["total"] = table.sum()
        return table
    table = pd.DataFrame({name: each.sum(axis=1) for name, each in parts.items()})
    table.index = utc_index(run.time)
    return table if by == "bar" else table.groupby(find_periods(run.time, by)).sum()
