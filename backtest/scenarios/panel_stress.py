"""Run an account with several positions on a scenario, from the end of an earlier run."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backtest.account import Account
from backtest.account.ledger import CALLED, LIQUIDATED
from backtest.base.errors import ParameterError, did_you_mean
from backtest.base.phrases import Place
from backtest.base.units import FloatArray, format_duration, parse_duration
from backtest.engine import Result
from backtest.engine.account_loop import begin, copy_book
from backtest.engine.compile.plain_or_compiled_book import is_book_plain, order_book_loop
from backtest.engine.portfolio.book_driver import (
    BookOutcome,
    list_kernel_arguments,
    run_book_loop,
)
from backtest.engine.portfolio.portfolio_setup import Setup, set_up, set_up_again
from backtest.market import Market, Markets
from backtest.portfolio.book_records import Book
from backtest.scenarios.scenario import Scenario
from backtest.scenarios.scenario_bars import (
    ShockBars,
    append_bars,
    count_scenario_bars,
    cut_replay,
    make_bars,
    measure_recent,
)
from backtest.scenarios.stress_run import StressOutcome, find_lost_profit, quiet, scale_venue
from backtest.venue import Venue
from backtest.venue.contract_value import compute_price
from backtest.venue.own_requirement import OwnMargin

WARMUP = 2000
"""Bars of history in front of a scenario, for the columns of policies and for impact."""
USUAL_BARS = 2000
"""Bars of a scenario and of the search for its break-even, roughly."""
LARGEST_SCALE = 64.0
"""The most by which a search for the break-even scales log moves."""
NO_STOPS: dict[str, Any] = {
    "stop_loss": None,
    "take_profit": None,
    "trailing_stop": None,
    "equity_stop": None,
}

Bars = Mapping[str, ShockBars]


def find_moves(scenario: Scenario, markets: Mapping[str, Market]) -> dict[str, float]:
    """Return the log move of each instrument in a scenario.

    Without a correlation, instruments without a move of their own have that of all. With one, c, an
    instrument without a move of its own moves by ``c sigma z``: what is expected of it if those
    that have one (or else the first) moved by z of their own volatilities in the mean.
    """
    own = {} if scenario.prices is None else dict(scenario.prices)
    for name in own:
        if name not in markets:
            raise ParameterError(
                f"prices must be of instruments of the account, was of {name!r}"
                + did_you_mean(name, list(markets)),
                where=f"bt.Scenario({scenario.name!r}).prices",
                cure=f"name some of {', '.join(markets)}",
            )
    if scenario.correlation is None:
        return {name: math.log1p(own.get(name, scenario.price)) for name in markets}
    if not own:
        own = {next(iter(markets)): scenario.price}
    sigma = {name: measure_recent(market) for name, market in markets.items()}
    if not all(each > 0.0 for each in sigma.values()):
        sigma = dict.fromkeys(markets, 1.0)
    z = float(np.mean([math.log1p(move) / sigma[name] for name, move in own.items()]))
    return {
        name: math.log1p(own[name]) if name in own else scenario.correlation * sigma[name] * z
        for name in markets
    }


@dataclass(frozen=True, eq=False)
class PanelStress:
    """An account with several positions where a run ended, to be taken through scenarios.

    Parameters
    ----------
    result : Result
        A run in this process; its policies go on deciding.
    venues : mapping of str to Venue
        The rules after its end, each with one margin table.
    """

    result: Result
    venues: Mapping[str, Venue]

    @functools.cached_property
    def history(self) -> Markets:
        """The last bars of the markets of the run."""
        markets = self.result.markets
        if markets is None:
            raise ParameterError(
                "a stress test needs a result of this process, was given a loaded one",
                where=Place("result", of="bt.stress"),
                cure="run the experiment again with bt.run",
            )
        if self.result.account.collateral:
            raise ParameterError(
                "a scenario has no prices of collateral, the account has some",
                where="Account.collateral",
                cure="leave the collateral out, or count it as capital",
            )
        gone = [name for name, market in markets.items() if market.time[-1] != markets.time[-1]]
        alive = [name for name in markets if name not in gone]
        if gone:
            raise ParameterError(
                f"a scenario begins at the end of all instruments, {', '.join(gone)} ended before",
                where=Place("result", of="bt.stress"),
                cure=f"run on markets.select({', '.join(map(repr, alive))})",
            )
        return markets.slice(max(markets.n_bars - WARMUP, 0), markets.n_bars)

    @functools.cached_property
    def base(self) -> Setup:
        """The setup of the account on its history."""
        result, history = self.result, self.history
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return set_up(
                history,
                result.policies,
                venue=dict(self.venues),
                account=replace(result.account, flows=None),
                signal=np.zeros((history.n_bars, len(history))),
                overlay=result.overlay,
                sampling="1d",
                periods=365.0,
                start=None,
            )

    @functools.cached_property
    def is_compiled(self) -> bool:
        """Whether scenarios run compiled: as the run did, unless plain Python is faster."""
        if self.result.manifest["compiled"] != "yes":
            return False
        setup = self.base
        order = order_book_loop(list_kernel_arguments(*begin(setup)))
        policies = [(each.policy, tuple(each.columns)) for each in setup.panelists]
        return not is_book_plain(order, policies, USUAL_BARS)

    @property
    def before(self) -> float:
        """Equity and reserve at the end of the run."""
        return float(self.result.of_account("equity")[-1] + self.result.of_account("reserve")[-1])

    def make(self, scenario: Scenario) -> dict[str, ShockBars]:
        """Return the bars of a scenario from its figures, of each instrument."""
        moves = find_moves(scenario, self.history)
        n = 16 * count_scenario_bars(scenario, self.history.interval)
        rho = 1.0 if scenario.correlation is None else scenario.correlation
        rng = np.random.Generator(np.random.Philox(scenario.seed))
        first, found = rng.standard_normal(n), {}
        alone = scenario.override(prices=None, correlation=None)
        if n and scenario.over is None and scenario.shape == "line":
            alone = alone.override(over=format_duration(self.history.interval))  # also if it rests
        for k, (name, market) in enumerate(self.history.items()):
            own = first if k == 0 else rng.standard_normal(n)
            noise = first if k == 0 else rho * first + math.sqrt(1.0 - rho * rho) * own
            move = max(math.expm1(moves[name]), math.nextafter(-1.0, 0.0))
            found[name] = make_bars(alone.override(price=move), market, noise)
        return found

    def live(self, scenario: Scenario, bars: Bars) -> StressOutcome:
        """Return what a scenario does to the account."""
        n = next(iter(bars.values())).last.shape[1]
        if n == 0:
            last = np.asarray(self.result.positions_record)[-1:]
            distance = self.find_distance(last, self.result.marks[-1:])
            return StressOutcome(self.before, 0.0, False, distance, 0, 0.0, 0.0, 0.0, 0.0, 0.0)
        markets = Markets(
            {name: append_bars(market, bars[name]) for name, market in self.history.items()},
            currency=self.history.currency or None,
        )
        first = self.history.n_bars
        out = min(self.count_outage(scenario), n)
        account = self.result.account
        parts, book, memory = [], copy_book(self.result.state), self.result.memory
        if out:
            book.leverage[:], book.is_pending[:] = np.nan, 0
            quiet_account = replace(account, **NO_STOPS)
            before = markets.slice(0, first + out)
            parts.append(self.live_part(scenario, before, first, quiet_account, book, memory, True))
            book, memory = copy_book(parts[0].book), parts[0].memory
        if out < n:
            now = self.live_part(scenario, markets, first + out, account, book, memory, False)
            parts.append(now)
        return self.build_outcome(scenario, markets, parts)

    def count_outage(self, scenario: Scenario) -> int:
        """Return the bars in which neither decisions nor stops act."""
        if scenario.outage is None:
            return 0
        where = f"bt.Scenario({scenario.name!r}).outage"
        return -(-parse_duration(scenario.outage, where=where) // self.history.interval)

    def live_part(
        self,
        scenario: Scenario,
        markets: Markets,
        first: int,
        account: Account,
        book: Book,
        memory: FloatArray,
        is_out: bool,
    ) -> BookOutcome:
        """Take the account through the bars of some markets from one on."""
        account = replace(account, requirement=self.base.account.requirement)
        venues = {name: scale_venue(each, scenario) for name, each in self.venues.items()}
        weights = np.tile(self.result.state.signal[:, None], (1, markets.n_bars))
        setup = set_up_again(
            self.base._replace(venues=venues, account=account),
            markets,
            weights,
            first=first,
            started=self.result.span.start,
        )
        inputs, _, desk, tally = begin(setup)
        desk.memory[:] = memory
        if is_out:  # the decision at the last close of the outage fills after it
            desk.tradable[:, first : markets.n_bars - 1] = 0
        own = account.requirement
        return run_book_loop(
            inputs,
            book,
            desk,
            tally,
            first,
            [(each.policy, tuple(each.columns)) for each in setup.panelists],
            is_compiled=self.is_compiled,
            progress=None,
            own=own if isinstance(own, OwnMargin) else None,
            names=markets.names,
        )

    def build_outcome(
        self, scenario: Scenario, markets: Markets, parts: list[BookOutcome]
    ) -> StressOutcome:
        """Return the outcome, after auto-deleveraging of winning positions."""
        account = np.concatenate([each.account for each in parts])
        positions = np.concatenate([each.positions for each in parts])
        entries = np.concatenate([each.entries for each in parts])
        n = len(account)
        marks = np.array([market.mark_close[-n:] for market in markets.values()]).T
        lost = sum(
            find_lost_profit(
                scenario,
                self.venues[name].contract,
                float(positions[-1, i, 0]),
                float(self.history[name].close[-1]),
                float(market.close[-1]),
            )
            for i, (name, market) in enumerate(markets.items())
        )
        equity = float(account[-1, 0] + account[-1, 3]) - lost
        liquidated = bool(np.any(entries[:, 1] == LIQUIDATED))
        return StressOutcome(
            equity=equity,
            loss=self.before - equity,
            liquidated=liquidated,
            distance=0.0 if liquidated else self.find_distance(positions, marks),
            margin_calls=int(np.sum(entries[:, 1] == CALLED)),
            fees=float(account[:, 11].sum()),
            slippage=float(account[:, 12].sum()),
            impact=float(account[:, 13].sum()),
            funding=float(account[:, 14].sum()),
            lost_to_adl=lost,
        )

    def find_distance(self, positions: FloatArray, marks: FloatArray) -> float:
        """Return the smallest distance of a mark close from its liquidation price, others frozen.

        NaN if no price liquidates.
        """
        least = math.inf
        for i, name in enumerate(self.history):
            contract = self.venues[name].contract
            is_inverse = contract.kind == "inverse"
            for value, mark in zip(positions[:, i, 12], marks[:, i], strict=True):
                price = compute_price(contract.size, is_inverse, float(value))
                if price > 0.0:
                    least = min(least, abs(price / float(mark) - 1.0))
        return least if math.isfinite(least) else math.nan


def run_panel_scenario(result: Result, scenario: Scenario, rules: str, data: Any) -> dict[str, Any]:
    """Return the row of a scenario."""
    run = PanelStress(result, quiet_venues(result, rules, scenario))
    replayed = cut_panel_replay(run, scenario, data)
    bars = run.make(scenario) if replayed is None else replayed
    outcome = run.live(scenario, bars)
    return {
        **outcome._asdict(),
        "break_even": find_panel_break_even(run, scenario, bars, is_made=replayed is None),
        "bars": next(iter(bars.values())).last.shape[1],
        "from": "figures" if replayed is None else "data",
    }


def quiet_venues(result: Result, rules: str, scenario: Scenario) -> dict[str, Venue]:
    """Return the venues, each with the margin table of a day."""
    end = int(result.time[-1])
    return {name: quiet(venue, end, rules, scenario) for name, venue in result.venues.items()}


def cut_panel_replay(run: PanelStress, scenario: Scenario, data: Any) -> Bars | None:
    """Return the bars of the days of a scenario; None if data do not cover all instruments."""
    if data is None or any(name not in data for name in run.history):
        return None
    found = {name: cut_replay(scenario, data[name], run.history.interval) for name in run.history}
    cut = {name: bars for name, bars in found.items() if bars is not None}
    return cut if len(cut) == len(found) else None


def find_panel_break_even(
    run: PanelStress, scenario: Scenario, bars: Bars, *, is_made: bool
) -> float:
    """Return the move of the first instrument that moves, all log moves scaled, that liquidates.

    Of a scenario that moves none, that of all together, against the net position; NaN if none does.
    """
    ends = {name: find_end(each) for name, each in bars.items()}
    moved = [end for end in ends.values() if abs(math.log(end)) > 1e-9]
    if not moved:
        marks = [market.mark_close[-1] for market in run.history.values()]
        net = float(run.result.state.held.quantities @ np.array(marks))
        end = 0.99 if net >= 0.0 else 1.01
        bars = run.make(scenario.override(price=end - 1.0, prices=None, correlation=None))
        moved = [end]
        is_made = True
    lead = math.log(moved[0])

    def is_dead(scale: float) -> bool:
        if is_made and scale == 0.0 and scenario.is_empty:
            return False
        return run.live(scenario, scale_bars(bars, scale)).liquidated

    scale = bisect_scale(is_dead, LARGEST_SCALE * math.log(LARGEST_SCALE) / abs(lead))
    return math.expm1(scale * lead) if math.isfinite(scale) else math.nan


def find_end(bars: ShockBars) -> float:
    """Return the last price furthest from where the bars begin, over it; 1 without bars."""
    if not bars.last.shape[1]:
        return 1.0
    low, high = float(bars.last[2].min()), float(bars.last[1].max())
    return low if -math.log(low) >= math.log(high) else high


def scale_bars(bars: Bars, scale: float) -> dict[str, ShockBars]:
    """Return bars whose log moves are multiplied; the basis stays."""
    return {
        name: each._replace(last=each.last**scale, mark=each.mark / each.last * each.last**scale)
        for name, each in bars.items()
    }


def bisect_scale(is_dead: Callable[[float], bool], largest: float) -> float:
    """Return the smallest scale found at which an account is liquidated; NaN if there is none.

    Scales are doubled up to the largest, as far moves need not liquidate a hedge that a smaller
    one does.
    """
    alive, dead = 0.0, 1.0 / 64.0
    if is_dead(0.0):
        return 0.0
    while not is_dead(dead):
        alive, dead = dead, 2.0 * dead
        if dead > largest:
            return math.nan
    return halve(is_dead, alive, dead, 45)


def halve(is_dead: Callable[[float], bool], alive: float, dead: float, steps: int) -> float:
    """Return where an account begins to be liquidated, to 2^-``steps`` of the way from one end.

    It lives at ``alive`` and is liquidated at ``dead``.
    """
    for _ in range(steps):
        middle = 0.5 * (alive + dead)
        if middle in (alive, dead):
            break
        if is_dead(middle):
            dead = middle
        else:
            alive = middle
    return dead
