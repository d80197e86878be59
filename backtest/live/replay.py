"""``replay()``: the account of somebody who really traded, by the accounting of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.account import Account
from backtest.account.portfolio_records import EQUITY, UNIT
from backtest.base import (
    IntArray,
    Number,
    ParameterError,
    Timed,
    TimeLike,
    bind_functions,
    checked_only,
    parse_duration,
    utc_index,
)
from backtest.engine import (
    Counts,
    Outcome,
    Result,
    Setup,
    check_periods,
    drive,
    finish,
    gather_deciders,
    new_tape,
    place_flows,
    portfolio_loop,
    set_up,
    start_account_state,
    take_markets,
)
from backtest.live.facts import Completed
from backtest.live.fill_rows import Fact, read_fills
from backtest.live.replayed_bar import Replayer
from backtest.live.snapshot import AccountSnapshot
from backtest.live.starting_state import start_several
from backtest.market import Market, Markets
from backtest.measures import start_tally
from backtest.options import refuse_options
from backtest.policy import Policy

if TYPE_CHECKING:
    from backtest.account import AccountState
    from backtest.live.reconciliation import Reconciliation
    from backtest.venue import Venue

TOLERANCE = 0.005
"""How far a price may lie outside its bar, a fraction, where no reference is given."""
CHUNK = 4_096
TOLERANCE_OF_SUM = 1e-9


class Own(Policy):
    def leverage(self, bar: Any, account: Any) -> float:  # noqa: ARG002 - as of any policy
        return float("nan")


@dataclass(frozen=True, eq=False, repr=False)
class Replay(Result):
    would_liquidate: pd.DataFrame | None = None

    def reconcile(
        self, ledger: pd.DataFrame | pd.Series, *, tolerance: float = 1e-6
    ) -> Reconciliation:
        from backtest.live.reconciliation import reconcile_replay  # noqa: PLC0415 - only there

        return reconcile_replay(self, ledger, tolerance)


@checked_only("fills", "start")
def replay(
    market: Market | Markets,
    fills: pd.DataFrame,
    *,
    venue: Venue | Mapping[str, Venue],
    account: Account,
    start: AccountSnapshot | TimeLike | None = None,
    sampling: str = "1d",
    calendar: str = "365",
    range_tolerance: float = TOLERANCE,
    top_ups: pd.Series | None = None,
) -> Replay:
    """Take an account through a market by fills that were really made.

    Funding, interest and margins are those of a run; fills and flows are facts. The replay never
    acts by itself: it liquidates nothing, closes nothing that is delisted, makes no top-up and
    refuses no withdrawal. Transfers of a run are in :attr:`Result.transfers`.

    Parameters
    ----------
    market, venue, account, sampling, calendar
        As in :func:`backtest.run`.
    fills : DataFrame
        ``time`` (with time zone), ``instrument`` (may be left out of one market), signed
        ``quantity`` in contracts, ``price``; optionally ``reference`` (the price before slippage),
        ``fee`` (positive is paid, in the settlement currency), ``fee_currency``, ``kind``
        (order, stop, liquidation, takeover, expiry, delisting, ruin, conversion, bad_debt) and
        ``step``, the step of the bar. :attr:`Result.fills` is such a table.
    start : AccountSnapshot, str or Timestamp, optional
        The account at its start, or the time. Default: ``account.capital``, flat, at the first bar.
    range_tolerance : float
        How far a price without a reference may lie outside the range of its bar, a fraction.
    top_ups : Series, optional
        Money that came from ``account.reserve``, by time, as :attr:`Result.top_ups` of a run.
        Default: none.

    Returns
    -------
    Replay

    Raises
    ------
    ParameterError
        If an argument is not allowed.
    DataError
        If a fill lies outside its bar or the market, or the equity falls below 0 without a row of
        the kind ``bad_debt``.
    """
    Number(0.0, 1.0).check("range_tolerance", range_tolerance)
    setup = set_up_replay(market, venue, account, start, sampling, calendar)
    facts = read_fills(setup, fills, range_tolerance)
    drawn = read_top_ups(setup, top_ups)
    state = find_start(setup, start)
    outcome, replayer = live_through(setup, state, facts, drawn)
    result = finish(setup, outcome, calendar=calendar)
    table = pd.DataFrame(replayer.would, columns=["time", "instrument", "price", "shortfall"])
    table["time"] = utc_index(table["time"].to_numpy(dtype=np.int64))
    known = {each.name: getattr(result, each.name) for each in fields(Result)}
    return Replay(**known, would_liquidate=table)


def set_up_replay(
    market: Any, venue: Any, account: Account, start: Any, sampling: str, calendar: str
) -> Setup:
    markets = take_markets(market, venue, account)
    refuse_options(markets, "a replay of fills")
    check_periods(markets, sampling, calendar)
    begin = start.time if isinstance(start, AccountSnapshot) else start
    if begin is None and isinstance(start, AccountSnapshot) and start.positions:
        begin = pd.Timestamp(int(markets.time[1]), tz="UTC")
    return set_up(
        markets, Own(), venue=venue, account=account, signal=None, overlay=None,
        sampling=sampling, calendar=calendar, start=begin,
    )  # fmt: skip


def read_top_ups(setup: Setup, top_ups: pd.Series | None) -> dict[int, float]:
    if top_ups is None or (isinstance(top_ups, pd.Series) and top_ups.empty):
        return {}
    given = Timed(Number(0.0), constant=False).check("top_ups", top_ups)
    own = replace(Account(), flows=pd.Series(given))
    clock: Any = setup.markets
    bars, amounts = place_flows(clock, own, setup.first, int(clock.time[0]))
    if amounts.sum() > setup.account.reserve * (1.0 + TOLERANCE_OF_SUM):
        raise ParameterError(
            f"top_ups come from the reserve, {setup.account.reserve:g}, got {amounts.sum():g}; "
            "other money that came in is account.flows"
        )
    found: dict[int, float] = {}
    for bar, amount in zip(bars.tolist(), amounts.tolist(), strict=True):
        found[bar] = found.get(bar, 0.0) + amount
    return found


def find_start(setup: Setup, start: Any) -> AccountState:
    if not isinstance(start, AccountSnapshot):
        return start_account_state(setup.inputs, setup.account, setup.first, has_overlay=False)
    if setup.first == 0:
        if any(each.quantity != 0.0 for each in start.positions.values()):
            raise ParameterError(
                "a replay with open positions needs the bar before them, got a market that begins "
                "with them"
            )
        before = setup
    else:
        before = setup._replace(markets=setup.markets.prefix(setup.first))
    completed = Completed(start, frozenset(), (), is_read=False)
    return start_several(before, completed, setup.inputs.terms)


def live_through(
    setup: Setup, state: AccountState, facts: dict[int, list[Fact]], drawn: dict[int, float]
) -> tuple[Outcome, Replayer]:
    inputs, n, first = setup.inputs, len(setup.markets), setup.first
    names = (*setup.markets.names, *(each.name for each in setup.account.collateral))
    replayer = Replayer(
        names, n, facts, setup.markets.time, find_due(setup), setup.markets.interval, drawn
    )
    bound = bind_functions(
        portfolio_loop,
        simulate_portfolio_bar=replayer.live,
        begin_bars=lambda *_: False,
        decide_all=lambda *_: True,
        ask=None,
    )
    deciders, total = gather_deciders(setup, setup.observed), setup.markets.n_bars
    tape = new_tape(n, total - first, first, 8 * (n * CHUNK + sum(map(len, facts.values()))))
    tally = start_tally(float(state.wallet[UNIT]), float(state.wallet[EQUITY]), first)
    counts = Counts(tally, None)
    given = (inputs, state, deciders, deciders, counts, first, total, tape, CHUNK, None)
    counts, entries = drive(bound["simulate_portfolio"], None, *given)
    outcome = Outcome(
        state=state, tally=counts.tally, traded=counts.traded, record=tape.record,
        entries=entries, memory=deciders.memory, plain_because="",
    )  # fmt: skip
    return outcome, replayer


def find_due(setup: Setup) -> IntArray:
    """Return the stamps of the settlements of the feed, ns."""
    venue = setup.venues[setup.markets.names[0]]
    panel = setup.markets.panel(parse_duration(venue.funding_jitter, "funding_jitter"))
    return np.asarray(panel.funding_time[panel.funding_bar >= setup.first])
