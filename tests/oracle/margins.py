"""Margin as a decision (§3): settings that were decided, and the margin that they move."""

import math
from decimal import Decimal
from typing import NamedTuple

from tests.oracle.numbers import ONE, TIE, ZERO, exact
from tests.oracle.payments import Payments
from tests.oracle.position import Position
from tests.oracle.state import Point


class Move(NamedTuple):
    """The margin that a setting asks a position to have more, or less."""

    position: Position
    missing: Decimal
    is_new: bool


class Margins(Payments):
    """Before step 5: the settings of isolated positions change, and their margins move."""

    def change_settings(self, point: Point) -> None:
        """What is returned comes first, and is free for what is added."""
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
        asked, before = position.asked, position.setting
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
        position, value = move.position, point.lasts[move.position.rank]
        setting = position.effective_setting
        at_price = abs(position.quantity * value) / setting - position.profit(value)
        least = max(at_price, abs(position.quantity * position.entry) / setting)
        moved = min(-move.missing, max(position.margin - least, ZERO))
        position.margin -= moved
        self.cash += moved
        self.log_move("margin_returned", move, moved)

    def add_margin(self, move: Move, point: Point) -> None:
        """Up to what the wallet has, and cross positions do not need."""
        free = self.backing(point) - self.uncounted(point) - self.initial(point)
        moved = min(move.missing, max(min(free, self.balance()), ZERO))
        move.position.margin += moved
        self.cash -= moved
        self.log_move("margin_added", move, moved)

    def log_move(self, kind: str, move: Move, moved: Decimal) -> None:
        """What moved, and what a new setting could not move."""
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
