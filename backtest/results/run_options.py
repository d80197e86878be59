"""Tables of the options of a run: their Greeks, profits and hedges."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np

from backtest.account.money import POSITION_TERMS, TRADE_COSTS
from backtest.core import FloatArray, format_money, utc_index
from backtest.core.code_names import pd
from backtest.core.units import DAY, YEAR_DAYS
from backtest.margin import ScenarioMargin
from backtest.results.attribution import Period
from backtest.results.measure_table import OPTION_COSTS
from backtest.results.option_profit import multiply, weigh_gamma
from backtest.results.performance import divide
from backtest.results.run_data import RunData, RunOptions
from backtest.results.tables import SHOWN


def explain_idle_options(run: RunData) -> str:
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


HedgeSplit: TypeAlias = Literal["instrument", "bar"]
MONEY = ("options", "hedge", "profit", "theory", "error")
COLUMNS = (
    *MONEY, "deviation", "expected_deviation", "volatility", "implied_volatility", "costs", "bars",
)  # fmt: skip


def tabulate_hedging(run: RunData, options: RunOptions | None, by: HedgeSplit) -> pd.DataFrame:
    if options is None or not options.hedged:
        if by == "bar":
            return pd.DataFrame(columns=[*MONEY], index=utc_index(run.time[:0]), dtype=np.float64)
        return pd.DataFrame([], columns=[*COLUMNS], index=pd.Index([], name="instrument"))
    given = (options.terms, options.quotes, options.carried, options.opened)
    weights, implied = weigh_gamma(*given)
    is_exposed = (options.carried != 0.0) | (options.opened != 0.0)
    ends = np.diff(run.span.closes) / (YEAR_DAYS * DAY)
    sums, rows = dict.fromkeys(MONEY, np.zeros(len(run.time))), {}
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
        sums = {name: sums[name] + each for name, each in money.items()}
        rows[run.names[i]] = {
            **{name: float(each.sum()) for name, each in money.items()},
            "deviation": float(errors.std(ddof=1)) * math.sqrt(n) if n > 1 else math.nan,
            "expected_deviation": variance * math.sqrt(0.5 * float((weight**2).sum())),
            "volatility": math.sqrt(variance),
            "implied_volatility": math.sqrt(mean),
            "costs": sum(float(run.of_positions(each)[:, i].sum()) for each in TRADE_COSTS),
            "bars": n,
        }
    if by == "bar":
        return pd.DataFrame(sums, index=utc_index(run.time))
    index = pd.Index([*rows], name="instrument")
    return pd.DataFrame([*rows.values()], columns=[*COLUMNS], index=index)


OptionSplit: TypeAlias = Literal["option", "bar"] | Period
GREEKS = ("delta", "gamma", "vega", "theta", "vanna", "volga", "rho")
OF_EQUITY = ("net_delta", "options_leverage", "premium_decay")


def list_columns(run: RunData, options: RunOptions) -> dict[str, FloatArray]:
    """Return the columns of options in the table of positions, of shape (n_bars, K)."""
    held, is_held = options.record, options.record.quantity != 0.0
    value = multiply(held.quantity, held.value)
    where_held = {
        "mark": held.value,
        "liquidation_price": run.liquidation_prices[:, options.terms.instruments],
        "volatility": options.quotes.volatility_close,
        "days": 365.0 * options.quotes.years_close,
        "surface_age": options.ages,
    }
    return {
        "quantity": held.quantity,
        "entry": options.entries,
        "notional": options.greeks["delta"],
        "leverage": divide(options.greeks["delta"], run.of_account("equity")[:, None]),
        "profit": np.where(is_held, value - held.quantity * options.entries, 0.0),
        **{name: getattr(held, name, np.zeros(value.shape)) for name in SHOWN},
        "value": value,
        **{name: options.greeks[name] for name in GREEKS},
        **{name: np.where(is_held, each, np.nan) for name, each in where_held.items()},
    }


def sum_greeks(run: RunData, options: RunOptions) -> dict[str, FloatArray]:
    equity, held = run.of_account("equity"), options.record
    delta = options.sum_by_underlying(options.greeks["delta"], len(run.names))
    total = {name: options.greeks[name].sum(axis=1) for name in GREEKS}
    value = multiply(held.quantity, held.value).sum(axis=1)
    return {
        "options_value": value,
        **total,
        "net_delta": divide(total["delta"] + run.notionals.sum(axis=1), equity),
        "options_leverage": divide(np.abs(delta).sum(axis=1), equity),
        "premium_decay": divide(-total["theta"], equity),
    }


def list_held(run: RunData) -> tuple[tuple[str, ...], dict[str, FloatArray]]:
    """Return the names of instruments and options, and the record of both by term."""
    held, options = run.record.positions._asdict(), run.options
    if options is None:
        return run.names, held
    own: dict[str, FloatArray] = options.record._asdict()
    nothing = np.zeros_like(options.opened)
    joined = {name: np.hstack((held[name], own.get(name, nothing))) for name in POSITION_TERMS}
    return (*run.names, *options.names), joined


def measure_options(run: RunData, options: RunOptions) -> dict[str, float]:
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
    values = {
        "mean_options_leverage": found["options_leverage"].mean(),
        "peak_options_leverage": found["options_leverage"].max(),
        "premium_decay": found["premium_decay"][is_held].mean() if is_held.any() else 0.0,
        "unexplained_share": rest / moved if moved > 0.0 else math.nan,
        **dict.fromkeys(OPTION_COSTS, math.nan),
    }
    if base > 0.0:
        values |= zip(OPTION_COSTS, (cost / base, spread / base), strict=True)
    return {name: float(value) for name, value in values.items()}


def measure_equity(run: RunData) -> float:
    return float(run.of_account("equity").mean()) * run.span.years
