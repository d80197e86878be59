"""A pause after a stop or a liquidation."""

import math
from typing import Annotated, NamedTuple

from backtest import AccountView, Bar, Columns, Combinator, Market, Range


class Watch(NamedTuple):
    """Bars since the position was last lost, and whether one was held and wanted at the close."""

    since: float
    is_held: float


class Cooldown(Combinator):
    """Stay out for a while after a stop or a liquidation, then follow a policy again.

    L = 0 during ``bars`` bars after the close of the one in which it happened, else what the
    policy asks. A position that was held and wanted at one close and is gone at the next was
    stopped out; a liquidation, whole or in part, the account itself tells. A pause of 0 bars
    leaves the policy as it is.
    Source: the pause after a loss in common practice, made exact here.
    """

    bars: Annotated[int, Range(0, 100_000, "bars")] = 24

    def observe(self, market: Market) -> Columns:
        """Return the direction: without one, the position is closed on purpose."""
        return {"direction": market.signal}

    def start(self) -> Watch:
        """Return a memory of no loss and no position."""
        return Watch(since=math.inf, is_held=0.0)

    def combine(
        self, bar: Bar, account: AccountView, asked: tuple[float, ...], memory: Watch
    ) -> tuple[float, Watch]:
        """Return 0 while the pause lasts, else what is asked."""
        since = memory.since + 1.0
        is_lost = memory.is_held > 0.0 and account.position == 0.0
        if is_lost or account.bars_since_liquidation == 0.0:
            since = 0.0
        held = 0.0 if since < self.bars else asked[0]
        is_wanted = bar.direction != 0.0 and not held <= 0.0
        is_held = 1.0 if is_wanted and account.position != 0.0 else 0.0
        return held, Watch(since, is_held)
