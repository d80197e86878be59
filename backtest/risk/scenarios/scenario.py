"""Scenario: a shock to prices, funding, liquidity and rules, after the last bar of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from backtest.account import ByInstrument
from backtest.base import (
    Choice,
    Duration,
    Faults,
    Number,
    Text,
    Time,
    Value,
    Whole,
    declared,
    read_time,
)

SCALE = Number(0.0)


@declared
class Scenario(Value):
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

    name: Annotated[str, Text()]
    price: Annotated[float, Number(-1.0, open_low=True)] = 0.0
    over: Annotated[str | None, Duration()] = None
    shape: Annotated[str, Choice("bridge", "line", "bar")] = "bridge"
    volatility: Annotated[float, SCALE] = 1.0
    funding: Annotated[float | None, Number(-1.0, 1.0)] = None
    spread: Annotated[float, SCALE] = 1.0
    depth: Annotated[float, Number(0.0, 1e6, open_low=True)] = 1.0
    margin: Annotated[float, Number(0.0, open_low=True)] = 1.0
    outage: Annotated[str | None, Duration()] = None
    adl: Annotated[float, Number(0.0, 1.0)] = 0.0
    adl_leverage: Annotated[float, Number(1.0)] = 20.0
    venue_default: Annotated[float, Number(0.0, 1.0)] = 0.0
    basis: Annotated[float, Number(-1.0, open_low=True)] = 0.0
    implied_volatility: Annotated[float, Number(-1.0, open_low=True)] = 0.0
    prices: Annotated[Mapping[str, float] | None, ByInstrument(Number(-1.0, open_low=True))] = None
    correlation: Annotated[float | None, Number(-1.0, 1.0)] = None
    date: Annotated[str | None, Time()] = None
    until: Annotated[str | None, Time()] = None
    asset: Annotated[str, Choice("any", "crypto", "stocks")] = "any"
    source: str = ""
    seed: Annotated[int, Whole(0)] = 0

    def faults(self) -> Faults:
        """Yield what contradicts itself."""
        if self.shape == "bar" and self.over is not None:
            yield "over", "must be left out with shape 'bar', which takes one bar"
        if self.prices is not None and not isinstance(self.prices, Mapping):
            yield "prices", "must name instruments, {'ETHUSDT': -0.4}; price is the move of all"
        if self.prices is not None and self.correlation is not None and self.price != 0.0:
            yield "price", "must be left out: prices with a correlation move all instruments"
        if (self.date is None) != (self.until is None):
            yield "until", "must be given with date, and only with it"
        elif self.date is not None and read_time(self.until) <= read_time(self.date):
            yield "until", f"must be after date {self.date}"

    @property
    def is_empty(self) -> bool:
        """Whether it takes no bar: no move, no time, no rate, no basis, no replay."""
        return (
            self.price == 0.0
            and self.prices is None
            and self.over is None
            and self.shape != "bar"
            and self.funding is None
            and self.basis == 0.0
            and self.implied_volatility == 0.0
            and self.margin == 1.0
            and self.outage is None
        )
