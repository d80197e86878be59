"""Accounts with options: walked through a bar, and liquidated (B6 and B7)."""

import math
from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tests.oracle.numbers import ONE, REMAINDER, TIE, ZERO, exact
from tests.oracle.option_margin import Holding
from tests.oracle.option_state import OptionState
from tests.oracle.option_trades import OptionTrades
from tests.oracle.position import Position
from tests.oracle.state import Point
from tests.oracle.walk import Exposure, between

PARTS = 16


class OptionAccount(OptionTrades):
    """One account with options."""

    # ----- the walk (B6) -----

    @property
    def is_exposed(self) -> bool:
        """What is held, and options that matter."""
        return super().is_exposed or self.options_matter

    def next_failure(self, start: Point, end: Point, place: Decimal) -> Decimal | None:
        """At the ends and 16 parts of a segment, bisected in the first that fails."""
        if not self.options_matter:
            return super().next_failure(start, end, place)
        if self.cross_fails(between(start, end, place)):
            return place
        low = place
        for high in self.stages(start, end, place):
            if self.cross_fails(between(start, end, high)):
                return self.bisect(start, end, low, high)
            low = high
        return None

    def stages(self, start: Point, end: Point, place: Decimal) -> list[Decimal]:
        """The places that are tested: under ``worst`` the strikes too."""
        found = [place + (ONE - place) * k / PARTS for k in range(1, PARTS + 1)]
        for each in self.options if self.intrabar == "worst" else ():
            position = self.positions[self.places[each.given.underlying]]
            opened, ended = start.marks[position.rank], end.marks[position.rank]
            if each.quantity != 0 and opened != ended:
                at = position.contract.value(exact(each.given.strike))
                found.append((at - opened) / (ended - opened))
        return sorted(stage for stage in found if place < stage <= 1)

    def exposures(self, low: Point, high: Point) -> list[Exposure]:
        """Options too, unless the account is walked as if they were not there."""
        found, opened = super().exposures(low, high), self.at("open")
        for each in self.options if self.options_matter else ():
            if each.quantity != 0:
                change = each.quantity * (self.mark(each, low) - self.mark(each, high))
                key = self.key_of(self.positions[self.places[each.given.underlying]])
                found.append(Exposure(key, change, self.notional_of(each, opened)))
        return found

    def adverse_point(self) -> Point:
        """What only options are written on goes where they lose more."""
        point, low, high = super().adverse_point(), self.at("low"), self.at("high")
        marks, changes = list(point.marks), defaultdict(Decimal)
        for each in self.options:
            position = self.positions[self.places[each.given.underlying]]
            if each.quantity != 0 and position not in self.cross:
                worth = self.mark(each, low) - self.mark(each, high)
                changes[position.rank] += each.quantity * worth
        for rank, change in changes.items():
            marks[rank] = (low if change <= 0 else high).marks[rank]
        return point._replace(marks=tuple(marks))

    def bisect(self, start: Point, end: Point, low: Decimal, high: Decimal) -> Decimal:
        """The place of the failure; halves, as values are floats."""
        if self.surplus(between(start, end, high)) > 0:
            return high
        for _ in range(60):
            middle = (low + high) / 2
            if self.surplus(between(start, end, middle)) <= 0:
                high = middle
            else:
                low = middle
        return high

    # ----- liquidation (B7) -----

    def liquidate_cross(self, point: Point) -> None:
        """Options are revalued and their orders dropped, too."""
        for each in self.options:
            each.pending = None
            if each.quantity != 0:
                self.note("liquidated with options")
                self.revalue_option(each, self.mark(each, point))
        super().liquidate_cross(point)

    def lose_options(self, point: Point) -> Decimal:
        """``takeover``: longs are lost too."""
        total = ZERO
        for each in self.options:
            if each.quantity != 0:
                mark = self.mark(each, point)
                total += each.quantity * mark
                self.force_option(each, -each.quantity, mark, mark)
        return total

    def force_option(
        self, option: OptionState, change: Decimal, price: Decimal, mark: Decimal
    ) -> None:
        """Take contracts out of what is held; the ledger has their worth at the mark."""
        option.hold(option.quantity + change, price, mark)
        self.row["traded"] += abs(change * price)
        self.log_option("liquidation", option, change, abs(change * mark))

    def close_options(self, point: Point) -> tuple[Decimal, Decimal]:
        """Shorts are bought back; longs are sold as far as B < 0."""
        loss = asked = ZERO
        for each in self.options:
            if each.quantity < 0:
                lost, fee = self.close_option(each, -each.quantity, point)
                loss, asked = loss + lost, asked + fee
        for each in self.options:
            if each.quantity > 0 and self.cash < 0:
                price = self.forced_price(each, -1, point)
                part = min(each.quantity, -self.cash / price) if price > 0 else each.quantity
                lost, fee = self.close_option(each, -part, point)
                loss, asked = loss + lost, asked + fee
                self.note("longs sold for the balance")
        return loss, asked

    def close_option(
        self, option: OptionState, change: Decimal, point: Point
    ) -> tuple[Decimal, Decimal]:
        """One option at the price of the venue; what that lost against its mark, and the fee."""
        price, mark = (
            self.forced_price(option, 1 if change > 0 else -1, point),
            self.mark(option, point),
        )
        self.force_option(option, change, price, mark)
        self.cash -= change * price
        fee = abs(change) * option.fee(price, self.index_of(option, point))
        return change * (price - mark), fee

    def forced_price(self, option: OptionState, side: int, point: Point) -> Decimal:
        """Half of the spread from the mark, and the slippage of liquidations too if bought.

        Nobody bids where the row has no bid.
        """
        given, t = option.given, self.t
        if side < 0 and given.has_quote[t] and math.isnan(given.bid[t]):
            return ZERO
        underlying = self.positions[self.places[given.underlying]]
        spread = float(given.half_spread[t])
        spread += float(underlying.forced_slip) if side > 0 else 0.0
        return self.price_at_spread(option, side, point, spread)

    def pool_steps(self, point: Point, *, is_alone: bool) -> None:
        """``partial``: options take part in the order."""
        self.started = {each.name: abs(each.quantity) for each in self.options}
        super().pool_steps(point, is_alone=is_alone and not self.has_options)

    def next_step(
        self, point: Point, initial: Mapping[str, Decimal], *, is_alone: bool
    ) -> tuple[Any, Decimal] | None:
        """The first step in the order that raises M - level·R, of positions and options."""
        if not self.has_options:
            return super().next_step(point, initial, is_alone=is_alone)
        weights = self.weigh(point)
        least = TIE * self.required(point)
        found: list[tuple[tuple[Any, int], Any, Decimal]] = []
        for each in self.cross:
            value = point.marks[each.rank]
            part = self.part_to_close(each, value, initial[each.name], weights)
            gain = self.gain(each, part, point)
            if gain > least:
                found.append((self.rank_of(each, part, {each.name: gain}, point), each, part))
        is_last = self.order == "futures_then_options" and bool(found)
        for option in () if is_last else self.options:
            if self.may_step(option):
                part = self.part_of_option(option, point)
                gain = self.gain_of_option(option, part, point)
                if gain > least:
                    found.append((self.rank_of_option(option, part, gain, point), option, part))
                    self.note("an option may be stepped")
        return min(found, key=lambda step: step[0])[1:] if found else None

    def may_step(self, option: OptionState) -> bool:
        """A short; a long if selling it raises M, or where neither position nor short is left."""
        if option.quantity <= 0:
            return option.quantity < 0
        one = Holding(option.given, option.quantity, ONE, ONE, self.moment)
        others = [
            Holding(each.given, each.quantity, ONE, ONE, self.moment)
            for each in self.options
            if each.quantity != 0 and each is not option
        ]
        counted = self.rule.counted([one, *others]) - self.rule.counted(others)
        if counted < option.quantity * (ONE - TIE):
            return True
        return not (self.cross or any(each.quantity < 0 for each in self.options))

    def notional_of(self, option: OptionState, point: Point) -> Decimal:
        """Units at the price of the underlying, or coins."""
        unit = ONE if option.given.is_coin else self.index_of(option, point)
        return abs(option.quantity) * option.size * unit

    def part_of_option(self, option: OptionState, point: Point) -> Decimal:
        """One step of its underlying's venue, or all of it when it is small."""
        forced = self.positions[self.places[option.given.underlying]]
        notional, step = self.notional_of(option, point), forced.venue.liquidation.step
        is_whole = notional <= forced.full_below or step == "bracket"
        if is_whole or abs(option.quantity) <= REMAINDER * self.started[option.name]:
            return option.quantity
        self.note("partial step of an option")
        return option.quantity * exact(step)

    def gain_of_option(self, option: OptionState, part: Decimal, point: Point) -> Decimal:
        """What a step adds to M - level·R, after worsening and fee."""
        before = self.surplus(point)
        price = self.forced_price(option, -1 if part > 0 else 1, point)
        held, cash = option.quantity, self.cash
        option.quantity, self.cash = held - part, cash + part * price
        asked = abs(part) * option.fee(price, self.index_of(option, point))
        after = self.surplus(point) - self.forced_fee(asked, self.backing(point))
        option.quantity, self.cash = held, cash
        return after - before

    def rank_of(
        self, position: Position, part: Decimal, gains: Mapping[str, Decimal], point: Point
    ) -> tuple[Decimal, int]:
        """Futures before options: those with the largest delta first, which is their notional."""
        if self.order == "futures_then_options":
            return -position.leg(point.marks[position.rank]).notional, position.rank
        return super().rank_of(position, part, gains, point)

    def rank_of_option(
        self, option: OptionState, part: Decimal, gain: Decimal, point: Point
    ) -> tuple[Decimal, int]:
        """Where an option stands in the order; after the instruments where they are named."""
        mark, notional = self.mark(option, point), self.notional_of(option, point)
        index = self.index_of(option, point)
        one = Holding(option.given, option.quantity, index, mark, self.moment)
        by_kind = {
            "most_relief": -gain / (notional * abs(part / option.quantity)),
            "largest_loss": option.quantity * (mark - option.paid),
            "largest_requirement": -self.rule.needed([], [], [one], False),
            "largest_notional": -notional,
        }
        place = len(self.positions) + option.rank
        if self.order == "futures_then_options":
            delta = exact(option.given.delta(self.moment, float(index))) * option.size
            return -abs(option.quantity * delta) * index, place
        if isinstance(self.order, str):
            return by_kind[self.order], place
        return Decimal(len(list(self.order))), place

    def force_step(self, position: Any, part: Decimal, point: Point) -> None:
        """One step, of a position or an option."""
        if isinstance(position, Position):
            super().force_step(position, part, point)
            return
        lost, asked = self.close_option(position, -part, point)
        fee = self.forced_fee(asked, self.backing(point))
        self.cash -= fee
        self.charge_option("liquidation_loss", position, lost + fee)
