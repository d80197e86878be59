"""What acts at the opens, and the walk through the prices inside a bar (§2.4, §2.7)."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

from tests.oracle.numbers import ONE, TIE, ZERO, exact, find_fall, find_signs
from tests.oracle.orders import RestingOrders
from tests.oracle.position import Position, reaches
from tests.oracle.requirement import Collateral
from tests.oracle.state import Point

NEAR = Decimal("1e-9")  # of a notional: two extremes that are as bad as each other
PARTS = 16
Happening = tuple[Decimal | None, int, Callable[[Point], None]]  # place, rank at it, what it does


class Exposure(NamedTuple):
    """What shares its extremes with it, what it is worth more at the low, and its notional."""

    key: Any
    change: Decimal
    notional: Decimal


class Walk(RestingOrders):
    """Steps 4 and 7."""

    # ----- step 4: the opens -----

    def step_4_gap_check(self) -> None:
        """All mark opens together, isolated positions each; otherwise stops at their opens."""
        point = self.at("open")
        was_alone = self.is_alone()

        acted = set()
        if self.cross_fails(point):
            self.note("liquidated in a gap")
            acted |= {each.name for each in self.cross}
            self.liquidate_cross(point)
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

    def floors(self) -> list[tuple[str, Decimal]]:
        """The equity at which each limit closes the account, the equity stop first."""
        found = []
        if self.equity_stop is not None:
            found.append(("equity_stop", (ONE - self.equity_stop) * self.highest))

        for name, share in self.loss_limits.items():
            base = self.paid_in if self.is_of_initial else self.openings[name]
            found.append((f"{name}_loss", self.openings[name] - share * base))
        return found

    def acting_floor(self) -> tuple[str, Decimal]:
        """The highest; of equal ones the first."""
        return max(self.floors(), key=lambda floor: floor[1])

    def stop_level(self) -> Decimal:
        return self.acting_floor()[1]

    def is_drawn(self, point: Point) -> bool:
        """Whether the equity stop acts at a point; never on a flat account."""
        if not self.floors() or not self.held:
            return False
        return self.last_equity(point) <= self.stop_level() * (ONE + TIE)

    def equity_stop_of(self, position: Position) -> list[tuple[str, Decimal]]:
        """The price at which a lone position brings the equity there; the open if it is under."""
        if not self.floors():
            return []

        equity = self.last_equity(self.at("open"))
        here = position.value("open")
        root = here + (self.stop_level() - equity) / position.quantity

        if not (root > 0 if position.contract.is_linear else root < 0):
            if equity > self.stop_level():
                return []
            root = here

        return [(self.acting_floor()[0], position.contract.price(root))]

    # ----- step 7: the waypoints -----

    def step_7_walk(self) -> None:
        if not (self.is_exposed or self.waiting()):
            return
        self.note(f"walked: {self.intrabar}")
        self.look_for_doubts()

        points = self.waypoints()
        for start, end in pairwise(points):
            self.walk_segment(start, end)

        if self.take_late_profits():
            self.walk_segment(points[-1], points[-1])  # the tests again, at the same place

    @property
    def is_exposed(self) -> bool:
        """Whether prices inside the bar can do anything to what is held."""
        return bool(self.held) or self.options_matter

    def waypoints(self) -> list[Point]:
        """``path``: all at their lows, then at their highs, or the other way round. ``worst``: what
        shares its extremes goes to the one that costs more, then to the other. What is not held
        goes to its low first."""
        low = self.at("low")
        high = self.at("high")

        together: dict[Any, list[Exposure]] = defaultdict(list)
        for each in self.exposures(low, high):
            together[each.key if self.intrabar == "worst" else None].append(each)
        falls = {key: falls_first(each) for key, each in together.items()}

        if self.intrabar == "worst":
            assert not self.waiting(), "worst has no resting orders"
            own = [falls.get(self.key_of(each), True) for each in self.positions]
            of_assets = [falls.get(self.key_of_asset(each), True) for each in self.assets]
        else:
            is_first = falls.get(None, True)
            self.note("walked: lows first" if is_first else "walked: highs first")
            own = [is_first] * len(self.positions)
            of_assets = [is_first] * len(self.assets)

        first = choose(low, high, own, of_assets)
        second = choose(high, low, own, of_assets)
        return [self.at("open"), first, second, self.at("close")]

    def exposures(self, low: Point, high: Point) -> list[Exposure]:
        found = []
        opened = self.at("open")
        for each in self.held:
            change = each.quantity * (low.marks[each.rank] - high.marks[each.rank])
            notional = abs(each.quantity * opened.marks[each.rank])
            found.append(Exposure(self.key_of(each), change, notional))
        for k, asset in enumerate(self.assets):
            change = asset.amount * (low.assets[k] - high.assets[k])
            notional = abs(asset.amount * opened.assets[k])
            found.append(Exposure(self.key_of_asset(asset), change, notional))

        for option in self.held_options if self.options_matter else ():
            key = self.key_of(self.position_of(option))
            notional = self.notional_of(option, opened)
            change = option.quantity * (self.mark(option, low) - self.mark(option, high))
            found.append(Exposure(key, change, notional))
        return found

    def key_of(self, position: Position) -> Any:
        """A group of the scenarios, else a market; an isolated position goes alone."""
        if position.is_isolated and position.quantity != 0:
            return ("isolated", position.name)
        has_groups = self.rule.has_scenarios
        return self.rule.group(position.name) if has_groups else id(position.market)

    def key_of_asset(self, asset: Collateral) -> Any:
        has_group = self.rule.has_scenarios and asset.group is not None
        return asset.group if has_group else id(asset.market)

    # ----- bars whose outcome hangs on the order of their prices -----

    def look_for_doubts(self) -> None:
        """``ambiguous_bars`` and ``both_reached``, of what is held at the start of the walk."""
        self.is_ambiguous = self.intrabar == "path" and self.cross_fails(self.adverse_point())
        self.is_both_reached = any(self.reaches_both(each) for each in self.held)

    def adverse_point(self) -> Point:
        """Every cross position at its adverse extreme, or at its stop if that is nearer. Collateral
        is a long position without a stop."""
        opened = self.at("open")
        low = self.at("low")
        high = self.at("high")
        marks = list(opened.marks)
        for each in self.cross:
            i = each.rank
            end = low if each.quantity > 0 else high
            place, _, _ = next_loss(each, opened, end, ZERO)
            share = ONE if place is None else place
            marks[i] += share * (end.marks[i] - marks[i])

        assets = tuple(
            a if asset.amount > 0 else b
            for asset, a, b in zip(self.assets, low.assets, high.assets, strict=True)
        )

        changes: dict[int, Decimal] = defaultdict(Decimal)
        for option in self.held_options:
            worth = option.quantity * (self.mark(option, low) - self.mark(option, high))
            if self.position_of(option) not in self.cross:
                changes[self.position_of(option).rank] += worth
        for rank, change in changes.items():
            marks[rank] = (low if change <= 0 else high).marks[rank]

        return opened._replace(marks=tuple(marks), assets=assets)

    def reaches_both(self, position: Position) -> bool:
        """Whether the bar has its take-profit, and its stop or its liquidation price."""
        is_long = position.quantity > 0
        worst, best = ("low", "high") if is_long else ("high", "low")

        goals = (reaches(position.price(best), goal, not is_long) for _, goal in position.goals())
        if not any(goals):
            return False

        losing = position.losing_stops()
        is_stopped = any(reaches(position.price(worst), stop, is_long) for _, stop in losing)
        return is_stopped or self.reaches_liquidation(position, worst)

    def reaches_liquidation(self, position: Position, worst: str) -> bool:
        """Whether the marks have the price that liquidates it, all else at the open. Its group of
        the scenarios moves along, and the collateral that cancels its risk."""
        opened = self.at("open")
        rank = position.rank
        marks = list(opened.marks)
        assets = list(opened.assets)
        marks[rank] = position.value(f"mark_{worst}")
        end = opened._replace(marks=tuple(marks))
        if position.is_isolated:
            return self.next_own_failure(position, opened, end, ZERO) is not None

        if self.rule.has_scenarios:
            group = self.rule.group(position.name)
            ratio = position.price(f"mark_{worst}") / position.price("mark_open")
            for each in self.cross:
                if self.rule.group(each.name) == group and each is not position:
                    marks[each.rank] = each.contract.value(each.price("mark_open") * ratio)
            for k, asset in enumerate(self.assets):
                assets[k] *= ratio if asset.group == group else ONE
            end = opened._replace(marks=tuple(marks), assets=tuple(assets))

        return self.next_failure(opened, end, ZERO) is not None

    # ----- along a segment -----

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
        """What happens next, by rank at equal places. Failures of the pool and of isolated
        positions, the equity stop, stops, take-profits, fills."""
        n = len(self.positions)

        happenings = [
            (self.next_failure(start, end, place), 0, self.liquidate_in_walk),
            (self.next_drawdown(start, end, place), 1 + n, self.drawn_in_walk),
        ]
        for each in self.isolated:
            where = self.next_own_failure(each, start, end, place)
            happenings.append((where, 1 + each.rank, partial(self.isolated_in_walk, each)))
        for each in self.held:
            where, kind, value = next_loss(each, start, end, place)
            act = partial(self.stop_in_walk, each, kind, value)
            happenings.append((where, 2 + n + each.rank, act))

            where, kind, value = next_goal(each, start, end, place)
            act = partial(self.stop_in_walk, each, kind, value)
            happenings.append((where, 2 + 2 * n + each.rank, act))

        for each in self.waiting():
            where = self.next_fill(each, start, end, place)
            happenings.append((where, 2 + 3 * n + each.rank, partial(self.fill_resting, each)))

        return (each for each in happenings if each[0] is not None)

    def next_failure(self, start: Point, end: Point, place: Decimal) -> Decimal | None:
        if not (self.cross or self.options_matter):
            return None
        if self.cross_fails(between(start, end, place)):
            return place
        if self.options_matter:
            return self.next_failure_in_parts(start, end, place)

        signs = find_signs(lambda at: self.rule.nets(self.legs(between(start, end, at), {})))

        for stage in sorted({ONE, *(sign for sign in signs if place < sign < 1)}):
            if self.cross_fails(between(start, end, stage)):
                if self.surplus(between(start, end, stage)) > 0:
                    return stage
                return find_fall(lambda at: self.surplus(between(start, end, at)), place, stage)
            place = stage
        return None

    def next_failure_in_parts(self, start: Point, end: Point, low: Decimal) -> Decimal | None:
        """With options: at 16 parts of a segment, bisected in the first that fails (B6). Under
        ``worst`` at the strikes too. Halves, as values are floats."""
        stages = [low + (ONE - low) * k / PARTS for k in range(1, PARTS + 1)]
        for each in self.held_options if self.intrabar == "worst" else ():
            position = self.position_of(each)
            opened = start.marks[position.rank]
            ended = end.marks[position.rank]
            if opened != ended:
                at = position.contract.value(exact(each.given.strike))
                stages.append((at - opened) / (ended - opened))

        for stage in sorted(stage for stage in stages if low < stage <= 1):
            if self.cross_fails(between(start, end, stage)):
                high = stage
                for _ in range(60 if self.surplus(between(start, end, stage)) <= 0 else 0):
                    middle = (low + high) / 2
                    is_under = self.surplus(between(start, end, middle)) <= 0
                    low, high = (low, middle) if is_under else (middle, high)
                return high
            low = stage
        return None

    @staticmethod
    def next_own_failure(
        position: Position, start: Point, end: Point, place: Decimal
    ) -> Decimal | None:
        opened = start.marks[position.rank]
        ended = end.marks[position.rank]
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

        before = self.last_equity(now)
        after = self.last_equity(end)
        share = (before - self.stop_level()) / (before - after)
        return min(ONE, place + max(ZERO, share) * (ONE - place))

    def liquidate_in_walk(self, point: Point) -> None:
        self.note("cross liquidated in the bar")
        self.liquidate_cross(point)

    def isolated_in_walk(self, position: Position, point: Point) -> None:
        """An isolated position fails inside the bar, unless the wallet adds margin."""
        if self.fails_unaided(position, point.marks[position.rank]):
            self.note("isolated liquidated in the bar")
            self.liquidate_isolated(position, point.marks[position.rank])

    def drawn_in_walk(self, point: Point) -> None:
        self.note("equity stop in the bar")
        self.close_account(point)

    def stop_in_walk(self, position: Position, kind: str, value: Decimal, _: Point) -> None:
        self.note(f"{kind} in the bar")
        self.close_by_stop(kind, position, value)


def falls_first(exposures: Sequence[Exposure]) -> bool:
    """Whether the lows come first: not where they are worth more than the highs."""
    more_at_lows = sum((each.change for each in exposures), ZERO)
    return more_at_lows <= NEAR * sum((each.notional for each in exposures), ZERO)


def choose(
    low: Point, high: Point, goes_low: Sequence[bool], assets_go_low: Sequence[bool]
) -> Point:

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
    if place == 0:
        return start
    if place == 1:
        return end

    def mix(first: Sequence[Decimal | None], last: Sequence[Decimal | None]) -> tuple[Any, ...]:
        pairs = zip(first, last, strict=True)
        return tuple(None if a is None else a + place * (b - a) for a, b in pairs)

    return Point(*(mix(a, b) for a, b in zip(start, end, strict=True)))


Exit = tuple[Decimal | None, str, Decimal]  # place, kind and u


def next_loss(position: Position, start: Point, end: Point, place: Decimal) -> Exit:
    """The stop that the last price reaches first on the rest of a segment."""
    is_long = position.quantity > 0
    stops = sorted(position.losing_stops(), key=lambda stop: stop[1], reverse=is_long)
    return next_exit(position, stops, is_long, start, end, place)


def next_goal(position: Position, start: Point, end: Point, place: Decimal) -> Exit:
    """The take-profit, but of what a resting order has opened or increased in this bar."""
    goals = [] if position.is_increased else position.goals()
    return next_exit(position, goals, position.quantity < 0, start, end, place)


def next_exit(
    position: Position,
    exits: Sequence[tuple[str, Decimal]],
    is_falling: bool,
    start: Point,
    end: Point,
    place: Decimal,
) -> Exit:
    """The first of some exits; one that is behind the price already acts here."""
    opened = start.lasts[position.rank]
    ended = end.lasts[position.rank]
    now = opened + place * (ended - opened)
    found = []
    for kind, price in exits:
        if reaches(position.contract.price(now), price, is_falling):
            found.append((place, kind, now))
        elif reaches(position.contract.price(ended), price, is_falling):
            value = position.contract.value(price)
            where = min(ONE, max(place, (value - opened) / (ended - opened)))
            found.append((where, kind, value))
    return min(found, key=lambda each: each[0]) if found else (None, "", ZERO)
