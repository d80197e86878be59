"""Kinds of events, each said once, and the log that they are written in."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from backtest.account.money import FILL_COSTS


class Mark(NamedTuple):
    """How a chart of the account shows an event: its words, a symbol and a color of the theme."""

    words: str
    symbol: str
    color: str


class Kind(NamedTuple):
    """What is known of a kind of event.

    ``name`` stands in tables. With ``has_price`` the value of an entry is one u of an instrument.
    ``is_trade``: it trades at a fee, with slippage and impact. ``is_stop``: a rule of the account
    closed the position. ``is_forced``: it was closed against the policy. ``is_inside``: it acts
    inside a bar. ``ended`` is what a trade says that it ended by, if not the name.
    """

    name: str
    mark: Mark | None = None
    has_price: bool = True
    is_trade: bool = False
    is_stop: bool = False
    is_forced: bool = False
    is_inside: bool = False
    ended: str = ""


def stop(name: str, mark: Mark, *, is_inside: bool = True) -> Kind:
    return Kind(name, mark, is_trade=True, is_stop=True, is_forced=True, is_inside=is_inside)


DOWN, CROSSED = ("triangle-down", "loss"), ("circle-x-open", "loss")


class Event(IntEnum):
    """What an entry of the log is, and its kind.

    ``CAUSED`` is no event: its entries give a cause of a liquidation and where it stands.
    """

    kind: Kind

    def __new__(cls, *fields_of_kind: Any) -> Self:
        """Return an event numbered in the order of declaration, with its kind.

        An enum hands a tuple on by its elements, so the kind arrives as its fields.
        """
        event = int.__new__(cls, len(cls.__members__))
        event._value_ = int(event)
        event.kind = Kind(*fields_of_kind)
        return event

    FILL = Kind("fill", is_trade=True, ended="order")
    LIQUIDATED = Kind(
        "liquidation", Mark("liquidation", "x", "loss"), is_forced=True, is_inside=True
    )
    STOPPED = stop("stop", Mark("stop", *DOWN))
    TRAILED = stop("trailing_stop", Mark("trailing stop", *DOWN))
    EQUITY_STOPPED = stop("equity_stop", Mark("equity stop", *DOWN))
    DAY_STOPPED = stop("daily_loss", Mark("daily loss limit", *DOWN))
    WEEK_STOPPED = stop("weekly_loss", Mark("weekly loss limit", *DOWN))
    TIME_STOPPED = stop("time_stop", Mark("time stop", *DOWN), is_inside=False)
    TOOK_PROFIT = stop("take_profit", Mark("take-profit", "star", "accent"))
    CALLED = Kind("margin_call", Mark("margin call", "circle-open", "loss"), has_price=False)
    CALL_MET = Kind("call_met", Mark("margin call met", "circle", "accent"), has_price=False)
    CALL_PARTLY_MET = Kind("call_partly_met", has_price=False)
    CALL_FAILED = Kind("call_failed", Mark("margin call failed", *CROSSED), has_price=False)
    TOPPED_UP = Kind("top_up", Mark("top-up", "triangle-up", "accent"), has_price=False)
    FLOW = Kind("flow", Mark("deposit or withdrawal", "diamond-open", "accent"), has_price=False)
    REFUSED = Kind(
        "withdrawal_refused", Mark("withdrawal refused", "diamond-x-open", "loss"), has_price=False
    )
    MARGIN_ADDED = Kind(
        "margin_added", Mark("margin from the balance", "triangle-up-open", "accent")
    )
    MARGIN_RETURNED = Kind(
        "margin_returned", Mark("margin to the balance", "triangle-down-open", "accent")
    )
    MARGIN_REFUSED = Kind("margin_refused", Mark("margin that could not move", *CROSSED))
    BAD_DEBT = Kind("bad_debt", Mark("bad debt", "square", "loss"))
    RUINED = Kind("ruin", Mark("ruin", "cross", "loss"), is_forced=True)
    FUNDING = Kind("funding")
    INTEREST = Kind("interest", has_price=False)
    EXPENSE = Kind("expense")
    CONVERTED = Kind("conversion")
    RESTED = Kind("limit_order")
    DELISTED = Kind("delisted", is_trade=True, ended="delisting")
    EXPIRED = Kind("expiry", is_trade=True)
    UNQUOTED = Kind("unquoted")
    PAUSED = Kind("pause", Mark("pause after an equity stop", *CROSSED), has_price=False)
    CAUSED = Kind("")


EVENTS = tuple(each for each in Event if each.kind.name)
WITHOUT_PRICE = tuple(each for each in EVENTS if not each.kind.has_price)
TRADES = tuple(each for each in EVENTS if each.kind.is_trade)
STOPS = tuple(each for each in EVENTS if each.kind.is_stop)
FORCED = tuple(each for each in EVENTS if each.kind.is_forced)
INSIDE = tuple(each for each in EVENTS if each.kind.is_inside)
TRADED = tuple(each for each in EVENTS if each.kind.is_trade or each.kind.is_forced)
"""Those that change what is held of an instrument or an option."""
MARKS = {each.kind.name: each.kind.mark for each in EVENTS if each.kind.mark is not None}
ENDINGS = {each: each.kind.ended or each.kind.name for each in TRADED}


WHOLE = ("bar", "kind", "owner", "step")
COLUMNS = ("bar", "kind", "value", "quantity", "amount", *FILL_COSTS.values(), "owner", "step")
ENTRY = np.dtype([(name, np.int64 if name in WHOLE else np.float64) for name in COLUMNS])
"""An entry of the log.

``bar`` counts from the first of the market, ``kind`` is an :class:`Event`, ``value`` is in u
(:mod:`backtest.margin.brackets`), ``quantity`` in signed contracts, money in the settlement
currency. ``owner`` numbers instruments, then collateral, then options; -1 is the account. ``step``
is that of the bar.
"""
Entries: TypeAlias = npt.NDArray[np.void]
"""Entries of a log, of shape (n,) and dtype :data:`ENTRY`."""
