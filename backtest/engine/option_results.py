"""Tables of the options of a run: rows of positions, Greeks of the account, explained profit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import pandas as pd

from backtest.base import Choice, FloatArray, utc_index
from backtest.base.units import DAY, YEAR_DAYS
from backtest.engine.position_tables import OWN
from backtest.measures import Period, find_periods
from backtest.measures.attribution import CALENDAR_PERIODS
from backtest.measures.measure_table import OPTION_COSTS
from backtest.measures.option_profit import EXPLAINED

if TYPE_CHECKING:
    from backtest.engine.run_closes import RunCloses
    from backtest.engine.run_options import RunOptions

OptionSplit: TypeAlias = Literal["option", "bar"] | Period
SPLITS = Choice("option", "bar", *CALENDAR_PERIODS)
GREEKS = ("delta", "gamma", "vega", "theta", "vanna", "volga", "rho")
OF_OPTIONS = ("value", *GREEKS, "volatility", "days", "surface_age")
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
