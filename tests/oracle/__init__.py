"""The accounting rules once more, in exact decimals: the oracle that the engine is held to.

Written from the rules alone (docs/accounting.md and the pages to which it leads, whose sections
the docstrings name, and docs/portfolio.md), for any number of positions. It imports nothing of
``backtest``. Read ``account.py`` first: it has the state and the steps of a bar in their order.
Each other file has some of the steps, one small method per rule.

Where there is a choice, it goes another way than a fast engine would. Maintenance is the integral
of the marginal rates, not a maximum of lines. Roots are found by halving. Positions are revalued
from price to price as things happen, so that price pnl telescopes. Floats enter as the exact number
they are, and every operation carries 40 digits: the identity of §6 is checked at each bar to 1e-28.

Options are worth what the case says, a function of bar, instant and price (``options.py``): no
pricer is shared with the package.

Everything is valued through ``u``, the value of one contract, because inside a bar prices move
linearly in it. A *point* is one place inside a bar: ``u`` of every instrument by mark price and by
last price, and the prices of the collateral.
"""

from collections.abc import Mapping, Sequence
from decimal import Context, localcontext
from typing import Any

from tests.oracle.account import Account
from tests.oracle.decisions import Answers
from tests.oracle.numbers import DIGITS
from tests.oracle.outcome import COSTS, GAINS, KIND_OF_COLUMN, Event, Outcome

__all__ = [
    "COSTS", "GAINS", "KIND_OF_COLUMN", "Event", "Outcome", "simulate",
]  # fmt: skip


def simulate(
    markets: Mapping[str, Any],
    targets: Mapping[str, Answers],
    signals: Mapping[str, Sequence[float]],
    venues: Mapping[str, Any],
    account: Any,
    overlay: Sequence[float] | None = None,
) -> Outcome:
    """Run the rules over one market or several.

    Parameters
    ----------
    markets, venues
        By instrument, in the order that counts; a market's times are a contiguous part of the
        union of all times. Anything with the attributes of bt.Market and bt.Venue, and
        ``observed``, the names of the columns that its policy observes.
    targets
        By instrument, what its policy answers where it is asked: leverage at the close of each
        bar of the clock (NaN leaves, inf is all), or a function of the observed values at that
        close and of its memory, None at first, that returns the leverage and the next memory.
    signals
        By instrument, the direction at the close of each bar of the clock.
    account
        Anything with the attributes of bt.Account; ``requirement`` None is ``Brackets()``.
    overlay
        The overlay's leverage at the close of each bar of the clock; None without one.
    """
    with localcontext(Context(prec=DIGITS)):
        return Account(markets, targets, signals, venues, account, overlay).run()
