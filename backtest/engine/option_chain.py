"""The listed contracts as a policy sees them at a close."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from backtest.account import OptionFeed
from backtest.base import FloatArray, IntArray, PolicyError
from backtest.base.units import YEAR_DAYS
from backtest.engine.option_inputs import CloseQuotes
from backtest.venue import Option

SCHEDULED, TOTAL = "schedule", "total"


class ListedOption(NamedTuple):
    """What a policy knows of a listed contract at a close.

    ``kind`` is "call" or "put", ``expiry`` in UTC, ``years`` of 365 days. Prices are per unit of
    the underlying in the currency of settlement ("cash" or "coin"): ``mark``, and ``bid`` and
    ``ask`` of the last row (NaN: not quoted, or no row); without a chain they are those at which an
    order would fill. ``spot`` (the mark price of the underlying) and ``forward`` are in the quote
    currency, ``volatility`` is that of the mark,
    ``delta`` N(d1), negative for a put, ``size`` units per contract, ``quantity`` the signed
    contracts that are held, and ``leg`` that which ordered them first ("": none).
    """

    name: str
    underlying: str
    kind: str
    strike: float
    expiry: pd.Timestamp
    size: float
    settlement: str
    years: float
    spot: float
    forward: float
    mark: float
    bid: float
    ask: float
    volatility: float
    delta: float
    quantity: float
    leg: str

    @property
    def days(self) -> float:
        return round(YEAR_DAYS * self.years, 9)

    @property
    def is_quoted(self) -> bool:
        return not (math.isnan(self.bid) and math.isnan(self.ask))

    @property
    def cost(self) -> float:
        """What one contract costs at its ask, in the currency of settlement."""
        return self.size * self.ask

    @property
    def delta_notional(self) -> float:
        """S dU/dS of one contract at a constant basis, in the currency of settlement.

        In cash size delta F, in coins size (delta - V / F).
        """
        if self.settlement == "cash":
            return self.size * self.delta * self.forward
        return self.size * (self.delta - self.mark)

    @property
    def notional(self) -> float:
        """What one contract is on, in the currency of settlement: in coins its size."""
        return self.size * (self.spot if self.settlement == "cash" else 1.0)


class Legs(NamedTuple):
    """What the legs of all policies ordered so far; all of it changes.

    ``owners`` has the policy and the leg of each contract by number, ``held`` the contract that
    each leg ordered last, and ``hedged`` the instruments that were ordered in contracts.
    """

    owners: dict[int, tuple[int, str]]
    held: dict[tuple[int, str], int]
    hedged: set[int]


class ListedContracts(NamedTuple):
    names: Sequence[str]
    options: Sequence[Option]
    expiries: Sequence[pd.Timestamp]
    feed: OptionFeed
    seen: CloseQuotes
    legs: Legs


class OptionChain(Mapping[str, ListedOption]):
    def __init__(
        self,
        listed: ListedContracts,
        contracts: Mapping[str, int],
        quantities: FloatArray,
        policy: int,
        instrument: str,
        t: int,
    ) -> None:
        feed = listed.feed
        alive = (feed.years_close[t] > 0.0) & np.isfinite(feed.volatilities_close[t])
        self._listed, self._quantities, self._policy, self._t = listed, quantities, policy, t
        self._contracts = {name: k for name, k in contracts.items() if alive[k]}
        self.instrument = instrument
        self.rolled: dict[str, float] = {}

    def __getitem__(self, name: str) -> ListedOption:
        k, t, feed, seen = self._contracts[name], self._t, self._listed.feed, self._listed.seen
        option = self._listed.options[k]
        return ListedOption(
            name=name,
            underlying=str(option.underlying),
            kind=str(option.kind),
            strike=float(feed.strikes[k]),
            expiry=self._listed.expiries[k],
            size=option.size,
            settlement=str(option.settlement),
            years=float(feed.years_close[t, k]),
            spot=float(seen.forwards[t, k] / feed.bases_close[t, k]),
            forward=float(seen.forwards[t, k]),
            mark=float(seen.marks[t, k]),
            bid=float(seen.bids[t, k]),
            ask=float(seen.asks[t, k]),
            volatility=float(feed.volatilities_close[t, k]),
            delta=float(seen.deltas[t, k]),
            quantity=float(self._quantities[k]),
            leg=self._listed.legs.owners.get(k, (0, ""))[1],
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._contracts)

    def __len__(self) -> int:
        return len(self._contracts)

    @property
    def is_quoted(self) -> bool:
        numbers = self._numbers
        seen = self._listed.seen
        return bool(np.isfinite([seen.bids[self._t, numbers], seen.asks[self._t, numbers]]).any())

    @property
    def _numbers(self) -> IntArray:
        return np.fromiter(self._contracts.values(), np.int64, len(self._contracts))

    def held(self, leg: str) -> ListedOption | None:
        k = self._listed.legs.held.get((self._policy, leg), -1)
        name = self._listed.names[k] if k >= 0 else ""
        is_held = name in self._contracts and self._quantities[k] != 0.0
        return self[name] if is_held else None

    def quantity_of(self, k: int) -> float:
        return float(self._quantities[k])

    def positions(self) -> list[ListedOption]:
        return [self[name] for name, k in self._contracts.items() if self._quantities[k] != 0.0]

    def choose(
        self, kind: str, delta: float, side: float, tenor: float, roll: float
    ) -> ListedOption | None:
        numbers, t = self._numbers, self._t
        feed, seen = self._listed.feed, self._listed.seen
        days = np.round(YEAR_DAYS * feed.years_close[t, numbers], 9)  # ties, in spite of rounding
        fits = (feed.signs[numbers] == (1.0 if kind == "call" else -1.0)) & (days > roll)
        fits &= np.isfinite(seen.asks[t, numbers])
        fits &= np.isfinite(seen.bids[t, numbers]) | (side > 0.0)
        numbers, days = numbers[fits], days[fits]
        if len(np.unique(feed.instruments[numbers])) > 1:
            raise PolicyError(
                "a leg chooses among the contracts on one instrument, got those on several; give "
                "the rule as the policy of each instrument, not as the overlay"
            )
        if not len(numbers):
            return None
        away = np.round(np.abs(np.abs(seen.deltas[t, numbers]) - abs(delta)), 9)
        first = np.lexsort((feed.strikes[numbers], away, days, np.round(np.abs(days - tenor), 9)))[
            0
        ]
        return self[self._listed.names[int(numbers[first])]]

    def roll(
        self, legs: Mapping[str, tuple[str, float, float]], tenor: float, roll: float
    ) -> dict[str, ListedOption]:
        self.rolled |= dict.fromkeys(legs, roll)
        if not self.is_quoted:
            return {}
        held = [self.held(leg) for leg in legs]
        if all(each is not None and each.days > roll and each.is_quoted for each in held):
            return {}
        found = {leg: self.choose(*spec, tenor, roll) for leg, spec in legs.items()}
        return {leg: each for leg, each in found.items() if each} if all(found.values()) else {}
