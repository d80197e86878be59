"""The bar, in order (§2), and its close."""

from decimal import Decimal

from tests.oracle.numbers import EXACT, NOTHING_LEFT, ONE, REMAINDER, TIE, ZERO
from tests.oracle.option_margin import Moment
from tests.oracle.outcome import COSTS, GAINS, Outcome
from tests.oracle.position import Position
from tests.oracle.state import Point
from tests.oracle.walk import Walk


class Account(Walk):
    """One account: the steps of a bar."""

    def run(self) -> Outcome:
        for t in range(len(self.clock)):
            self.begin(t)

            self.turn_pages()
            self.stay_out()
            self.fill_early()  # 0

            self.step_1_flows()
            self.pay_funding(self.at_open[t])  # 2
            self.step_3_interest()
            self.step_4_gap_check()

            if self.fills in ("next_open", "limit"):
                self.fill_pending()  # 5

            self.step_6_inside()
            self.step_7_walk()
            self.fill_late()
            self.step_8_close()
        return self.out

    # ----- step 8: the close -----

    def step_8_close(self) -> None:
        """Mark to market, delistings, bad debt, ruin, calls, the record."""
        self.moment = Moment(self.t, is_close=True)
        point = self.at("close")
        self.mark_close(point)
        self.test_ruin(point)
        self.finish_close(point)

    def mark_close(self, point: Point) -> None:
        for option in self.held_options:
            self.revalue_option(option, self.mark(option, point))
        for each in self.held:
            self.revalue(each, point.marks[each.rank])
            if self.is_delisted(each):
                self.exchange("delisted", each, -each.quantity, point.marks[each.rank], each.taker)

        self.revalue_assets(point.assets)
        self.settle_pool()

        if self.equity(point) < 0:
            self.note("negative equity at a close")
            debt = -self.equity(point)
            self.cash += debt
            self.charge("bad_debt", debt)

    def finish_close(self, point: Point) -> None:
        self.follow_highest(self.equity(point))
        self.check_identity(point)

        limit = self.negative_limit * (ONE - TIE) + max(self.equity(point), ZERO) * TIE
        self.must_convert = self.has_collateral and self.balance() < -limit

        self.test_calls(point)
        self.record(point)

    def follow_highest(self, equity: Decimal) -> None:
        """§5: the highest equity at a close; a flat account under the equity stop starts anew."""
        has_stop = self.equity_stop is not None and not self.held
        if has_stop and equity <= (ONE - self.equity_stop) * self.highest * (ONE + REMAINDER):
            self.highest = equity
            self.leave()

        self.highest = max(self.highest, equity)

    def test_ruin(self, point: Point) -> None:
        """§5: after a loss, wealth at the line, or flat under the least order; then the end."""
        costs = sum(self.row[name] for name in COSTS)
        gains = self.row["price_pnl"] + self.row["collateral_pnl"] + self.row["bad_debt"]
        if self.is_ruined or not gains < costs:  # not: withdrawn by its owner
            return

        equity = self.equity(point)
        wealth = equity + self.reserve
        causes = {
            "gone": equity <= NOTHING_LEFT * self.paid_in * (ONE + TIE),
            "under the line": wealth <= self.ruin_at * self.paid_in * (ONE + TIE),
            "poor": self.is_poor(wealth),
        }

        for cause, is_it in causes.items():
            if is_it:
                self.note(f"ruined: {cause}")

        if not any(causes.values()):
            return
        self.end_ruined(point)

    def end_ruined(self, point: Point) -> None:
        """Close everything at the marks; it never trades again."""
        self.note("ruined with a position" if self.held else "ruined when flat")
        self.is_ruined = True  # it never trades again
        if not self.held:
            self.log("ruin", None, ZERO, ZERO)
        for option in self.held_options:
            mark = self.mark(option, point)
            worth = option.quantity * mark
            self.log_option("ruin", option, -option.quantity, abs(worth))
            self.cash += worth
            self.row["traded"] += abs(worth)
            option.hold(ZERO, mark)
        for each in self.held:
            value = point.marks[each.rank]
            self.log_forced("ruin", each, -each.quantity, value)
            each.realized += each.profit(value)
            self.cash += each.backing(value) if each.is_isolated else each.quantity * value
            each.quantity = each.margin = ZERO
        self.settle_pool()

    def is_poor(self, wealth: Decimal) -> bool:
        """Flat, and unable to afford the least order of any instrument."""
        if self.held or self.has_options or not self.present:
            return False
        return all(self.is_too_poor_for(each, wealth) for each in self.present)

    @staticmethod
    def is_too_poor_for(position: Position, wealth: Decimal) -> bool:
        """Wealth times the largest leverage allowed is under the least order; a ban passes."""
        most = min(max(leverage for _, leverage in position.limits()), position.limit)

        least = max(position.least, position.lot * abs(position.value("mark_close")))
        return position.limit != 0 and wealth * most < least * (ONE - TIE)

    def check_identity(self, point: Point) -> None:
        """§6: the change of equity is the sum of its causes."""
        row = self.row
        equity = self.equity(point)
        before = self.out.equity[-1] if self.t > 0 else self.capital
        causes = sum(row[name] for name in GAINS) - sum(row[name] for name in COSTS)

        scale = max(abs(before), equity, row["traded"], abs(row["price_pnl"]), ONE)

        assert abs(equity - before - causes) <= EXACT * scale, f"bar {self.t}: {before}, {causes}"
        assert equity >= -EXACT * scale, f"bar {self.t}: equity {equity} is negative"

    # ----- the record -----

    def record(self, point: Point) -> None:
        equity = self.equity(point)
        initial = self.initial(point)
        row = self.row | {
            "equity": equity,
            "cash": self.cash,
            "reserve": self.reserve,
            "backing": self.behind(self.owner, point),
            "requirement": self.needed_by(self.owner, point),
            "margin_ratio": self.margin_ratio(self.owner, point),
            "collateral": tuple(asset.amount for asset in self.assets),
            "ruined": self.is_ruined or equity <= 0,
            "halted": self.is_halted or all(each.is_halted for each in self.positions),
            "initial_margin": sum((each.margin for each in self.isolated), initial),
            "ambiguous": self.is_ambiguous and not self.pool.was_liquidated,
            "both_reached": self.is_both_reached,
            "available": max(self.backing(point) - self.uncounted(point) - initial, ZERO),
        }

        for name in ("quantity", "margin"):
            row[name] = tuple(getattr(each, name) for each in self.positions)

        row["realized_pnl"] = tuple(each.realized for each in (*self.positions, *self.options))
        row["table"] = tuple(getattr(each, "table", None) for each in self.positions)

        row["entry"] = tuple(
            each.contract.price(each.entry) if each.quantity else None for each in self.positions
        )

        row["unrealized_pnl"] = tuple(
            each.profit(value) if each.quantity else ZERO
            for each, value in zip(self.positions, point.marks, strict=True)
        )

        if self.options:
            marks = [ZERO if each.is_gone else self.mark(each, point) for each in self.options]
            row["option_quantity"] = tuple(each.quantity for each in self.options)
            row["option_mark"] = tuple(marks)
            row["unrealized_pnl"] += tuple(
                each.quantity * (mark - each.paid)
                for each, mark in zip(self.options, marks, strict=True)
            )

        row["leverage"] = tuple(
            each.quantity * abs(value) / equity if each.quantity else ZERO
            for each, value in zip(self.positions, point.marks, strict=True)
        )

        row["liquidation_price"] = tuple(
            self.liquidation_price(each, point) for each in self.positions
        )

        for name, value in row.items():
            self.out.columns[name].append(value)

    @property
    def owner(self) -> Position | None:
        """Whose margin is shown: the pool's, or that of the only position, isolated."""
        only = self.positions[0]
        is_one = len(self.positions) == 1 and not self.options
        return only if is_one and only.is_isolated else None

    def liquidation_price(self, position: Position, point: Point) -> Decimal | None:
        """§3, of a position by itself: where the requirement starts to fail; None if nowhere."""
        if position.quantity == 0 or not self.is_plain:
            return None
        value = point.marks[0]
        leg = position.leg(point.marks[0])
        if position.fails(value) if position.is_isolated else self.cross_fails(point):
            return position.contract.price(value)

        side = (1 if position.quantity > 0 else -1) * (1 if position.contract.is_linear else -1)
        fixed = position.margin - position.quantity * position.entry
        cash = fixed if position.is_isolated else self.cash  # what does not move with the price

        notional = leg.table.boundary(cash, side)
        if leg.at_entry:
            notional = side * (leg.maintenance - cash)

        if notional is None or notional <= 0:
            return None

        root = notional / abs(position.quantity)
        return position.contract.price(root if position.contract.is_linear else -root)
