"""``backtest liq --book``: figures, and the errors of a book's file."""

import json
import shutil
from pathlib import Path

import pytest

import backtest as bt
from tests.kit import call

EXAMPLE = Path(__file__).parents[2] / "examples" / "book.toml"
BOOK = """
balance = 1000
venue = "binance-usdm"
[positions.BTCUSDT]
quantity = 0.1
price = 60_000
[positions.ETHUSDT]
quantity = -1
price = 3_000
"""


@pytest.fixture(autouse=True)
def example(folder):
    """Put the example of a book into the folder."""
    shutil.copy(EXAMPLE, folder)


def test_the_example_is_calculated(capsys, folder):
    """0.8 BTC and 10 ETH short of 60,000 and 3,000: 12 % of 48,000 with .1 BTC less, and 30,000.

    The coin cancels its part: .12 * (48,000 + 6,000) + .12 * 30,000 = 10,080.
    """
    code, out, _ = call(capsys, "liq", "--book", "book.toml")
    assert code == 0
    out = " ".join(out.split())
    assert "requirement 10,080" in out
    assert "backing 12,900 collateral 5,700" in out
    assert "first to liquidate, the others frozen: BTCUSDT" in out
    assert "all prices together: liquidated at -20.70%" in out


def test_options_are_in_the_book(capsys, folder):
    """Per option: 2 * .075 and the marks of .0116 and .0106; no option value backs it."""
    shutil.copy(EXAMPLE.with_name("strangle.toml"), folder)
    code, out, _ = call(capsys, "liq", "--book", "strangle.toml")
    assert code == 0
    out = " ".join(out.split())
    assert "backing 0.3222 collateral 0 option value 0 requirement 0.1721994" in out
    assert "index BTC: liquidated at -27.58% or +43.34%" in out
    whole = (folder / "strangle.toml").read_text().replace("deribit-standard", "deribit-portfolio")
    text = whole.replace(
        'option = "BTC-26JUN26-50000-P"',
        """
        option = {kind = "put", strike = 50_000, expiry = "2026-06-26 08:00",
                  settlement = "coin", underlying = "BTC"}""".replace("\n", " "),
    )
    (folder / "own.toml").write_text(text)
    found = json.loads(call(capsys, "liq", "--book", "own.toml", "--json")[1])
    assert found["backing"] == found["equity"] == pytest.approx(0.3222 + found["option_value"])
    assert found["options"][0]["option"] == "BTC-26JUN26-50000-P"


def test_brackets_are_the_default_and_a_table_gives_a_rule(capsys, folder):
    (folder / "own.toml").write_text(BOOK)
    needed = json.loads(call(capsys, "liq", "--book", "own.toml", "--json")[1])
    venues = bt.Venue.preset("binance-usdm", ["BTCUSDT", "ETHUSDT"])
    held, prices = {"BTCUSDT": 0.1, "ETHUSDT": -1.0}, {"BTCUSDT": 60e3, "ETHUSDT": 3e3}
    assert needed["requirement"] == bt.margin.requirement(venues, held, prices)
    more = BOOK + '[requirement]\nmoves = {"*" = [[-0.1, 1], [0.1, 1]]}\n'
    (folder / "own.toml").write_text(more)
    found = json.loads(call(capsys, "liq", "--book", "own.toml", "--json")[1])
    assert found["requirement"] == pytest.approx(900)
