"""The account of a result in a scenario: it goes on from where the run ended."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from backtest.account import Account, AccountState, OptionFeed
from backtest.account.ledger import CALLED, LIQUIDATED
from backtest.base import FloatArray, to_nanoseconds
from backtest.engine import (
    Counts,
    PortfolioInputs,
    Result,
    Setup,
    ask_plain,
    begin,
    bind_loop,
    copy_state,
    drive,
    end_expired,
    new_quotes,
    new_scratch,
    new_tape,
    observe_policies,
    read_assets,
    read_memory,
    read_portfolio_inputs,
    read_state,
    read_tables,
    set_up,
    set_up_again,
    start_day,
)
from backtest.engine.collateral_prices import ASSET
from backtest.market import Market, Markets, remake
from backtest.policy import start_memory
from backtest.risk.scenarios import portfolio_distance
from backtest.venue import Contract, OwnMargin, Venue, compute_value, make_own_twins

NO_STOPS: dict[str, Any] = {
    "stop_loss": None,
    "take_profit": None,
    "trailing_stop": None,
    "equity_stop": None,
    "max_holding": None,
}
SEARCHED = 16
"""Bars that a search takes before it looks for a liquidation."""
FOREVER = 2**62
"""An age that no surface reaches, ns."""
OF_ACCOUNT = ("wallet", "fund", "cursor", "priced", "amounts", "prices")


class Shocked(NamedTuple):
    equity: float
    reserve: float
    quantities: Mapping[str, float]
    liquidations: int
    calls: int
    fees: float
    slippage: float
    impact: float
    funding: float
    distance: float


def compute_quote_value(contract: Contract, price: float) -> float:
    return abs(compute_value(contract.size, contract.kind == "inverse", price))


def select_state(state: AccountState, kept: list[int]) -> AccountState:
    n = len(state.margin)

    def cut(name: str, array: FloatArray) -> FloatArray:
        return array if name in OF_ACCOUNT else array[[*kept, *range(n, len(array))]]

    held = type(state.held)._make(cut(name, each) for name, each in state.held._asdict().items())
    own: dict[str, Any] = {"held": held, "options": state.options}
    arrays: dict[str, Any] = {
        name: cut(name, each) for name, each in state._asdict().items() if name not in own
    }
    return copy_state(type(state)(**arrays, **own))


def select_memory(result: Result, kept: list[int]) -> FloatArray:
    policies = [*result.policies.values(), result.overlay]
    sizes = [0 if each is None else len(start_memory(each) or ()) + 1 for each in policies]
    parts = np.split(read_memory(result), np.cumsum(sizes)[:-1])
    return np.concatenate([parts[i] for i in (*kept, len(parts) - 1)])


@dataclass(frozen=True, eq=False)
class StressAccount:
    result: Result
    history: Markets
    venues: Mapping[str, Venue]

    @functools.cached_property
    def kept(self) -> list[int]:
        return [self.result.names.index(name) for name in self.history]

    @functools.cached_property
    def state(self) -> AccountState:
        return read_state(self.result)

    @property
    def equity(self) -> float:
        return float(self.result.of_account("equity")[-1])

    @property
    def wealth(self) -> float:
        return self.equity + float(self.result.of_account("reserve")[-1])

    @property
    def quantities(self) -> dict[str, float]:
        held = self.state.held.quantities
        return dict(zip(self.result.names, held.tolist(), strict=True))

    @property
    def resting(self) -> frozenset[str]:
        return frozenset(name for name, each in self.assets.items() if np.ptp(each.close) == 0.0)

    @functools.cached_property
    def assets(self) -> dict[str, Market]:
        fields = read_assets(self.history, self.base.account)
        return {
            each.name: make_asset(each.name, self.history, fields, c)
            for c, each in enumerate(self.base.account.collateral)
            if self.find_instrument(each.prices) is None
        }

    def find_instrument(self, prices: object) -> str | None:
        whole: Mapping[str, Market] = self.result.markets or {}
        same = [name for name in self.history if whole[name] is prices]
        return prices if isinstance(prices, str) else next(iter(same), None)

    def list_moving(self) -> dict[str, Market]:
        alive = {name: each for name, each in self.history.items() if self.goes_on(name)}
        return alive | self.assets if alive else {}

    def goes_on(self, name: str) -> bool:
        expires, end = self.venues[name].contract.expires, self.history.end
        if expires is not None and end >= to_nanoseconds(expires):
            return False
        return self.history[name].end == end

    def measure_exposures(self) -> dict[str, float]:
        found = dict.fromkeys(self.list_moving(), 0.0)
        for name in found:
            if name in self.history:
                mark = float(self.history[name].mark_close[-1])
                quote = compute_quote_value(self.venues[name].contract, mark)
                found[name] += self.quantities[name] * quote
        held = self.state.held
        for asset, amount, price in zip(
            self.result.account.collateral, held.amounts, held.prices, strict=True
        ):
            name = self.find_instrument(asset.prices) or asset.name
            if name in found:
                found[name] += float(amount * price)
        return found

    def find_distance(self) -> float:
        last = self.result.positions
        last = last[last["time"] == last["time"].iloc[-1]]
        price = last["liquidation_price"]
        gaps = (price / last["mark"] - 1.0).abs()[price > 0.0].dropna()
        return float(gaps.min()) if len(gaps) else math.nan

    @functools.cached_property
    def base(self) -> Setup:
        result, history = self.result, self.history
        kept = {name: result.policies[name] for name in history}
        signal = np.zeros((history.n_bars, len(history)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return set_up(
                history,
                kept,
                venue={name: self.venues[name] for name in history},
                account=replace(result.account, flows=None),
                signal=signal,
                overlay=result.overlay,
                sampling="1d",
                periods=365.0,
                start=None,
                observed=observe_policies(
                    kept, result.overlay, history, signal.T, is_checked=False
                ),
            )

    @property
    def has_columns(self) -> bool:
        return any(each.columns for each in self.base.observed)

    @functools.cached_property
    def is_compiled(self) -> bool:
        return bool(self.result.manifest["compiled"] == "yes")

    @functools.cached_property
    def measure(self) -> Callable[..., float]:
        own = self.base.account.requirement
        if not isinstance(own, OwnMargin):
            return portfolio_distance.measure_portfolio_distance
        from backtest.engine.compile.general_compiler import MODULES  # noqa: PLC0415 - numba

        names = self.history.names
        twins = make_own_twins((*MODULES, portfolio_distance), own.rule, names, {"ask": ask_plain})
        found: Callable[..., float] = twins.measure_portfolio_distance
        return found

    def pass_bars(
        self,
        markets: Mapping[str, Market],
        venues: Mapping[str, Venue],
        outage: int,
        implied: float,
        *,
        is_search: bool,
    ) -> Shocked:
        given = {name: markets.get(name, market) for name, market in self.history.items()}
        panel = end_expired(keep_surfaces(remake(self.history, given)), venues)
        weights = np.tile(self.state.signal[self.kept, None], (1, panel.n_bars))
        account, first = self.reprice(markets), self.history.n_bars
        base = self.base._replace(venues={name: venues[name] for name in given}, account=account)
        setup = set_up_again(base, panel, weights, first=first, started=self.result.started)
        return StressLoop(self, setup, implied).sum_bars(outage, is_search=is_search)

    def reprice(self, markets: Mapping[str, Market]) -> Account:
        known = self.base.account
        assets = [
            replace(each, prices=self.find_instrument(each.prices) or markets[each.name])
            for each in known.collateral
        ]
        return replace(known, flows=self.result.account.flows, collateral=assets)


def keep_surfaces(markets: Markets) -> Markets:
    if markets.listing is not None:
        markets.listing = markets.listing._replace(max_age=FOREVER)
    return markets


def move_volatilities(options: OptionFeed, first: int, factor: float) -> None:
    n = len(options.marks_open) - first
    if options.marks_open.shape[1] == 0:
        return
    scale = factor ** (np.arange(1, n + 1) / n)[:, None]
    options.volatilities_open[first:] *= scale
    options.volatilities_close[first:] *= scale
    options.marks_open[first:], options.marks_close[first:] = np.nan, np.nan


def make_asset(name: str, clock: Markets, assets: Mapping[str, FloatArray], c: int) -> Market:
    empty = np.zeros(0)
    prices: dict[str, Any] = {field: assets[f"asset_{field}"][c] for field in ASSET}
    return Market(
        time=clock.time,
        **prices,
        volume=np.zeros(clock.n_bars),
        funding_time=empty.astype(np.int64),
        funding_rate=empty,
        funding_mark=empty,
        funding_predicted=empty,
        columns={},
        instrument="",
        interval=clock.interval,
        has_mark=True,
        synthetic=True,
        sessions=clock.sessions,
        filled={},
        source=f"prices of {name}",
    )


class StressLoop:
    def __init__(self, account: StressAccount, setup: Setup, implied: float) -> None:
        self.setup, self.first = setup, setup.first
        self.inputs, self.state, self.deciders, self.tally = begin(setup)
        rule, names = setup.account.requirement, setup.markets.names
        own = rule if isinstance(rule, OwnMargin) else None
        self.n_bars = len(self.inputs.feed.time)
        asked = [(self.deciders, [(p.policy, tuple(p.columns)) for p in setup.observed])]
        loop = bind_loop(asked, is_compiled=account.is_compiled, own=own, names=names)
        self.simulate, self.pack, (self.bound,), _ = loop
        n, k, total = len(names), len(self.state.options.targets), self.n_bars - self.first
        self.tape = new_tape(n, total, self.first, 8 * (n + k) + 1024, n_options=k)
        self.implied = implied
        move_volatilities(self.inputs.feed.options, setup.first, implied)
        self.account, self.n = account, len(setup.markets)
        self.deciders.memory[:] = select_memory(account.result, account.kept)
        self.state = select_state(account.state, account.kept)
        self.counts = Counts(self.tally, account.result.traded)
        self.kinds: list[FloatArray] = [np.zeros(0)]

    def read_quiet(self) -> PortfolioInputs:
        setup = self.setup
        quiet = read_portfolio_inputs(
            setup.markets,
            setup.venues,
            replace(setup.account, **NO_STOPS),
            signal=setup.signal,
            sampling="1d",
            first=setup.first,
            started=self.inputs.started,
        )
        move_volatilities(quiet.feed.options, setup.first, self.implied)
        return quiet

    def sum_bars(self, outage: int, *, is_search: bool) -> Shocked:
        first = self.first
        quiet = self.read_quiet() if outage else self.inputs
        least = math.inf
        if outage:
            self.drop_decisions()
        stop = first
        while stop < self.n_bars:
            t, is_out = stop, stop - first < outage
            inputs = quiet if is_out else self.inputs
            stop = min(t + (SEARCHED if is_search and not is_out else 1), self.n_bars)
            if not is_search:
                least = min(least, self.measure_distance(inputs, t))
            self.pass_bars(inputs, t, stop)
            if is_search and np.any(self.kinds[-1] == LIQUIDATED):
                break
            if t + 1 - first < outage:  # orders that would fill while the venue is out are lost
                self.drop_decisions()
        return self.sum_up(least)

    def drop_decisions(self) -> None:
        self.state.leverage[:], self.state.is_pending[:] = np.nan, 0

    def pass_bars(self, inputs: PortfolioInputs, t: int, stop: int) -> None:
        self.counts, entries = drive(
            self.simulate, self.pack, inputs, self.state, self.deciders, self.bound, self.counts,
            t, stop, self.tape, stop - t, None,
        )  # fmt: skip
        self.kinds.append(entries[:, 1])

    def measure_distance(self, inputs: PortfolioInputs, t: int) -> float:
        state, assets = copy_state(self.state), len(self.state.priced)
        room, terms = (
            (new_quotes(self.n, assets), new_scratch(self.n, assets)),
            read_tables(inputs, t),
        )
        if inputs.fees is not None:
            terms = inputs.fees.write(terms, start_day(inputs.fees.day, self.counts.traded, t)[0])
        with np.errstate(all="ignore"):
            return float(self.account.measure(terms, inputs.feed, state, *room, t))

    def sum_up(self, distance: float) -> Shocked:
        record = self.tape.record.account._asdict()
        kinds, last = np.concatenate(self.kinds), int(self.tape.cursor[0] - self.setup.first)
        held = self.state.held.quantities.tolist()
        fees, slippage, impact, funding = (
            float(record[name].sum()) for name in ("fees", "slippage", "impact", "funding")
        )
        return Shocked(
            equity=float(record["equity"][last]),
            reserve=float(record["reserve"][last]),
            quantities=dict(zip(self.setup.markets.names, held, strict=True)),
            liquidations=int(np.sum(kinds == LIQUIDATED)),
            calls=int(np.sum(kinds == CALLED)),
            fees=fees,
            slippage=slippage,
            impact=impact,
            funding=funding,
            distance=distance if math.isfinite(distance) else math.nan,
        )
