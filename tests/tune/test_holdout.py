"""The holdout is never searched, and every look at it is counted."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base.errors import ParameterError
from backtest.strategies import VolTarget
from backtest.tune import Study, search, trials, tune
from backtest.tune.looks import find_split
from tests.tuning import MARKET, seek, start_drawn

pytestmark = pytest.mark.usefixtures("made_up")


def test_the_holdout_is_the_last_part():
    assert find_split(MARKET, "25%") == 720
    assert find_split(MARKET, 0.25) == 720
    assert find_split(MARKET, "10d") == 720
    assert find_split(MARKET, None) == find_split(MARKET, 0) == 960


def test_the_search_sees_no_bar_of_the_holdout(monkeypatch):
    made = []

    evaluator = search.choose_evaluator("mean", is_separate=False)

    def build(market, *args, **kwargs):
        made.append(evaluator(market, *args, **kwargs))
        return made[-1]

    monkeypatch.setattr(search, "choose_evaluator", lambda pool, *, is_separate: build)
    seek()
    *_, seen, whole = made
    assert seen.market.n_bars == 720
    assert whole.market.n_bars == 960
    assert whole.asked == [(1, 720, None)]  # the winner, once, from the split on


def test_the_winners_measures_on_the_holdout_stand_beside_the_others():
    study = seek()
    assert study.outcome.holdout["sharpe"] == study.best["sharpe"]  # the surface is the same there
    assert study.verdict.holdout_score == study.verdict.score
    assert study.verdict.looks == study.looks == 1
    assert "looked at once" in study.summary()
    without = seek(holdout=None)
    assert without.outcome.holdout == {}
    assert without.looks == 0
    with pytest.raises(ParameterError, match="needs a holdout"):
        without.look(without.best_values)


@pytest.mark.slow
def test_every_look_is_counted(tmp_path):
    first = seek(store=tmp_path)
    assert first.looks == 1
    assert seek(store=tmp_path, resume=True).looks == 1
    first.look(first.best_values)
    assert first.looks == 1  # the same set again tells nothing new
    first.look({"x": 1.0, "y": 2.0})
    assert first.looks == 2
    second = seek(store=tmp_path, seed=1)
    assert second.verdict.looks == 3
    assert first.looks == 3
    assert first.verdict.looks == 1  # at its time
    assert "looked at 3 times" in second.summary()
    elsewhere = seek(store=tmp_path, market=MARKET.prefix(900))
    assert elsewhere.looks == 1
    assert Study.load(first.folder).looks == 3


def of_instrument(market: bt.Market, name: str) -> bt.Market:
    """Return a market as if its prices were real."""
    return bt.Market.from_frames(market.bars(), funding=market.funding(), instrument=name)


@pytest.mark.slow
def test_looks_and_trials_on_data_that_have_grown_since_count(tmp_path):
    """A market that is a day longer has nearly the same holdout, and the same past."""
    long = of_instrument(MARKET, "BTC")
    first = seek(store=tmp_path, market=long.prefix(900))
    grown = seek(store=tmp_path, market=long)
    assert grown.looks == 2
    assert grown.verdict.other_trials == first.trials
    other = seek(store=tmp_path, market=of_instrument(MARKET, "ETH"))
    assert (other.looks, other.verdict.other_trials) == (1, 0)
    early = seek(store=tmp_path, market=long.prefix(400), seed=7)  # its holdout ends before theirs
    assert early.looks == 1
    assert early.verdict.other_trials == first.trials + grown.trials


def poison(market: bt.Market, split: int) -> bt.Market:
    """Return a market whose bars from the split on are another path."""
    bars = market.bars()
    after = slice(split, None)
    factor = np.exp(np.cumsum(np.full(len(bars) - split, -0.002)))
    for name in ("open", "high", "low", "close"):
        values = bars[name].to_numpy().copy()
        values[after] *= factor
        bars[name] = values
    bars["high"] = bars[["open", "high", "low", "close"]].max(axis=1)
    bars["low"] = bars[["open", "high", "low", "close"]].min(axis=1)
    return bt.Market.from_frames(bars, funding=market.funding(), instrument="POISON")


@pytest.mark.slow
def test_with_the_real_evaluator_a_poisoned_holdout_changes_nothing(monkeypatch):
    monkeypatch.undo()
    stand_in_sampler(monkeypatch)
    clean = bt.Market.from_frames(MARKET.bars(), funding=MARKET.funding(), instrument="POISON")
    studies = [
        tune(
            market,
            VolTarget,
            venue=bt.Venue.preset("binance-usdm", "BTCUSDT"),
            account=bt.Account(),
            trials=40,
            threads=threads,
        )
        for market, threads in ((clean, 1), (poison(clean, 720), 2))
    ]
    pd.testing.assert_frame_equal(studies[0].table, studies[1].table)
    assert studies[0].best_values == studies[1].best_values
    assert studies[0].outcome.holdout != studies[1].outcome.holdout
    row = bt.run(
        clean.prefix(720),
        studies[0].best_policy,
        venue=studies[0].best_venue,
        account=studies[0].best_account,
    )
    assert row.metrics["sharpe"] == studies[0].best["sharpe"]
    assert studies[0].replay().metrics["final_equity"] > 0.0


def stand_in_sampler(monkeypatch) -> None:
    """Put the plain sampler in place of the others, and leave the evaluator."""
    monkeypatch.setattr(trials, "start_sampler", start_drawn)
