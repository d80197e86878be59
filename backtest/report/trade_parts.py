"""The trades of a run as its page shows them: round trips, or lots."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from backtest import core
from backtest.account.events import Event
from backtest.core.code_names import pd
from backtest.core.number_text import Head
from backtest.core.result_parts import Shown, ShownTable
from backtest.report import run_charts
from backtest.report.page import list_heads

if TYPE_CHECKING:
    from backtest.results import Result, Trades
    from backtest.results.trades import Group


FILLS_PER_TRIP = 20
"""Fills per round trip from which the page shows lots: the policy keeps its position adjusted."""
GROUPED = {
    "trades": Head("closed", "", "count"),
    "open": Head("open", "", "count"),
    "win_rate": Head("win rate", "", "percent"),
    "profit_factor": Head("profit factor", "", "decimals"),
    **list_heads("money", ("expectancy", "mean_win", "mean_loss", "best", "worst")),
    "longest_losing_run": Head("losing run", "trades", "count"),
    "mean_days": Head("held", "days, mean", "decimals"),
}
VIEWS = {
    "trip": "A round trip goes from flat to flat.",
    "fifo": "The account adjusts its position all the time, so lots are shown: contracts that one "
    "fill opened and a later one closed, first in first out. `result.trades` has the round trips.",
}
NOUNS = {"trip": "round trips", "fifo": "lots"}
"""What a page calls the trades that it shows."""


def choose_trades(result: Result) -> Trades:
    trades = result.trades
    if is_adjusted(result):
        return trades.lots("fifo")
    return trades


def is_adjusted(result: Result) -> bool:
    """Return whether most fills adjust a position, so that lots say more than round trips."""
    n_fills = int((result.entries["kind"] == Event.FILL).sum())
    trips = result._round_trips
    n_trips = trips["trades"] + trips["open"]
    return n_fills > FILLS_PER_TRIP * max(n_trips, 1)


def name_trades(result: Result) -> str:
    view = "fifo" if is_adjusted(result) else "trip"
    return core.capitalize(NOUNS[view])


def list_trades(result: Result) -> list[Shown]:
    trades = choose_trades(result)
    is_closed = (trades["ended"] != "open").to_numpy()
    closed = pd.DataFrame(trades)[is_closed]
    if closed.empty:
        return []

    noun = NOUNS[trades.view]
    return [
        describe_view(trades),
        tabulate_trade_measures(trades),
        describe_realization(trades),
        *run_charts.list_trade_charts(closed, noun),
    ]


def describe_view(trades: Trades) -> str:
    """Return what a trade is on this page, and what money belongs to none."""
    note = VIEWS[trades.view]
    unallocated = trades.unallocated[trades.unallocated != 0.0]
    if unallocated.empty:
        return note

    amounts = "; ".join(
        f"{str(name).replace('_', ' ')} {core.format_money(amount)}"
        for name, amount in unallocated.items()
    )
    noun = NOUNS[trades.view].removesuffix("s")
    return f"{note} Money of no {noun}: {amounts}."


def describe_realization(trades: Trades) -> str:
    """Return how much of the open gains and losses was realized; empty where that is unknown."""
    shares = trades.realization()
    n_realized = shares["realized_gains"] + shares["realized_losses"]
    if not n_realized > 0 or math.isnan(shares["difference"]):
        return ""

    days = "days held"
    if len(trades._run.names) > 1:
        days = f"{days} with a sale"
    difference = core.format_percent(shares["difference"], is_signed=True)
    return (
        f"The account realized {core.format_percent(shares['pgr'])} of the gains and "
        f"{core.format_percent(shares['plr'])} of the losses that were open on {days}: "
        f"a difference of {difference}, standard error "
        f"{core.format_percent(shares['standard_error'])} if all are independent."
    )


def tabulate_trade_measures(trades: Trades) -> ShownTable:
    """Show the measures of all closed trades, and by year, side, instrument and end."""
    rows = {"all": trades.measures.to_dict()}
    for column in list_groupings(trades):
        groups = trades.measures_by(column)
        groups = groups.drop(index="open", errors="ignore")
        if len(groups) == 1:  # of one group, "all" says the same
            continue
        for key, measures in groups.to_dict("index").items():
            name = f"{key:%Y}" if isinstance(key, pd.Timestamp) else str(key)
            rows[f"{column}: {name.replace('_', ' ')}"] = measures

    table = pd.DataFrame.from_dict(rows, orient="index")[[*GROUPED]].astype(np.float64)
    is_shown = (table.fillna(0.0) != 0.0).any(axis=0)

    noun = NOUNS[trades.view]
    return ShownTable(
        table.loc[:, is_shown],
        caption=f"Measures of {noun}",
        note="Profit factor: gross profit over gross loss.",
        labels=Head(noun),
        heads={**GROUPED, "longest_losing_run": Head("losing run", noun, "count")},
    )


def list_groupings(trades: Trades) -> tuple[Group, ...]:
    if trades["instrument"].nunique() > 1:
        return ("year", "side", "instrument", "ended")
    return ("year", "side", "ended")
