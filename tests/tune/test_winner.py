"""The best trial of a search: a plateau and no spike, its holdout, and its selection bias."""

import math
import re
from dataclasses import replace
from typing import Annotated

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter

import backtest as bt
from backtest.core.errors import ParameterError
from backtest.core.units import DAY
from backtest.policies.lookahead import rewrite_after
from backtest.search import Robustness, Study, growth_test, neighbors, samplers, winner
from backtest.search.growth_test import check_growth, count_trials
from backtest.search.tune import find_split
from backtest.search.winner import StudyOutcome
from backtest.strategies import VolTarget
from backtest.sweep import set_runs
from tests import tuning
from tests.kit import ask_test, bars_market, check_refused, free_venue

pytestmark = pytest.mark.usefixtures("made_up")
JUDGED = neighbors.CandidateScores(np.array([0.1, 0.5]), np.zeros(2), np.array([0.3, 0.9]))
LOST = JUDGED._replace(robust=np.full(2, -np.inf))
SCORES = np.array([3.0, 1.0])


def test_robust_takes_the_plateau_and_plain_the_spike(on):
    on(tuning.spike_and_plateau)
    robust = tuning.seek(trials=1200, seed=2)
    plain = tuning.seek(trials=1200, seed=2, robust=False)

    assert abs(robust.best["x"] - 7.5) < 1.5

    assert plain.best["sharpe"] == 3.0
    assert any("sits on a spike" in text for text in plain.warnings)
    assert not any("spike" in text for text in robust.warnings)

    assert robust.verdict.plain_score == 3.0
    assert robust.verdict.plain_plateau == 0.0
    assert robust.verdict.plateau == pytest.approx(1.0, abs=0.01)
    assert re.search(r"\nhighest +3\.00 ", robust.summary())


def test_the_winner_has_the_highest_low_quantile():
    study = tuning.seek()

    assert study.table["robust_score"].idxmax() == study.best_trial
    assert study.verdict.robust_score == study.best["robust_score"]
    assert study.best["robust_score"] <= study.best["score"]
    assert study.verdict.kept == 1.0


def test_a_bad_part_of_the_time_counts(monkeypatch):
    """Where x > 5 shines but for one quarter, x < 5 wins."""
    plain = tuning.MadeUp.evaluate

    def evaluate(self, sets, *, first=0, stop=None, returns=False, progress=None):
        found = plain(self, sets, first=first, stop=stop, returns=returns)
        is_high = np.asarray(sets["x"]) > 5.0
        bad = stop is not None and first == 0
        found.metrics["sharpe"][:] = np.where(is_high, -5.0 if bad else 2.0, 1.5)
        return found

    monkeypatch.setattr(tuning.MadeUp, "evaluate", evaluate)
    assert tuning.seek(trials=2000).best["x"] < 5.0
    assert tuning.seek(trials=2000, robust=False).best["x"] > 5.0


def test_neighbours_lie_in_the_box_and_whole_numbers_move_by_one():
    space = tuning.space_of(tuning.Mixed)
    sets = {
        "x": np.array([5.0, 0.0, 10.0]),
        "n": np.array([3, 1, 6]),
        "mode": np.full(3, "a", dtype=object),
        "depth": np.full(3, 0.5),
        "fast": np.zeros(3, dtype=bool),
    }
    rng = np.random.default_rng(0)
    near = neighbors.draw_neighbors(space, sets, Robustness(neighbours=64), rng)

    for k in range(3):
        part = slice(64 * k, 64 * (k + 1))
        assert np.abs(near["x"][part] - sets["x"][k]).max() <= 1.0 + 1e-9
        assert near["x"][part].std() > 0.1
        moves = near["n"][part] - sets["n"][k]
        assert set(moves.tolist()) == [{-1, 0, 1}, {0, 1}, {-1, 0}][k]
        assert set(near["mode"][part]) == {"a"}
        assert not near["fast"][part].any()

    assert near["x"].min() >= 0.0
    assert near["x"].max() <= 10.0


def test_where_all_that_leads_stands_at_the_edge_of_a_constraint_the_winner_stands_back(on):
    """A slope that ends in a cliff: 32 leading sets in the order of y, all at the cliff."""

    def surface(sets: tuning.Columns) -> tuning.Columns:
        x = sets["x"]
        y = sets["y"]
        return {"sharpe": x + 0.001 * y, "max_drawdown": np.where(x > 8.0, 0.9, 0.1)}

    on(surface)
    for seed in range(3):
        study = tuning.seek(constraints={"max_drawdown": "<= 0.4"}, trials=4000, seed=seed)
        assert 6.6 < study.best["x"] <= 7.2  # 8, less a tenth of the range and some
        assert study.verdict.kept > 0.94
        assert math.isfinite(study.verdict.robust_score)
        assert study.verdict.plain_score > 7.99


def test_with_many_trials_a_fallback_is_said(on):
    """On stripes no neighborhood keeps the constraint."""

    def stripes(sets: tuning.Columns) -> tuning.Columns:
        is_kept = np.sin(40.0 * sets["x"]) > 0.2
        return {"sharpe": sets["x"] + np.sin(9.0 * sets["x"]), "liquidations": 1.0 - is_kept}

    on(stripes)
    study = tuning.seek(constraints={"liquidations": "== 0"}, trials=3000)
    assert study.outcome.chosen_by == "kept"
    assert any("candidates is robust" in text for text in study.warnings)


@pytest.mark.parametrize(("judged", "median", "is_enough", "expected"), [
    (JUDGED, 0.5, False, (1, "robust_score")),
    (JUDGED, 2.0, False, (0, "score")),
    (JUDGED, 2.0, True, (1, "robust_score")),
    (LOST, 0.5, False, (0, "score")),
    (LOST, 0.5, True, (1, "kept")),
])  # fmt: skip
def test_by_what_a_winner_is_chosen(judged, median, is_enough, expected):
    assert winner.choose_winner(judged, SCORES, median, is_enough=is_enough) == expected


@pytest.mark.slow
def test_trials_of_other_studies_count(tmp_path):
    first = tuning.seek(store=tmp_path)
    second = tuning.seek(store=tmp_path, seed=1)

    assert first.verdict.other_trials == 0
    assert second.verdict.other_trials == first.trials
    assert second.verdict.effective_trials > first.verdict.effective_trials

    summary = " ".join(second.summary().split())
    assert f"sets tried elsewhere {first.trials:,} in other searches of the store" in summary
    assert "same bars: Hills" in summary


@pytest.mark.slow
def test_sets_on_other_bars_do_not_count(tmp_path):
    tuning.seek(store=tmp_path, market=tuning.MARKET.prefix(400))
    rest = tuning.MARKET.slice(500, tuning.MARKET.n_bars)
    assert tuning.seek(tuning.Mixed, store=tmp_path, market=rest).verdict.other_trials == 0


def test_noise_is_called_noise_and_skill_is_not(on):
    def noise(sets: tuning.Columns) -> tuning.Columns:
        word = (1e6 * sets["x"]).astype(np.int64)
        return {"sharpe": 4.0 * np.sin(word * 12.9898) * np.cos(word * 78.233)}

    on(noise)
    unlucky = tuning.seek(robust=False).verdict
    assert unlucky.score > 3.5

    on(lambda sets: {"sharpe": 14.0 - np.abs(sets["x"] - 5.0)})
    skilled = tuning.seek(robust=False).verdict
    assert skilled.deflated_sharpe > 0.95

    assert 0.0 <= unlucky.overfitting <= 1.0
    assert unlucky.deflated_sharpe < skilled.deflated_sharpe


def test_edges_of_every_kind():
    space = tuning.space_of(tuning.Mixed)
    values = {"x": 0.0, "n": 6, "mode": "a", "depth": 1.0, "fast": True}
    told = list(winner.warn_of_edges(space, values))
    assert len(told) == 1  # x = 0 is natural; depth does not matter in mode a
    assert told[0].startswith("n = 6 lies on the upper edge")

    assert len(list(winner.warn_of_edges(space, {**values, "mode": "b"}))) == 2


def test_a_best_among_ruined_neighbors_says_so(on):
    on(lambda sets: {"sharpe": np.where(sets["x"] > 9.9, 3.0, 1.0), "ruined": sets["x"] <= 9.9})
    study = tuning.seek(trials=400, robust=False)

    (told,) = (text for text in study.warnings if "spike" in text)
    assert told.endswith("is 3, and half of its neighbors or more are ruined or break a constraint")
    assert "inf" not in study.summary()


def test_a_spike_is_what_its_neighbours_are_not():
    scores = np.linspace(-1.0, 1.35, 100)
    assert winner.is_spike(1.35, 0.97, scores) is True
    assert winner.is_spike(1.35, 1.15, scores) is False
    assert winner.is_spike(0.1, 0.0, scores) is False  # little, in all that spread
    assert winner.is_spike(0.1, 0.0, np.full(100, 0.05)) is True
    assert winner.is_spike(math.nan, 1.0, scores) is False


def test_one_set_alone_was_not_chosen():
    study = tuning.seek(space={"x": [6.0]}, trials=10)

    assert study.trials == 1
    assert study.verdict.effective_trials == 1.0
    assert study.verdict.lucky_sharpe == 0.0
    assert 0.5 < study.verdict.deflated_sharpe < 1.0
    assert study.summary().startswith("Hills: 1 parameter set searched")


def make_part(gap: float, days: int = 365, fills: int = 50, seed: int = 0, **changes):
    """Return a trial that grows by ``gap`` a year more than constant leverage, but for noise."""
    rng = np.random.default_rng(seed)
    constant, noise = 0.02 * rng.standard_normal((2, days))
    noise = 0.25 * (noise - noise.mean()) + gap / 365

    returns = np.expm1(np.stack([constant + noise, constant]))
    line = {"cagr": 0.1, "volatility": 0.4}
    part = growth_test.BenchmarkedPart({"best trial": line}, returns, days / 365, fills, "")
    return part._replace(**changes)


def test_growth_over_constant_leverage_by_hand(few_draws):
    """3 years of .6 and 1 of .2 are .5 a year; of n trials p is 1 - (1 - p)^n."""
    found = check_growth([make_part(0.6, 1_095), make_part(0.2)], 5.0, seed=0)

    assert found.difference == pytest.approx(0.5, rel=1e-9)
    assert found.holdout_difference == pytest.approx(0.2, rel=1e-9)
    assert found.p_value == pytest.approx(1.0 / 300.0)  # no history of 299 is as far
    assert found.p_adjusted == pytest.approx(1.0 - (1.0 - found.p_value) ** 5, rel=1e-9)
    assert found.is_evidence

    assert not check_growth([make_part(0.6, 1_095), make_part(-0.1)], 5.0, seed=0).is_evidence
    assert not check_growth([make_part(-0.6, 1_095)], 5.0, seed=0).is_evidence

    many = check_growth([make_part(0.25, 1_095)], 40.0, seed=0)
    assert many.p_value < 0.05 < many.p_adjusted

    ruined = make_part(0.6, untested="one of them was ruined")
    assert not check_growth([make_part(0.6), ruined], 1.0, seed=0).is_evidence

    assert check_growth([make_part(0.6, 20)], 1.0, seed=0).untested == "under 30 returns"


def test_trials_that_are_the_market_in_other_sizes_are_one_trial():
    """Copies of one difference count once, others each; constant leverage is no difference."""
    part = make_part(0.0)
    constant = part.returns[1]
    rng = np.random.default_rng(3)
    own = 0.01 * rng.standard_normal((365, 40))

    assert count_trials(constant[:, None] + own, [part], 40) > 25.0
    assert count_trials(constant[:, None] + own[:, :1] * np.ones(40), [part], 40) < 1.01
    assert count_trials(own[:, :1], [part], 40) == 40.0  # one column shows no correlation


@pytest.fixture
def few_draws(monkeypatch):
    monkeypatch.setattr(growth_test, "FIRST_DRAWS", 199)
    monkeypatch.setattr(growth_test, "MOST_DRAWS", 299)


def judge(*parts, trials=3.0, lines=()):
    study = tuning.seek(trials=40)
    growth = check_growth(parts, trials, seed=0)
    verdict = study.verdict._replace(growth=growth, deflated_sharpe=0.51)
    return replace(study, outcome=study.outcome._replace(verdict=verdict, lines=lines))


OWN = {"cagr": 0.1, "total_return": 0.1, "volatility": 0.4}
LESS = {"cagr": 0.05, "total_return": 0.05, "volatility": 0.4}
MORE = {"cagr": 0.9, "total_return": 0.4, "volatility": 0.8}
SEARCHED = {
    "best trial": OWN, "buy and hold": {**LESS, "volatility": 0.8},
    "constant leverage at equal risk": LESS,
}  # fmt: skip
HELD_OUT = {**SEARCHED, "buy and hold": MORE}
"""Lines of a study: the trial is better than both in the search; on the holdout one is better."""


def judge_better_trial() -> bt.Study:
    """Return a study whose trial is better than constant leverage: by .6 a year in 3 years of
    search, and by .2 in a year of holdout, in which it has 4 fills."""
    parts = (make_part(0.6, 1_095), make_part(0.2, fills=4))
    return judge(*parts, lines=(SEARCHED, HELD_OUT))


def test_a_verdict_is_about_constant_leverage(few_draws):
    """3 years of .6 and 1 of .2 are .5 a year."""
    found = judge_better_trial()

    assert found.has_evidence
    text = found.verdict_text
    assert text.startswith("evidence that the best trial beats constant leverage at equal risk")
    assert ": +50.00 % of log growth a year, adjusted p " in text


def test_remarks_name_few_fills_and_lines_that_grew_more_on_the_holdout(few_draws):
    """Buy and hold grew by 40 % there, constant leverage by 5 %; none grew more in the search."""
    text = " ".join(judge_better_trial().list_remarks())

    assert "adjusted by 3 independent differences" in text
    assert "the difference is +20.00 % a year with 4 fills, under 10, too few to judge" in text
    assert "On the holdout, buy and hold grew by 40.00 % in 10 days at a volatility of" in text
    assert "constant leverage at equal risk grew" not in text
    assert "n the search" not in text
    assert "Deflated" not in text  # it stands in the table, beside what it is


def test_a_small_difference_and_one_that_turns_on_the_holdout_are_no_evidence(few_draws):
    noise = judge(make_part(0.02))
    assert not noise.has_evidence
    assert noise.verdict_text.startswith("no evidence that the best trial beats constant")

    behind = judge(make_part(0.6, 1_095), make_part(-0.2))
    assert not behind.has_evidence
    assert behind.verdict_text.endswith("; -20.00 % a year on the holdout")

    assert not tuning.seek(trials=40).has_evidence


def test_a_verdict_and_its_lines_are_read_back_from_plain_values(few_draws):
    outcome = judge_better_trial().outcome
    loaded = TypeAdapter(StudyOutcome).validate_python(outcome.to_dict())

    assert loaded.verdict.growth == outcome.verdict.growth
    assert loaded.lines == outcome.lines


@pytest.mark.slow
def test_a_search_has_rows_for_its_benchmarks_in_the_search_and_on_the_holdout(monkeypatch):
    monkeypatch.undo()
    terms = {"venue": bt.Venue.preset("binance-usdm", "BTCUSDT"), "account": bt.Account()}
    market = tuning.MARKET.resample("4h")
    study = ask_test("tune", market, VolTarget, **terms, trials=4, sampler="sobol")

    split = find_split(market, "25%")
    close = market.mark_close
    spans = ((0, split), (split, market.n_bars))

    for (first, stop), lines in zip(spans, study.outcome.lines, strict=True):
        own, held, constant = lines.values()
        assert [*lines] == ["best trial", "buy and hold", "constant leverage at equal risk"]
        assert held["total_return"] == pytest.approx(close[stop - 1] / close[first] - 1.0)
        assert constant["volatility"] == pytest.approx(own["volatility"], rel=1e-3)
        assert constant["fees"] > 0.0

    assert study.outcome.lines[1]["best trial"]["sharpe"] == study.outcome.holdout["sharpe"]
    events = study.task.whole.replay(study.best_values, first=split).events
    assert study.verdict.growth.holdout_fills == int((events["kind"] == "fill").sum())
    assert "constant leverage at equal risk, holdout" in study.summary()


class Timing(bt.Policy):
    """Holds the market on half of the days, drawn at random."""

    phase: Annotated[int, bt.Range(0, 999)] = 0

    def observe(self, market):
        value = np.sin((market.time // DAY + 1.0) * (self.phase + 1.0) * 12.9898) * 43758.5453
        return {"bet": (value - np.floor(value) > 0.5).astype(np.float64)}

    def leverage(self, bar, account):
        return bar.bet


@pytest.mark.slow
@pytest.mark.compiled
def test_timing_at_random_in_a_rising_market_is_no_skill(monkeypatch):
    """The market has a Sharpe ratio of 1.5: 24 of 40 searches were called more than luck."""
    monkeypatch.undo()
    deflated = []
    for seed in range(5):
        steps = np.random.default_rng(seed).normal(0.9 / 365, 0.6 / 365**0.5, 1_000)
        close = 100.0 * np.exp(np.cumsum(steps))

        market = bars_market(np.concatenate(([100.0], close[:-1])), close, "D")
        how = {"trials": 32, "sampler": "sobol", "robust": False, "seed": seed}
        study = ask_test("tune", market, Timing, venue=free_venue(), account=bt.Account(), **how)

        assert not study.has_evidence
        deflated.append(study.verdict.deflated_sharpe)
    assert max(deflated) < 0.95  # it is of the difference from constant leverage


def test_the_holdout_is_the_last_part():
    assert find_split(tuning.MARKET, "25%") == 720
    assert find_split(tuning.MARKET, 0.25) == 720
    assert find_split(tuning.MARKET, "10d") == 720
    assert find_split(tuning.MARKET, None) == find_split(tuning.MARKET, 0) == 960
    assert find_split(tuning.MARKET, "25%", 160) == 760  # 200 of the 800 bars from a start on
    assert find_split(tuning.MARKET, "10d", 160) == 720


def test_the_search_sees_no_bar_of_the_holdout(monkeypatch):
    made = []

    evaluator = set_runs.choose_evaluator("mean", is_separate=False)

    def build(market, *args, **kwargs):
        made.append(evaluator(market, *args, **kwargs))
        return made[-1]

    monkeypatch.setattr(set_runs, "choose_evaluator", lambda pool, *, is_separate: build)
    tuning.seek()
    seen, whole = made

    assert seen.market.n_bars == 720
    assert whole.market.n_bars == 960
    assert whole.asked == [(1, 720, None)]  # the winner, once, from the split on


def test_the_winners_measures_on_the_holdout_stand_beside_the_others(monkeypatch):
    """The surface is made to be 1 lower on the holdout, which alone begins after bar 0."""
    evaluate = tuning.MadeUp.evaluate

    def fall_on_the_holdout(self, sets, *, first=0, **how):
        rows = evaluate(self, sets, first=first, **how)
        rows.metrics["sharpe"] -= 1.0 if first else 0.0
        return rows

    monkeypatch.setattr(tuning.MadeUp, "evaluate", fall_on_the_holdout)
    study = tuning.seek()
    assert study.outcome.holdout["sharpe"] == pytest.approx(study.best["sharpe"] - 1.0)
    assert study.verdict.holdout_score == pytest.approx(study.verdict.score - 1.0)
    assert study.verdict.looks is study.looks is None
    assert "accesses not counted: no store" in study.summary()

    without = tuning.seek(holdout=None)
    assert without.outcome.holdout == {}
    assert without.looks == 0
    check_refused(lambda: without.look(without.best_values), "needs a holdout", ParameterError)


@pytest.mark.slow
def test_every_look_is_counted(tmp_path):
    first = tuning.seek(store=tmp_path)
    assert first.looks == 1
    assert "accessed once" in first.summary()
    assert tuning.seek(store=tmp_path, resume=True).looks == 1

    first.look(first.best_values)
    assert first.looks == 1  # the same set again tells nothing new
    first.look({"x": 1.0, "y": 2.0})
    assert first.looks == 2

    second = tuning.seek(store=tmp_path, seed=1)
    assert second.verdict.looks == 3
    assert first.looks == 3
    assert first.verdict.looks == 1  # at its time
    assert "accessed 3 times" in second.summary()

    assert tuning.seek(store=tmp_path, market=tuning.MARKET.prefix(900)).looks == 1
    assert Study.load(first.folder).looks == 3


def of_instrument(market: bt.Market, name: str) -> bt.Market:
    return bt.Market.from_frames(market.bars(), funding=market.funding(), instrument=name)


@pytest.mark.slow
def test_looks_and_trials_on_data_that_have_grown_since_count(tmp_path):
    """A market that is a day longer has nearly the same holdout, and the same past."""
    long = of_instrument(tuning.MARKET, "BTC")
    first = tuning.seek(store=tmp_path, market=long.prefix(900))
    grown = tuning.seek(store=tmp_path, market=long)
    assert grown.looks == 2
    assert grown.verdict.other_trials == first.trials

    other = tuning.seek(store=tmp_path, market=of_instrument(tuning.MARKET, "ETH"))
    assert other.looks == 1
    assert other.verdict.other_trials == 0

    # its holdout ends before theirs
    early = tuning.seek(store=tmp_path, market=long.prefix(400), seed=7)
    assert early.looks == 1
    assert early.verdict.other_trials == first.trials + grown.trials


@pytest.mark.slow
def test_with_the_real_evaluator_a_poisoned_holdout_changes_nothing(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(samplers, "make_sampler", tuning.make_drawn)
    clean = of_instrument(tuning.MARKET, "POISON")
    poisoned = rewrite_after(clean, 719, np.random.default_rng(0))
    terms = {"venue": bt.Venue.preset("binance-usdm", "BTCUSDT"), "account": bt.Account()}

    one = ask_test("tune", clean, VolTarget, **terms, trials=40, threads=1)
    other = ask_test("tune", poisoned, VolTarget, **terms, trials=40, threads=2)

    pd.testing.assert_frame_equal(one.table, other.table)
    assert one.best_values == other.best_values
    assert one.outcome.holdout != other.outcome.holdout

    row = bt.run(clean.prefix(720), one.best_policy, venue=one.best_venue, account=one.best_account)
    assert row.metrics["sharpe"] == one.best["sharpe"]
    assert one.replay().metrics["final_equity"] > 0.0
