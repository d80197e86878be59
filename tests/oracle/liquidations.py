"""Positions that close by the rules of the venue or of a stop (§5)."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from tests.oracle.numbers import DAY, ONE, REMAINDER, TIE, ZERO, exact
from tests.oracle.option_margin import OptionState
from tests.oracle.options import Options
from tests.oracle.outcome import Event
from tests.oracle.position import Call, Position
from tests.oracle.requirement import Collateral
from tests.oracle.state import Point


class Liquidations(Options):
    """What happens at the price of a stop or of a liquidation."""

    # ----- stops -----

    def close_by_stop(self, kind: str, position: Position, value: Decimal) -> None:
        """At u of the trigger worsened by slippage, with the whole taker fee. It drops the decision
        of its instrument; the equity stop those of all."""
        self.revalue(position, value)
        change = -position.quantity
        side = 1 if change > 0 else -1
        worse = position.worse(position.contract.price(value), side, position.slip)
        filled = position.on_tick(worse, side)
        self.exchange(kind, position, change, filled, position.taker)
        self.charge("slippage", change * (filled - value), position, filled)
        is_whole = kind in ("equity_stop", "daily_loss", "weekly_loss")
        for each in self.positions if is_whole else [position]:
            each.pending = None
        if kind.removesuffix("_loss") in self.loss_limits and self.idle_for != "weekly":
            self.idle_for = kind.removesuffix("_loss")
        if kind == "equity_stop":
            self.leave()

    def close_account(self, point: Point) -> None:
        """The equity stop: all at their last prices; the highest starts anew at what is left."""
        kind, _ = self.acting_floor()
        for each in self.held:
            self.close_by_stop(kind, each, point.lasts[each.rank])
        if kind == "equity_stop":
            self.highest = self.last_equity(point)
            self.leave()

    # ----- an isolated position -----

    def fails_unaided(self, position: Position, value: Decimal) -> bool:
        """§3: an isolated position fails, and the wallet has nothing more to add. One initial
        margin of the position at a time, as long as the requirement fails."""
        wallet = max(self.balance(), ZERO)
        added = ZERO
        while self.has_auto_margin and wallet > added and position.fails(value):
            each = abs(position.quantity * position.entry) / position.effective_setting
            amount = min(each, wallet - added)
            position.margin += amount
            added += amount
        self.cash -= added
        if added > 0:
            self.note("margin added" if added < wallet else "wallet emptied for margin")
            self.log("margin_added", position, ZERO, added, value)
        return position.fails(value)

    def liquidate_isolated(self, position: Position, value: Decimal) -> None:
        """§5 for one position: the wallet is not touched."""
        self.revalue(position, value)
        self.note_liquidation(position.call)
        position.pending = None
        if self.account.after_liquidation == "halt":
            position.is_halted = True
        mode = position.venue.liquidation.mode
        if mode == "takeover":
            self.give_up(position, value, position.backing(value))
            position.margin = ZERO
        elif mode == "close":
            self.force_isolated(position, position.quantity, value)
        else:
            self.isolated_steps(position, value)

    def note_liquidation(self, call: Call) -> None:
        """The first liquidation after a call, before the ratio has recovered."""
        call.was_liquidated = True
        if call.called_at is not None:
            self.out.waits.append(Decimal(self.stamp - call.called_at) / DAY)
            call.called_at = None

    def isolated_steps(self, position: Position, value: Decimal) -> None:
        """``partial``: again while the requirement fails at this price."""
        initial = abs(position.quantity)
        is_empty = position.backing(value) <= TIE * abs(position.quantity * value)

        while position.quantity != 0:
            part = position.quantity
            if not is_empty:
                size = abs(position.quantity * value)
                left = position.backing(value)
                needed = position.leg(value).maintenance
                debt = max(size - left, ZERO)
                weights = (size - needed, debt, debt)
                if position.quantity < 0:
                    weights = (size + left, size + needed, ZERO)
                part = self.part_to_close(position, value, initial, weights)

            is_empty = self.force_isolated(position, part, value)
            if not (is_empty or position.fails(value)):
                return

    def force_isolated(self, position: Position, part: Decimal, value: Decimal) -> bool:
        """Close a part; what a step frees stays in M. True: nothing is left behind it."""
        worsened = self.force(position, part, value)
        position.margin += part * (worsened - position.entry)
        left = position.backing(value)
        fee = self.forced_fee(position.forced_fee * abs(part * worsened), left)
        position.margin -= fee
        self.charge("liquidation_loss", part * (value - worsened) + fee, position, worsened)
        if position.quantity == 0:
            rest, position.margin = position.margin, ZERO
            self.cash += max(rest, ZERO)
            self.charge("bad_debt", max(-rest, ZERO))
        return fee >= left

    # ----- parts of a liquidation -----

    def force(self, position: Position, part: Decimal, value: Decimal) -> Decimal:
        """Take a part out of a position at the trigger; return u at which it is sold."""
        worsened = position.forced_value(part, value)
        self.log_forced("liquidation", position, -part, value)

        position.realized += part * (value - position.entry)
        position.quantity -= part
        return worsened

    def log_forced(self, kind: str, position: Position, change: Decimal, value: Decimal) -> None:
        """The ledger row of a forced trade: trigger price, and notional there."""
        self.row["traded"] += abs(change * value)
        self.log(kind, position, change, abs(change * value), value)

    def give_up(self, position: Position, value: Decimal, backing: Decimal) -> None:
        """``takeover``: the position and all that backs it are lost."""
        self.log_forced("liquidation", position, -position.quantity, value)
        position.realized += position.profit(value)
        position.quantity = ZERO

        self.charge("liquidation_loss", max(backing, ZERO), position, value)
        self.charge("bad_debt", max(-backing, ZERO))

    def part_to_close(
        self,
        position: Position,
        value: Decimal,
        initial: Decimal,
        weights: tuple[Decimal, Decimal, Decimal],
    ) -> Decimal:
        """One step of a partial liquidation, or all of the position when it is small. ``weights``:
        assets at their thresholds, debts at theirs, and the cash owed. Where their quotient, the
        health factor, is low, the whole debt is repaid: a short owes its contracts; a long repays
        no debt where no cash is owed."""
        held = position.quantity
        notional = abs(position.quantity * value)
        assets, debts, debt = weights

        is_low = position.healthy != 0 and assets <= position.healthy * debts
        if is_low:
            self.note("health is low")

        if notional <= position.full_below:
            return held
        if is_low and (held < 0 or debt > 0):
            sold_for = (ONE - position.forced_fee) * (ONE - position.forced_slip) * abs(value)
            return held if held < 0 else min(held, debt / sold_for)

        step = position.venue.liquidation.step
        kept = (
            ONE - exact(step) if step != "bracket" else position.table.floor_of(notional) / notional
        )
        if kept * abs(held) < REMAINDER * initial:
            return held

        self.note("partial step")
        return held * (ONE - kept)

    # ----- the cross positions -----

    def liquidate_cross(self, point: Point) -> None:
        for option in self.options:
            option.pending = None
        for option in self.held_options:
            self.note("liquidated with options")
            self.revalue_option(option, self.mark(option, point))
        for each in self.cross:
            self.revalue(each, point.marks[each.rank])

        self.note_liquidation(self.pool)
        for each in self.positions:
            if not each.is_isolated:
                each.pending = None
        if self.account.after_liquidation == "halt":
            self.is_halted = True
            for each in self.positions:  # what has not filled yet closes
                each.pending = (0.0, 0.0) if each.pending else None

        mode = (self.cross[0].venue if self.cross else self.venue).liquidation.mode
        self.note(f"pool: {mode}" + " alone" * self.is_alone())
        if mode == "takeover":
            self.take_over(point)
        elif mode == "close":
            self.close_pool(point)
        else:
            self.pool_steps(point, is_alone=self.is_alone())

    def take_over(self, point: Point) -> None:
        """Cross positions, B and all collateral are lost; a negative rest is bad debt."""
        self.revalue_assets(point.assets)

        worth = (each.quantity * point.marks[each.rank] for each in self.cross)
        lost = sum(worth, self.cash) + self.in_full(point.assets) + self.lose_options(point)

        for asset, price in zip(self.assets, point.assets, strict=True):
            self.log_asset("liquidation", asset, asset.amount, asset.amount * price)
            asset.amount = ZERO

        self.cash = ZERO
        for each in self.cross:
            self.give_up(each, point.marks[each.rank], lost)
            lost = ZERO

        self.charge("liquidation_loss", max(lost, ZERO))
        self.charge("bad_debt", max(-lost, ZERO))

    def close_pool(self, point: Point) -> None:
        """All positions at their worsened prices, then collateral, then the fees."""

        asked = loss = ZERO
        for each in self.cross:
            value = point.marks[each.rank]
            part = each.quantity
            worsened = self.force(each, part, value)
            self.cash += part * worsened
            loss += part * (value - worsened)
            asked += each.forced_fee * abs(part * worsened)

        lost, more = self.close_options(point)
        loss, asked = loss + lost, asked + more
        if self.cash < 0 and self.has_collateral:
            self.sell(-self.cash, point.assets)
        pairs = zip(self.assets, point.assets, strict=True)
        worth = (max(a.amount, ZERO) * p * (ONE - a.slippage) for a, p in pairs)
        fee = self.forced_fee(asked, max(sum(worth, self.cash), ZERO))
        self.cash -= fee

        self.charge("liquidation_loss", loss + fee)
        if self.cash < 0 and self.has_collateral:
            self.sell(-self.cash, point.assets)
        self.settle_pool()

    def sell(self, needed: Decimal, prices: Sequence[Decimal]) -> None:
        """Sell collateral worth some money after slippage, in the order listed or pro rata."""
        self.revalue_assets(prices)
        is_pro_rata = getattr(self.account, "conversion", "listed") == "pro_rata"

        owned = [(a, p * (ONE - a.slippage)) for a, p in zip(self.assets, prices, strict=True)]
        owned = [(a, net) for a, net in owned if a.amount > 0]

        total = sum((a.amount * net for a, net in owned), ZERO)
        for asset, net in owned:
            worth = total if is_pro_rata else asset.amount * net
            sold = asset.amount * min(ONE, needed / worth)
            asset.amount -= sold
            self.cash += sold * net

            cost = sold * net * asset.slippage / (ONE - asset.slippage)
            self.row["conversion"] += cost
            self.log_asset("conversion", asset, sold, sold * net)

            if not is_pro_rata:
                needed -= sold * net
                if needed <= 0:
                    return

    def log_asset(self, kind: str, asset: Collateral, sold: Decimal, amount: Decimal) -> None:
        if sold != 0:
            self.out.events.append(Event(self.t, kind, asset.name, None, -sold, abs(amount)))

    def settle_pool(self) -> None:
        """Bad debt only when no cross position, no option and no collateral is left."""
        is_left = self.cross or self.has_collateral or self.has_options
        if not is_left and self.cash < 0:
            debt, self.cash = -self.cash, ZERO
            self.charge("bad_debt", debt)

    def pool_steps(self, point: Point, *, is_alone: bool) -> None:
        """``partial``: one position or option at a time, until the requirement holds here."""
        is_alone = is_alone and not self.has_options
        self.started = {each.name: abs(each.quantity) for each in self.options}
        initial = {each.name: abs(each.quantity) for each in self.cross}
        while True:
            gross = (abs(each.quantity * point.marks[each.rank]) for each in self.cross)
            is_empty = self.backing(point) <= TIE * sum(gross, ZERO)
            chosen = None if is_empty else self.next_step(point, initial, is_alone=is_alone)
            if chosen is None:
                self.close_pool(point)
                return
            self.force_step(*chosen, point)
            if not (self.cross or self.has_options):
                self.settle_pool()
                return
            if not self.cross_fails(point):
                return

    def next_step(
        self, point: Point, initial: Mapping[str, Decimal], *, is_alone: bool
    ) -> tuple[Position | OptionState, Decimal] | None:
        """The first step in the venue's order that raises M - level·R; alone, the step."""
        weights = self.weigh(point)
        least = TIE * self.required(point)
        found: list[tuple[tuple[Decimal, int], Position | OptionState, Decimal]] = []
        for each in self.cross:
            part = self.part_to_close(each, point.marks[each.rank], initial[each.name], weights)
            if is_alone:
                return each, part
            gain = self.gain(each, part, point)
            if gain > least:
                found.append((self.rank_of(each, part, gain, point), each, part))
            else:
                self.note("a step passed over")
        is_last = self.order == "futures_then_options" and bool(found)
        for option in () if is_last else filter(self.may_step, self.options):
            part = self.part_of_option(option, point)
            gain = self.gain_of_option(option, part, point)
            if gain > least:
                found.append((self.rank_of_option(option, part, gain, point), option, part))
        return min(found, key=lambda step: step[0])[1:] if found else None

    def weigh(self, point: Point) -> tuple[Decimal, Decimal, Decimal]:
        """Assets at their thresholds, debts at theirs, and the cash owed: the health of the pool. A
        long is an asset less its requirement, a short a debt plus it; the cash is the rest of M."""
        pairs = zip(self.assets, point.assets, strict=True)
        assets = sum((a.counted(p) for a, p in pairs), ZERO)
        cash = self.backing(point) - assets
        debts = ZERO
        if self.rule.has_scenarios:
            return assets, debts, ZERO
        for each in self.cross:
            leg = each.leg(point.marks[each.rank])
            size = leg.notional
            needed = self.level * leg.maintenance
            if each.quantity > 0:
                assets, cash = assets + size - needed, cash - size
            else:
                debts, cash = debts + size + needed, cash + size
        return assets + max(cash, ZERO), debts + max(-cash, ZERO), max(-cash, ZERO)

    def gain(self, position: Position, part: Decimal, point: Point) -> Decimal:
        """What a step adds to M - level·R, after worsening and fee."""
        value = point.marks[position.rank]
        worsened = position.forced_value(part, value)
        loss = part * (value - worsened)
        asked = position.forced_fee * abs(part * worsened)
        rest = position.quantity - part
        freed = position.withheld(value, position.quantity) - position.withheld(value, rest)
        fee = self.forced_fee(asked, self.backing(point) + freed - loss)
        after = self.required(point, {position.name: rest})
        return self.required(point) - after + freed - loss - fee

    def rank_of(
        self, position: Position, part: Decimal, gain: Decimal, point: Point
    ) -> tuple[Decimal, int]:
        """Where a position stands in the venue's order; ties in the order given. Futures before
        options: those with the largest delta first, which is their notional."""
        leg = position.leg(point.marks[position.rank])
        by_kind = {
            "most_relief": -gain / abs(part * leg.value),
            "largest_loss": position.profit(leg.value),
            "largest_requirement": -self.rule.needed([leg], [], [], False),
            "largest_notional": -leg.notional,
            "futures_then_options": -leg.notional,
        }
        if isinstance(self.order, str):
            return by_kind[self.order], position.rank
        names = list(self.order)
        place = names.index(position.name) if position.name in names else len(names)
        return Decimal(place), position.rank

    def force_step(self, position: Position | OptionState, part: Decimal, point: Point) -> None:
        """One step: worsened, with a fee of at most what backs the pool after it."""
        if isinstance(position, OptionState):
            lost, asked = self.close_option(position, -part, point)
            fee = self.forced_fee(asked, self.backing(point))
            self.cash -= fee
            self.charge_option("liquidation_loss", position, lost + fee)
            return
        value = point.marks[position.rank]
        worsened = self.force(position, part, value)
        self.cash += part * worsened
        asked = position.forced_fee * abs(part * worsened)
        fee = self.forced_fee(asked, self.backing(point))
        self.cash -= fee
        self.charge("liquidation_loss", part * (value - worsened) + fee, position, worsened)
