"""Tables of the options of a run: their Greeks, profits and hedges."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from backtest.account.money import POSITION_TERMS, TRADE_COSTS
from backtest.core import BoolArray, FloatArray, format_money, utc_index
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
    if run.options is None:
        return ""

    # Some rules count the value of options, or lend on it.
    rule = run.account.requirement
    is_counted = isinstance(rule, ScenarioMargin) or getattr(rule, "option_value", "") == "long"
    if is_counted or getattr(rule, "loan_value", 0.0) > 0.0:
        return ""

    quantity = run.options.record.quantity[-1]
    value = run.options.record.value[-1]
    worth_of_long = np.where(quantity > 0.0, quantity * value, 0.0)
    worth = float(np.nansum(worth_of_long))
    if worth == 0.0:
        return ""
    return (
        f"the options held are worth {format_money(worth)}, which back no position before they are "
        "sold: the requirement counts no option as money"
    )


HedgeSplit: TypeAlias = Literal["instrument", "bar"]
MONEY = ("options", "hedge", "profit", "theory", "error")
COLUMNS = (
    *MONEY,
    "deviation",
    "expected_deviation",
    "volatility",
    "implied_volatility",
    "costs",
    "bars",
)


class Hedge(NamedTuple):
    """What options on one instrument and its hedge earned, arrays of shape (n_bars,).

    ``money`` has the columns of :data:`MONEY`. ``weight`` is G S^2 dt of the options, ``implied``
    that times their implied variance, ``variance`` the realized one of the instrument per year.
    ``is_held`` says where options or the hedge were held.
    """

    money: dict[str, FloatArray]
    weight: FloatArray
    implied: FloatArray
    variance: float
    is_held: BoolArray


def tabulate_hedging(
    run: RunData,
    options: RunOptions | None,
    by: HedgeSplit,
) -> pd.DataFrame:
    """Return what options and their hedges earned, by instrument or by bar."""
    if options is None or not options.hedged:
        if by == "bar":
            return pd.DataFrame(
                columns=[*MONEY],
                index=utc_index(run.time[:0]),
                dtype=np.float64,
            )
        no_instruments = pd.Index([], name="instrument")
        return pd.DataFrame([], columns=[*COLUMNS], index=no_instruments)

    hedges = list_hedges(run, options)
    if by == "bar":
        money = {}
        for name in MONEY:
            money[name] = sum(hedge.money[name] for hedge in hedges.values())
        return pd.DataFrame(money, index=utc_index(run.time))

    rows = [measure_hedge(run, place, hedge) for place, hedge in hedges.items()]
    index = pd.Index([run.names[place] for place in hedges], name="instrument")
    return pd.DataFrame(rows, columns=[*COLUMNS], index=index)


def list_hedges(run: RunData, options: RunOptions) -> dict[int, Hedge]:
    """Return what was earned on each instrument that hedges options, by its place.

    In theory an option hedged at its implied volatility s_h earns half of G S^2 (s^2 - s_h^2) dt,
    where s is the realized volatility; ``error`` is what was earned beyond that.
    """
    weights, implied = weigh_gamma(
        options.terms,
        options.quotes,
        carried=options.carried,
        opened=options.opened,
    )
    is_exposed = (options.carried != 0.0) | (options.opened != 0.0)
    hedges = {}
    for place in options.hedged:
        is_on_it = options.terms.instruments == place
        has_options = is_exposed[:, is_on_it].any(axis=1)
        has_hedge = run.of_positions("quantity")[:, place] != 0.0

        # What theory promises for the volatility that came while options were held.
        realized = measure_variance(run, place, has_options)
        weight = weights[:, is_on_it].sum(axis=1)
        weighted_implied = implied[:, is_on_it].sum(axis=1)
        theory = 0.5 * (realized * weight - weighted_implied)

        profit_of_options = options.record.price_pnl[:, is_on_it].sum(axis=1)
        profit_of_hedge = run.of_positions("price_pnl")[:, place]
        profit = profit_of_options + profit_of_hedge
        hedges[place] = Hedge(
            money={
                "options": profit_of_options,
                "hedge": profit_of_hedge,
                "profit": profit,
                "theory": theory,
                "error": profit - theory,
            },
            weight=weight,
            implied=weighted_implied,
            variance=realized,
            is_held=has_options | has_hedge,
        )
    return hedges


def measure_variance(
    run: RunData,
    place: int,
    has_options: BoolArray,
) -> float:
    """Return the variance of an instrument per year, while options on it were held; or NaN."""
    moves = np.diff(np.log(run.marks[:, place]))
    is_seen = has_options[1:] & np.isfinite(moves)
    if not is_seen.any():
        return math.nan
    years = np.diff(run.span.closes) / (YEAR_DAYS * DAY)
    squares = moves[is_seen] ** 2
    return float(squares.sum() / years[is_seen].sum())


def measure_hedge(run: RunData, place: int, hedge: Hedge) -> dict[str, float]:
    """Return the row of an instrument that hedges options."""
    # The implied variance, weighted as the realized one is.
    implied = math.nan
    weight = float(np.abs(hedge.weight).sum())
    if weight > 0.0:
        implied = float(np.abs(hedge.implied).sum()) / weight

    # What the hedge missed, over all bars; a deviation of one bar is not known.
    n_bars = int(hedge.is_held.sum())
    deviation = math.nan
    if n_bars > 1:
        errors = hedge.money["error"][hedge.is_held]
        deviation = float(errors.std(ddof=1)) * math.sqrt(n_bars)

    # The error of a hedge at each close, under normal returns.
    squared_weights = float((hedge.weight**2).sum())
    expected_deviation = hedge.variance * math.sqrt(0.5 * squared_weights)

    costs = 0.0
    for name in TRADE_COSTS:
        costs += float(run.of_positions(name)[:, place].sum())

    row = {name: float(money.sum()) for name, money in hedge.money.items()}
    row |= {
        "deviation": deviation,
        "expected_deviation": expected_deviation,
        "volatility": math.sqrt(hedge.variance),
        "implied_volatility": math.sqrt(implied),
        "costs": costs,
        "bars": n_bars,
    }
    return row


OptionSplit: TypeAlias = Literal["option", "bar"] | Period
GREEKS = ("delta", "gamma", "vega", "theta", "vanna", "volga", "rho")
OF_EQUITY = ("net_delta", "options_leverage", "premium_decay")


def list_columns(run: RunData, options: RunOptions) -> dict[str, FloatArray]:
    """Return the columns of options in the table of positions, of shape (n_bars, K)."""
    held = options.record
    is_held = held.quantity != 0.0
    value = multiply(held.quantity, held.value)
    delta = options.greeks["delta"]
    columns = {
        "quantity": held.quantity,
        "entry": options.entries,
        "notional": delta,
        "leverage": divide(delta, run.of_account("equity")[:, None]),
        "profit": np.where(is_held, value - held.quantity * options.entries, 0.0),
    }
    for name in SHOWN:
        columns[name] = getattr(held, name, np.zeros(value.shape))
    columns["value"] = value
    for name in GREEKS:
        columns[name] = options.greeks[name]

    where_held = {
        "mark": held.value,
        "liquidation_price": run.liquidation_prices[:, options.terms.instruments],
        "volatility": options.quotes.volatility_close,
        "days": 365.0 * options.quotes.years_close,
        "surface_age": options.ages,
    }
    for name, values in where_held.items():
        columns[name] = np.where(is_held, values, np.nan)
    return columns


def sum_greeks(run: RunData, options: RunOptions) -> dict[str, FloatArray]:
    """Return the Greeks of all options at each close, and figures of equity that follow."""
    equity = run.of_account("equity")
    total = {name: options.greeks[name].sum(axis=1) for name in GREEKS}
    value = multiply(options.record.quantity, options.record.value)

    # Deltas of one underlying offset each other, those of two do not.
    net_delta = total["delta"] + run.notionals.sum(axis=1)
    delta = options.sum_by_underlying(options.greeks["delta"], len(run.names))
    gross_delta = np.abs(delta).sum(axis=1)
    return {
        "options_value": value.sum(axis=1),
        **total,
        "net_delta": divide(net_delta, equity),
        "options_leverage": divide(gross_delta, equity),
        "premium_decay": divide(-total["theta"], equity),
    }


def list_held(run: RunData) -> tuple[tuple[str, ...], dict[str, FloatArray]]:
    """Return the names of instruments and options, and the record of both by term."""
    held = run.record.held
    options = run.options
    if options is None:
        return run.names, held

    of_options: dict[str, FloatArray] = options.record._asdict()
    nothing = np.zeros_like(options.opened)
    joined = {}
    for name in POSITION_TERMS:
        joined[name] = np.hstack((held[name], of_options.get(name, nothing)))
    return (*run.names, *options.names), joined


def measure_options(run: RunData, options: RunOptions) -> dict[str, float]:
    """Return the measures of an account with options.

    ``premium_decay`` is the mean over closes at which options were held, ``unexplained_share`` the
    sum of absolute rests over that of absolute profits, of each option in each bar. Cost is what
    the options lost after all costs, spread what fills were worse than marks, both as fractions of
    the mean equity per year.
    """
    record = options.record
    greeks = sum_greeks(run, options)
    premium_decay = 0.0
    is_held = record.quantity.any(axis=1)
    if is_held.any():
        premium_decay = greeks["premium_decay"][is_held].mean()

    unexplained_share = math.nan
    rest = np.abs(options.parts["rest"]).sum()
    moved = np.abs(record.price_pnl).sum()
    if moved > 0.0:
        unexplained_share = rest / moved

    # What the options lost after all costs, and what fills were worse than marks.
    spread = float(record.slippage.sum())
    paid = float(record.fees.sum() + record.liquidation_loss.sum()) + spread
    cost = paid - float(record.price_pnl.sum())
    equity_years = measure_equity(run)
    if equity_years <= 0.0:
        equity_years = math.nan

    cost_name, spread_name = OPTION_COSTS
    values = {
        "mean_options_leverage": greeks["options_leverage"].mean(),
        "peak_options_leverage": greeks["options_leverage"].max(),
        "premium_decay": premium_decay,
        "unexplained_share": unexplained_share,
        cost_name: cost / equity_years,
        spread_name: spread / equity_years,
    }
    return {name: float(value) for name, value in values.items()}


def measure_equity(run: RunData) -> float:
    """Return the mean equity times the years: what a cost per year is a fraction of."""
    mean_equity = float(run.of_account("equity").mean())
    return mean_equity * run.span.years
