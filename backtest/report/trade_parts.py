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


FILLS_PER_TRIP = 20
"""Fills per round trip from which the page shows lots: the policy keeps its position adjusted."""


GROUPED = {
    "trades": Head("closed", "", "count"), "open": Head("open", "", "count"),
    "win_rate": Head("win rate", "", "percent"),
    "profit_factor": Head("profit factor", "", "decimals"),
    **list_heads("money", ("expectancy", "mean_win", "mean_loss", "best", "worst")),
    "longest_losing_run": Head("losing run", "trades", "count"),
    "mean_days": Head("held", "days, mean", "decimals"),
}  # fmt: skip


VIEWS = {
    "trip": "A round trip goes from flat to flat.",
    "fifo": "The account adjusts its position all the time, so lots are shown: contracts that one "
    "fill opened and a later one closed, first in first out. result.trades has the round trips.",
}


NOUNS = {"trip": "round trips", "fifo": "lots"}
"""What a page calls the trades that it shows."""


def choose_trades(result: Result) -> Trades:
    trades = result.trades
    return trades.lots("fifo") if is_adjusted(result) else trades


def is_adjusted(result: Result) -> bool:
    """Return whether most fills adjust a position, so that lots say more than round trips."""
    fills = int((result.entries["kind"] == Event.FILL).sum())
    trips = result._round_trips
    return fills > FILLS_PER_TRIP * max(trips["trades"] + trips["open"], 1)


def name_trades(result: Result) -> str:
    return core.capitalize(NOUNS["fifo" if is_adjusted(result) else "trip"])


def list_trades(result: Result) -> list[Shown]:
    trades = choose_trades(result)
    closed = pd.DataFrame(trades)[(trades["ended"] != "open").to_numpy()]
    if closed.empty:
        return []
    missing = trades.unallocated[trades.unallocated != 0.0].map(core.format_money)
    left = "; ".join(f"{str(name).replace('_', ' ')} {x}" for name, x in missing.items())
    noun = NOUNS[trades.view]
    note = VIEWS[trades.view]
    if left:
        note += f" Money of no {noun.removesuffix('s')}: {left}."
    found, realized = trades.realization(), ""
    is_any = found["realized_gains"] + found["realized_losses"] > 0
    if is_any and not math.isnan(found["difference"]):
        realized = (
            f"The account realized {core.format_percent(found['pgr'])} of the gains and "
            f"{core.format_percent(found['plr'])} of the losses that were open on days held"
            f"{' with a sale' * (len(trades._run.names) > 1)}: a difference of "
            f"{core.format_percent(found['difference'], is_signed=True)}, standard error "
            f"{core.format_percent(found['standard_error'])} if all are independent."
        )
    several = ["instrument"] if trades["instrument"].nunique() > 1 else []
    rows = {"all": trades.measures.to_dict()}
    for by in ("year", "side", *several, "ended"):
        groups = trades.measures_by(by).drop(index="open", errors="ignore")  # type: ignore[arg-type]
        named = groups.to_dict("index") if len(groups) > 1 else {}
        for name, row in named.items():
            year = f"{name:%Y}" if isinstance(name, pd.Timestamp) else str(name)
            rows[f"{by}: {year.replace('_', ' ')}"] = row
    table = pd.DataFrame.from_dict(rows, orient="index")[[*GROUPED]].astype(np.float64)
    shown = table.loc[:, (table.fillna(0.0) != 0.0).any(axis=0)]
    factor = "Profit factor: gross profit over gross loss."
    heads = GROUPED | {"longest_losing_run": Head("losing run", noun, "count")}
    measures = ShownTable(shown, f"Measures of {noun}", factor, Head(noun), heads)
    return [note, measures, realized, *run_charts.list_trade_charts(closed, noun)]
