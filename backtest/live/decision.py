"""``Decision``: the next order of an account, what cut it, and what speaks against acting."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from backtest.base import (
    format_leverage,
    format_money,
    format_percent,
    format_price,
    format_signed,
    to_json,
)

ORDERS_NOTHING = "no order was sent"


class Cut(NamedTuple):
    instrument: str
    cause: str
    turns: float
    asked: float

    def __str__(self) -> str:
        took = "took away" if self.turns >= 0.0 else "added"
        return (
            f"{self.instrument}: {self.cause} {took} {format_leverage(abs(self.turns))} of "
            f"{format_leverage(self.asked)}"
        )


class Caution(NamedTuple):
    text: str
    stops: bool

    def __str__(self) -> str:
        return self.text


class FundingDue(NamedTuple):
    instrument: str
    time: pd.Timestamp
    rate: float
    is_predicted: bool
    before: float
    after: float


@dataclass(frozen=True, eq=False, repr=False)
class Decision:
    time: pd.Timestamp
    leverage: Mapping[str, float]
    venue_leverage: Mapping[str, float]
    target: Mapping[str, float]
    order: Mapping[str, float]
    price: Mapping[str, float]
    fill_price: Mapping[str, float]
    costs: Mapping[str, Mapping[str, float]]
    cuts: tuple[Cut, ...]
    warnings: tuple[Caution, ...]
    by_gap: pd.DataFrame
    account: pd.DataFrame
    equity: tuple[float, float]
    margin_ratio: tuple[float, float]
    funding_due: tuple[FundingDue, ...]

    @property
    def may_act(self) -> bool:
        return not any(each.stops for each in self.warnings)

    @property
    def order_per_percent(self) -> dict[str, float]:
        _, same, up = self.by_gap.to_numpy()
        return dict(zip(map(str, self.by_gap.columns), (up - same).tolist(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        found = {
            "time": self.time.isoformat(),
            "may_act": self.may_act,
            "leverage": self.leverage,
            "venue_leverage": self.venue_leverage,
            "target": self.target,
            "order": self.order,
            "price": self.price,
            "fill_price": self.fill_price,
            "costs": self.costs,
            "order_per_percent": self.order_per_percent,
            "cuts": [each._asdict() for each in self.cuts],
            "warnings": [each._asdict() for each in self.warnings],
            "equity": dict(zip(("before", "after"), self.equity, strict=True)),
            "margin_ratio": dict(zip(("before", "after"), self.margin_ratio, strict=True)),
            "account": self.account.to_dict(orient="index"),
            "funding_due": [
                {**each._asdict(), "time": each.time.isoformat()} for each in self.funding_due
            ],
        }
        plain: dict[str, Any] = to_json(found)
        return plain

    def __repr__(self) -> str:
        return f"<Decision at {self.time:%Y-%m-%d %H:%M} UTC: {describe_orders(self)}>"

    def __str__(self) -> str:
        return "\n".join(write_decision(self))


def describe_orders(decision: Decision) -> str:
    words = [
        f"{'buy' if size > 0.0 else 'sell'} {abs(size):.12g} {name}"
        for name, size in decision.order.items()
        if size != 0.0
    ]
    return ", ".join(words) or "no order"


def write_decision(decision: Decision) -> Iterator[str]:
    orders = describe_orders(decision)
    yield f"Decision at the close of {decision.time:%Y-%m-%d %H:%M} UTC: {orders}"
    for name in decision.order:
        yield from write_instrument(decision, name)
    before, after = decision.equity
    low, high = decision.margin_ratio
    yield f"  equity {format_money(before)} -> {format_money(after)}, margin ratio " + (
        f"{format_percent(low)} -> {format_percent(high)}"
    )
    for title, texts in (("cut", decision.cuts), ("warning", decision.warnings)):
        yield from (f"  {title}: {each}" for each in texts)
    for each in decision.funding_due:
        yield f"  {write_funding(each)}"
    if not decision.may_act:
        yield "  do not act on this order before the warnings are cleared"
    yield f"  {ORDERS_NOTHING}"


def write_instrument(decision: Decision, name: str) -> Iterator[str]:
    level, target = decision.leverage[name], decision.target[name]
    asked = "leave the position" if math.isnan(level) else format_leverage(level)
    share = "" if math.isnan(target) else f", target {format_signed(target)} x equity"
    yield f"  {name}: {asked}{share}"
    row: Any = decision.account.loc[name]
    yield (
        f"    position {row['position_before']:.12g} -> {row['position_after']:.12g} contracts at "
        f"{format_price(decision.price[name])}, liquidation price "
        f"{write_price(row['liquidation_before'])} -> {write_price(row['liquidation_after'])}"
    )
    change = decision.order_per_percent[name]
    yield f"    per 1 % that it opens higher, the order changes by {change:+.6g} contracts"


def write_price(price: float) -> str:
    return "none" if math.isnan(price) else format_price(price)


def write_funding(due: FundingDue) -> str:
    known = "published" if due.is_predicted else "the last one paid"
    return (
        f"{due.instrument}: funding due {due.time:%Y-%m-%d %H:%M} UTC at {due.rate:.6%} ({known}): "
        f"{write_flow(due.before)} before the order, {write_flow(due.after)} after it"
    )


def write_flow(paid: float) -> str:
    return f"{'receives' if paid < 0.0 else 'pays'} {format_money(abs(paid))}"
