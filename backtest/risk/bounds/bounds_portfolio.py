"""The bars of an account with several positions: the path of each instrument, and its mirror."""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from backtest.account import Account, AccountState, Ledger, is_quiet, refuse_currencies, set_quotes
from backtest.account.portfolio_records import (
    ALONG,
    EQUITY,
    IS_OVER,
    IS_RUINED,
    LATE,
    RESERVE,
    RESTING,
)
from backtest.base import FloatArray, IntArray, ParameterError, Place
from backtest.engine import (
    Counts,
    PortfolioInputs,
    Record,
    Result,
    Setup,
    copy_state,
    find_prices,
    finish,
    join_records,
    live,
    new_quotes,
    observe_policies,
    read_tables,
    set_up,
)
from backtest.market import Market, Markets
from backtest.measures import Tally
from backtest.options import refuse_options
from backtest.risk.bounds.bar_orders import Branch, low_first_probability
from backtest.risk.bounds.bounds_lanes import DEPTH, WHERE, BarOutcomes, Lane, check_new
from backtest.risk.portfolio_bars import PortfolioBars, may_compile

INSTRUMENT = 8
"""The column of the log with the instrument of an entry."""


class PortfolioState(NamedTuple):
    account: AccountState
    memory: FloatArray
    counts: Counts
    record: Record
    entries: FloatArray

    @property
    def equity(self) -> float:
        return float(self.account.wallet[EQUITY])

    @property
    def reserve(self) -> float:
        return float(self.account.wallet[RESERVE])


class Group(NamedTuple):
    places: IntArray
    notional: float
    path: float


class PortfolioOrders(PortfolioBars):
    def __init__(self, result: Result, refine: Market | None, depth: int) -> None:
        check_new(result)
        refuse_currencies(result.account, where="bt.bounds, result")
        refuse_options(result.markets, "bounds of the order inside bars", where="bt.bounds, result")
        check_refine(result, refine)
        self.result, self.depth, self.beyond = result, depth or DEPTH, set[int]()
        setup = read_setup(result)
        super().__init__(setup, is_compiled=may_compile(result, setup, 4 * setup.markets.n_bars))
        self.groups = list_groups(self.markets, setup.account)
        n = len(self.markets)
        self.quotes = new_quotes(n, len(self.state.priced))

    @property
    def n_beyond(self) -> int:
        return len(self.beyond)

    @property
    def source(self) -> Markets | None:
        return self.result.markets

    def begin(self) -> Lane:
        record, entries = self.tape.record.take(slice(0)), np.zeros((0, 9))
        counts = Counts(self.tally, None)
        state = PortfolioState(self.state, self.deciders.memory.copy(), counts, record, entries)
        return Lane(state, (), self.tally, None, 1.0, True)

    def open_bar(self, t: int) -> None:
        """Margin tables and fees are those of the driver."""

    def pass_bar(self, lane: Lane, t: int) -> BarOutcomes:
        run = self.take(lane.state, t, self.inputs)
        if t == 0 or not self.is_suspect(lane.state, run, t):
            return BarOutcomes(run._replace(weight=1.0), [])
        moving = self.list_moving(lane.state.account, run.state, t)
        if len(moving) > self.depth:
            self.beyond.add(t)
            moving = moving[: self.depth]
        own = identify(run.state.account)
        found: dict[Any, Branch] = {}
        for mirrored in itertools.product((False, True), repeat=len(moving)):
            chances = [1.0 - g.path if m else g.path for g, m in zip(moving, mirrored, strict=True)]
            ways = [g.places for g, m in zip(moving, mirrored, strict=True) if m]
            branch = self.take(lane.state, t, self.mirror(ways))
            key = identify(branch.state.account)
            weight = math.prod(chances) + (found[key].weight if key in found else 0.0)
            found[key] = found.get(key, branch)._replace(weight=weight)
        same = found.pop(own, run._replace(weight=0.0))
        places = sorted(int(k) for group in moving for k in group.places)
        names = [self.name(k) for k in places]
        return BarOutcomes(
            run._replace(weight=same.weight), [*found.values()], names=f" ({', '.join(names)})"
        )

    def take(self, state: PortfolioState, t: int, inputs: PortfolioInputs) -> Branch:
        account = copy_state(state.account)
        account.cursor[:] = state.account.cursor
        self.deciders.memory[:] = state.memory
        rows = slice(t - self.first, t - self.first + 1)
        for fields in self.tape.record:
            for each in fields or ():
                each[rows] = 0.0  # the loop writes no 0: nothing may be left of another order
        counts, entries = self.drive(inputs, account, state.counts, t, t + 1)
        before, after = state.counts.tally.money, counts.tally.money
        ledger = Ledger._make(b - a for a, b in zip(before, after, strict=True))
        now = PortfolioState(
            account, self.deciders.memory.copy(), counts,
            join_records([self.tape.record.take(rows)]), entries,
        )  # fmt: skip
        return Branch(now, ledger, 0.0, "")

    def mirror(self, places: list[IntArray]) -> PortfolioInputs:
        mirrored = np.zeros_like(self.inputs.terms.mirrored)
        mirrored[np.concatenate([np.zeros(0, np.int64), *places])] = 1
        terms = self.inputs.terms._replace(mirrored=mirrored, intrabar=ALONG)
        return self.inputs._replace(terms=terms)

    def is_suspect(self, before: PortfolioState, run: Branch, t: int) -> bool:
        ledger, account = run.ledger, run.state.account
        if ledger.liquidations + ledger.stops + ledger.take_profits > 0:
            return True
        was_held = before.account.held.quantities != 0.0
        is_held = account.held.quantities != 0.0
        if not (was_held.any() or is_held.any()):
            return False
        if (was_held & ~is_held).any() or self.inputs.terms.fill in (LATE, RESTING):
            return True
        terms = read_tables(self.inputs, t + 1)
        set_quotes(terms, self.inputs.feed, self.quotes, t)
        with np.errstate(all="ignore"):
            return not is_quiet(terms, copy_state(account), self.quotes)

    def list_moving(self, before: AccountState, after: PortfolioState, t: int) -> list[Group]:
        traded = np.zeros(len(self.markets), np.bool_)
        who = after.entries[:, INSTRUMENT].astype(np.int64)
        traded[who[(who >= 0) & (who < len(traded))]] = True
        held = np.maximum(abs(before.held.quantities), abs(after.account.held.quantities))
        held = np.concatenate([np.where(traded & (held == 0.0), 1e-300, held),
                               abs(before.held.amounts)])  # fmt: skip
        found = []
        for places in self.groups:
            open_, high, low, close, mark = self.read_bar(int(places[0]), t)
            if held[places].any() and high > low:
                chance = low_first_probability(open_, high, low, close)
                path = chance if close >= open_ else 1.0 - chance
                found.append(Group(places, float(held[places].sum()) * abs(mark), path))
        return sorted(found, key=lambda each: -each.notional)

    def read_bar(self, k: int, t: int) -> tuple[float, ...]:
        feed, n = self.inputs.feed, len(self.markets)
        names = ("open", "high", "low", "close")
        if k >= n:
            bar = tuple(float(getattr(feed, f"asset_{name}")[k - n, t]) for name in names)
            return (*bar, bar[-1])
        bar = tuple(float(getattr(feed, name)[t, k]) for name in names)
        return (*bar, bar[-1] * float(self.inputs.terms.rules.brackets.sizes[k]))

    def name(self, k: int) -> str:
        n = len(self.markets)
        return self.markets.names[k] if k < n else self.result.account.collateral[k - n].name

    def count(self, lane: Lane, branch: Branch, ways: BarOutcomes, t: int) -> tuple[Tally, Any]:  # noqa: ARG002 - the driver counts
        state = branch.state
        return state.counts.tally, (state.record, state.entries)

    def decide(self, lane: Lane, t: int) -> Lane:  # noqa: ARG002 - the driver asks the policies
        return lane

    def identify(self, lane: Lane) -> Any:
        return identify(lane.state.account), lane.state.memory.tobytes()

    def finish(self, lane: Lane) -> Result:
        rows, node = [], lane.trail
        while node is not None:
            node, row = node
            rows.append(row)
        records, entries = zip(*rows[::-1], strict=True)
        return replace(
            self.result,
            record=join_records(records),
            entries=np.concatenate(entries),
            tally=lane.tally,
            state=lane.state.account,
        )


def identify(account: AccountState) -> tuple[Any, ...]:
    held = account.held
    wallet = (account.wallet[:IS_OVER], account.wallet[IS_RUINED + 1 :])
    arrays = (held.quantities, held.entries, held.amounts, account.margin, account.best, *wallet)
    numbers = tuple(f"{x:.9g}" for each in arrays for x in each.tolist())
    flags = (
        account.since,
        account.since_stop,
        account.is_halted,
        account.wallet[[IS_OVER, IS_RUINED]],
    )
    return (numbers, *(each.tobytes() for each in flags))


def list_groups(markets: Markets, account: Account) -> list[IntArray]:
    prices = [*markets.values(), *(find_prices(each, markets) for each in account.collateral)]
    keys = np.array([next(k for k, other in enumerate(prices) if other is each) for each in prices])
    return [np.flatnonzero(keys == key) for key in np.unique(keys)]


def check_refine(result: Result, refine: Market | None) -> None:
    if refine is not None:
        raise ParameterError(
            "refine is for one position without margin calls, equity stop and fee tiers that fills "
            f"at the next open, got {', '.join(result.names)}",
            where=Place("refine", of=WHERE),
            cure="leave refine out, or run on finer bars",
        )


def run_in_general(result: Result) -> Result:
    if not result.is_of_fast_loop:
        return result
    setup = read_setup(result)
    is_compiled = may_compile(result, setup, 2 * setup.markets.n_bars)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = live(setup, is_compiled=is_compiled, progress=None)
        return finish(setup, outcome, calendar=str(result.manifest["calendar"]))


def read_setup(result: Result) -> Setup:
    markets = result.markets
    if markets is None:
        raise TypeError("bounds require a result of this process")
    weights = np.array(np.broadcast_to(result.setup.signal, (len(markets), markets.n_bars)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return set_up(
            markets,
            {**result.policies},
            venue={**result.venues},
            account=result.account,
            signal=weights.T,
            overlay=result.overlay,
            sampling=str(result.manifest["sampling"]),
            periods=result.span.periods,
            start=markets.times[result.span.first],
            observed=observe_policies(
                {**result.policies}, result.overlay, markets, weights, is_checked=False
            ),
        )
