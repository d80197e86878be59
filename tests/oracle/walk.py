"""What acts at the opens, and the walk through the prices inside a bar (§2.4, §2.7)."""

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from itertools import pairwise
from typing import Any

from tests.oracle.numbers import EXACT, ONE, TIE, ZERO
from tests.oracle.position import Position, reaches
from tests.oracle.resting import RestingOrders
from tests.oracle.roots import find_fall, find_signs
from tests.oracle.state import Point

Happening = tuple[Decimal | None, int, Callable[[Point], None]]  # place, rank at it, what it does


class Walk(RestingOrders):
    """Steps 4 and 7."""

    # ----- step 4: the opens -----

    def step_4_gap_check(self) -> None:
        """All mark opens together, isolated positions each; otherwise stops at their opens."""
        point, was_alone, acted = self.at("open"), self.is_alone(), set()
        if self.cross_fails(point):
            self.note("liquidated in a gap")
            acted |= {each.name for each in self.cross}
            self.liquidate_cross(point, is_alone=was_alone)
        for each in self.isolated:
            value = point.marks[each.rank]
            if self.fails_unaided(each, value):
                self.note("liquidated in a gap")
                acted.add(each.name)
                self.liquidate_isolated(each, value)
        if not was_alone and self.is_drawn(point):
            self.note("equity stop in a gap")
            self.close_account(point)
        for each in self.held:
            if each.name not in acted:
                more = self.equity_stop_of(each) if was_alone else []
                stop = each.stop_reached(each.price("open"), each.price("open"), more)
                if stop is not None:
                    self.note("stopped in a gap")
                    self.close_by_stop(stop[0], each, each.value("open"))
        self.stop_by_time()

    def stop_by_time(self) -> None:
        """§5: what has been held for its longest time, after all other stops."""
        for each in self.held:
            if each.here is not None and each.is_old(self.stamp):
                self.note("time stop")
                self.close_by_stop("time_stop", each, each.value("open"))

    # ----- the equity stop (§5) -----

    def stop_level(self) -> Decimal:
        """The equity at or under which the stop acts."""
        return (ONE - self.equity_stop) * self.highest

    def is_drawn(self, point: Point) -> bool:
        """Whether the equity stop acts at a point; never on a flat account."""
        if self.equity_stop is None or not self.held:
            return False
        return self.last_equity(point) <= self.stop_level() * (ONE + TIE)

    def equity_stop_of(self, position: Position) -> list[tuple[str, Decimal]]:
        """The price at which a lone position brings the equity there; the open if it is under."""
        if self.equity_stop is None:
            return []
        equity, here = self.last_equity(self.at("open")), position.value("open")
        root = here + (self.stop_level() - equity) / position.quantity
        if not (root > 0 if position.contract.is_linear else root < 0):
            if equity > self.stop_level():
                return []
            root = here
        return [("equity_stop", position.contract.price(root))]

    # ----- step 7: the walk -----

    def step_7_walk(self) -> None:
        """The walk inside the bar; a position that is alone goes by §2.7."""
        fills = self.is_any_reached()
        if not fills and self.is_alone() and self.intrabar != "along":
            self.walk_alone(self.held[0])
        elif self.held or fills:
            self.note(f"walked: {self.intrabar}")
            points = self.worst_points() if self.intrabar == "worst" else self.path_points()
            for start, end in pairwise(points):
                self.walk_segment(start, end)
                self.follow_fresh(end)

    def path_points(self) -> list[Point]:
        """Open, first extreme, second extreme, close."""
        return [
            self.at("open"),
            self.extremes(lambda prices, t: prices["close"][t] >= prices["open"][t]),
            self.extremes(lambda prices, t: prices["close"][t] < prices["open"][t]),
            self.at("close"),
        ]

    def extremes(self, goes_low: Callable[[dict[str, list[Decimal]], int], bool]) -> Point:
        """Each instrument at its low or its high; collateral by the same rule of its own bar."""
        low, high = self.at("low"), self.at("high")
        own = [
            each.here is not None and goes_low(each.prices, each.here) for each in self.positions
        ]
        of_assets = [goes_low(prices, self.t) for prices in self.asset_prices]
        return choose(low, high, own, of_assets)

    def worst_points(self) -> list[Point]:
        """Open, then the adverse extreme of each position; of one group the one that costs more."""
        start, low, high = self.at("open"), self.at("low"), self.at("high")
        sums: dict[Any, Decimal] = {}
        for each in self.held:
            i, key = each.rank, self.key_of(each.name, each.market)
            change = each.quantity * (low.marks[i] - high.marks[i])
            sums[key] = sums.get(key, ZERO) + change
        for k, asset in enumerate(self.assets):
            key = self.key_of(asset.group, asset.market, is_asset=True)
            change = asset.amount * (low.assets[k] - high.assets[k])
            sums[key] = sums.get(key, ZERO) + change
        for name, change in self.changes_of_options(low, high):
            each = next(position for position in self.positions if position.name == name)
            key = self.key_of(name, each.market)
            sums[key] = sums.get(key, ZERO) + change
        own = [sums.get(self.key_of(e.name, e.market), ZERO) <= 0 for e in self.positions]
        of_assets = [sums[self.key_of(a.group, a.market, is_asset=True)] <= 0 for a in self.assets]
        return [start, choose(low, high, own, of_assets)]

    def changes_of_options(self, low: Point, high: Point) -> list[tuple[str, Decimal]]:
        """Underlyings, and what options on them are worth more at the low than at the high."""
        return []

    def key_of(self, name: str | None, market: Any, *, is_asset: bool = False) -> Any:
        """What shares one extreme: a group of the scenarios, else a market."""
        if not self.rule.has_scenarios or name is None:
            return id(market)
        return name if is_asset else self.rule.group(name)

    def walk_segment(self, start: Point, end: Point) -> None:
        """Everything that happens between two waypoints, first things first."""
        place = ZERO
        while found := list(self.next_events(start, end, place)):
            first = min(where for where, _, _ in found)
            where, _, act = min(
                (each for each in found if each[0] <= first + TIE), key=lambda each: each[1]
            )
            place = max(place, where)
            act(between(start, end, place))

    def next_events(self, start: Point, end: Point, place: Decimal) -> Iterator[Happening]:
        """The next failure of the pool and of each isolated position, the equity stop, stops."""
        n = len(self.positions)
        happenings = [
            (self.next_failure(start, end, place), 0, self.liquidate_in_walk),
            (self.next_drawdown(start, end, place), 1 + n, self.drawn_in_walk),
        ]
        for each in self.isolated:
            where = self.next_own_failure(each, start, end, place)
            happenings.append((where, 1 + each.rank, partial(self.isolated_in_walk, each)))
        for each in self.held:
            where, kind, value = next_stop(
                each, start.lasts[each.rank], end.lasts[each.rank], place
            )
            act = partial(self.stop_in_walk, each, kind, value)
            happenings.append((where, 2 + n + each.rank, act))
        for each in self.waiting():
            where = self.next_fill(each, start, end, place)
            happenings.append((where, 2 + 2 * n + each.rank, partial(self.fill_resting, each)))
        return (each for each in happenings if each[0] is not None)

    def next_failure(self, start: Point, end: Point, place: Decimal) -> Decimal | None:
        """Where the pool fails on the rest of a segment."""
        if not self.cross:
            return None
        if self.cross_fails(between(start, end, place)):
            return place
        signs = find_signs(lambda at: self.rule.nets(self.legs(between(start, end, at), {})))
        for stage in sorted({ONE, *(sign for sign in signs if place < sign < 1)}):
            if self.cross_fails(between(start, end, stage)):
                if self.surplus(between(start, end, stage)) > 0:
                    return stage
                return find_fall(lambda at: self.surplus(between(start, end, at)), place, stage)
            place = stage
        return None

    @staticmethod
    def next_own_failure(
        position: Position, start: Point, end: Point, place: Decimal
    ) -> Decimal | None:
        """Where an isolated position fails on the rest of a segment."""
        opened, ended = start.marks[position.rank], end.marks[position.rank]
        if position.fails(opened + place * (ended - opened)):
            return place
        if not position.fails(ended):
            return None
        if position.surplus(ended) > 0:
            return ONE
        return find_fall(lambda at: position.surplus(opened + at * (ended - opened)), place, ONE)

    def next_drawdown(self, start: Point, end: Point, place: Decimal) -> Decimal | None:
        """Where the equity stop acts on the rest of a segment: the equity is linear on it."""
        now = between(start, end, place)
        if self.is_drawn(now):
            return place
        if not self.is_drawn(end):
            return None
        before, after = self.last_equity(now), self.last_equity(end)
        share = (before - self.stop_level()) / (before - after)
        return min(ONE, place + max(ZERO, share) * (ONE - place))

    def liquidate_in_walk(self, point: Point) -> None:
        """The pool fails inside the bar."""
        self.note("cross liquidated in the bar")
        self.liquidate_cross(point, is_alone=False)

    def isolated_in_walk(self, position: Position, point: Point) -> None:
        """An isolated position fails inside the bar, unless the wallet adds margin."""
        if self.fails_unaided(position, point.marks[position.rank]):
            self.note("isolated liquidated in the bar")
            self.liquidate_isolated(position, point.marks[position.rank])

    def drawn_in_walk(self, point: Point) -> None:
        """The equity stop inside the bar."""
        self.note("equity stop in the bar")
        self.close_account(point)

    def stop_in_walk(self, position: Position, kind: str, value: Decimal, _: Point) -> None:
        """A stop inside the bar."""
        self.note("stopped in the bar")
        self.close_by_stop(kind, position, value)

    # ----- step 7 of §2: one position -----

    def walk_alone(self, position: Position) -> None:
        """§2.7: of stop and liquidation the nearer acts first, at the bar's extremes."""
        while position.quantity != 0:
            failure = self.failure_alone(position)
            kind, stop = self.stop_alone(position) or ("", None)
            if failure is not None and kind == "take_profit":
                self.note("take-profit and liquidation in one bar")
                stop = None  # losses first: the order of prices is unknown
            if failure is None and stop is None:
                return
            if failure is not None and stop is not None:
                self.note("stop and liquidation in one bar")
            if not self.failure_is_nearer(position, failure, stop):
                self.note("stopped in the bar")
                self.note(f"{kind} alone")
                self.close_by_stop(kind, position, position.contract.value(stop))
            elif not position.is_isolated:
                self.note("liquidated in the bar")
                self.liquidate_cross(moved(self.at("open"), position, failure), is_alone=True)
            elif self.fails_unaided(position, failure):
                self.note("liquidated in the bar")
                self.liquidate_isolated(position, failure)

    def failure_alone(self, position: Position) -> Decimal | None:
        """``u`` at which the adverse extreme liquidates, between it and the mark open."""
        opened = self.at("open")
        start = position.value("mark_open")
        end = position.value("mark_low" if position.quantity > 0 else "mark_high")

        def fails(value: Decimal) -> bool:
            if position.is_isolated:
                return position.fails(value)
            return self.cross_fails(moved(opened, position, value))

        def surplus(share: Decimal) -> Decimal:
            value = start + share * (end - start)
            if position.is_isolated:
                return position.surplus(value)
            return self.surplus(moved(opened, position, value))

        if fails(start):
            return start
        if not fails(end):
            return None
        if surplus(ONE) > 0:
            return end
        return start + find_fall(surplus, ZERO, ONE) * (end - start)

    def stop_alone(self, position: Position) -> tuple[str, Decimal] | None:
        """§5: the stop that the bar reaches, and its price; the open where that is beyond it."""
        more = self.equity_stop_of(position)
        found = position.stop_reached(position.price("low"), position.price("high"), more)
        if found is None:
            return None
        kind, price = found
        is_falling = (position.quantity > 0) != (kind == "take_profit")
        return kind, (min if is_falling else max)(price, position.price("open"))

    @staticmethod
    def failure_is_nearer(
        position: Position, failure: Decimal | None, stop: Decimal | None
    ) -> bool:
        """Relative distances in price, each from its own open; a tie liquidates."""
        if failure is None or stop is None:
            return stop is None
        mark, last = position.price("mark_open"), position.price("open")
        to_failure = abs(mark - position.contract.price(failure)) / mark
        return to_failure <= abs(last - stop) / last * (ONE + TIE) + EXACT  # both may be 0


def choose(
    low: Point, high: Point, goes_low: Sequence[bool], assets_go_low: Sequence[bool]
) -> Point:
    """The point at which some are low and the others high."""

    def pick(
        lows: Sequence[Decimal | None], highs: Sequence[Decimal | None], are_low: Sequence[bool]
    ) -> tuple[Any, ...]:
        return tuple(a if is_low else b for a, b, is_low in zip(lows, highs, are_low, strict=True))

    return Point(
        pick(low.marks, high.marks, goes_low),
        pick(low.lasts, high.lasts, goes_low),
        pick(low.assets, high.assets, assets_go_low),
    )


def between(start: Point, end: Point, place: Decimal) -> Point:
    """The point a share of the way along a segment, linear in u."""
    if place == 0:
        return start
    if place == 1:
        return end

    def mix(first: Sequence[Decimal | None], last: Sequence[Decimal | None]) -> tuple[Any, ...]:
        pairs = zip(first, last, strict=True)
        return tuple(None if a is None else a + place * (b - a) for a, b in pairs)

    return Point(*(mix(a, b) for a, b in zip(start, end, strict=True)))


def moved(point: Point, position: Position, value: Decimal) -> Point:
    """A point with one instrument's mark at another value."""
    marks = list(point.marks)
    marks[position.rank] = value
    return point._replace(marks=tuple(marks))


def next_stop(
    position: Position, start: Decimal, end: Decimal, place: Decimal
) -> tuple[Decimal | None, str, Decimal]:
    """Place, kind and u of the stop that the last price reaches first on a segment's rest."""
    is_long = position.quantity > 0
    now = start + place * (end - start)
    losing = sorted(position.losing_stops(), key=lambda stop: stop[1], reverse=is_long)
    stops = [(*stop, is_long) for stop in losing]
    stops += [(*goal, not is_long) for goal in position.goals()]
    found = []
    for kind, price, is_falling in stops:
        if reaches(position.contract.price(now), price, is_falling):
            found.append((place, kind, now))
        elif reaches(position.contract.price(end), price, is_falling):
            value = position.contract.value(price)
            where = min(ONE, max(place, (value - start) / (end - start)))
            found.append((where, kind, value))
    return min(found, key=lambda each: each[0]) if found else (None, "", ZERO)
