"""Run of the accounts of all pockets from one transfer date to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.account import Account
from backtest.base.errors import AccountingError
from backtest.base.units import FloatArray, IntArray, format_time, parse_duration, utc_index
from backtest.engine import Result
from backtest.engine.bar_loop import RECORDED
from backtest.engine.lookahead.causality import observe_checked
from backtest.engine.loop_driver import LoopOutcome, LoopStart, run_loop
from backtest.engine.loop_inputs import start_state
from backtest.engine.run import run
from backtest.engine.switched_run import find_market, read_stretch_inputs, stop_inputs
from backtest.market import Market
from backtest.pockets.allocation_result import AllocationResult, build_result
from backtest.pockets.transfers import NONE, plan_transfers
from backtest.policy import Policy, start_memory
from backtest.venue import Venue

FLOWS = RECORDED.index("flows")
"""The column of flows in the record of a run."""


class PocketRun(NamedTuple):
    """What one pocket runs on."""

    policy: Policy
    share: float
    market: Market
    venue: Venue
    signal: Any


class LivePocket(NamedTuple):
    """A pocket during a run: its run without transfers, its columns, and its state."""

    whole: Result
    policy: Policy
    columns: Mapping[str, FloatArray]
    begin: LoopStart

    @property
    def equity(self) -> float:
        """The equity at the last close."""
        return self.begin.state.equity


def run_pockets(
    runs: Mapping[str, PocketRun],
    account: Account,
    rebalance: str,
    transfer: str,
    *,
    terms: Mapping[str, Any],
    progress: Callable[[int, int], None] | None,
) -> AllocationResult:
    """Return the result of all pockets.

    Each is run without transfers first. Then all go from date to date together, which finds the
    transfers; a last run of each with its transfers as flows gives the result.
    """
    parts = {name: account.override({"capital": each.share * account.capital})
             for name, each in runs.items()}  # fmt: skip
    results = {name: live_alone(each, parts[name], terms) for name, each in runs.items()}
    first = next(iter(results.values()))
    dates = find_dates(first, rebalance) if transfer != NONE and len(runs) > 1 else []
    shares = np.array([each.share for each in runs.values()])
    begun = [start_pocket(results[name], runs[name].policy) for name in runs if dates]
    moved = pass_dates(
        begun, shares, account.capital, transfer, dates,
        is_compiled=terms["compile"], progress=progress,
    )  # fmt: skip
    time = find_market(first).time
    index = utc_index(time[np.array(dates, dtype=np.int64)])
    ledger = pd.DataFrame(moved, index=index, columns=list(runs)).rename_axis("time")
    for name in runs:
        flows = ledger[name][ledger[name] != 0.0]
        if len(flows):
            own = parts[name].override({"flows": flows})
            results[name] = live_alone(runs[name], own, terms)
    settings = {
        "policy": ", ".join(
            f"{name}: {each.share:g} of {each.policy!r}" for name, each in runs.items()
        ),
        "pockets": {name: describe_pocket(each) for name, each in runs.items()},
        "rebalance": rebalance, "transfer": transfer, "account": account.to_dict(),
        "sampling": terms["sampling"], "calendar": terms["calendar"],
    }  # fmt: skip
    return build_result(results, ledger, shares, account.capital, settings)


def live_alone(pocket: PocketRun, account: Account, terms: Mapping[str, Any]) -> Result:
    """Return the run of a pocket as an account of its own."""
    return run(
        pocket.market, pocket.policy, venue=pocket.venue, account=account, signal=pocket.signal,
        **terms,
    )  # fmt: skip


def describe_pocket(pocket: PocketRun) -> dict[str, Any]:
    """Return a pocket for the manifest."""
    return {
        "policy": repr(pocket.policy),
        "share": pocket.share,
        "instrument": pocket.market.instrument,
        "content_hash": pocket.market.content_hash,
        "venue": pocket.venue.to_dict(),
    }


def find_dates(result: Result, rebalance: str) -> list[int]:
    """Return the bars at whose opens transfers are made: the first open from each date on."""
    market = find_market(result)
    every = parse_duration(rebalance, where="rebalance")
    first = result.span.first
    start = int(market.time[first])
    stamps = start + every * np.arange(1, (int(market.time[-1]) - start) // every + 1)
    bars: IntArray = np.unique(np.searchsorted(market.time, stamps, side="left"))
    return [int(bar) for bar in bars if first + 1 < bar < market.n_bars]


def pass_dates(
    pockets: Sequence[LivePocket],
    shares: FloatArray,
    capital: float,
    transfer: str,
    dates: Sequence[int],
    *,
    is_compiled: bool,
    progress: Callable[[int, int], None] | None,
) -> FloatArray:
    """Return what each pocket got at each date, of shape (n_dates, n_pockets)."""
    moved = np.zeros((len(dates), len(shares)))
    if not dates:
        return moved
    market = find_market(pockets[0].whole)
    stops = [*dates[1:], market.n_bars]
    pockets = [advance(each, 0.0, dates[0], is_compiled=is_compiled)[0] for each in pockets]
    for k, stop in enumerate(stops):
        equity = np.array([each.equity for each in pockets])
        is_ruined = np.array([each.begin.state.is_ruined for each in pockets])
        asked = plan_transfers(transfer, equity, shares, capital, is_ruined)
        given = 0.0
        for i in np.flatnonzero(asked < 0.0):
            pockets[i], moved[k, i] = advance(pockets[i], asked[i], stop, is_compiled=is_compiled)
            given -= moved[k, i]
        takers = np.flatnonzero(asked > 0.0)
        for i, amount in zip(takers, divide(given, asked[takers]), strict=True):
            pockets[i], moved[k, i] = advance(pockets[i], amount, stop, is_compiled=is_compiled)
        for i in np.flatnonzero(asked == 0.0):
            pockets[i], _ = advance(pockets[i], 0.0, stop, is_compiled=is_compiled)
        check_sum(moved[k], equity, int(market.time[dates[k]]))
        if progress is not None:
            progress(k + 1, len(dates))
    return moved


def start_pocket(whole: Result, policy: Policy) -> LivePocket:
    """Return a pocket at its beginning."""
    memory = tuple(map(float, start_memory(policy) or ()))
    begin = LoopStart(start_state(whole.account), memory, whole.span.first)
    columns, _ = observe_checked(policy, find_market(whole))
    return LivePocket(whole, policy, columns, begin)


def advance(
    pocket: LivePocket, flow: float, stop: int, *, is_compiled: bool
) -> tuple[LivePocket, float]:
    """Take a pocket up to bar ``stop`` with a flow at the open of its next bar.

    Returns it there, and the flow that was made: a withdrawal leaves what its margin needs.
    """
    whole, begin = pocket.whole, pocket.begin
    inputs = stop_inputs(read_stretch_inputs(whole, begin.first), stop)
    if flow != 0.0:
        feed = inputs.feed._replace(
            flow_bar=np.array([begin.first], dtype=np.int64), flow_amount=np.array([flow])
        )
        inputs = inputs._replace(feed=feed)
    done: LoopOutcome = run_loop(
        pocket.policy, inputs, pocket.columns, begin, is_compiled=is_compiled, progress=None
    )
    state = done.state._replace(funding_next=0, flow_next=0)
    after = LoopStart(state, done.memory, stop, done.traded)
    return pocket._replace(begin=after), float(done.book[FLOWS, 0])


def divide(given: float, asked: FloatArray) -> FloatArray:
    """Divide an amount in proportion to the requests, so that the parts add up to it."""
    if not len(asked):
        return asked
    parts = given * (asked / asked.sum())
    parts[-1] = given - parts[:-1].sum()
    return np.asarray(parts)


def check_sum(moved: FloatArray, equity: FloatArray, time: int) -> None:
    """Require that transfers of a date add up to 0."""
    gap = abs(float(moved.sum()))
    if not gap <= 1e-9 * max(float(np.abs(equity).sum()), 1.0):
        raise AccountingError(
            f"transfers must add up to 0, were {moved.tolist()}, {gap:g} off",
            where=f"Allocation, {format_time(time)} UTC",
            cure="report this with the settings of the run",
        )
