"""What a run with options refuses, with one clear error each."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from tests.kit import Hold, check_refused
from tests.options.listed_markets import PUT, make_markets, make_venue

COIN = bt.Option("BTC-27JAN23-30000-P")


def run(markets=None, *, policy=None, venue=None, quantities=None, **account):
    """Run a small account with options in plain Python."""
    return bt.run(
        make_markets() if markets is None else markets,
        policy or Hold(level=0.0),
        venue=venue or make_venue(),
        account=bt.Account(**{"capital": 10_000.0, **account}),
        option_quantities=quantities,
        compile=False,
    )


def schedule(value=1.0, columns=("PUT",)):
    """Return a frame of quantities at two opens."""
    index = pd.date_range("2023-01-01 20:00", periods=2, freq="1h", tz="UTC")
    return pd.DataFrame(value, index=index, columns=[*columns])


def trading(orders):
    """Return a policy that orders the same options at each close."""

    class Trading(bt.Policy):
        """Order options."""

        def leverage(self, bar, account):
            return 0.0

        def option_orders(self, bar, account, chain):
            return orders

    return Trading()


@pytest.mark.parametrize(("call", "words"), [
    (lambda: make_markets(options={"P": PUT.override(expiry="2022-12-01")}),
     "must expire after the first bar"),
    (lambda: make_markets(surfaces=None), "surfaces must have those of 'BTC'"),
    (lambda: make_markets(chains={"BTC": bt.Chain.sample()}), "must settle as its options"),
    (lambda: run(venue=make_venue(option_costs=None)), "need venue.option_costs"),
    (lambda: run(make_markets(options={"P": COIN})), "must be 'cash' beside the linear"),
    (lambda: run(margin="isolated", venue_leverage=5), "must be 'cross', got 'isolated'"),
    (lambda: run(fill="next_close"), "fill must be 'next_open'"),
    (lambda: run(make_markets(bars=480, max_age="3d")), "must be at most 3 days old"),
    (lambda: run(quantities=schedule(-1.0)), "must be at least 0 with brackets"),
    (lambda: run(quantities=schedule(columns=["PTU"])), "listed options, PUT, got 'PTU'"),
    (lambda: run(quantities=schedule().shift(freq="7min")), "rows by the opens"),
    (lambda: run(policy=trading({"leg": ("PUT", np.inf)})), "must be a finite number"),
    (lambda: run(policy=trading({"leg": ("CALL", 1.0)})), "must be one of those listed"),
])  # fmt: skip
def test_bad_input_is_refused(call, words):
    check_refused(call, words)
