"""What a run with options refuses, with one clear error each."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from tests.options.listed_markets import PUT, make_chain, make_markets, make_surfaces, make_venue
from tests.portfolio.portfolio_helpers import Hold
from tests.refusals import check_refused

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


def schedule(value=1.0, rows=slice(20, 22), columns=("PUT",)):
    """Return a frame of quantities at some opens."""
    index = pd.date_range("2023-01-01", periods=240, freq="1h", tz="UTC")[rows]
    return pd.DataFrame(value, index=index, columns=[*columns])


def two_coins(**more):
    """Return markets of two instruments of one coin."""
    market = bt.Market.sample(bars=48)
    given = {"BTCUSDT": market, "BTCUSDC": market, "PUT": PUT}
    return bt.Markets(given, currency="USD", surfaces={"BTCUSDT": make_surfaces(["2023-01-01"])})


def daily(option=PUT):
    """Return daily bars with an option that expires at noon."""
    market = bt.Market.sample(bars=480).resample("1d")
    surfaces = {"BTC": make_surfaces(["2022-12-31"])}
    return bt.Markets({"BTC": market, "PUT": option}, surfaces=surfaces)


def delisted():
    """Return an underlying that ends before its option expires, and another that goes on."""
    given = {name: bt.Market.sample(bars=bars) for name, bars in (("BTC", 100), ("B", 240))}
    return bt.Markets({**given, "PUT": PUT}, surfaces={"BTC": make_surfaces(["2023-01-01"])})


class Same(bt.Combinator):
    """Hold what a policy asks for."""

    def combine(self, bar, account, asked):
        return asked[0]


def trading(orders):
    """Return a policy that orders the same options at each close."""

    class Trading(bt.Policy):
        """Order options."""

        def leverage(self, bar, account):
            return 0.0

        def option_orders(self, bar, account, chain):
            return orders(chain) if callable(orders) else orders

    return Trading()


def no_spread():
    """Return a venue that states no spread."""
    return make_venue(option_costs=bt.OptionCosts(
        fee=0.0, fee_cap=1.0, delivery_fee=0.0, delivery_cap=1.0, tick=0.0
    ))  # fmt: skip


MARKETS = {
    "an expired option": (
        lambda: make_markets(options={"P": PUT.override(expiry="2022-12-01")}),
        "must expire after the first bar",
    ),
    "no surfaces": (lambda: make_markets(surfaces=None), "needs surfaces of its underlying"),
    "surfaces of another": (
        lambda: make_markets(surfaces={"ETH": make_surfaces(["2023-01-01"])}),
        "must be of an instrument of the markets",
    ),
    "surfaces in a list": (
        lambda: make_markets(surfaces=[make_surfaces(["2023-01-01"])]),
        "mapping of underlyings|mapping",
    ),
    "one surface": (
        lambda: make_markets(surfaces={"BTC": make_surfaces(["2023-01-01"]).surfaces[0]}),
        "must be Surfaces, got Surface",
    ),
    "a chain as surfaces": (
        lambda: make_markets(surfaces={"BTC": make_chain(["2023-01-01"])}),
        "must be Surfaces, got Chain",
    ),
    "surfaces as a chain": (
        lambda: make_markets(chains={"BTC": make_surfaces(["2023-01-01"])}),
        "must be Chain, got Surfaces",
    ),
    "a chain in coins": (
        lambda: make_markets(chains={"BTC": bt.Chain.sample()}),
        "must settle as its options",
    ),
    "a chain of two underlyings": (
        lambda: make_markets(
            chains={
                "BTC": bt.Chain(
                    pd.concat(
                        [
                            make_chain(["2023-01-01"]).table.assign(underlying=name)
                            for name in ("AAA", "BBB")
                        ],
                        ignore_index=True,
                    ),
                    "cash",
                )
            }
        ),
        "must have one underlying",
    ),
    "another underlying": (
        lambda: make_markets(options={"P": PUT.override(underlying="ETH")}),
        "must be of an instrument of the markets",
    ),
    "two instruments of one coin": (two_coins, "must have one instrument of 'BTC'"),
    "a contract twice": (
        lambda: make_markets(options={"P": PUT, "Q": PUT.override(name="other")}),
        "must be listed once",
    ),
    "an option alone": (lambda: bt.Markets({"P": PUT}), "needs the market of its underlying"),
    "a blank name": (lambda: make_markets(options={" P": PUT}), "text without spaces"),
    "an age without quotes": (lambda: make_markets(quote_age="1h"), "quote_age is of quotes"),
    "an age in days": (lambda: make_markets(max_age=14), "max_age must be|max_age"),
    "an age that is a table": (
        lambda: make_markets(quote_age=pd.DataFrame({"age": [1.0]})),
        "quote_age must be a duration, got a DataFrame",
    ),
    "an unreadable age": (lambda: make_markets(max_age="a while"), "a while"),
    "what is no option": (lambda: make_markets(options={"P": "a put"}), "must be a Market"),
    "an American option": (
        lambda: bt.Option(kind="put", strike=1.0, expiry="2023-02-01", underlying="BTC",
                          style="american"),
        "european",
    ),
    "a negative settlement price": (
        lambda: PUT.override(settlement_price=-1.0), "settlement_price"
    ),
    "costs without a fee": (lambda: bt.OptionCosts(fee_cap=1.0), "fee"),
    "a cap of 0": (
        lambda: bt.OptionCosts(
            fee=0.0, fee_cap=0.0, delivery_fee=0.0, delivery_cap=1.0, tick=0.0
        ),
        "fee_cap",
    ),
    "surfaces on other ends": (
        lambda: make_markets(surfaces={"BTC": make_surfaces(["2023-01-01"]), "market": 1}),
        "must be Surfaces",
    ),
}  # fmt: skip

RUNS = {
    "no costs": (lambda: run(venue=make_venue(option_costs=None)), "need the costs of their venue"),
    "coin beside linear": (
        lambda: run(make_markets(options={"P": COIN})),
        "settles in the currency of its balance",
    ),
    "cash beside inverse": (
        lambda: run(venue=make_venue(contract=bt.Contract(kind="inverse", size=1.0))),
        "settles in the currency of its balance",
    ),
    "isolated": (lambda: run(margin="isolated", venue_leverage=5), "held in cross margin"),
    "limit fills": (lambda: run(fill="limit", offset=0.01), "fill at the next open"),
    "fills at the close": (lambda: run(fill="next_close"), "fill at the next open"),
    "a requirement of one's own": (lambda: run(requirement=Own()), "a margin rule that knows them"),
    "old surfaces": (
        lambda: run(make_markets(bars=480, max_age="3d")),
        "must be at most 3 days old",
    ),
    "an expiry inside a day": (lambda: run(daily()), "needs its settlement price"),
    "an underlying that ends": (lambda: run(delisted()), "must expire in the data of its"),
    "no spread": (
        lambda: run(venue=no_spread(), quantities=schedule()),
        "needs a spread in volatility",
    ),
    "a short under brackets": (lambda: run(quantities=schedule(-1.0)), "rule that knows shorts"),
    "quantities without options": (
        lambda: run(bt.Market.sample(bars=48), quantities=schedule()),
        "of listed options",
    ),
    "quantities in a dict": (lambda: run(quantities={"PUT": 1.0}), "must be a DataFrame"),
    "an unknown column": (
        lambda: run(quantities=schedule(columns=["PTU"])),
        "must be a listed option, got 'PTU'",
    ),
    "a column twice": (lambda: run(quantities=schedule(columns=["PUT", "PUT"])), "has one column"),
    "no times": (
        lambda: run(quantities=schedule().reset_index(drop=True)),
        "indexed by time in UTC",
    ),
    "naive times": (lambda: run(quantities=schedule().tz_localize(None)), "no time zone"),
    "a time twice": (
        lambda: run(quantities=pd.concat([schedule(), schedule()])),
        "each time has one row",
    ),
    "times between opens": (
        lambda: run(quantities=schedule().shift(freq="7min")),
        "the open of a bar",
    ),
    "times of other years": (
        lambda: run(quantities=schedule().shift(freq="700D")),
        "must lie inside the markets",
    ),
    "text as a quantity": (lambda: run(quantities=schedule("one")), "must be numbers"),
    "an infinite quantity": (lambda: run(quantities=schedule(np.inf)), "finite or NaN"),
    "orders without options": (
        lambda: run(bt.Market.sample(bars=48), policy=trading({})),
        "got none listed on it",
    ),
    "orders inside another policy": (lambda: run(policy=Same(trading({}))), "stands alone"),
    "orders that are a list": (lambda: run(policy=trading([1])), "must return a dict"),
    "a leg without a name": (
        lambda: run(policy=trading({1: ("PUT", 1.0)})),
        "a leg must be a text",
    ),
    "a leg with the name of a row of totals": (
        lambda: run(policy=trading({"total": ("PUT", 1.0)})),
        "other than 'schedule' and 'total'",
    ),
    "an order of one number": (
        lambda: run(policy=trading({"leg": 1.0})),
        "must be (contract, quantity)",
    ),
    "a quantity of text": (
        lambda: run(policy=trading({"leg": ("PUT", "1")})),
        "must be a number of contracts",
    ),
    "an infinite order": (lambda: run(policy=trading({"leg": ("PUT", np.inf)})), "must be finite"),
    "an unlisted contract": (
        lambda: run(policy=trading({"leg": ("CALL", 1.0)})),
        "must be one of those listed",
    ),
    "two legs of one contract": (
        lambda: run(policy=trading({"a": ("PUT", 1.0), "b": ("PUT", 1.0)})),
        "ordered by one leg",
    ),
    "a short order under brackets": (
        lambda: run(policy=trading({"a": ("PUT", -1.0)})),
        "rule that knows shorts",
    ),
    "an order that raises": (
        lambda: run(policy=trading(lambda chain: chain["CALL"])),
        "option_orders raised KeyError",
    ),
}


class Own:
    """A requirement of the user's own."""

    def requirement(self, positions, prices):
        return 0.0

    initial = requirement


@pytest.mark.parametrize("name", MARKETS)
def test_bad_listings_are_refused(name):
    check_refused(*MARKETS[name])


@pytest.mark.parametrize("name", RUNS)
def test_bad_runs_are_refused(name):
    check_refused(*RUNS[name])


def test_a_method_of_other_arguments_is_refused():
    def make():
        class Wrong(bt.Policy):
            def leverage(self, bar, account):
                return 0.0

            def option_orders(self, bar, account):
                return {}

    check_refused(make, "option_orders must be a plain method")
