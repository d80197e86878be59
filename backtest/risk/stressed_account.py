"""The account of a stress test: it goes on through the bars of a scenario, where a run ended."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from backtest import account as a
from backtest import core, engine
from backtest.account.account import STOPS
from backtest.account.money import COSTS, TRADE_COSTS
from backtest.engine import find_failure_value
from backtest.margin import Collateral
from backtest.market import Market, Markets, remake
from backtest.results import Result
from backtest.results.tables import value_of
from backtest.risk import warm_up
from backtest.risk.path_bars import PRICES, bound_extremes
from backtest.risk.scenario_bars import (
    Bars,
    complete_bars,
    count_bars,
    go_on,
    make_flat_bars,
)
from backtest.risk.scenarios import (
    TAKE_A_BAR,
    Scenario,
    find_moves,
    measure_recent,
    scale_venue,
)
from backtest.venue import Venue

NO_STOPS: dict[str, Any] = {
    **dict.fromkeys(STOPS),
    "after_stop": "continue",
    "daily_basis": "day",
    "day": "UTC",
}
"""Fields of an account on which no stop acts, with those that are of use to stops alone."""
FOREVER = 2**62
"""An age that no surface reaches, ns."""
PAID = tuple(name for name in COSTS if name in TRADE_COSTS)
SUB_STEPS = 16
"""Steps of a random walk in each bar, of whose prices the bar has the first, extremes and last."""
MOST_PASSES = 60
"""About the most passes through a scenario in the search for the move that ends the account."""
LARGEST_LOG_MOVE = 50.0
"""A log price beyond which a path stays, so that its exponential is a number."""


class StressedAccount:
    """The account where a run ended, at venues with the margin tables of one time.

    ``moving`` are the markets that go on after the run, with the collateral that moves by itself;
    ``bare`` is the collateral, which has neither funding nor basis, and ``resting`` that of a
    constant price. ``exposures`` are the money that moves with each market.
    """

    def __init__(self, result: Result, venues: Mapping[str, Venue]) -> None:
        markets = result.markets
        if markets is None or not result.policies:
            raise core.ParameterError(
                "a stress test needs a result of this process, got a loaded one; run it again"
            )
        self.result = result
        self.venues = venues
        self.markets = markets

        # The bars that columns need in front of a scenario; no instrument is left out.
        self.warm_up = warm_up.measure_warm_up(result.setup.observed, markets)
        n_bars = markets.n_bars
        n_needed = self.warm_up.count_bars(markets, venues)
        last_listing = int(markets.spans[:, 1].min()) - 1
        first = min(n_bars - n_needed, last_listing)
        self.history = markets.slice(max(first, 0), n_bars)

        assets = self._make_asset_markets()
        self.moving = self._find_going() | assets
        self.bare = {*self.moving} - {*self.history}
        self.resting = set()
        for name, asset in assets.items():
            if np.ptp(asset.close) == 0.0:
                self.resting.add(name)
        self.exposures = self._measure_exposures()

    def _find_going(self) -> dict[str, Market]:
        """Return the markets that go on after the run: neither ended nor expired with it."""
        end = self.history.end
        going = {}
        for name, market in self.history.items():
            expires = self.venues[name].contract.expires
            is_expired = expires is not None and core.to_nanoseconds(expires) <= end
            if market.end == end and not is_expired:
                going[name] = market

        if not going:
            raise core.ParameterError(
                "a scenario begins where an instrument goes on, "
                f"{', '.join(self.history)} ended with the run"
            )
        return going

    def _make_asset_markets(self) -> dict[str, Market]:
        """Return a market of each collateral that has not the prices of an instrument."""
        history = self.history
        fields = engine.read_assets(history, self.result.account)
        assets = {}
        for c, asset in enumerate(self.result.account.collateral):
            if self.find_instrument(asset.prices) is not None:
                continue

            last = {name: fields[f"asset_{name}"][c] for name in PRICES}
            mark = {name: fields[f"asset_mark_{name}"][c] for name in PRICES}

            assets[asset.name] = Market.from_frames(
                pd.DataFrame(last, history.times),
                mark=pd.DataFrame(mark, history.times),
                interval=core.format_duration(history.interval),
                sessions=history.sessions,
            )

        return assets

    def _measure_exposures(self) -> dict[str, float]:
        """Return the money that moves with each market: of positions, and of collateral."""
        held = self.result.state.held
        exposures = dict.fromkeys(self.moving, 0.0)
        quantities = held.quantities.tolist()
        for name, quantity in zip(self.history, quantities, strict=True):
            if name in exposures:
                close = float(self.history[name].mark_close[-1])
                contract = self.venues[name].contract
                exposures[name] += quantity * abs(value_of(contract, close))

        values = held.amounts * held.prices
        collateral = self.result.account.collateral
        for asset, value in zip(collateral, values, strict=True):
            name = self.find_instrument(asset.prices) or asset.name
            if name in exposures:
                exposures[name] += float(value)
        return exposures

    def find_instrument(self, prices: object) -> str | None:
        """Return the instrument whose prices a collateral has, by its market or name."""
        for name, market in self.markets.items():
            if prices is market or prices == name:
                return name
        return None

    def make(self, scenario: Scenario) -> Bars:
        """Return the bars of a scenario, made from its figures."""
        moves = find_moves(scenario, self.moving, self.resting)
        n = self._count_bars(scenario)
        if n == 0:
            return dict.fromkeys(self.moving, make_flat_bars(0))

        # The first market has a walk of its own; the others go with it by the correlation.
        rho = 1.0 if scenario.correlation is None else scenario.correlation
        rng = np.random.Generator(np.random.Philox(scenario.seed))
        first_noise = rng.standard_normal(SUB_STEPS * n)

        bars = {}
        for k, (name, market) in enumerate(self.moving.items()):
            noise = first_noise
            if k > 0:
                apart = rng.standard_normal(SUB_STEPS * n)
                noise = rho * first_noise + math.sqrt(1.0 - rho * rho) * apart
            move = moves[name]
            path = self._walk(scenario, name, noise, move)
            last = bound_extremes(cut_bars(path, end=1.0 + move))

            # Collateral that history has not has no mark of its own, and pays no funding.
            basis = scenario.basis
            funding = scenario.funding
            if name in self.bare:
                basis = 0.0
                funding = None
            mark = bound_extremes(last * spread_basis(market, basis, n))
            bars[name] = complete_bars(market, last, mark, funding)
        return bars

    def _count_bars(self, scenario: Scenario) -> int:
        """Return the bars of a scenario: none where nothing in it takes a bar."""
        if scenario.over is not None:
            length = core.parse_duration(scenario.over)
            n_bars = math.ceil(length / self.history.interval)
            return max(n_bars, 1)
        if scenario.shape == "bar":
            return 1

        for field in TAKE_A_BAR:
            usual = getattr(Scenario, field)
            if getattr(scenario, field) != usual:
                return 1
        return 0

    def _walk(
        self,
        scenario: Scenario,
        name: str,
        noise: core.FloatArray,
        move: float,
    ) -> core.FloatArray:
        """Return log prices from 0 to a move: a bridge of a random walk, or a line."""
        n = len(noise) // SUB_STEPS
        sigma = 0.0
        if scenario.shape == "bridge" and n > 1:
            # The volatility of all of history, not of the bars in front alone.
            market = self.markets.get(name, self.moving[name])
            volatility = scenario.volatility * measure_recent(market)
            sigma = volatility / math.sqrt(SUB_STEPS)

        # The walk, moved along a line so that it ends at the move.
        walk = np.cumsum(noise) * sigma
        steps = np.arange(1, len(noise) + 1) / len(noise)
        bridge = walk + steps * (math.log1p(move) - walk[-1])
        logs = np.concatenate([[0.0], bridge])
        return logs.clip(-LARGEST_LOG_MOVE, LARGEST_LOG_MOVE)

    def simulate(self, scenario: Scenario, bars: Bars) -> dict[str, Any]:
        """Return what the bars of a scenario leave of the account, as a row of the table."""
        result = self.result
        equity_before = result.of_account("equity")[-1]
        reserve_before = result.of_account("reserve")[-1]
        wealth_before = float(equity_before + reserve_before)

        state = result.state
        money = None
        lost_to_adl = 0.0
        distance = self._measure_distance_now()
        if count_bars(bars):
            steps, distance = self.pass_bars(scenario, bars, is_search=False)
            state = steps.state
            money = steps.tally.money
            quantities = state.held.quantities
            lost_to_adl = self._find_lost_profits(scenario, bars, quantities)

        # What is left at the venue, less what its default takes; the reserve is elsewhere.
        wallet = state.wallet
        kept = float(wallet.equity) - lost_to_adl
        lost_to_default = scenario.venue_default * max(kept, 0.0)
        equity = kept - lost_to_default + float(wallet.reserve)

        is_liquidated = money is not None and money.liquidations > 0
        row = {
            "equity": equity,
            "loss": wealth_before - equity,
            "liquidated": is_liquidated,
            "distance": 0.0 if is_liquidated else distance,
            "margin_calls": 0 if money is None else money.calls,
        }
        for name in PAID:
            row[name] = float(getattr(money, name, 0.0))

        # What conversions cost is slippage too; the wallet has its sum so far.
        converted_before = result.state.wallet.converted_so_far
        row["slippage"] -= float(wallet.converted_so_far - converted_before)
        row["lost_to_adl"] = lost_to_adl
        row["lost_to_default"] = lost_to_default
        return row

    def _measure_distance_now(self) -> float:
        """Return the smallest distance to a liquidation price at the end of the run, or NaN."""
        rows = self.result.positions
        is_last = rows["time"] == rows["time"].iloc[-1]
        last = rows[is_last]
        price = last["liquidation_price"]
        distances = (price / last["mark"] - 1.0).abs()
        return float(distances[price > 0.0].min())

    def _find_lost_profits(
        self,
        scenario: Scenario,
        bars: Bars,
        quantities: core.FloatArray,
    ) -> float:
        """Return what auto-deleveraging takes of all positions at the end of a scenario."""
        lost = []
        held = quantities.tolist()
        for name, quantity in zip(self.history, held, strict=True):
            if name not in bars:
                continue
            rise = float(bars[name].last[3, -1])
            lost.append(self.find_lost_profit(scenario, name, quantity, rise))
        return float(sum(lost))

    def find_lost_profit(
        self,
        scenario: Scenario,
        name: str,
        quantity: float,
        rise: float,
    ) -> float:
        """Return what auto-deleveraging takes: closed at the bankruptcy price of a counterparty."""
        side = math.copysign(1.0, quantity)
        start = float(self.history[name].close[-1])
        bankrupt = start * (1.0 + side / scenario.adl_leverage)
        last = start * rise
        has_profit = side * (last - bankrupt) > 0.0
        if scenario.adl == 0.0 or quantity == 0.0 or not has_profit:
            return 0.0

        contract = self.venues[name].contract
        value_of_bankrupt = value_of(contract, bankrupt)
        gap = value_of(contract, last) - value_of_bankrupt
        return float(scenario.adl * quantity * gap)

    def pass_bars(
        self,
        scenario: Scenario,
        bars: Bars,
        *,
        is_search: bool,
    ) -> tuple[engine.LaterBars, float]:
        """Take the account through bars, or to a liquidation; return also the least distance."""
        setup = self._set_up(scenario, bars)
        warm_up.check_known(
            setup.observed,
            setup.markets,
            self.history.n_bars,
            "scenarios",
            apart=self.warm_up.never,
        )

        inputs = [setup.inputs]
        move_volatilities(setup, setup.inputs, scenario.implied_volatility)

        # While the venue is out, for whole bars, neither decisions nor stops act.
        if scenario.outage is not None:
            without_stops = replace(setup.account, **NO_STOPS)
            inputs_of_outage = setup.change(account=without_stops).inputs
            move_volatilities(setup, inputs_of_outage, scenario.implied_volatility)
            length = core.parse_duration(scenario.outage)
            n_bars = -(-length // self.history.interval)
            inputs = [inputs_of_outage] * n_bars + inputs

        is_compiled = self._is_compiled(setup)
        try:
            return self.pass_on(setup, inputs, is_compiled=is_compiled, is_search=is_search)
        except engine.OverflowedFormula:
            core.warn_caller(
                f"scenario {scenario.name!r} ran in plain Python: whole numbers beyond 64 bits are "
                "not supported in compiled code"
            )
            return self.pass_on(setup, inputs, is_compiled=False, is_search=is_search)

    def _is_compiled(self, setup: engine.Setup) -> bool:
        """Return whether compiled code takes the bars of a scenario.

        As in a run, a few bars do not wait for the compiler: those of all passes of a search.
        """
        if self.result.manifest["compiled"] != "yes":
            return False
        has_options = bool(setup.markets.options)
        if engine.is_loop_compiled(has_options=has_options):
            return True
        n_bars = len(setup.inputs.feed.time) - setup.first
        n_steps = MOST_PASSES * n_bars * len(setup.markets)
        return not engine.is_plain_sooner(n_steps)

    def _set_up(self, scenario: Scenario, bars: Bars) -> engine.Setup:
        """Return the setup of a run that goes on from the end of this one, through a scenario.

        The venues are those of the scenario; its bars follow those of the markets that move.
        """
        result = self.result
        venues = {}
        for name, venue in self.venues.items():
            venues[name] = scale_venue(venue, scenario)
        moved = {}
        for name, market in self.moving.items():
            moved[name] = go_on(market, bars[name])

        panel = engine.end_expired(self._extend_history(moved), venues)
        account = replace(result.account, collateral=self._price_collateral(moved))
        # The signal stays as it was at the end of the run.
        signal = result.state.positions.column("signal")
        signals = np.tile(signal[:, None], (1, panel.n_bars))
        return engine.set_up_again(
            result.setup._replace(venues=venues, account=account),
            panel,
            signals,
            first=self.history.n_bars,
            started=result.started,
        )

    def _extend_history(self, moved: Mapping[str, Market]) -> Markets:
        """Return the markets of the account with the bars of a scenario, where they move."""
        markets = {}
        for name, market in self.history.items():
            markets[name] = moved.get(name, market)
        panel = remake(self.history, markets)

        # No surface of options follows: the last one holds to the end.
        if panel.listing is not None:
            panel.listing = panel.listing._replace(max_age=FOREVER)
        return panel

    def _price_collateral(self, moved: Mapping[str, Market]) -> list[Collateral]:
        """Return the collateral at prices that reach through a scenario.

        These are the prices of an instrument of the account, by name, else of a market of its own.
        """
        collateral = []
        for asset in self.result.account.collateral:
            prices = self.find_instrument(asset.prices) or moved[asset.name]
            collateral.append(replace(asset, prices=prices))
        return collateral

    def pass_on(
        self,
        setup: engine.Setup,
        inputs: Sequence[engine.AccountInputs],
        *,
        is_compiled: bool,
        is_search: bool,
    ) -> tuple[engine.LaterBars, float]:
        """Take the account through the bars, each with its inputs; return the least distance too.

        The last inputs hold for all further bars; those before them are of bars during which the
        venue is out. A search asks only whether the account is liquidated: it passes all further
        bars in one step, and the distance is NaN.
        """
        result = self.result
        steps = engine.LaterBars(
            setup,
            engine.copy_state(result.state),
            np.asarray(result.memory),
            result.traded,
            is_compiled=is_compiled,
        )

        *inputs_while_out, inputs_after = inputs
        end_of_outage = setup.first + len(inputs_while_out)
        total = setup.markets.n_bars
        least = math.inf
        t = setup.first
        while t < total:
            stop = t + 1
            inputs_now = inputs_after
            if t < end_of_outage:
                # Orders that would fill while the venue is out are lost.
                inputs_now = inputs_while_out[t - setup.first]
                for position in steps.state.positions:
                    position.leverage = np.nan
                    position.is_pending = 0.0
            elif is_search:
                stop = total

            if not is_search:
                least = min(least, steps.measure(measure_distance, inputs_now, t))
            steps.pass_bars(inputs_now, t, stop)
            t = stop

        if math.isinf(least):
            least = math.nan
        return steps, least


def cut_bars(path: core.FloatArray, *, end: float) -> core.FloatArray:
    """Return the bars (4, n) of a path of log prices: open, high, low and close, as prices.

    A bar is SUB_STEPS steps of the path, and begins where the one before ends. ``end`` is the last
    close: the path ends there but for rounding.
    """
    windows = np.lib.stride_tricks.sliding_window_view(path, SUB_STEPS + 1)
    steps_of_bar = windows[::SUB_STEPS]
    open_ = steps_of_bar[:, 0]
    high = steps_of_bar.max(axis=1)
    low = steps_of_bar.min(axis=1)
    close = steps_of_bar[:, -1]

    bars = np.exp([open_, high, low, close])
    bars[3, -1] = end
    return bars


def spread_basis(market: Market, basis: float, n: int) -> core.FloatArray:
    """Return mark over last in n bars (4, n): from that of the last close evenly to a basis.

    A basis of 0 is that of the last close.
    """
    ratio = market.mark_close[-1] / market.close[-1]
    before = math.log(ratio)
    after = before
    if basis != 0.0:
        after = math.log1p(basis)

    ratios = np.exp(np.linspace(before, after, n + 1))
    at_opens = ratios[:-1]
    at_closes = ratios[1:]
    return np.array([at_opens, at_closes, at_closes, at_closes])


def move_volatilities(
    setup: engine.Setup,
    inputs: engine.AccountInputs,
    move: float,
) -> None:
    """Write the implied volatilities of a scenario into the feed; they grow to its last bar.

    Marks are written as unknown, so that options are valued by the volatilities.
    """
    options = inputs.feed.options
    if options.marks_open.shape[1] == 0:
        return

    first = setup.first
    n = len(options.marks_open) - first
    shares_of_way = np.arange(1, n + 1) / n
    scale = (1.0 + move) ** shares_of_way[:, None]
    options.volatilities_open[first:] *= scale
    options.volatilities_close[first:] *= scale
    options.marks_open[first:] = np.nan
    options.marks_close[first:] = np.nan


def measure_distance(bar: a.AccountBar, t: int) -> float:
    """Return how near the marks of bar t come to the liquidation prices of what is held there.

    At each waypoint of the bar (:mod:`backtest.account.price_walk`), after the orders at its open,
    the distance of a position is that of its mark from the price at which it would be liquidated,
    the others frozen; a fraction of the mark, infinite if no price liquidates. With options the
    nearer side counts. A position that is stopped counts up to its stop. A mark beyond its
    liquidation price has none: the account is liquidated, or held the position no more.
    """
    quotes = bar.quotes
    scratch = bar.scratch
    equity = float(bar.state.wallet.equity)
    a.open_bar(bar, t, equity)
    a.choose_turns(bar)

    least = math.inf
    last = quotes.open.copy()
    mark = quotes.mark_open.copy()
    for leg in range(3):
        a.aim_at_leg(quotes, scratch, leg)
        last_end = scratch.last_end.copy()
        mark_end = scratch.mark_end.copy()
        asset_prices = scratch.price_end.copy()

        # A position that is stopped on the way is measured where it is stopped.
        values = mark_end.copy()
        stops: list[tuple[int, int, float]] = []
        for i in range(len(values)):
            kind, stop = find_stop_on_way(bar, i, last[i], last_end[i])
            if math.isnan(stop):
                continue
            share = share_of_way(last[i], stop, last_end[i])
            values[i] = mark[i] + share * (mark_end[i] - mark[i])
            stops.append((i, kind, stop))
        gap = measure_least_gap(bar, values, asset_prices)
        least = min(least, gap)

        # The next leg goes on without what was stopped.
        for i, kind, stop in stops:
            a.stop_position(bar, t, i, kind, stop)
        last = last_end
        mark = mark_end
    return least


def measure_least_gap(
    bar: a.AccountBar,
    values: core.FloatArray,
    asset_prices: core.FloatArray,
) -> float:
    """Return the least distance of a position from its liquidation price, infinite without one.

    The state is valued at these values of contracts and prices of collateral, and is left so.
    """
    terms = bar.terms
    state = bar.state
    a.value_at(state, values, asset_prices)
    a.price_options(terms, state, values)
    excess = a.compute_excess(terms, state)

    least = math.inf
    for i in range(len(state.positions)):
        if not a.is_moved_by(terms, state, i):
            continue

        # Measuring a gap moves the values of the state: they are set anew for each position.
        a.value_at(state, values, asset_prices)
        a.price_options(terms, state, values)
        gap = measure_gap(bar, i, values[i], excess)
        if gap > 0.0:
            least = min(least, gap)
    return least


def find_stop_on_way(
    bar: a.AccountBar,
    i: int,
    begin: float,
    end: float,
) -> tuple[int, float]:
    """Return the kind and value of the stop that a position meets on a way, NaN if none."""
    can_stop = a.is_held(bar.state, i) and a.has_stops(bar.terms, i)
    if not can_stop:
        return 0, math.nan
    return a.find_stop(bar, i, low=min(begin, end), high=max(begin, end))


def share_of_way(begin: float, place: float, end: float) -> float:
    """Return how far a place is on the way from begin to end, 0 to 1."""
    if begin == end:
        return 0.0
    share = (place - begin) / (end - begin)
    return min(max(share, 0.0), 1.0)


def measure_gap(
    bar: a.AccountBar,
    i: int,
    value: float,
    excess: float,
) -> float:
    """Return the distance of a value from that which liquidates a position; not over 0 if beyond.

    ``excess`` is the margin balance over what the venue requires. Writes values into the state.
    """
    failure = find_failure_value(bar, i, excess)
    gap = (value - failure) / abs(value)

    # With options both sides may liquidate, and none is beyond while there is an excess.
    if a.must_value_options(bar.terms, bar.state):
        return abs(gap) if excess > 0.0 else 0.0
    if bar.state.positions[i].quantity > 0.0:
        return gap
    return -gap
