"""Notebook views of what goes into a run: facts, and no markup from names."""

import pytest

import backtest as bt
from backtest.strategies import VolTarget
from tests.options.listed_markets import make_markets

MARKET = bt.Market.sample(bars=200)


class Script(bt.Policy):
    """<script>alert(1)</script>."""

    def leverage(self, bar, account):
        return 1.0


@pytest.mark.parametrize(("source", "shown"), [
    (MARKET, ("SYNTHETIC-PERP", "200", "2023-01-01", "<svg", "synthetic")),
    (bt.Markets({"BTC": MARKET, "ETH": MARKET}), ("BTC, ETH", "200")),
    (make_markets(bars=48), ("BTC", "48", "options</span><br><b>1</b>")),
    (bt.Venue.preset("binance-usdm", "BTCUSDT"), ("linear", "max_leverage 150", "0.0005")),
    (bt.Account(capital=5.0, band=0.1), ("capital", "5", "band", "0.1")),
    (VolTarget(target=0.3), ("VolTarget", "0.3", "per sqrt(year)", VolTarget.fails_when)),
    (bt.simulate_paths(MARKET, "gbm", paths=2, horizon="1d"), ("2 of 24 bars", "GBM")),
], ids=lambda value: type(value).__name__)  # fmt: skip
def test_a_view_has_the_facts(source, shown):
    text = source._repr_html_()
    assert all(each in text for each in shown), text


def test_a_text_is_no_markup():
    assert "<script>" not in Script()._repr_html_()
    assert "&lt;script&gt;" in Script()._repr_html_()
