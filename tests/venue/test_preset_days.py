"""A preset's margin tables by day: which of them a run uses, says and records."""

import math

import pandas as pd
import pytest

import backtest as bt
from backtest.base.errors import VenueDateWarning
from backtest.venue import preset_files
from backtest.venue.venue import InForce, Venue

BTC = ("binance-usdm", "BTCUSDT")


def test_a_preset_has_the_tables_of_all_days_unless_one_is_asked_for():
    venue = Venue.preset(*BTC)
    assert venue == Venue.preset(*BTC, at="history")
    assert venue.days() == ("2021-03-18", "2022-12-29", "2024-10-24", "2026-09-29")
    days = ("2021-05-19", "2023-01-01", "2024-10-24", "latest")
    assert venue.tables() == tuple(Venue.preset(*BTC, at=day).brackets for day in days)
    assert venue.in_force == InForce(preset="binance-usdm:BTCUSDT", since="2021-03-18")


@pytest.mark.parametrize("preset", preset_files.available(), ids=lambda each: each.name)
def test_a_preset_of_one_table_is_that_of_its_day(preset):
    pair = (preset.venue, preset.symbol)
    newest = Venue.preset(*pair, at="latest")
    assert (Venue.preset(*pair) == newest) == (len(preset.dates) == 1)
    day = Venue.preset(*pair, at=preset.date)
    assert (newest.tables(), newest.in_force) == (day.tables(), day.in_force)
    assert Venue.preset(*pair).days() == preset.dates


def fall(start: str, bars: int = 5) -> bt.Market:
    """Return a market of days from a day on."""
    index = pd.date_range(start, periods=bars, freq="D", tz="UTC")
    return bt.Market.from_frames(
        pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), 100.0), index=index)
    )


class Half(bt.Policy):
    def leverage(self, bar, account):
        return 0.5


def live(market: bt.Market, venue: Venue) -> bt.Result:
    return bt.run(market, Half(), venue=venue, account=bt.Account(), compile=False)


@pytest.mark.parametrize(("start", "at", "words"), [
    ("2021-01-01", None, ["the oldest", "is of 2021-03-18", "the run uses it from 2021-01-01"]),
    ("2021-01-01", "latest", ["is of 2026-09-29", "the run uses it from 2021-01-01"]),
    ("2021-01-01", "2021-01-01", ["is of 2021-03-18", "the run uses it from 2021-01-01"]),
    ("2024-10-22", "2024-10-22", ["is of 2022-12-29", "replaced on 2024-10-24"]),
])  # fmt: skip
def test_a_run_outside_the_days_of_its_table_says_so_once_and_in_the_manifest(start, at, words):
    venue = Venue.preset(*BTC, at=at)
    with pytest.warns(VenueDateWarning) as caught:
        result = live(fall(start), venue)
    of_days = [each for each in caught if issubclass(each.category, VenueDateWarning)]
    assert [each.filename for each in of_days] == [__file__]
    said = str(of_days[0].message)
    assert all(word in said for word in words)
    assert "@DATE" in said
    assert result.manifest["margin_table"] in said
    assert result.manifest["margin_table"].lower() in " ".join(result.summary().split()).lower()


@pytest.mark.parametrize(("start", "at", "used"), [
    ("2021-05-19", None, [("2021-03-18", "2021-05-19", 5)]),
    ("2021-05-19", "latest", [("2026-09-29", "2021-05-19", 5)]),
    ("2020-01-01", None, [("2021-03-18", "2020-01-01", 5)]),
    ("2025-01-01", None, [("2024-10-24", "2025-01-01", 5)]),
    ("2024-10-22", None, [("2022-12-29", "2024-10-22", 2), ("2024-10-24", "2024-10-24", 3)]),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore::backtest.VenueDateWarning")
def test_a_manifest_says_which_table_was_used_at_which_bars(tmp_path, start, at, used):
    result = live(fall(start), Venue.preset(*BTC, at=at))
    rows = [{"of": of, "from": first, "bars": bars} for of, first, bars in used]
    assert result.manifest["margin_tables"] == rows
    kept = bt.Result.load(result.save(tmp_path))
    assert kept.manifest["margin_tables"] == rows


@pytest.mark.filterwarnings("ignore::backtest.VenueDateWarning")
@pytest.mark.parametrize("start", ["2020-01-01", "2024-10-22", "2025-01-01"])
def test_other_brackets_take_the_place_of_the_tables_of_all_days(start):
    rows = [bt.Bracket(0.0, math.inf, 10.0, 0.05)]
    all_days, one = (Venue.preset(*BTC, at=at).override(brackets=rows) for at in (None, "latest"))
    assert all_days == one
    ratio = live(fall(start), all_days).bars.margin_ratio
    assert ratio.iloc[-1] == pytest.approx(0.05 * 0.5, rel=1e-3)
