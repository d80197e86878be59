"""Positions of one balance settle in one currency: coins are not added to tethers."""

from typing import Annotated

import pytest

import backtest as bt
from backtest.strategies import Constant
from tests.scenes import venue_of

COIN = bt.Venue.preset("binance-coinm", "BTCUSD_PERP")
TETHER = bt.Venue.preset("binance-usdm", "BTCUSDT@latest")
BYBIT = bt.Venue.preset("bybit-inverse", "BTCUSD")
OWN_COIN = venue_of(contract={"kind": "inverse"})
OWN = venue_of()
TWO, ASKS = "must settle in one currency", "must have a known settlement currency"


def panel(*names: str, currency: str | None = None) -> bt.Markets:
    """Return markets whose own names say nothing."""
    markets = {name: bt.Market.sample(bars=30, seed=k) for k, name in enumerate(names)}
    return bt.Markets(markets, currency=currency)


def run(markets: bt.Markets, *venues: bt.Venue) -> None:
    each = dict(zip(markets, venues, strict=True))
    bt.run(markets, Constant(0.5), venue=each, account=bt.Account(capital=1e4), compile=False)


@pytest.mark.parametrize(("venues", "words"), [
    ((COIN, TETHER), f"{TWO}, got BTC for 'A' and USDT for 'B'"),
    ((OWN_COIN, TETHER), f"{ASKS}, got none for 'A'"),
    ((OWN, COIN), f"{ASKS}, got none for 'A' beside 'B'"),
    ((OWN_COIN, OWN_COIN), f"{ASKS}, got none for 'A'"),
    ((OWN.override({"contract.settles": "USDC"}), TETHER), f"{TWO}, got USDC for 'A'"),
])  # fmt: skip
def test_names_that_say_nothing_do_not_hide_two_currencies(venues, words):
    with pytest.raises(bt.ParameterError, match=words):
        run(panel("A", "B"), *venues)
    packed = (dict(zip("AB", venues, strict=True)), {"A": 1, "B": 1}, {"A": 100.0, "B": 100.0})
    with pytest.raises(bt.ParameterError, match=words):
        bt.calculate_book(*packed, balance=1e3)
    with pytest.raises(bt.ParameterError, match=words):
        bt.margin.requirement(*packed)


class Early(bt.Policy):
    """A policy that must not be asked."""

    share: Annotated[float, bt.Range(0.1, 1.0)] = 0.5

    def observe(self, market):
        raise AssertionError

    def leverage(self, bar, account):
        raise AssertionError


@pytest.mark.parametrize("call", [
    lambda *given, **terms: bt.run(*given, Early(), **terms),
    lambda *given, **terms: bt.sweep(*given, Early, {"share": [0.2, 0.4]}, **terms),
    lambda *given, **terms: bt.tune(*given, Early, trials=2, **terms),
    lambda *given, **terms: bt.walk_forward(*given, Early, train="10h", test="10h", **terms),
], ids=["run", "sweep", "tune", "walk_forward"])  # fmt: skip
def test_two_currencies_are_refused_before_a_policy_is_asked(call):
    venues = {"A": COIN, "B": TETHER}
    with pytest.raises(bt.ParameterError, match=TWO):
        call(panel("A", "B"), venue=venues, account=bt.Account())


@pytest.mark.parametrize(("venues", "names", "currency"), [
    ((OWN, OWN), ("A", "B"), None),  # linear, and nothing is known
    ((OWN, TETHER), ("A", "B"), None),
    ((COIN, COIN), ("A", "B"), None),
    ((OWN_COIN.override({"contract.settles": "BTC"}), COIN), ("A", "B"), None),
    ((OWN_COIN, COIN), ("BTCUSD_PERP", "B"), None),  # the name says it
    ((OWN_COIN, OWN_COIN), ("A", "B"), "BTC"),
    ((BYBIT, BYBIT), ("BTCUSD", "B"), None),  # the name says the quote of an inverse contract
])  # fmt: skip
def test_one_currency_is_run(venues, names, currency):
    run(panel(*names, currency=currency), *venues)


@pytest.mark.parametrize(("names", "currency", "venue", "words"), [
    (("A", "B"), "USDT", COIN, "got 'USDT' and 'BTC' for 'A'"),
    (("BTCUSDT", "ETHUSDC"), "USD", TETHER, "got 'USD' and 'USDT' for 'BTCUSDT'"),
    (("BTCUSDT", "ETHUSDT"), None, bt.Venue.preset("hyperliquid", "BTC"),
     "got USDT by the"),
    (("BTCUSD_PERP", "B"), "USDT", OWN_COIN, "got BTC for 'BTCUSD_PERP' and USDT for 'B'"),
])  # fmt: skip
def test_the_currency_of_the_markets_never_goes_over_that_of_a_preset(
    names, currency, venue, words
):
    with pytest.raises(bt.ParameterError, match=words):
        run(panel(*names, currency=currency), venue, venue)


def test_every_preset_declares_its_currency_but_a_loan_in_any_stable_coin():
    for each in bt.venue.preset_files.available():
        settles = bt.Venue.preset(each.venue, each.symbol).contract.settles
        said = each.title.partition("settled in ")[2].split(",")[0]
        assert settles == {"a stable coin": None, "XBT": "BTC"}.get(said, said), each.name
