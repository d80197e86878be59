"""The orders in which the extremes and the settlements of one bar may have come."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from backtest.account import Feed, Ledger, Log, Plan, Rules, State, Watch, live_bar, new_ledger
from backtest.engine import with_decision

LOW, HIGH, FUND = "low", "high", "funding"
NODES = 0.05 * (np.arange(900) + 0.5)


class Move(NamedTuple):
    kind: str
    which: str


class Branch(NamedTuple):
    state: Any
    ledger: Ledger
    weight: float
    order: str


def list_orders(has_mark: bool, n_stamps: int) -> Iterator[tuple[tuple[Move, ...], bool]]:
    ways = (("last", "mark"), ("mark", "last")) if has_mark else (("both",),)
    for is_low_first in (True, False):
        kinds = (LOW, HIGH) if is_low_first else (HIGH, LOW)
        for choice in itertools.product(ways, repeat=2):
            moves = [
                Move(kind, which) for kind, way in zip(kinds, choice, strict=True) for which in way
            ]
            total = len(moves) + n_stamps
            for places in itertools.combinations(range(total), n_stamps):
                stamps = iter(Move(FUND, str(k)) for k in range(n_stamps))
                rest = iter(moves)
                order = tuple(next(stamps) if i in places else next(rest) for i in range(total))
                yield order, is_low_first


def low_first_probability(start: float, high: float, low: float, close: float) -> float:
    """Return the probability that a Brownian bar reached its low before its high.

    Notes
    -----
    Let a, h and c be the distances of low, high and close from the open, d = h + a, and let the
    variance of the bar be like a time. The path is cut at its extremes: from the open to the low
    without the high, from there to the high, and to the close. The transform over the variance
    is the product of ``sinh kh / sinh kd``, ``k / sinh kd`` and ``2 sinh k(c + a) / sinh kd``, k =
    sqrt(2 lambda). The variance is not known: its integral over dv / v is that of the transform
    over lambda, so only the shape of the bar counts. High first is the mirror image. Averaged over
    Brownian bars that close above their open, the result is 0.886. Source of the transforms:
    Borodin and Salminen (2002), Handbook of Brownian Motion, II.1.
    """
    top, bottom, end = (math.log(x / start) for x in (high, low, close))
    width = top - bottom
    if not width > 0.0:
        return 0.5
    h, a, c = top / width, -bottom / width, end / width
    first_low, first_high = integrate_order(h, c + a), integrate_order(a, h - c)
    total = first_low + first_high
    return 0.5 if not total > 0.0 else min(max(first_low / total, 0.0), 1.0)


def integrate_order(x: float, y: float) -> float:
    """Return the integral of k^2 sinh(kx) sinh(ky) / sinh(k)^3 over k, for x and y in [0, 1]."""
    k = NODES
    shape = np.exp(k * (x + y - 3.0)) * 2.0 * -np.expm1(-2.0 * k * x) * -np.expm1(-2.0 * k * y)
    return float(np.sum(k * k * shape / (-np.expm1(-2.0 * k)) ** 3))


class BarSteps:
    def __init__(self, rules: Rules, plan: Plan, feed: Feed, t: int) -> None:
        self.rules, self.plan, self.feed, self.t = rules, plan, feed, t
        self.log = Log(None, np.empty((1, 8)), np.zeros(1, dtype=np.int64))
        bars = np.asarray(feed.funding_bar)
        self.events = np.flatnonzero(bars == t)
        is_open = np.asarray(feed.funding_is_open)[self.events] == 1
        self.opened, self.inside = self.events[is_open], self.events[~is_open]
        self.flows = np.flatnonzero(np.asarray(feed.flow_bar) == t)

    @property
    def has_mark(self) -> bool:
        feed, t = self.feed, self.t
        return any(
            getattr(feed, name)[t] != getattr(feed, f"mark_{name}")[t]
            for name in ("open", "high", "low")
        )

    def branches(self, state: State) -> list[Branch]:
        t, feed = self.t, self.feed
        chance = low_first_probability(feed.open[t], feed.high[t], feed.low[t], feed.close[t])
        orders = list(list_orders(self.has_mark, len(self.inside)))
        half = len(orders) / 2.0
        found: dict[tuple[Any, ...], Branch] = {}
        for order, is_low_first in orders:
            weight = (chance if is_low_first else 1.0 - chance) / half
            after, ledger = self.live(state, order)
            key = identify(after)
            if key in found:
                weight += found[key].weight
            text = ", ".join(move.kind for move in order if move.which != "mark")
            kept = found.get(key, Branch(after, ledger, 0.0, text))
            found[key] = kept._replace(weight=weight)
        return list(found.values())

    def live(self, state: State, order: tuple[Move, ...]) -> tuple[State, Ledger]:
        feed, n = self.make_step_feed(order)
        before = state
        now = state._replace(funding_next=0, flow_next=0)
        total = new_ledger()
        quiet = without_ruin(self.rules)
        for k in range(1, n + 1):
            rules = self.rules if k == n else quiet
            now, ledger, _ = live_bar(rules, self.plan, feed, now, self.log, k)
            total = add_ledgers(total, ledger)
            if k < n:
                now = with_decision(now, math.nan, 1.0)
        return finish(before, now, total, len(self.events), len(self.flows)), total

    def make_step_feed(self, order: tuple[Move, ...]) -> tuple[Feed, int]:
        feed, t = self.feed, self.t
        last, mark = [feed.open[t]], [feed.mark_open[t]]
        bars: list[int] = []
        for k, move in enumerate(order, 1):
            to_last, to_mark = last[-1], mark[-1]
            if move.kind == FUND:
                bars.append(k)
            elif move.which != "mark":
                to_last = getattr(feed, move.kind)[t]
            if move.kind != FUND and move.which != "last":
                to_mark = getattr(feed, f"mark_{move.kind}")[t]
            last.append(to_last)
            mark.append(to_mark)
        last.append(feed.close[t])
        mark.append(feed.mark_close[t])
        n = len(order) + 1
        fields: dict[str, Any] = dict(walk_steps("", last, feed.close[t - 1]))
        fields |= walk_steps("mark_", mark, feed.mark_close[t - 1])
        fields["volume"] = [feed.volume[t - 1]] * (n + 1)
        for name in feed._fields:
            if name not in fields:
                values = getattr(feed, name)
                one = values[min(t, len(values) - 1)] if len(values) else math.nan
                fields[name] = [one]
        fields["years"] = [0.0, fields["years"][0], *([0.0] * (n - 1))]
        fields |= self.make_step_events(bars)
        fields["time"] = [feed.time[t]] * (n + 1)
        return Feed(**fields), n

    def make_step_events(self, bars: list[int]) -> dict[str, Any]:
        feed = self.feed
        prices = [
            feed.mark_open[self.t] if math.isnan(feed.funding_price[k]) else feed.funding_price[k]
            for k in self.events
        ]
        return {
            "funding_bar": [1] * len(self.opened) + bars,
            "funding_is_open": [1] * len(self.opened) + [1] * len(bars),
            "funding_price": prices,
            "funding_rate": [feed.funding_rate[k] for k in self.events],
            "flow_bar": [1] * len(self.flows),
            "flow_amount": [feed.flow_amount[k] for k in self.flows],
        }


def walk_steps(prefix: str, path: list[float], before: float) -> Iterator[tuple[str, list[float]]]:
    pairs = list(itertools.pairwise(path))
    yield f"{prefix}open", [before, *(a for a, _ in pairs)]
    yield f"{prefix}high", [before, *(max(pair) for pair in pairs)]
    yield f"{prefix}low", [before, *(min(pair) for pair in pairs)]
    yield f"{prefix}close", [before, *(b for _, b in pairs)]


def finish(before: State, now: State, total: Ledger, n_events: int, n_flows: int) -> State:
    return now._replace(
        funding_next=before.funding_next + n_events,
        flow_next=before.flow_next + n_flows,
        since=0.0 if total.liquidations > 0 else before.since + 1.0,
        since_stop=0.0 if total.stops > 0 else before.since_stop + 1.0,
        peak=max(before.peak, now.unit),
        watch=Watch(now.watch.best, before.watch.highest),  # of the equity stop, which is refused
    )


def add_ledgers(one: Ledger, other: Ledger) -> Ledger:
    return Ledger._make(a + b for a, b in zip(one, other, strict=True))


def without_ruin(rules: Rules) -> Rules:
    return rules._replace(account=rules.account._replace(ruin_at=0.0))


def identify(state: State) -> tuple[Any, ...]:
    position = state.balances.positions[0]
    numbers = (
        state.balances.cash, position.quantity, position.entry, position.margin, state.equity,
        state.reserve, state.unit, state.watch.best,
    )  # fmt: skip
    flags = (state.is_over, state.is_ruined, state.since, state.since_stop)
    return (*(f"{x:.9g}" for x in numbers), *flags)
