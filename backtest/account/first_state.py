"""What an account starts from: options that are not held, and the volume traded by day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest import margin
from backtest.account.records import OptionFeed, OptionState, OptionTerms, make_option_feed
from backtest.core import FloatArray
from backtest.margin import MarginRule, OptionPositions


def pack_positions(feed: OptionFeed, groups: Any) -> OptionPositions:
    """Return positions of 0 contracts in the options of a feed, of margin groups ``groups``."""
    n = len(feed.signs)
    found: dict[str, Any] = {name: np.full(n, np.nan) for name in OptionPositions._fields}
    found |= {name: getattr(feed, name) for name in found if name in OptionFeed._fields}
    return OptionPositions(**{**found, "groups": groups, "quantities": np.zeros(n)})


def pack_option_terms(rule: MarginRule, feed: OptionFeed, names: Sequence[str]) -> OptionTerms:
    groups, numbers = margin.number_groups(rule, [names[i] for i in feed.instruments], names)
    used = rule if len(feed.signs) else MarginRule()
    positions = pack_positions(feed, numbers)
    rules = margin.pack_option_rules(used, positions, groups if len(feed.signs) else (), names)
    shared = {x: getattr(feed, x) for x in OptionTerms._fields if x in OptionFeed._fields}
    return OptionTerms(rules=rules, groups=positions.groups, **shared)


def start_options(terms: OptionTerms, feed: OptionFeed) -> OptionState:
    n = len(feed.signs)
    state: dict[str, Any] = {name: np.zeros(n) for name in OptionState._fields}
    state |= {"targets": np.full(n, np.nan), "has_quotes": np.zeros(n, np.int64)}
    return OptionState(**{**state, "positions": pack_positions(feed, terms.groups)})


def no_options() -> OptionState:
    feed = make_option_feed(0, 1)
    return start_options(pack_option_terms(MarginRule(), feed, ()), feed)


WINDOW = 30
"""Days of the volume that chooses a tier."""


class TradedDays(NamedTuple):
    """Traded notional by UTC day: ``today``, of day number ``day``, and the 30 days before it.

    ``past`` has shape (30, ...), the oldest day first; that of ``today`` is the rest.
    """

    day: int
    today: FloatArray | float
    past: FloatArray

    def at(self, day: int) -> TradedDays:
        passed = min(day - self.day, WINDOW + 1)
        if passed <= 0:
            return self
        none = np.zeros((passed - 1, *np.shape(self.today)))
        rows = np.concatenate([self.past, [self.today], none])
        return TradedDays(day, 0.0, rows[-WINDOW:])

    def add(self, amount: FloatArray | float) -> TradedDays:
        return self._replace(today=self.today + amount)

    def to_dict(self) -> dict[str, Any]:
        return {"day": self.day, "today": self.today, "past": self.past.tolist()}


def read_traded(data: Mapping[str, Any] | None) -> TradedDays | None:
    if data is None:
        return None
    return TradedDays(data["day"], data["today"], np.array(data["past"], dtype=np.float64))
