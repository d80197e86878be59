"""How much of a study is luck, and what its summary says about it."""

import math

import numpy as np
import pytest

from backtest.tune.luck import is_spike, warn_of_edges
from tests.tuning import MARKET, Columns, Hills, Mixed, seek, space_of

pytestmark = pytest.mark.usefixtures("made_up")


def test_more_trials_ask_for_more(tmp_path):
    few, many = seek(trials=64), seek(trials=2000)
    assert many.verdict.effective_trials > few.verdict.effective_trials
    assert many.verdict.trials == many.trials <= 2000
    assert many.verdict.lucky_sharpe > 0.0
    assert 0.0 <= many.verdict.deflated_sharpe <= 1.0
    assert 0.0 <= many.verdict.overfitting <= 1.0


@pytest.mark.slow
def test_trials_of_other_studies_count(tmp_path):
    first = seek(store=tmp_path)
    second = seek(store=tmp_path, seed=1)
    assert first.verdict.other_trials == 0
    assert second.verdict.other_trials == first.trials
    assert first.trials < len(first.table)  # one set was asked for twice
    assert second.verdict.effective_trials > first.verdict.effective_trials
    summary = " ".join(second.summary().split())
    assert f"sets tried elsewhere {first.trials:,} in other searches of the store" in summary
    assert "same bars: Hills" in summary


class Valleys(Hills):
    """Another policy on the same map."""


@pytest.mark.slow
def test_sets_on_other_bars_do_not_count(tmp_path):
    seek(store=tmp_path, market=MARKET.prefix(400))
    later = seek(Valleys, store=tmp_path, market=MARKET.slice(500, MARKET.n_bars))
    assert later.verdict.other_trials == 0


def test_noise_is_called_noise_and_skill_is_not(on):
    def noise(sets: Columns) -> Columns:
        word = (1e6 * sets["x"]).astype(np.int64)
        return {"sharpe": 4.0 * np.sin(word * 12.9898) * np.cos(word * 78.233)}

    on(noise)
    unlucky = seek(robust=False).verdict
    assert unlucky.score > 3.5
    on(lambda sets: {"sharpe": 14.0 - np.abs(sets["x"] - 5.0)})
    skilled = seek(robust=False).verdict
    assert skilled.deflated_sharpe > 0.95
    assert unlucky.deflated_sharpe < skilled.deflated_sharpe


def test_edges_of_every_kind():
    space = space_of(Mixed)
    values = {"x": 0.0, "n": 6, "mode": "a", "depth": 1.0, "fast": True}
    told = list(warn_of_edges(space, values))
    assert len(told) == 1  # x = 0 is natural; depth does not matter in mode a
    assert told[0].startswith("n = 6 lies on the upper edge")
    assert len(list(warn_of_edges(space, {**values, "mode": "b"}))) == 2


def test_a_spike_is_what_its_neighbours_are_not():
    scores = np.linspace(-1.0, 1.35, 100)
    assert is_spike(1.35, 0.97, scores) is True
    assert is_spike(1.35, 1.15, scores) is False
    assert is_spike(0.1, 0.0, scores) is False  # little, in all that spread
    assert is_spike(0.1, 0.0, np.full(100, 0.05)) is True
    assert is_spike(math.nan, 1.0, scores) is False


def test_one_set_alone_was_not_chosen(tmp_path):
    study = seek(space={"x": [6.0]}, trials=10)
    assert study.trials == 1
    assert study.verdict.effective_trials == 1.0
    assert study.verdict.lucky_sharpe == 0.0
    assert 0.5 < study.verdict.deflated_sharpe < 1.0
    assert study.summary().startswith("Hills: 1 set searched")
