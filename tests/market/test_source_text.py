"""What a market says of itself is read apart as text, and only what loads data is run again."""

import dataclasses

import pytest

from backtest import Market
from backtest.base.errors import DataError
from backtest.market.market import load_again


def save(tmp_path, bars=48):
    return Market.sample(bars=bars).save(tmp_path / "btc")


def test_a_market_is_loaded_again_by_what_it_says_of_itself(tmp_path):
    folder = save(tmp_path)
    whole = Market.load(folder)
    for market in (
        Market.sample(bars=48),
        whole,
        whole.between("2023-01-01 06:00", "2023-01-02"),
        whole.resample("4h"),
        whole.between("2023-01-01 06:00").resample("2h"),
    ):
        again = load_again(repr(market), market.content_hash)
        assert again.content_hash == market.content_hash
        assert repr(again) == repr(market)


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "Market", "Market.load", "__import__('os').system('touch here')",
        "Market.load(open('x').read())", "Market.load('x') or 1", "[].append(1)", "(" * 5_000,
        "Market.load(*['x'])", "f'{1}'.strip()", "x" * 10_000, "\u202e", "a\x00b",
    ],
)  # fmt: skip
def test_what_is_no_chain_of_calls_with_plain_values_is_refused(text):
    with pytest.raises(DataError, match="not loaded from files"):
        load_again(text, "")


@pytest.mark.parametrize("source", [
    "<Market.from_frames: BTC>",
    "Markets.load('{folder}')",
    "Market.load('{folder}').save('{folder}/../stolen')",
    "Market.load('{folder}')._facts()",
    "Market.from_frames('{folder}')",
    "Other.load('{folder}')",
    "Market.load('{folder}', nothing=1)",
    "Market.load('{folder}').between(1, 2, 3)",
    "Market.load('{folder}/missing')",
    "Market.load('{folder}\\0')",
    "Market.sample(bars=1000000000000000000)",
])  # fmt: skip
def test_nothing_but_loading_is_run_again(tmp_path, source):
    folder = save(tmp_path)
    market = Market.load(folder)
    with pytest.raises(DataError, match=r"data were not|path"):
        load_again(source.replace("{folder}", str(folder)), market.content_hash)
    assert not (tmp_path / "stolen").exists()


def test_data_that_were_changed_are_not_taken_for_those_of_before(tmp_path):
    folder = save(tmp_path)
    before = Market.load(folder)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    prices = dataclasses.replace(before, close=before.close * 1.0001, high=before.high * 1.001)
    prices.save(folder)
    with pytest.raises(DataError, match="changed since"):
        load_again(repr(before), before.content_hash)
