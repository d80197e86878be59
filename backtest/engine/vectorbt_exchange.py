"""Results as objects of vectorbt, and portfolios of vectorbt as signals."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from backtest.base import Choice, FloatArray, ParameterError, format_time, utc_index
from backtest.engine.result_tables import TRADES

if TYPE_CHECKING:
    from backtest.engine.run_record import RunRecord

Kind: TypeAlias = Literal["returns", "portfolio"]
KINDS = Choice("returns", "portfolio")
WHERE = "Result.to_vectorbt"
EXACT = 1e-9
"""The largest relative difference between the value of a portfolio and the account's equity."""
RETURNS = "use result.to_vectorbt() for the returns of the account, which include everything"


def convert(result: RunRecord, unit: FloatArray, kind: str) -> Any:
    KINDS.check("kind", kind, where=f"{WHERE}, kind")
    if kind == "portfolio":
        return build_portfolio(result)
    vectorbt = import_vectorbt()
    change = np.divide(unit[1:], unit[:-1], out=np.ones(len(unit) - 1), where=unit[:-1] > 0.0)
    series = pd.Series(change - 1.0, index=naive_index(result), name="return")
    return vectorbt.returns.accessors.ReturnsSRAccessor(
        series, freq=pd.Timedelta(result.interval, unit="ns")
    )


def build_portfolio(result: RunRecord) -> Any:
    reasons = list(find_obstacles(result))
    if reasons:
        raise ParameterError(
            f"a vectorbt Portfolio cannot represent this account: {'; '.join(reasons)}",
            where=WHERE,
            cure=RETURNS,
        )
    size, price, fees = read_orders(result)
    close: Any = pd.DataFrame(result.marks, naive_index(result), [*result.names]).ffill().bfill()
    shared: dict[str, Any] = {"group_by": True, "cash_sharing": True, "call_seq": "auto"}
    if result.has_one_instrument:  # a Portfolio of one column
        close, shared = close.iloc[:, 0].rename("close"), {}
        size, price, fees = size[:, 0], price[:, 0], fees[:, 0]
    vectorbt = import_vectorbt()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own use of pandas and numba
        portfolio = vectorbt.Portfolio.from_orders(
            close,
            size=size,
            price=price,
            fixed_fees=fees,
            init_cash=float(result.account.capital),
            freq=pd.Timedelta(result.interval, unit="ns"),
            **shared,
        )
        value = np.asarray(portfolio.value(), dtype=np.float64)
    equity = result.bars["equity"].to_numpy()
    apart = np.abs(value - equity) > EXACT * np.abs(equity)
    if apart.any():
        first = int(np.argmax(apart))
        raise ParameterError(
            f"a vectorbt Portfolio must be worth the account's equity, is worth {value[first]:.12g}"
            f" in place of {equity[first]:.12g}: it refused an order",
            where=f"{WHERE}, first at {format_time(int(result.time[first]))}",
            cure=RETURNS,
        )
    return portfolio


def find_obstacles(result: RunRecord) -> Iterator[str]:
    bars, account, kinds = result.bars, result.account, set(result.events["kind"])
    trades = result.events[result.events["kind"].isin(TRADES)]
    worth = np.nansum(result.of_positions("quantity") * result.marks, axis=1)
    borrowed = bars["equity"] - worth < -EXACT * bars["equity"].abs()
    flowed = [
        name for name in ("funding", "interest", "flows", "top_up") if (bars[name] != 0).any()
    ]
    closed = [kind for kind in ("liquidation", "ruin", "bad_debt") if kind in kinds]
    twice = trades.duplicated([name for name in ("time", "instrument") if name in trades])
    is_linear = all(each.contract.kind == "linear" for each in result.venues.values())
    reasons = (
        (result.manifest["resumed_from"], "the run goes on from an earlier one, and its position"),
        (not is_linear, "the contract is inverse, worth 1 / price"),
        (account.collateral, "the account holds collateral"),
        (result.options is not None, "the account holds options"),
        (closed, f"the account had a {', a '.join(closed)}"),
        (flowed, f"the account had {' and '.join(flowed)}"),
        (account.reserve > 0.0, "the account has a reserve"),
        (twice.any(), "two trades fell into one bar, which has one order"),
        (borrowed.any(), "the account borrowed: a long leverage above 1 needs more than its cash"),
    )
    yield from (text.replace("_", " ") for is_so, text in reasons if is_so)


def read_orders(result: RunRecord) -> tuple[FloatArray, FloatArray, FloatArray]:
    shape = len(result.time), len(result.names)
    size, price, fees = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape)
    events = result.events
    stamps = pd.DatetimeIndex(events["time"]).as_unit("ns").asi8
    rows = np.minimum(np.searchsorted(result.time, stamps), shape[0] - 1)
    is_by_name = "instrument" in events
    names = events["instrument"].to_numpy() if is_by_name else [result.names[0]] * len(events)
    columns = pd.Index(result.names).get_indexer(pd.Index(names))
    trades = events["kind"].isin(TRADES).to_numpy()
    size[rows[trades], columns[trades]] = events["quantity"].to_numpy()[trades]
    price[rows[trades], columns[trades]] = events["price"].to_numpy()[trades]
    charged = (events["kind"] == "fee").to_numpy()
    fees[rows[charged], columns[charged]] = events["amount"].to_numpy()[charged]
    return size, price, fees


def naive_index(result: RunRecord) -> pd.DatetimeIndex:
    return utc_index(result.time).tz_localize(None)


def import_vectorbt() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import vectorbt  # noqa: PLC0415 - only where asked for
    return vectorbt


Fills: TypeAlias = Literal["close", "open"]


def read_portfolio(portfolio: Any, fills: Fills, *, sized: bool) -> pd.Series:
    where = "bt.signals.from_vectorbt"
    Choice("close", "open").check("fills", fills, where=f"{where}, fills")
    if not (hasattr(portfolio, "asset_value") and hasattr(portfolio, "wrapper")):
        raise ParameterError(
            f"a portfolio of vectorbt is needed, got a {type(portfolio).__name__}",
            where=where,
            cure="pass vectorbt.Portfolio.from_orders(...), from_signals(...) or "
            "result.to_vectorbt('portfolio')",
        )
    held, worth = portfolio.asset_value(), portfolio.value()
    if np.ndim(held) != 1 or np.ndim(worth) != 1:
        raise ParameterError(
            f"a signal has one column, the portfolio has {np.shape(held)[1:]}",
            where=where,
            cure="choose one, portfolio['name'], and call this for each",
        )
    index = pd.DatetimeIndex(portfolio.wrapper.index)
    index = pd.DatetimeIndex(pd.to_datetime(index, utc=True))
    money, wealth = (np.asarray(each, dtype=np.float64) for each in (held, worth))
    share = np.divide(money, wealth, out=np.zeros(len(money)), where=wealth > 0.0)
    values = np.clip(share, -1.0, 1.0) if sized else np.sign(share)
    if fills == "open":
        values = np.append(values[1:], values[-1:])
    return pd.Series(values + 0.0, index=index, name="signal")
