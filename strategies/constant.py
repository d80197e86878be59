"""A leverage that never changes."""

from typing import Annotated, ClassVar

from backtest import Policy, Range


class Constant(Policy):
    """Hold the same leverage at all times, rebalanced at every bar.

    L = leverage, a constant. With continuous rebalancing and no costs, log wealth grows by
    ``L mu - L^2 sigma^2 / 2`` a year on an asset with drift mu and volatility sigma. The second
    term is what leveraged funds lose in sideways markets.
    Source: Avellaneda and Zhang (2010), Path-Dependence of Leveraged ETF Returns, SIAM J. Financial
    Mathematics 1.
    """

    fails_when: ClassVar[str] = (
        "A market that swings without a trend: it buys after each rise and sells after each fall."
    )

    leverage: Annotated[float, Range(0.0, 125.0, "x of equity")] = 1.0  # type: ignore[assignment] # a number holds itself
