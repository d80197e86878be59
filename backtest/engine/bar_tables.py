"""Tables by bar of a result, of the account and of its options."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from backtest.account.records import TERMS
from backtest.base import Choice, FloatArray, utc_index
from backtest.base.units import DAY, YEAR_DAYS
from backtest.engine.run_closes import (
    compute_loan_columns,
    find_available,
    find_margin_used,
    find_realized,
)
from backtest.engine.run_data import forecast_touches
from backtest.engine.tables import OWN, price_of, value_of
from backtest.measures import Period, find_periods, weigh_gamma
from backtest.measures.attribution import CALENDAR_PERIODS
from backtest.measures.measure_table import OPTION_COSTS
from backtest.measures.option_profit import EXPLAINED

if TYPE_CHECKING:
    from backtest.base import BoolArray
    from backtest.engine.run_closes import RunCloses
    from backtest.engine.run_data import RunOptions


HedgeSplit: TypeAlias = Literal["instrument", "bar"]
HEDGE_SPLITS = Choice("instrument", "bar")
MONEY = ("options", "hedge", "profit", "theory", "error")
COLUMNS = (
    *MONEY, "deviation", "expected_deviation", "volatility", "implied_volatility", "costs", "bars",
)  # fmt: skip
PAID = ("fees", "slippage", "impact", "funding", "liquidation_loss")


class Hedge(NamedTuple):
    money: dict[str, FloatArray]
    weights: FloatArray
    implied: FloatArray
    variance: float
    is_held: BoolArray
    costs: float


def tabulate_hedging(run: RunCloses, options: RunOptions | None, by: HedgeSplit) -> pd.DataFrame:
    hedges = {} if options is None else follow_hedges(run, options)
    if by == "instrument":
        rows = [describe_hedge(each) for each in hedges.values()]
        return pd.DataFrame(rows, columns=[*COLUMNS], index=pd.Index([*hedges], name="instrument"))
    time = utc_index(run.time if hedges else run.time[:0])
    nothing = np.zeros(len(time))
    sums = {name: sum((each.money[name] for each in hedges.values()), nothing) for name in MONEY}
    return pd.DataFrame(sums, index=time)


def follow_hedges(run: RunCloses, options: RunOptions) -> dict[str, Hedge]:
    given = (options.terms, options.quotes, options.carried, options.opened)
    weights, implied = weigh_gamma(*given)
    is_exposed = (options.carried != 0.0) | (options.opened != 0.0)
    found = {}
    for i in options.hedged:
        own = options.terms.instruments == i
        held, quantity = is_exposed[:, own].any(axis=1), run.of_positions("quantity")[:, i]
        variance = measure_variance(run, i, held)
        made = options.record.price_pnl[:, own].sum(axis=1)
        hedged, weight = run.of_positions("price_pnl")[:, i], weights[:, own].sum(axis=1)
        meant = implied[:, own].sum(axis=1)
        profit, theory = made + hedged, 0.5 * (variance * weight - meant)
        money = dict(zip(MONEY, (made, hedged, profit, theory, profit - theory), strict=True))
        costs = sum(float(run.of_positions(each)[:, i].sum()) for each in PAID)
        found[run.names[i]] = Hedge(money, weight, meant, variance, held | (quantity != 0.0), costs)
    return found


def measure_variance(run: RunCloses, i: int, is_exposed: BoolArray) -> float:
    """Return the variance per year of an instrument while options on it were held."""
    marks, ends = run.marks[:, i], run.span.closes
    moves, years = np.diff(np.log(marks)), np.diff(ends) / (YEAR_DAYS * DAY)
    rows = is_exposed[1:] & np.isfinite(moves)
    return float((moves[rows] ** 2).sum() / years[rows].sum()) if rows.any() else math.nan


def describe_hedge(hedge: Hedge) -> dict[str, float]:
    sums = {name: float(each.sum()) for name, each in hedge.money.items()}
    errors, n = hedge.money["error"][hedge.is_held], int(hedge.is_held.sum())
    weight = float(np.abs(hedge.weights).sum())
    mean = float(np.abs(hedge.implied).sum()) / weight if weight > 0.0 else math.nan
    return {
        **sums,
        "deviation": float(errors.std(ddof=1)) * math.sqrt(n) if n > 1 else math.nan,
        "expected_deviation": hedge.variance * math.sqrt(0.5 * float((hedge.weights**2).sum())),
        "volatility": math.sqrt(hedge.variance),
        "implied_volatility": math.sqrt(mean),
        "costs": hedge.costs,
        "bars": n,
    }


# ----------------------------------------------------------------------------------------- options

OptionSplit: TypeAlias = Literal["option", "bar"] | Period
SPLITS = Choice("option", "bar", *CALENDAR_PERIODS)
GREEKS = ("delta", "gamma", "vega", "theta", "vanna", "volga", "rho")
MEASURES = (
    "mean_options_leverage", "peak_options_leverage", "premium_decay", "unexplained_share",
    *OPTION_COSTS,
)  # fmt: skip


def tabulate_options(run: RunCloses, options: RunOptions) -> list[pd.DataFrame]:
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
            "leverage": divide(delta, equity),
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


def divide(values: FloatArray, equity: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(equity > 0.0, values / equity, 0.0)


def sum_greeks(run: RunCloses, options: RunOptions) -> dict[str, FloatArray]:
    equity, held = run.of_account("equity"), options.record
    delta = options.sum_by_underlying(options.greeks["delta"], len(run.names))
    total = {name: options.greeks[name].sum(axis=1) for name in GREEKS}
    value = np.where(held.quantity != 0.0, held.quantity * held.value, 0.0).sum(axis=1)
    return {
        "options_value": value,
        **total,
        "net_delta": divide(total["delta"] + run.notionals.sum(axis=1), equity),
        "options_leverage": divide(np.abs(delta).sum(axis=1), equity),
        "premium_decay": divide(-total["theta"], equity),
    }


def list_held(run: RunCloses) -> tuple[tuple[str, ...], dict[str, FloatArray]]:
    held, options = run.record.positions._asdict(), run.options
    if options is None:
        return run.names, held
    own: dict[str, FloatArray] = options.record._asdict()
    nothing = np.zeros_like(options.opened)
    joined = {name: np.hstack((held[name], own.get(name, nothing))) for name in OWN}
    return (*run.names, *options.names), joined


def tabulate_greeks(run: RunCloses, options: RunOptions | None) -> pd.DataFrame:
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


def pick_columns(run: RunCloses, options: RunOptions) -> dict[str, FloatArray]:
    found = sum_greeks(run, options)
    return {name: found[name] for name in ("options_value", "options_leverage", "net_delta")}


def measure_options(run: RunCloses, options: RunOptions) -> dict[str, float]:
    """Return the measures of an account with options.

    ``premium_decay`` is the mean over closes at which options were held, ``unexplained_share`` the
    sum of absolute rests over that of absolute profits, of each option in each bar. Cost is what
    the options lost after all costs, spread what fills were worse than marks, both as fractions of
    the mean equity per year.
    """
    found = sum_greeks(run, options)
    is_held = options.record.quantity.any(axis=1)
    moved = np.abs(options.record.price_pnl).sum()
    rest = np.abs(options.parts["rest"]).sum()
    values = (
        found["options_leverage"].mean(),
        found["options_leverage"].max(),
        found["premium_decay"][is_held].mean() if is_held.any() else 0.0,
        rest / moved if moved > 0.0 else np.nan,
        *measure_costs(run, options),
    )
    return dict(zip(MEASURES, map(float, values), strict=True))


def measure_equity(run: RunCloses) -> float:
    years = (int(run.span.closes[-1]) - run.span.start) / (YEAR_DAYS * DAY)
    return float(run.of_account("equity").mean()) * years


def measure_costs(run: RunCloses, options: RunOptions) -> tuple[float, float]:
    """Return cost and spread of all options, as fractions of the mean equity per year."""
    own, base = options.record, measure_equity(run)
    spread = float(own.slippage.sum())
    paid = float(own.fees.sum() + own.liquidation_loss.sum()) + spread
    cost = paid - float(own.price_pnl.sum())
    return (cost / base, spread / base) if base > 0.0 else (np.nan, np.nan)


def explain_options(run: RunCloses, options: RunOptions | None, by: OptionSplit) -> pd.DataFrame:
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


# -------------------------------------------------------------------------------------------- bars


def bars_table(run: RunCloses) -> pd.DataFrame:
    account = tabulate_account(run)
    own = tabulate_position(run) if run.has_one_instrument else {}
    return pd.DataFrame(account | own, index=utc_index(run.time), copy=False)


def tabulate_account(run: RunCloses) -> dict[str, FloatArray]:
    account, closes = run.record.account, run.closes
    pool = run.read_pool(slice(None))
    needed, backing, equity = closes.requirement, closes.backing, account.equity
    notionals = run.notionals
    gross = np.abs(notionals).sum(axis=1)
    profits = run.unrealized
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(backing > 0.0, needed / backing, np.inf)
        gross_leverage = np.where(equity > 0.0, gross / equity, 0.0)
    peak = np.maximum.accumulate(np.maximum(account.unit, run.first_peak))
    return {
        "equity": equity,
        "gross_leverage": gross_leverage,
        "net_leverage": run.net_leverage,
        "backing": backing,
        "requirement": needed,
        "margin_ratio": np.where(needed > 0.0, ratio, 0.0),
        "balance": closes.balance,
        "collateral": closes.collateral,
        "collateral_at_rate": closes.collateral_at_rate,
        **{name: getattr(account, name) for name in (*TERMS, "top_up", "cash", "reserve")},
        **({} if run.options is None else pick_columns(run, run.options)),
        "overlay": account.overlay,
        "unit": account.unit / run.first_unit,
        "drawdown": 1.0 - account.unit / peak,
        "initial_margin": closes.initial,
        "available": find_available(run.record, run.marks, pool, run.modes, run.list_venues()),
        "margin_used": find_margin_used(pool[1], equity),
        "realized_pnl": find_realized(run.record, gross, profits, run.before.unrealized),
        "unrealized_pnl": profits.sum(axis=1),
    }


def tabulate_position(run: RunCloses) -> dict[str, FloatArray]:
    fields, initial, equity = run.record.of_one(), run.closes.initial, run.record.account.equity
    quantity, value = fields["quantity"], value_of(run.venue, run.mark)
    is_held, is_isolated = quantity != 0.0, run.modes[0] == "isolated"
    needed = run.closes.own[:, 0] if is_isolated else run.closes.requirement
    with np.errstate(divide="ignore", invalid="ignore"):
        leverage = quantity * np.abs(value) / equity
        turns = np.where(is_held, np.abs(run.notionals[:, 0]) / initial, 0.0)
    price = run.liquidation_prices
    columns = {
        "close": run.close,
        "mark": run.mark,
        "position": quantity,
        "leverage": np.where(is_held, leverage, 0.0),
        "maintenance": needed,
        "liquidation_price": price[:, 0],
        "liquidation_probability": forecast_touches(run, price)[:, 0],
        "entry": price_of(run.venue, fields["entry"]),
        "margin": fields["margin"],
        "target": fields["target"],
        "position_leverage": turns,
    }
    if is_isolated:
        backing = fields["margin"] + run.unrealized[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(backing > 0.0, needed / backing, np.inf)
        columns["margin_ratio"] = np.where(is_held, ratio, 0.0)
    if run.venue.interest_on != "loan":
        return columns
    loan = compute_loan_columns(run.venue, run.record, run.mark, needed, is_isolated=is_isolated)
    return columns | loan
