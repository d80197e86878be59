"""Money that moves without a trade: flows, conversions, calls, funding, interest (steps 1-3, 6)."""

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from tests.oracle.liquidations import Liquidations
from tests.oracle.numbers import DAY, ONE, TIE, ZERO, exact
from tests.oracle.outcome import Settlement
from tests.oracle.position import Call, Position
from tests.oracle.state import Point


class Payments(Liquidations):
    """Steps 1, 2, 3 and 6."""

    # ----- step 1: flows, conversions, top-ups -----

    def step_1_flows(self) -> None:
        """Deposits and withdrawals, collateral sold for a debt, the top-ups of calls."""
        self.take_flows()
        self.answer_calls()

    def take_flows(self) -> None:
        for amount in self.external[self.t]:
            if amount >= 0:
                self.move(amount)
            else:
                self.withdraw(-amount)

        if self.must_convert and self.balance() < 0:
            self.note("converted")
            self.sell(-self.balance(), [prices["open"][self.t] for prices in self.asset_prices])

    def answer_calls(self) -> None:
        for owner, call in self.calls():
            if call.is_called and call.is_open and self.margin_ratio(owner, self.at("open")) > 0:
                self.top_up(owner, call)

        self.test_grace()

    def calls(self) -> list[tuple[Position | None, Call]]:
        """The call of the pool, then of each isolated instrument that has this bar."""
        own = [(each, each.call) for each in self.present if each.is_isolated]
        return [(None, self.pool), *own]

    def move(self, amount: Decimal) -> None:
        """§2.1: money from outside, or (negative) to it. §5: a withdrawal takes the same share of
        the capital paid in as of the wealth."""
        wealth = self.equity(self.at("open")) + self.reserve

        left = max(wealth + amount, ZERO) / wealth if amount < 0 else ONE
        self.paid_in = left * self.paid_in + max(amount, ZERO)
        self.cash += amount
        self.rescale_highest(amount)
        self.row["flows"] += amount
        self.log("flow", None, ZERO, amount)

    def rescale_highest(self, amount: Decimal) -> None:
        """§5: money from outside moves the highest equity in proportion, all of a bar at once."""
        self.arrived += amount
        self.openings = {name: each + amount for name, each in self.openings.items()}

        equity = self.out.equity[-1] if self.t > 0 else self.capital
        if equity > 0:
            self.highest = max(ZERO, self.highest_before * (equity + self.arrived) / equity)

    def withdraw(self, asked: Decimal) -> None:
        """§2.1: at most what leaves M ≥ initial(cross) and B ≥ -negative_limit. Of a position by
        itself: what leaves the equity at the initial margin, and the wallet."""
        point = self.at("open")
        free = self.backing(point) - self.uncounted(point) - self.initial(point)
        if not self.is_plain:
            free = min(
                free, self.balance() + (self.negative_limit if self.has_collateral else ZERO)
            )

        for each in self.isolated if self.is_plain else ():
            value = point.marks[each.rank]
            needed = each.leg(value).initial + each.uncounted(value)
            free = min(self.cash, self.equity(point) - needed)

        taken = min(asked, max(ZERO, free))
        if taken > 0:
            self.move(-taken)
        if taken < asked:
            self.log("withdrawal_refused", None, ZERO, asked - taken)

    def top_up(self, owner: Position | None, call: Call) -> None:
        """§5: from the reserve, what brings the margin ratio to ``top_up_to``."""
        wanted = self.account.top_up_to
        point = self.at("open")
        if wanted is None:
            return

        missing = self.needed_by(owner, point) / exact(wanted) - self.behind(owner, point)
        if missing <= 0:
            return

        amount = min(missing, self.reserve)
        if amount > 0:
            self.draw_reserve(owner, amount)
            call.ratio = self.margin_ratio(owner, point)  # a breach after this is a new crossing
        ratio = self.margin_ratio(owner, point)

        is_met = ratio < self.call_level()
        if amount > 0 and is_met:
            call.unmet = 0
        elif amount > 0:
            self.note("call partly met")
            self.log("call_partly_met", owner, ZERO, ratio)

        self.end_call(owner, call, point, is_met=is_met)

    def draw_reserve(self, owner: Position | None, amount: Decimal) -> None:
        """The reserve goes to the cash, or to M of an isolated position."""
        self.reserve -= amount
        if owner is None:
            self.cash += amount
        else:
            owner.margin += amount
        self.rescale_highest(amount)
        self.row["flows"] += amount
        self.row["top_up"] += amount
        self.log("top_up", owner, ZERO, amount)

    def test_grace(self) -> None:
        """§5: whether a call has been unmet for longer than the broker waits."""
        grace = self.venue.call_grace
        for _, call in self.calls():
            call.was_forced = grace is not None and call.unmet > grace

    # ----- margin calls (§5) -----

    def call_level(self) -> Decimal:
        """The ratio that calls, with the tolerance of §2."""
        return exact(self.account.margin_call) * (ONE - TIE)

    def end_call(self, owner: Position | None, call: Call, point: Point, *, is_met: bool) -> None:
        """An open call is met, and forgotten; or it fails, and is followed up."""
        if call.is_open:
            call.is_open = False
            kind = "call_met" if is_met else "call_failed"
            self.log(kind, owner, ZERO, self.margin_ratio(owner, point))
            if is_met:
                call.called_at = None

    def test_calls(self, point: Point) -> None:
        """At the close: the ratio of the pool, or of an isolated position, crosses the level."""
        for owner, call in self.calls():
            before, call.ratio = call.ratio, self.margin_ratio(owner, point)
            call.is_called = False

            if self.account.margin_call is None:
                continue

            if call.was_liquidated or self.is_ruined:
                self.end_call(owner, call, point, is_met=False)

            if call.ratio < self.call_level():
                self.end_call(owner, call, point, is_met=True)
                call.called_at, call.unmet = None, 0
                continue

            call.is_called = before < self.call_level() or call.was_forced
            call.unmet = 1 if call.is_called else call.unmet + (call.unmet > 0)
            if call.is_called:
                self.log("margin_call", owner, ZERO, call.ratio)
                call.is_open, call.called_at = True, self.stamp

    # ----- steps 2 and 6: funding -----

    def pay_funding(self, events: Sequence[Settlement]) -> None:
        """§2.2 and 3: payment = q·|u(p_f)|·r_f; isolated, tested after each of its own."""
        for event in events:
            position = self.positions[event.rank]
            if position.quantity == 0:
                continue
            value = mark = position.value("mark_open")
            if event.price is not None:
                value = position.contract.value(event.price)

            payment = position.quantity * abs(value) * event.rate
            if position.is_isolated and position.venue.isolated_funding == "margin":
                position.margin -= payment
            else:
                debt = min(self.balance(), ZERO)
                self.cash -= payment
                self.lift_wallet(position, debt)

            self.charge("funding", payment, position, value)
            if position.is_isolated and self.fails_unaided(position, mark):
                self.note("liquidated after funding")
                self.liquidate_isolated(position, mark)

    def step_6_inside(self) -> None:
        """Funding and what expires inside the bar, by stamp; funding first at equal stamps."""
        events = self.inside[self.t]
        expiring = [each for each in self.options if each.expires_in(self.t, is_inside=True)]

        for each in sorted(expiring, key=lambda option: option.given.expiry_time):
            self.pay_funding([e for e in events if e.time <= each.given.expiry_time])
            events = [event for event in events if event.time > each.given.expiry_time]
            self.expire(each)

        self.pay_funding(events)

    # ----- step 3: interest -----

    def step_3_interest(self) -> None:
        """Simple interest since the previous open, at the rates known there, on all bases; what
        came from outside at this open was not there. Before it, what expires at the open."""
        for option in self.options:
            if option.expires_in(self.t, is_inside=False):
                self.expire(option)

        if self.t == 0:
            return

        since = self.clock[self.t - 1]
        years = Decimal(self.stamp - since) / DAY / exact(self.venue.day_count)

        if self.venue.interest_on == "balance":
            base = self.balance() + sum((each.margin for each in self.isolated), ZERO)
            shorts = ZERO
        else:
            parts = (each.margin - each.quantity * each.entry for each in self.isolated)
            base = sum(parts, self.cash)
            owing = (each for each in self.held if each.quantity < 0)
            shorts = sum((abs(e.quantity * e.value("mark_open")) for e in owing), ZERO)

        base -= self.arrived
        rate = self.borrow_rate(since) if base < 0 else self.cash_rate(since)

        due = (shorts * self.short_rate(since) - base * rate) * years
        owed = max(-self.cash, ZERO)
        self.cash -= due
        self.charge("interest", due)
        for each in self.held:
            if each.is_spot and each.quantity < 0:
                value = each.value("mark_open")
                lent = -each.quantity * value * each.coin_rate(since) * years
                self.note("pays for coins")
                self.cash -= lent
                self.charge("interest", lent, each, value)

        self.pay_expenses(years)
        if not (self.cross or self.has_collateral or self.has_options):
            self.margins_pay(owed)

    def pay_expenses(self, years: Decimal) -> None:
        """A fund's cost a year, on the notional at the mark open: longs and shorts pay it."""
        for each in self.held:
            value = each.value("mark_open")
            due = abs(each.quantity * value) * each.expense * years
            if due > 0:
                self.note("pays expenses")
            self.cash -= due
            self.charge("expense", due, each, value)

    def margins_pay(self, owed: Decimal) -> None:
        """Interest that an empty wallet cannot pay: isolated margins pay it, pro rata to M; what
        was ``owed`` before it is bad debt."""
        missing = max(max(-self.cash, ZERO) - owed, ZERO)
        paying = self.isolated
        posted = {each.name: max(each.margin, ZERO) for each in paying}
        if self.is_plain and paying:  # it pays whatever its margin is
            posted = {paying[0].name: missing}

        whole = sum(posted.values(), ZERO)

        if missing == 0 or whole == 0:
            return

        self.note("margins pay interest" if len(paying) == 1 else "margins share interest")

        taken = min(missing, whole)
        for each in paying:
            each.margin -= taken * posted[each.name] / whole
        self.cash += taken


class Move(NamedTuple):
    """The margin that a setting asks a position to have more, or less."""

    position: Position
    missing: Decimal
    is_new: bool


class Margins(Payments):
    """Before step 5: the settings of isolated positions change, and their margins move."""

    def change_settings(self, point: Point) -> None:
        moves = [self.choose_setting(each) for each in self.present if self.asks(each)]
        for move in moves:
            if move.missing < 0:
                self.give_back(move, point)
        for move in moves:
            if move.missing > 0:
                self.add_margin(move, point)

    def asks(self, position: Position) -> bool:
        """Whether a setting was decided at the last close, and may be followed."""
        is_bound = self.is_halted or position.is_halted or position.pending is None
        return position.is_isolated and not is_bound and position.asked is not None

    def choose_setting(self, position: Position) -> Move:
        """Cut to what the bracket of the position allows, or to what is set already."""
        asked = position.asked
        before = position.setting
        notional = abs(position.quantity * position.value("fill"))
        pairs = zip(position.table.caps, position.table.leverages, strict=True)
        allowed = [leverage for cap, leverage in pairs if notional <= cap]
        most = max([*allowed, position.table.leverages[-1], before])
        position.setting = min(exact(asked), most) if math.isfinite(asked) else most
        entry = abs(position.quantity * position.entry)
        wanted = entry / (exact(asked) if math.isfinite(asked) else most)
        missing = wanted - position.margin if entry > 0 else ZERO
        if abs(missing) <= TIE * entry:
            missing = ZERO
        return Move(position, missing, position.setting != before)

    def give_back(self, move: Move, point: Point) -> None:
        """Down to the initial margin at the new setting and the unrealized loss."""
        position = move.position
        value = point.lasts[move.position.rank]
        setting = position.effective_setting
        at_price = abs(position.quantity * value) / setting - position.profit(value)
        least = max(at_price, abs(position.quantity * position.entry) / setting)
        moved = min(-move.missing, max(position.margin - least, ZERO))
        position.margin -= moved
        self.cash += moved
        self.log_move("margin_returned", move, moved)

    def add_margin(self, move: Move, point: Point) -> None:
        free = self.backing(point) - self.uncounted(point) - self.initial(point)
        moved = min(move.missing, max(min(free, self.balance()), ZERO))
        move.position.margin += moved
        self.cash -= moved
        self.log_move("margin_added", move, moved)

    def log_move(self, kind: str, move: Move, moved: Decimal) -> None:
        value = move.position.value("fill")
        if moved > 0:
            self.note(kind)
            self.log(kind, move.position, ZERO, moved, value)
        refused = abs(move.missing) - moved
        position = move.position
        if refused <= abs(move.missing) * (TIE * ONE):
            position.refused.discard(kind)
        elif move.is_new and kind not in position.refused:
            position.refused.add(kind)
            self.note("margin_refused")
            self.log("margin_refused", move.position, ZERO, refused, value)
