"""A pause after a stop or a liquidation."""

from typing import Annotated, ClassVar

from backtest import AccountView, Bar, Combinator, Range


class Cooldown(Combinator):
    """Stay out for a while after a stop or a liquidation, then follow a policy again.

    L = 0 at the closes of ``bars`` bars, starting with the bar of the event, else the leverage of
    the policy. A partial liquidation counts too. A pause of 0 bars has no effect. It waits by bars,
    for its own policy; ``Account(after_stop="7d")`` keeps the whole account out until a time after
    an equity stop, and limits of loss do until the next day or week.
    Source: common practice of pausing after a loss, made exact here.
    """

    only_lowers: ClassVar[bool] = True
    fails_when: ClassVar[str] = (
        "A recovery right after the stop or liquidation, which it waits out."
    )

    bars: Annotated[int, Range(0, 100_000, "bars")] = 24

    def combine(self, bar: Bar, account: AccountView, asked: tuple[float, ...]) -> float:
        """Return 0 while the pause lasts, else what is asked."""
        bars_since = min(account.bars_since_liquidation, account.bars_since_stop)
        if bars_since < self.bars:
            return 0.0
        return asked[0]
