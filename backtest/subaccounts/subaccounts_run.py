"""Run of the accounts of all subaccounts from one transfer date to the next."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.account import Account, AccountState
from backtest.account.portfolio_records import EQUITY, FLOW_NEXT, IS_RUINED
from backtest.base import (
    AccountingError,
    BoolArray,
    FloatArray,
    IntArray,
    format_time,
    parse_duration,
    utc_index,
)
from backtest.engine import (
    Counts,
    Deciders,
    Inputs,
    LoopStart,
    PortfolioInputs,
    Result,
    Setup,
    advance_portfolio,
    begin,
    read_venues,
    run,
    run_loop,
    start_numbers,
    start_state,
)
from backtest.market import Market, Markets
from backtest.policy import Policy
from backtest.subaccounts.subaccounts_result import SubaccountsResult, build_result


def run_subaccounts(
    runs: Mapping[str, SubaccountRun],
    account: Account,
    rebalance: str,
    transfer: str,
    *,
    terms: Mapping[str, Any],
    progress: Callable[[int, int], None] | None,
) -> SubaccountsResult:
    parts = {name: account.override({"capital": each.share * account.capital})
             for name, each in runs.items()}  # fmt: skip
    results = {name: live_alone(each, parts[name], terms) for name, each in runs.items()}
    first, time = next(iter(results.values())).span.first, next(iter(runs.values())).market.time
    dates = find_dates(time, first, rebalance) if transfer != NONE and len(runs) > 1 else []
    shares = np.array([each.share for each in runs.values()])
    begun = [start_subaccount(results[name]) for name in runs if dates]
    moved = pass_dates(
        begun, shares, account.capital, transfer, dates, time,
        is_compiled=terms["compile"], progress=progress,
    )  # fmt: skip
    index = utc_index(time[np.array(dates, dtype=np.int64)])
    ledger = pd.DataFrame(moved, index=index, columns=list(runs)).rename_axis("time")
    for name in runs:
        flows = ledger[name][ledger[name] != 0.0]
        if len(flows):
            own = parts[name].override({"flows": flows})
            results[name] = live_alone(runs[name], own, terms)
    history = next(iter(runs.values())).market
    settings = {
        "policy": ", ".join(
            f"{name}: {each.share:g} of {each.policy!r}" for name, each in runs.items()
        ),
        "pockets": {name: describe_subaccount(each) for name, each in runs.items()},
        "rebalance": rebalance, "transfer": transfer, "account": account.to_dict(),
        "sampling": terms["sampling"], "calendar": terms["calendar"],
    }  # fmt: skip
    return build_result(results, ledger, shares, account.capital, settings, history)


def live_alone(subaccount: SubaccountRun, account: Account, terms: Mapping[str, Any]) -> Result:
    given: Any = {**subaccount._asdict(), **terms}
    del given["share"]
    result: Result = run(account=account, **given)
    return result


def describe_subaccount(subaccount: SubaccountRun) -> dict[str, Any]:
    market, facts = (
        subaccount.market,
        {"policy": repr(subaccount.policy), "share": subaccount.share},
    )
    if isinstance(market, Market):
        facts |= {"instrument": market.instrument, "venue": subaccount.venue.to_dict()}
    else:
        venues = read_venues(subaccount.venue, market)
        facts |= {"instrument": [*market], "overlay": repr(subaccount.overlay)}
        facts["venue"] = {name: each.to_dict() for name, each in venues.items()}
    return {**facts, "content_hash": market.content_hash}


def find_dates(time: IntArray, first: int, rebalance: str) -> list[int]:
    every = parse_duration(rebalance, where="rebalance")
    start = int(time[first])
    stamps = start + every * np.arange(1, (int(time[-1]) - start) // every + 1)
    bars: IntArray = np.unique(np.searchsorted(time, stamps, side="left"))
    return [int(bar) for bar in bars if first + 1 < bar < len(time)]


def pass_dates(
    subaccounts: list[LiveSubaccount | LivePortfolio],
    shares: FloatArray,
    capital: float,
    transfer: str,
    dates: Sequence[int],
    time: IntArray,
    *,
    is_compiled: bool,
    progress: Callable[[int, int], None] | None,
) -> FloatArray:
    """Return what each subaccount got at each date, of shape (n_dates, n_subaccounts)."""
    moved = np.zeros((len(dates), len(shares)))
    if not dates:
        return moved
    stops = [*dates[1:], len(time)]
    subaccounts = [each.advance(0.0, dates[0], is_compiled=is_compiled)[0] for each in subaccounts]
    for k, stop in enumerate(stops):
        equity = np.array([each.equity for each in subaccounts])
        is_ruined = np.array([each.is_ruined for each in subaccounts])
        asked = plan_transfers(transfer, equity, shares, capital, is_ruined)
        given = 0.0
        for i in np.flatnonzero(asked < 0.0):
            subaccounts[i], moved[k, i] = subaccounts[i].advance(
                asked[i], stop, is_compiled=is_compiled
            )
            given -= moved[k, i]
        takers = np.flatnonzero(asked > 0.0)
        for i, amount in zip(takers, divide(given, asked[takers]), strict=True):
            subaccounts[i], moved[k, i] = subaccounts[i].advance(
                amount, stop, is_compiled=is_compiled
            )
        for i in np.flatnonzero(asked == 0.0):
            subaccounts[i], _ = subaccounts[i].advance(0.0, stop, is_compiled=is_compiled)
        check_sum(moved[k], equity, int(time[dates[k]]))
        if progress is not None:
            progress(k + 1, len(dates))
    return moved


def divide(given: float, asked: FloatArray) -> FloatArray:
    if not len(asked):
        return asked
    parts = given * (asked / asked.sum())
    parts[-1] = given - parts[:-1].sum()
    return np.asarray(parts)


def check_sum(moved: FloatArray, equity: FloatArray, time: int) -> None:
    gap = abs(float(moved.sum()))
    if not gap <= 1e-9 * max(float(np.abs(equity).sum()), 1.0):
        raise AccountingError(
            f"transfers must add up to 0, got {moved.tolist()}, {gap:g} off",
            where=f"Subaccounts, {format_time(time)} UTC",
            cure="report this with the settings of the run",
        )


TO_TARGET, LOSSES_ONLY, NONE = RULES = ("to-target", "losses-only", "none")


def plan_transfers(
    rule: str, equity: FloatArray, shares: FloatArray, capital: float, is_ruined: BoolArray
) -> FloatArray:
    """Return the transfer to each subaccount, negative if it gives, of shape (n_subaccounts,)."""
    found = np.zeros(len(equity))
    live = ~is_ruined & (shares > 0.0)
    if rule == NONE or live.sum() < 2:
        return found
    if rule == TO_TARGET:
        total = math.fsum(equity[live])
        found[live] = shares[live] / math.fsum(shares[live]) * total - equity[live]
        return found if total > 0.0 else np.zeros(len(equity))
    lack = np.where(live, np.maximum(shares * capital - equity, 0.0), 0.0)
    surplus = np.where(live, np.maximum(equity - shares * capital, 0.0), 0.0)
    moved = min(math.fsum(lack), math.fsum(surplus))
    if not moved > 0.0:
        return found
    found = lack / math.fsum(lack) - surplus / math.fsum(surplus)
    return np.asarray(found * moved)


class SubaccountRun(NamedTuple):
    policy: Any
    share: float
    market: Market | Markets
    venue: Any
    signal: Any
    overlay: Policy | None


def place_flow(flow: float, bar: int) -> tuple[IntArray, FloatArray]:
    amounts = np.array([flow] if flow != 0.0 else [])
    return np.full(len(amounts), bar, dtype=np.int64), amounts


class LiveSubaccount(NamedTuple):
    inputs: Inputs
    policy: Policy
    columns: Mapping[str, FloatArray]
    begin: LoopStart

    @property
    def equity(self) -> float:
        return self.begin.state.equity

    @property
    def is_ruined(self) -> bool:
        return self.begin.state.is_ruined

    def advance(self, flow: float, stop: int, *, is_compiled: bool) -> tuple[LiveSubaccount, float]:
        begin = self.begin._replace(state=self.begin.state._replace(flow_next=0))
        bars, amounts = place_flow(flow, begin.first)
        feed = self.inputs.feed._replace(flow_bar=bars, flow_amount=amounts)
        done = run_loop(
            self.policy,
            self.inputs.at(begin.first)._replace(feed=feed),
            self.columns,
            begin,
            stop=stop,
            is_compiled=is_compiled,
            progress=None,
        )
        after = LoopStart(done.state, done.memory, stop, done.traded)
        return self._replace(begin=after), float(done.of_account("flows")[0])


class LivePortfolio(NamedTuple):
    setup: Setup
    inputs: PortfolioInputs
    state: AccountState
    deciders: Deciders
    counts: Counts
    first: int

    @property
    def equity(self) -> float:
        return float(self.state.wallet[EQUITY])

    @property
    def is_ruined(self) -> bool:
        return bool(self.state.wallet[IS_RUINED] != 0.0)

    def advance(self, flow: float, stop: int, *, is_compiled: bool) -> tuple[LivePortfolio, float]:
        bars, amounts = place_flow(flow, self.first)
        self.state.cursor[FLOW_NEXT] = 0
        feed = self.inputs.feed._replace(flow_bar=bars, flow_amount=amounts)
        counts, moved = advance_portfolio(
            self.inputs._replace(feed=feed),
            self.state,
            self.deciders,
            [(each.policy, tuple(each.columns)) for each in self.setup.observed],
            self.counts,
            self.first,
            stop,
            requirement=self.setup.account.requirement,
            names=self.setup.markets.names,
            is_compiled=is_compiled,
        )
        return self._replace(counts=counts, first=stop), moved


def start_subaccount(whole: Result) -> LiveSubaccount | LivePortfolio:
    setup: Setup = whole.setup
    if setup.is_of_fast_loop:
        ((policy, _, columns, *_),) = setup.observed
        start = LoopStart(start_state(setup.account), start_numbers(policy), setup.first)
        return LiveSubaccount(setup.inputs, policy, columns, start)
    inputs, state, deciders, tally = begin(setup)
    return LivePortfolio(setup, inputs, state, deciders, Counts(tally, None), setup.first)
