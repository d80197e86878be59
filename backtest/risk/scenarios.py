"""Scenarios: what a shock is, how markets move in it, and what it makes of a venue."""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from backtest import account as a
from backtest import core
from backtest.market import Market
from backtest.risk.funding_process import MONTH
from backtest.venue import Venue, has_spread, scale_cost

SCALE = core.Real(0.0)
MOVE = core.Real(-1.0, open_low=True)
FILE = Path(__file__).with_name("crashes.toml")
TAKE_A_BAR = (
    "price",
    "prices",
    "funding",
    "basis",
    "implied_volatility",
    "margin",
    "outage",
)
"""Fields of a scenario that take a bar."""
MOVES = (
    "price",
    "prices",
    "correlation",
    "over",
    "shape",
    "basis",
    "date",
    "until",
)
"""Fields of a scenario that say how prices move."""


class Scenario(core.Value):
    """A shock. The defaults change nothing.

    Parameters
    ----------
    name : str
        Its name.
    price : float
        The move of the price from the last close, a fraction over -1: -0.3 is a fall of 30 %.
    over : str, optional
        The time the move takes, for example ``"2h"``, in whole bars of the market; by default one
        bar.
    shape : str
        ``"bridge"``: a random walk over several bars that ends at the move, with the volatility
        below; one bar has the move alone. ``"line"``: at the same rate in each bar. ``"bar"``: all
        in one bar, whose extreme is its close.
    volatility : float
        Times the volatility of the last 30 days, for ``"bridge"``; 0 makes it a line.
    funding : float, optional
        The rate of one settlement, at the open of the last bar; positive: longs pay.
    spread : float
        Times the slippage of orders and of liquidations.
    depth : float
        The share of the market's volume that is left; impact is as if the daily volume were so.
    margin : float
        Times the maintenance and initial margin.
    outage : str, optional
        The time from the start in which neither decisions nor stops act; in whole bars, rounded up.
        Liquidations and funding go on.
    adl : float
        The share of a winning position that the venue closes (auto-deleveraging) at the bankruptcy
        price of a counterparty that entered at the start, if the price goes beyond it.
    adl_leverage : float
        The leverage of that counterparty.
    venue_default : float
        The share that is lost of what the account has at the venue, which defaults after the last
        bar: its equity there, positions at their marks. The account's ``reserve`` is elsewhere.
    basis : float
        Mark over last at the end, less 1; it grows evenly over the bars.
    implied_volatility : float
        The move of the implied volatility of options, a fraction over -1: 0.5 is half as much
        again. It grows evenly over the bars, and in each bar before the price moves.
    prices : mapping of str to float, optional
        Moves of single instruments of an account with several, and of its collateral by name; the
        others move by ``price``, except collateral with a constant price.
    correlation : float, optional
        Instruments without a move of their own move with those of ``prices``, or else with the
        first, which moves by ``price``: by this, times their volatility over that of the others.
        Where only one market moves, it is refused.
    date : str, optional
        When it happened, in UTC: the first bar of an episode of history.
    until : str, optional
        When it ended, in UTC, not included.
    asset : str
        Whose figures these are: ``"crypto"``, ``"stocks"``, or ``"any"``. Data of another kind are
        not replayed: stocks are data with sessions.
    source : str
        Where its figures are from.
    seed : int
        Of the random walk of ``"bridge"``.
    """

    name: Annotated[str, core.Text()]
    price: Annotated[float, MOVE] = 0.0
    over: Annotated[str | None, core.Duration()] = None
    shape: Annotated[str, core.Choice("bridge", "line", "bar")] = "bridge"
    volatility: Annotated[float, SCALE] = 1.0
    funding: Annotated[float | None, core.Real(-1.0, 1.0)] = None
    spread: Annotated[float, SCALE] = 1.0
    depth: Annotated[float, core.Real(0.0, 1e6, open_low=True)] = 1.0
    margin: Annotated[float, core.Real(0.0, open_low=True)] = 1.0
    outage: Annotated[str | None, core.Duration()] = None
    adl: Annotated[float, core.Real(0.0, 1.0)] = 0.0
    adl_leverage: Annotated[float, core.Real(1.0)] = 20.0
    venue_default: Annotated[float, core.Real(0.0, 1.0)] = 0.0
    basis: Annotated[float, MOVE] = 0.0
    implied_volatility: Annotated[float, MOVE] = 0.0
    prices: Annotated[Mapping[str, float] | None, a.ByInstrument(MOVE)] = None
    correlation: Annotated[float | None, core.Real(-1.0, 1.0)] = None
    date: Annotated[str | None, core.Time()] = None
    until: Annotated[str | None, core.Time()] = None
    asset: Annotated[str, core.Choice("any", "crypto", "stocks")] = "any"
    source: str = ""
    seed: Annotated[int, core.Whole(0)] = 0

    def faults(self) -> core.Faults:
        if self.shape == "bar" and self.over is not None:
            yield "over", "must be left out with shape 'bar', which lasts one bar"

        if self.prices is not None:
            if not isinstance(self.prices, Mapping):
                yield "prices", "must name instruments, {'ETHUSDT': -0.4}; price is the move of all"
            if self.correlation is not None and self.price != 0.0:
                yield "price", "must be left out: prices with a correlation move all instruments"

        if (self.date is None) != (self.until is None):
            yield "until", "must be given with date, and only with it"
        elif self.date is not None and core.read_time(self.until) <= core.read_time(self.date):
            yield "until", f"must be after date {self.date}"

    def _settle(self) -> None:
        if self.funding is not None:
            core.warn_of_high_rate("funding", self.funding, "of the notional at a settlement")


@functools.cache
def crashes() -> tuple[Scenario, ...]:
    """Return historical crashes of bitcoin and of stocks, with their dates and sources.

    Figures that no source gives are at their defaults: they change nothing.

    Examples
    --------
    >>> [crash.name for crash in crashes()][2:4]
    ['2020-03-12', '2021-05-19']
    """
    with FILE.open("rb") as file:
        episodes = tomllib.load(file)["episode"]
    scenarios = [Scenario.from_dict(episode, where=FILE.name) for episode in episodes]
    return tuple(scenarios)


def find_moves(
    scenario: Scenario,
    markets: Mapping[str, Market],
    resting: Set[str],
) -> dict[str, float]:
    """Return the move of each market in a scenario, a fraction of its last close.

    ``resting`` are those that move only where the scenario names them. They come last.
    """
    named: Mapping[str, float] = scenario.prices or {}
    owner = f"prices of scenario {scenario.name!r}: the account"
    core.check_names(owner, named, list(markets), noun="instrument")

    free = {name: market for name, market in markets.items() if name not in resting}

    moves = {}
    if scenario.correlation is None:
        for name in free:
            moves[name] = named.get(name, scenario.price)
    else:
        moves = correlate_moves(scenario, free, named)

    for name in markets:
        if name in resting:
            moves[name] = named.get(name, 0.0)
    return moves


def correlate_moves(
    scenario: Scenario,
    markets: Mapping[str, Market],
    named: Mapping[str, float],
) -> dict[str, float]:
    """Return the moves of all markets: those named, and the others, which follow them.

    A market that follows moves by log(1 + move) = rho sigma z: rho is the correlation, sigma its
    volatility, and z the mean log move of those named, in their volatilities. Without a name the
    first market leads, by ``price``.
    """
    correlation = scenario.correlation or 0.0
    if len(markets) < 2:
        raise core.ParameterError(
            f"correlation of scenario {scenario.name!r} needs several instruments that move, "
            f"got {', '.join(markets)}"
        )

    leads = {name: move for name, move in named.items() if name in markets}
    if not leads:
        first = next(iter(markets))
        leads = {first: scenario.price}

    # Moves are counted in volatilities; where one does not move, all have the same.
    sigma = {name: measure_recent(market) for name, market in markets.items()}
    all_move = all(volatility > 0.0 for volatility in sigma.values())
    if not all_move:
        sigma = dict.fromkeys(markets, 1.0)
    scores = [math.log1p(move) / sigma[name] for name, move in leads.items()]
    z = float(np.mean(scores))

    moves = {}
    for name in markets:
        if name in leads:
            moves[name] = leads[name]
        else:
            moves[name] = shrink(correlation * sigma[name] * z)
    return moves


def shrink(log_move: float) -> float:
    """Return the move of a log move, over -1 also where the number rounds to it."""
    lowest = math.nextafter(-1.0, 0.0)
    return max(math.expm1(log_move), lowest)


def measure_recent(market: Market) -> float:
    """Return the standard deviation of the log returns of the last 30 days, per bar."""
    is_recent = market.time > market.time[-1] - MONTH
    recent = market.close[is_recent]
    if len(recent) <= 2:
        return 0.0
    returns = np.diff(np.log(recent))
    return float(np.std(returns))


MOST_COST = 0.99
"""The largest cost, a fraction of the price, that a scaled one becomes."""


def scale_slippage(venue: Venue, factor: float) -> dict[str, Any]:
    """Return the fields of a venue with its slippage times a factor."""
    names = ["slippage.rate"]
    if has_spread(venue):
        names.append("slippage.spread")
    changes = {}
    for name in names:
        changes[name] = scale_cost(venue, name, factor, MOST_COST)
    return changes


def scale_margin(venue: Venue, factor: float) -> dict[str, Any]:
    """Return the fields of a venue with the margin it requires times a factor."""
    changes = {}
    for name in ("margin_multiplier", "initial_multiplier", "maintenance_multiplier"):
        multiplier = getattr(venue, name)
        if multiplier is not None:
            changes[name] = multiplier * factor
    return changes


def scale_venue(venue: Venue, scenario: Scenario) -> Venue:
    """Return the venue of a scenario: its margin, its spread, its depth."""
    changes: dict[str, Any] = {}
    if scenario.margin != 1.0:
        changes = scale_margin(venue, scenario.margin)

    if scenario.spread != 1.0:
        changes |= scale_slippage(venue, scenario.spread)
        name = "liquidation.slippage"
        changes[name] = scale_cost(
            venue,
            name,
            scenario.spread,
            MOST_COST,
        )

    # Impact is that of the square root of the share of the volume.
    if scenario.depth != 1.0:
        factor = 1.0 / math.sqrt(scenario.depth)
        changes["slippage.impact"] = venue.slippage.impact * factor
        changes["liquidation.impact"] = venue.liquidation.impact * factor

    if not changes:
        return venue
    return venue.override(changes)


def fix_margin_tables(venues: Mapping[str, Venue], time: int) -> dict[str, Venue]:
    """Return venues whose margin table is at all times that of one, ns."""
    stamp = np.array([time], dtype=np.int64)
    fixed = {}
    for name, venue in venues.items():
        table = venue.in_use(stamp)[0]
        fixed[name] = venue.with_table(table)
    return fixed
