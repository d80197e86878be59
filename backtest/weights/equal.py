"""Equal weights."""

from __future__ import annotations

import pandas as pd

from backtest.market import Markets, read_weights, require_panel, weights_to_frame


def equal(markets: Markets) -> pd.DataFrame:
    """Return 1/n in each of the n instruments that can be traded: the signal of a run without one.

    An instrument can be traded from its first bar, and not in the last one before it is delisted.

    Returns
    -------
    DataFrame of shape (n_bars, n_instruments)

    Examples
    --------
    >>> import backtest as bt
    >>> whole = bt.Market.sample(bars=4)
    >>> equal(bt.Markets({"A": whole, "B": whole.slice(2, 4)}))["A"].tolist()
    [1.0, 1.0, 0.5, 0.5]
    """
    require_panel(markets, where="bt.allocate.equal")
    return weights_to_frame(read_weights(None, markets), markets)
