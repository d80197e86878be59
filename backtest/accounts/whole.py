"""What all accounts of a book are together: their books, their path, their measures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest.account.events import Event
from backtest.account.money import COSTS, SIGNS, TERMS
from backtest.accounts.simulated_account import ARRIVING, SimulatedAccount
from backtest.accounts.transfers import Transfer
from backtest.core import FloatArray, IntArray
from backtest.core.units import DAY, YEAR_DAYS
from backtest.results import Result, performance
from backtest.results.measure_table import Samples, measure_returns

TOLERANCE = 1e-9
"""Of the largest amount: how far the two sides of the books of the whole may be apart."""
LEAST = 1e-9
"""Share of the wealth at the start under which the whole is ruined."""


def add_exactly(columns: Sequence[FloatArray]) -> FloatArray:
    """Return the sums of columns (n,), each rounded once, whatever their order."""
    if len(columns) == 2:
        return columns[0] + columns[1]
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return np.array([math.fsum(row) for row in rows])


class AccountPath(NamedTuple):
    """What one account had at each of its closes, with what it began with in front.

    Arrays of shape (n_bars + 1,). ``earned`` are profits less costs so far, ``external`` its own
    deposits and withdrawals so far.
    """

    equity: FloatArray
    wealth: FloatArray
    earned: FloatArray
    external: FloatArray
    turnover: float


def follow_account(account: SimulatedAccount, record: Any, turnover: float) -> AccountPath:
    """Return the path of an account from its record."""
    columns = record.account
    terms = [SIGNS[name] * getattr(columns, name) for name in TERMS if name != "flows"]
    earned = np.cumsum(np.sum(terms, axis=0))

    # The reserve is wealth, so a top-up moves nothing. Transfers are no flows of the whole.
    external = np.zeros(len(earned))
    if account.setup.account.flows is not None:
        moved = columns.flows - columns.top_up
        for flow in account.list_transfers():
            moved[flow.bar - account.first] -= flow.amount
        external = np.cumsum(moved)
    return AccountPath(
        equity=np.concatenate([[account.start_equity], columns.equity]),
        wealth=np.concatenate([[account.start_wealth], columns.equity + columns.reserve]),
        earned=np.concatenate([[0.0], earned]),
        external=np.concatenate([[0.0], external]),
        turnover=turnover,
    )


class TransferPath(NamedTuple):
    """What left, arrived and was paid as fees up to some times, arrays of shape (n,)."""

    left: FloatArray
    arrived: FloatArray
    fees: FloatArray

    @property
    def in_transit(self) -> FloatArray:
        """What is on its way: under 0 where it arrived in a bar that closed before the sender's."""
        return self.left - self.arrived - self.fees


def follow_transfers(
    accounts: Mapping[str, SimulatedAccount], log: Iterable[Transfer], times: IntArray, fee: float
) -> TransferPath:
    """Return what the bars that have closed by some times, UTC ns, took out and brought."""
    steps = np.zeros((3, len(times) + 1))
    for transfer in log:
        if transfer.sent == 0.0:
            continue

        sender = accounts[transfer.sender]
        row = int(np.searchsorted(times, sender.closes[transfer.departure_bar]))
        steps[0, row] += transfer.sent
        steps[2, row] += fee
        if transfer.arrival_bar is not None:
            receiver = accounts[transfer.receiver]
            row = int(np.searchsorted(times, receiver.closes[transfer.arrival_bar]))
            steps[1, row] += transfer.arrived

    left, arrived, fees = np.cumsum(steps[:, :-1], axis=1)
    return TransferPath(left, arrived, fees)


def find_rows(account: SimulatedAccount, times: IntArray) -> IntArray:
    """Return the row of an account's path that is known at some times: 0 before its first close."""
    return account.count_closed(times) - account.first


def check_books(
    accounts: Mapping[str, SimulatedAccount],
    paths: Mapping[str, AccountPath],
    transfers: TransferPath,
    times: IntArray,
) -> None:
    """Raise an AccountingError at the first time at which the books of the whole do not balance.

    The wealth of all and what is on its way are what they began with, what was paid in, what was
    earned, less the fees of transfers.
    """
    wealths = []
    sources = []
    for name, account in accounts.items():
        path = paths[name]
        row = find_rows(account, times)
        wealths.append(path.wealth[row])
        sources.append(account.start_wealth + path.external[row] + path.earned[row])
    held = add_exactly([*wealths, transfers.in_transit])
    owed = add_exactly([*sources, -transfers.fees])

    # Rounding grows with what was traded and begun with, however little is left.
    turnover = math.fsum(path.turnover for path in paths.values())
    begun_with = sum_start_wealth(accounts)
    scale = np.maximum(np.maximum(np.abs(held), np.abs(owed)), max(turnover, begun_with))
    is_balanced = np.abs(held - owed) <= TOLERANCE * scale  # False of NaN
    if is_balanced.all():
        return

    first = int(np.flatnonzero(~is_balanced)[0])
    raise core.AccountingError(
        f"the books of all accounts do not balance at {core.format_time(int(times[first]))} UTC: "
        f"wealth and transit are {float(held[first])!r}, capital, flows and profits less fees "
        f"{float(owed[first])!r}, a difference of {float(held[first] - owed[first])!r}; this is a "
        "defect of the engine: please report it with this text"
    )


class WholePath(NamedTuple):
    """All accounts together at the union of their closes, arrays of shape (n,).

    ``times`` are UTC ns. ``unit`` is the value of what was worth 1 at the start, free of flows.
    """

    times: IntArray
    equity: FloatArray
    wealth: FloatArray
    in_transit: FloatArray
    leverage: FloatArray
    unit: FloatArray
    by_account: dict[str, FloatArray]


def follow_whole(
    accounts: Mapping[str, SimulatedAccount],
    paths: Mapping[str, AccountPath],
    results: Mapping[str, Result],
    log: Iterable[Transfer],
    fee: float,
) -> WholePath:
    """Return the path of all accounts together."""
    times = join_times([account.closes[account.first :] for account in accounts.values()])

    equities = {}
    wealths = []
    notionals = []
    externals = []
    for name, account in accounts.items():
        path = paths[name]
        row = find_rows(account, times)
        gross = np.abs(results[name].notionals).sum(axis=1)
        equities[name] = path.equity[row]
        wealths.append(path.wealth[row])
        notionals.append(np.concatenate([[0.0], gross])[row])
        externals.append(path.external[row])

    # What is on its way belongs to no account.
    transit = follow_transfers(accounts, log, times, fee).in_transit
    on_way = [transit] if transit.any() else []
    equity = add_exactly([*equities.values(), *on_way])
    wealth = add_exactly([*wealths, *on_way])

    # Deposits and withdrawals leave the unit value as it is; what moves inside is none.
    external = add_exactly(externals)

    # The unit value grows from close to close by what deposits do not explain.
    begun_with = sum_start_wealth(accounts)
    flows = np.diff(external, prepend=0.0)
    before = np.concatenate([[begun_with], wealth[:-1]]) + flows
    unit: FloatArray = wealth / begun_with
    if flows.any():
        unit = np.cumprod(performance.divide(wealth, before, 0.0)).astype(np.float64)
    return WholePath(
        times=times,
        equity=equity,
        wealth=wealth,
        in_transit=transit,
        leverage=performance.divide(add_exactly(notionals), equity),
        unit=unit,
        by_account=equities,
    )


def sum_start_wealth(accounts: Mapping[str, SimulatedAccount]) -> float:
    """Return the wealth that all accounts began with."""
    return math.fsum(account.start_wealth for account in accounts.values())


def join_times(clocks: Sequence[IntArray]) -> IntArray:
    """Return the union of times that rise."""
    if all(np.array_equal(clock, clocks[0]) for clock in clocks):
        return clocks[0]
    return np.unique(np.concatenate(clocks))


def tabulate_whole(path: WholePath) -> pd.DataFrame:
    """Return the path as a table by close."""
    peak = np.maximum.accumulate(np.maximum(path.unit, 1.0))
    columns = {
        "equity": path.equity,
        "wealth": path.wealth,
        "in_transit": path.in_transit,
        "unit": path.unit,
        "drawdown": 1.0 - path.unit / peak,
        "leverage": path.leverage,
        **{f"equity {name}": equity for name, equity in path.by_account.items()},
    }
    return pd.DataFrame(columns, index=core.utc_index(path.times))


def measure_whole(
    path: WholePath, start: int, period: int, periods: float, results: Mapping[str, Result]
) -> dict[str, float]:
    """Return the measures of the whole by name, by the names and units of those of a run.

    ``period`` is that of sampling, ns, ``periods`` are those of a year. The risk-free rate is 0.
    """
    is_last = np.diff((path.times - 1) // period, append=-1) != 0
    returns = performance.sampled_returns(path.unit, is_last.astype(np.float64), 1.0)
    mean, deviation, downside = measure_moments(returns)
    still = np.zeros(len(returns))
    shape = measure_returns(Samples(returns, still, still), periods)

    # Growth, and the deepest fall from what it was at the start or later.
    years = (int(path.times[-1]) - start) / (YEAR_DAYS * DAY)
    growth = float(path.unit[-1])
    is_ruined = bool(path.wealth[-1] <= LEAST * path.wealth[0])
    cagr = -1.0
    if not is_ruined:
        cagr = performance.find_growth_rate(growth, years)
    deepest = performance.max_drawdown(np.concatenate([[1.0], path.unit]))
    calmar = math.nan
    if deepest > 0.0:
        calmar = cagr / deepest

    turnover = math.nan
    mean_equity = float(np.mean(path.equity))
    if mean_equity > 0.0:
        turnover = sum_measure(results, "traded") / mean_equity / years
    return {
        "total_return": growth - 1.0,
        "cagr": cagr,
        "volatility": deviation * math.sqrt(periods),
        "sharpe": float(performance.annualize_ratios(mean, deviation, periods)),
        "sortino": float(performance.annualize_ratios(mean, downside, periods)),
        "max_drawdown": deepest,
        "calmar": calmar,
        **{name: shape[name] for name in SHAPES},
        "turnover": turnover,
        **{name: sum_measure(results, name) for name in (*COSTS, *SUMMED)},
        "ruined": float(is_ruined),
        "mean_leverage": float(np.mean(path.leverage)),
        "peak_leverage": float(np.max(path.leverage)),
        "final_equity": float(path.equity[-1]),
    }


def measure_moments(returns: FloatArray) -> tuple[float, float, float]:
    """Return mean, standard deviation and downside deviation; NaN of too few returns."""
    if len(returns) == 0:
        return math.nan, math.nan, math.nan

    deviation = math.nan
    if len(returns) > 1:
        deviation = float(np.std(returns, ddof=1))
    downside = math.sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2)))
    return float(np.mean(returns)), deviation, downside


SUMMED = ("price_pnl", "liquidations", "liquidation_loss", "bad_debt", "fills", "stops")
"""Measures of the whole, beside the costs, that are sums over accounts."""
SHAPES = (
    "var_95",
    "es_95",
    "var_99",
    "es_99",
    "sharpe_error",
    "probabilistic_sharpe",
    "skewness",
    "excess_kurtosis",
    "omega",
    "tail_ratio",
)
"""Measures of the returns of the whole."""


def sum_measure(results: Mapping[str, Result], name: str) -> float:
    """Return the sum of a measure over accounts."""
    return math.fsum(float(getattr(result.tally.money, name)) for result in results.values())


def attribute_accounts(
    accounts: Mapping[str, SimulatedAccount],
    paths: Mapping[str, AccountPath],
    results: Mapping[str, Result],
    log: Sequence[Transfer],
    fee: float,
) -> pd.DataFrame:
    """Return a row by account: what it began with, earned by cause, sent, received, and has."""
    rows = {}
    for name, account in accounts.items():
        money = results[name].tally.money
        n_sent = sum(transfer.sender == name and transfer.sent > 0.0 for transfer in log)
        received = []
        sent = []
        for flow in account.list_transfers():
            if flow.order == ARRIVING:
                received.append(flow.amount)
            else:
                sent.append(-flow.amount)

        rows[name] = {
            "start": account.start_wealth,
            "deposits": float(paths[name].external[-1]),
            "price_pnl": float(money.price_pnl),
            **{cost: float(getattr(money, cost)) for cost in COSTS},
            "liquidation_loss": float(money.liquidation_loss),
            "bad_debt": float(money.bad_debt),
            "profit": float(paths[name].earned[-1]),
            "sent": math.fsum(sent),
            "received": math.fsum(received),
            "transfer_fees": fee * n_sent,
            "end": float(paths[name].wealth[-1]),
            "liquidations": float(money.liquidations),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("account")


def list_liquidations(entries: Any) -> list[int]:
    """Return the bars in which an account was liquidated, in part or whole."""
    bars = entries["bar"][entries["kind"] == Event.LIQUIDATED]
    in_order: list[int] = np.unique(bars).astype(np.int64).tolist()
    return in_order


def find_money_elsewhere(
    accounts: Mapping[str, SimulatedAccount],
    results: Mapping[str, Result],
    log: Sequence[Transfer],
) -> list[float]:
    """Return for each bar that liquidates an account the money that it could not use.

    It is what the others had available at their last closes before the bar opens, and what was on
    its way to the account.
    """
    sums = []
    for name, account in accounts.items():
        for bar in list_liquidations(results[name].entries):
            opens_at = int(account.opens[bar])
            amounts = []
            for other in accounts:
                if other == name:
                    continue
                amounts.append(read_available(accounts[other], results[other], opens_at))

            for transfer in log:
                if transfer.receiver != name or not transfer.sent > 0.0:
                    continue
                left_at = accounts[transfer.sender].opens[transfer.departure_bar]
                is_under_way = transfer.arrival_bar is None or transfer.arrival_bar > bar
                if left_at <= opens_at and is_under_way:
                    amounts.append(transfer.arrived)
            sums.append(math.fsum(amounts))
    return sums


def read_available(account: SimulatedAccount, result: Result, time: int) -> float:
    """Return what an account had available at its last close by a time; before it, its capital."""
    row = int(find_rows(account, np.array([time]))[0])
    if row == 0:
        return account.start_equity
    return float(result.bars["available"].to_numpy()[row - 1])
