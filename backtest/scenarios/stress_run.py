"""Take an account from where a run ended through the bars of a scenario."""

from __future__ import annotations

import functools
import math
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from backtest.account import Log, Rules, State, live_bar
from backtest.account.books import compute_root
from backtest.account.position import compute_value_of
from backtest.base.errors import AccountingError, ParameterError
from backtest.base.phrases import Place
from backtest.base.units import FloatArray, parse_duration, to_nanoseconds
from backtest.engine import Result
from backtest.engine.bar_loop import (
    Seen,
    count_days,
    is_balanced,
    show_account,
    with_decision,
)
from backtest.engine.lookahead.causality import observe
from backtest.engine.loop_inputs import read_inputs
from backtest.market import Market
from backtest.paths.paths_loop import begin_path
from backtest.policy.error_location import bind_plain
from backtest.scenarios.scenario import Scenario
from backtest.scenarios.scenario_bars import ShockBars, append_bars
from backtest.venue import Venue
from backtest.venue.contract_value import compute_value
from backtest.venue.trading_terms import Contract

MULTIPLIERS = ("margin_multiplier", "initial_multiplier", "maintenance_multiplier")
WARMUP = 20_000
"""Bars of history in front of a scenario, for the columns of a policy and for impact."""


class StressOutcome(NamedTuple):
    """What a scenario did to an account.

    ``equity`` is wealth after it, ``loss`` what it took of it. ``distance`` is the smallest
    distance of the mark price from the liquidation price in any bar, a fraction of the mark, 0 once
    liquidated, NaN if no price liquidates.
    """

    equity: float
    loss: float
    liquidated: bool
    distance: float
    margin_calls: int
    fees: float
    slippage: float
    impact: float
    funding: float
    lost_to_adl: float


def scale_venue(venue: Venue, scenario: Scenario) -> Venue:
    """Return a venue under the margin, spread and depth of a scenario.

    Impact is ``Y sigma sqrt(dN / ADV)``: a share d of the depth is a factor 1 / sqrt(d) of it.
    """
    changes: dict[str, Any] = {}
    if scenario.margin != 1.0:
        for name in MULTIPLIERS:
            given = getattr(venue, name)
            if given is not None:
                changes[name] = given * scenario.margin
    if scenario.spread != 1.0:
        changes["slippage.rate"] = min(venue.slippage.rate * scenario.spread, 0.99)
        worse = venue.liquidation.slippage * scenario.spread
        changes["liquidation.slippage"] = min(worse, 0.99)
    if scenario.depth != 1.0:
        factor = 1.0 / math.sqrt(scenario.depth)
        changes["slippage.impact"] = venue.slippage.impact * factor
        changes["liquidation.impact"] = venue.liquidation.impact * factor
    return venue.override(changes) if changes else venue


def without_stops(rules: Rules) -> Rules:
    """Return rules under which no stop acts."""
    instrument = rules.instrument._replace(
        has_stop=None, has_exits=None, stop_loss=0.0, take_profit=0.0, trailing_stop=0.0,
        equity_stop=0.0,
    )  # fmt: skip
    return rules._replace(instrument=instrument)


@dataclass(frozen=True, eq=False)
class StressRun:
    """An account where a run ended, to be taken through scenarios.

    Parameters
    ----------
    result : Result
        A run in this process; its policy goes on deciding.
    venue : Venue
        The rules after its end, with one margin table.
    """

    result: Result
    venue: Venue

    def __post_init__(self) -> None:
        if self.result.market is None or self.result.policy is None:
            raise ParameterError(
                "a stress test needs a result of this process, was given a loaded one",
                where=Place("result", of="bt.stress"),
                cure="run the experiment again with bt.run",
            )

    @functools.cached_property
    def history(self) -> Market:
        """The last bars of the market of the run."""
        market = self.result.market
        if market is None:
            raise TypeError("the constructor requires a market")
        return market.slice(max(market.n_bars - WARMUP, 0), market.n_bars)

    @property
    def last(self) -> float:
        """The last close."""
        return float(self.history.close[-1])

    def live(self, scenario: Scenario, bars: ShockBars) -> StressOutcome:
        """Return what a scenario does to the account."""
        result, n = self.result, bars.last.shape[1]
        before = result.state.equity + result.state.reserve
        if n == 0:
            return StressOutcome(
                before, 0.0, False, self.find_distance(), 0, 0.0, 0.0, 0.0, 0.0, 0.0
            )
        market, first = append_bars(self.history, bars), self.history.n_bars
        market = market.with_signal(np.full(market.n_bars, self.signal))
        venue = scale_venue(self.venue, scenario)
        inputs = read_inputs(
            market, venue, result.account, signal=np.array([self.signal]), sampling="1d",
            first=first, started=result.started,
        )  # fmt: skip
        if inputs.fees is not None:
            raise ParameterError(
                "a stress test needs one fee rate, was a venue with fee tiers",
                where="Venue.fees.tiers",
                cure="run with the rates of your tier: venue.override(fees=bt.Fees(...))",
            )
        lived = self.live_bars(scenario, market, inputs, first)
        return build_outcome(self, scenario, lived, before, float(market.close[-1]))

    @property
    def signal(self) -> float:
        """The direction of the decisions, that of the last close."""
        return float(self.result.state.signal)

    def find_distance(self) -> float:
        """Return the distance of the liquidation price at the end of the run."""
        row = self.result.bars.iloc[-1]
        return abs(float(row["liquidation_price"]) / float(row["mark"]) - 1.0)

    def live_bars(self, scenario: Scenario, market: Market, inputs: Any, first: int) -> StressSums:
        """Take the account through the bars after the first ones, in plain Python."""
        policy = self.result.policy
        columns = observe(policy, market)  # type: ignore[arg-type] # checked when constructed
        decide = bind_plain(policy, tuple(columns))  # type: ignore[arg-type] # as above
        values = tuple(columns.values())
        outage = 0
        if scenario.outage is not None:
            where = f"bt.Scenario({scenario.name!r}).outage"
            outage = -(-parse_duration(scenario.outage, where=where) // market.interval)
        state = begin_path(self.result.state, 0, 0)
        if outage:
            state = with_decision(state, math.nan, 1.0)
        memory: Any = self.result.memory
        log = Log(None, np.empty((1, 8)), np.zeros(1, dtype=np.int64))
        lived = StressSums()
        for t in range(first, market.n_bars):
            is_out = t - first < outage
            rules = without_stops(inputs.rules) if is_out else inputs.rules
            with np.errstate(all="ignore"):
                near = measure_distance(rules, state, inputs.feed, t)
                after, ledger, quote = live_bar(rules, inputs.plan, inputs.feed, state, log, t)
            if not is_balanced(state, after, ledger, quote):
                raise AccountingError(
                    "the books do not balance in a scenario",
                    where=f"{scenario!r}, bar {t - first}",
                    cure="this is a defect of the engine: please report it with this text",
                )
            lived.add(after, ledger, near)
            leverage = math.nan
            if not (after.is_ruined or after.is_over):
                view = show_account(rules, after, quote, count_days(inputs.seen, t), True)
                seen: Seen = inputs.seen
                leverage, memory = decide(None, values, memory, seen, view, after.last_funding, t)
            is_lost = t + 1 - first < outage  # an order that would fill while the venue is out
            state = with_decision(
                after, math.nan if is_lost else leverage, 1.0 if is_lost else self.signal
            )
        return lived


class StressSums:
    """Sums over the bars of a scenario."""

    def __init__(self) -> None:
        self.state: State | None = None
        self.distance = math.inf
        self.sums = np.zeros(6)

    def add(self, state: State, ledger: Any, near: float) -> None:
        """Add a bar."""
        self.state = state
        self.sums += (
            ledger.liquidations, ledger.calls, ledger.fees, ledger.slippage, ledger.impact,
            ledger.funding,
        )  # fmt: skip
        if not math.isnan(near):
            self.distance = min(self.distance, near)


def measure_distance(rules: Rules, state: State, feed: Any, t: int) -> float:
    """Return how near the mark of bar t comes to the liquidation price of the position carried in.

    A fraction of that mark price; 0 or less is a liquidation. NaN if no price liquidates.
    """
    instrument, position = rules.instrument, state.books.positions[0]
    if position.quantity == 0.0:
        return math.nan
    multiplier = feed.multiplier[min(t, len(feed.multiplier) - 1)]
    root = compute_root(instrument, state.books, multiplier)
    price = feed.mark_low[t] if position.quantity > 0.0 else feed.mark_high[t]
    value = compute_value_of(instrument, price)
    gap = (value - root) / abs(value)
    return max(float(gap if position.quantity > 0.0 else -gap), 0.0)


def build_outcome(
    run: StressRun, scenario: Scenario, lived: StressSums, before: float, last: float
) -> StressOutcome:
    """Return the outcome, after auto-deleveraging of a winning position."""
    state = lived.state
    if state is None:
        raise TypeError("a scenario without bars")
    liquidated = lived.sums[0] > 0
    held, contract = state.books.positions[0].quantity, run.venue.contract
    lost = find_lost_profit(scenario, contract, held, run.last, last)
    equity = state.equity + state.reserve - lost
    distance = lived.distance if math.isfinite(lived.distance) else math.nan
    return StressOutcome(
        equity=equity,
        loss=before - equity,
        liquidated=bool(liquidated),
        distance=0.0 if liquidated else distance,
        margin_calls=int(lived.sums[1]),
        fees=float(lived.sums[2]),
        slippage=float(lived.sums[3]),
        impact=float(lived.sums[4]),
        funding=float(lived.sums[5]),
        lost_to_adl=lost,
    )


def find_lost_profit(
    scenario: Scenario, contract: Contract, quantity: float, start: float, last: float
) -> float:
    """Return the profit that is lost as the venue closes a share of a winning position.

    The counterparty of a short is a long that entered at the last close before the scenario with
    ``adl_leverage`` L: bankrupt at ``P (1 - 1 / L)``, where the share is closed instead of at the
    last price. Nothing is lost if the price does not go beyond it.
    """
    if scenario.adl == 0.0 or quantity == 0.0:
        return 0.0
    side = -1.0 if quantity < 0.0 else 1.0
    bankrupt = start * (1.0 + side / scenario.adl_leverage)
    if side * (last - bankrupt) <= 0.0:
        return 0.0
    size, is_inverse = contract.size, contract.kind == "inverse"
    gap = compute_value(size, is_inverse, last) - compute_value(size, is_inverse, bankrupt)
    return float(scenario.adl * quantity * gap)


def find_values(axis: Any, name: str) -> FloatArray:
    """Return the values of an axis of a ladder.

    ``(low, high, n)`` with a whole n over 2 are n values from low to high; any other sequence is
    the values themselves.
    """
    try:
        given = [float(x) for x in axis]
        is_range = len(given) == 3 and isinstance(axis[2], int) and axis[2] > 2
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"an axis of a ladder must be (low, high, n) or values, was {axis!r}",
            where=f"bt.stress, ladder, {name}",
            cure="give for example (-0.5, 0.5, 41)",
        ) from error
    values = np.linspace(given[0], given[1], int(given[2])) if is_range else np.array(given)
    if not len(values) or not np.isfinite(values).all():
        raise ParameterError(
            f"an axis of a ladder must hold finite numbers, was {axis!r}",
            where=f"bt.stress, ladder, {name}",
            cure="give for example (-0.5, 0.5, 41)",
        )
    return values


def quiet_venue(result: Result, rules: str, scenario: Scenario) -> Venue:
    """Return the venue with the margin table of a day: today's, or that of the scenario's date."""
    return quiet(result.venue, int(result.time[-1]), rules, scenario)


def quiet(venue: Venue, time: int, rules: str, scenario: Scenario) -> Venue:
    """Return a venue with one margin table; ``time`` is the end of a run in ns."""
    if rules == "then" and scenario.date is not None:
        time = to_nanoseconds(scenario.date, where="Scenario.date")
    elif rules == "today":
        time = np.iinfo(np.int64).max
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return venue.with_table(venue.in_use(np.array([time], dtype=np.int64))[0])
