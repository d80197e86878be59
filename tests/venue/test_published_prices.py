"""Liquidation prices that venues and others have published, through presets and public functions.

Those of ``tests/data/vectors.json`` are held in ``test_presets.py``; these are further ones. The
maintenance rate of a page is laid over the preset: what is tested is the rule of the venue, and so
the examples of dYdX in ETH go by its preset for BTC.
"""

import math
from typing import NamedTuple

import pytest

import backtest as bt


class Case(NamedTuple):
    """A published price.

    ``rate`` is the maintenance rate of the page, ``backing`` what stands behind the position at its
    entry, ``digits`` how many decimals the page prints.
    """

    name: str
    preset: tuple[str, str]
    rate: float
    quantity: float
    entry: float
    backing: float
    price: float
    digits: int
    source: str
    fee: float | None = None


FREQTRADE = "freqtrade/freqtrade, tests/freqtradebot/test_freqtradebot.py, test_execute_entry"
DYDX = (
    "dydxprotocol/v4-documentation, docs/pages/concepts/trading/liquidations.mdx at "
    "df2cc995218196355dacc139d6695536947c0e7e"
)

CASES = [
    Case("dydx, isolated short of 3 ETH", ("dydx", "BTC-USD"), 0.05, -3.0, 3_000.0, 1_000.0,
         3_174.60, 2, DYDX),
    # the requirement of the other position, 175, backs nothing
    Case("dydx, short of 1.5 ETH beside another position", ("dydx", "BTC-USD"), 0.05, -1.5, 3_000.0,
         1_000.0 - 175.0, 3_380.95, 2, DYDX),
    Case("okx, long at 5x", ("okx", "BTC-USDT-SWAP"), 0.01, 1.0, 10.0, 2.0,
         8.085708510208207, 12, FREQTRADE, fee=0.0006),
    Case("bybit, long at 5x", ("bybit-linear", "BTCUSDT"), 0.01, 1.0, 10.0, 2.0, 8.1, 9, FREQTRADE),
    Case("bybit, short at 5x", ("bybit-linear", "BTCUSDT"), 0.01, -1.0, 10.0, 2.0, 11.9, 9,
         FREQTRADE),
    Case("broker, long of 20 at 40 %", ("reg-t", "STOCK"), 0.25, 1.0, 20.0, 8.0, 16.0, 9,
         "analystforum.com/t/margin-call/96666"),
    Case("broker, long of 40 at 60 %", ("reg-t", "STOCK"), 0.25, 1.0, 40.0, 24.0, 21.33, 2,
         "sapling.com/6522069/calculate-maintenance-margin"),
    Case("broker, long of 20 at 60 %", ("reg-t", "STOCK"), 0.20, 1.0, 20.0, 12.0, 10.0, 9,
         "gradestack.com, Review CFA Level 1, Margin Calls"),
    Case("broker, short of 40 at 50 %", ("reg-t", "STOCK"), 0.30, -1.0, 40.0, 20.0, 46.15, 2,
         "analystforum.com/t/margin-call-price-for-short-sales/25013"),
    Case("broker, short of 50 at 40 %", ("reg-t", "STOCK"), 0.30, -1.0, 50.0, 20.0, 53.8462, 4,
         "analystforum.com/t/margin-call-for-short-position/12606"),
    # collateral at a threshold of 80 % and 85 %: the rate is what the threshold leaves
    Case("loan of 2,250 against 1 ETH at 3,000", ("lending", "WETH"), 0.20, 1.0, 3_000.0, 750.0,
         2_812.5, 1,
         "lemonwheel.com/defi/help-understanding-liquidation-treshold-with-actual-numbers"),
    # the page has no price at which the loan was sound: it is that of the debt, whatever was paid
    Case("loan of 10,000 against 5 ETH", ("lending", "WETH"), 0.20, 5.0, 2_600.0, 3_000.0,
         2_500.0, 6, "cryptomaa.com/how-to-calculate-aave-liquidation-price"),
]  # fmt: skip


def build(case: Case) -> bt.Venue:
    """Return the preset with the page's rate; with its taker fee where the price includes one."""
    venue = bt.Venue.preset(*case.preset)
    brackets = [bt.Bracket(0.0, math.inf, 0.9 / case.rate, case.rate)]
    fees = venue.fees if case.fee is None else bt.Fees(taker=case.fee, maker=case.fee)
    return venue.override(brackets=brackets, fees=fees, contract=bt.Contract(lot=0.0))


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_published_price_is_that_of_the_preset(case: Case):
    venue = build(case)
    found = bt.margin.liquidation_price(venue, case.quantity, case.entry, case.backing)
    assert found == pytest.approx(case.price, abs=0.51 * 10.0**-case.digits)
    gain = case.quantity * (found - case.entry)
    at = case.entry if venue.maintenance_at == "entry" else found
    needed = bt.margin.maintenance(venue, abs(case.quantity) * at)
    assert case.backing + gain == pytest.approx(needed, rel=1e-9)


@pytest.mark.parametrize(("rate", "coins", "price", "debt", "factor", "digits", "source"), [
    (0.20, 1.0, 10_000.0, 6_000.0, 1.333, 3, "aave.com/help/borrowing/liquidations"),
    (0.15, 0.5, 600.0, 200.0, 1.275, 3,
     "lemonwheel.com/defi/help-understanding-aaves-automatic-liquidation-threshold"),
])  # fmt: skip
def test_a_published_health_factor_is_the_price_over_that_of_liquidation(
    rate, coins, price, debt, factor, digits, source
):
    assert source
    venue = bt.Venue.preset("lending", "WETH").override(
        brackets=[bt.Bracket(0.0, math.inf, 1.0 / rate, rate)]
    )
    found = bt.margin.liquidation_price(venue, coins, price, coins * price - debt)
    assert price / found == pytest.approx(factor, abs=0.51 * 10.0**-digits)
