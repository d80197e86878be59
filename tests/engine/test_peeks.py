"""Looking ahead: a zoo of peeks, all caught, and of honest columns, none accused."""

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base.ranges import Choice, Range
from backtest.base.work_budget import WorkMeter, count_again, count_work, measure_work
from backtest.engine.lookahead.causality import observe_checked
from backtest.engine.lookahead.causality_checker import ENOUGH, Causality, describe_cuts
from backtest.engine.result_text import write_summary
from backtest.engine.signal_checks import NOT_CHECKED, describe_signal_check
from backtest.features.garch import garch_volatility
from backtest.strategies import Kelly, LiquidationProbability, Regime, TailRisk, TrendVol, VolTarget
from backtest.sweep.policy_columns import Columns
from backtest.sweep.set_evaluator import Evaluator
from backtest.sweep.sets.representative_sets import Extremes
from backtest.sweep.sets.space import read_space
from tests.fast_cases import every_nth
from tests.honest_columns import HONEST
from tests.markets import free_venue
from tests.peeks import MARKET, PEEKS, observing

ALL_NAN = ("unknown",)
DEAR = ("garch",)
"""What is fitted takes so much work that a short market is cut less often."""


def check(function: Callable[[Any], Any], market: bt.Market = MARKET) -> Causality:
    return observe_checked(observing(function), market)[1]


@pytest.mark.parametrize("name", every_nth(PEEKS, 6))
def test_a_peek_is_caught(name: str):
    with pytest.raises(bt.PolicyError, match=r"Observing looks ahead: column 'x' is .* when"):
        check(PEEKS[name])


@pytest.mark.parametrize("name", every_nth(HONEST, 6))
def test_an_honest_column_is_not_accused(name: str):
    found = check(HONEST[name])
    assert found.cuts >= ENOUGH or name in ALL_NAN + DEAR, str(found)


@pytest.mark.parametrize(
    "policy",
    every_nth(
        [
            *(VolTarget(estimator=name) for name in ("ewma", "yang-zhang", "gjr", "har")),
            *(VolTarget(half_life=bars) for bars in (2.0, 2000.0)),
            *(TailRisk(model=name) for name in ("historical", "normal", "cornish-fisher")),
            Kelly(),
            Kelly(window=100),
            LiquidationProbability(),
            Regime(),
            TrendVol(measure="sign"),
            TrendVol(short=10, middle=20, long=40),
        ],
        4,
    ),
    ids=repr,
)
def test_a_policy_of_ours_is_not_accused(policy: bt.Policy):
    market = bt.Market.sample(bars=6000)
    assert observe_checked(policy, market)[1].cuts >= 10


def next_up(market: Any) -> Any:
    return (np.append(market.close[1:], market.close[-1]) > market.close).astype(float)


def test_one_bar_ahead_is_caught_on_every_end_date():
    """A check of one row let a yes or no pass on half of the dates."""
    for k in range(20):
        with pytest.raises(bt.PolicyError, match="looks ahead"):
            check(next_up, MARKET.prefix(MARKET.n_bars - 37 * k))


@pytest.mark.parametrize("n_bars", [40, 60, 100, 250])
def test_short_markets_are_cut_too(n_bars: int):
    market = MARKET.prefix(n_bars)
    with pytest.raises(bt.PolicyError, match="looks ahead"):
        check(next_up, market)
    assert check(lambda seen: pd.Series(seen.close).rolling(20).mean(), market).cuts > 5


@pytest.mark.parametrize("n_bars", [30, 60, 120])
@pytest.mark.parametrize("name", ["fft 13, sign", "single fft, sign", "layers, value"])
def test_rounding_is_no_peek_in_a_short_market(n_bars: int, name: str):
    """A part of one or two bars has too few values to call any difference of them clear."""
    kind = HONEST[name]
    assert check(lambda seen: np.nan_to_num(kind(seen)), MARKET.prefix(n_bars)).cuts > 5


@pytest.mark.parametrize("n_bars", [1, 2, 3])
def test_tiny_markets_do_no_harm(n_bars: int):
    assert check(lambda seen: seen.close, MARKET.prefix(n_bars)).cuts <= n_bars


def test_a_session_market_is_cut_too():
    days = pd.bdate_range("2015-01-01", periods=900, tz="UTC")
    prices = 100 * np.exp(np.cumsum(np.random.default_rng(3).normal(0, 0.01, len(days))))
    frame = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), prices), index=days)
    market = bt.Market.from_frames(frame, sessions=True)
    assert check(lambda seen: pd.Series(seen.close).rolling(50).mean(), market).cuts >= ENOUGH
    with pytest.raises(bt.PolicyError, match="looks ahead"):
        check(next_up, market)


def test_an_error_says_which_bar_both_values_and_the_cut():
    with pytest.raises(bt.PolicyError) as caught:
        check(next_up)
    text = str(caught.value)
    assert "column 'x' is 1.0 when all 3000 bars are seen, 0.0 when the first" in text
    assert "Observing looks ahead" in text
    assert "shift(-1)" in text


def test_random_columns_are_told_from_peeks():
    rng = np.random.default_rng(0)
    with pytest.raises(bt.PolicyError, match="is not repeatable: column 'x'"):
        check(lambda market: rng.normal(size=market.n_bars))


def test_a_column_of_another_length_than_its_market_is_refused():
    with pytest.raises(bt.PolicyError, match=r"must be .* numbers, one per bar"):
        check(lambda market: MARKET.close)


# ------------------------------------------------------------------------------- what is not cheap


def dear(market: Any) -> Any:
    """Return columns whose fit costs as much as 100,000 bars of an ordinary estimator."""
    count_work(market.close.tobytes(), 100_000.0)
    return pd.Series(market.close).rolling(20).mean()


def test_dear_columns_are_cut_less_often_and_say_so():
    """Work is counted, not timed, so that the same is said on every machine."""
    found = [check(dear) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0].is_weak
    assert str(found[0]).startswith(f"columns checked at {found[0].cuts} cut")


def test_rounding_is_tried_no_longer_than_it_takes():
    """The sign of a sum by FFT is checked by a few looks more than there are cuts."""
    looked = []

    def sign(seen: Any) -> Any:
        looked.append(seen.n_bars)
        return HONEST["fft 13, sign"](seen)

    assert check(sign).cuts >= ENOUGH
    assert len(looked) < 60


def test_work_under_a_key_is_counted_once():
    meter = WorkMeter()
    with measure_work(meter):
        garch_volatility(MARKET.prefix(1100))
        once = meter.bars
        garch_volatility(MARKET.prefix(1100))
    assert meter.bars == once > 10_000


def test_work_of_a_kept_result_is_counted_again_but_once_per_key():
    with measure_work(WorkMeter()) as first:
        count_work(b"fit", 7.0)
    with measure_work(WorkMeter()) as second:
        count_again(first)
        count_again(first)
        count_work(b"fit", 7.0)
        count_work(b"other", 1.0)
    assert second.bars == 8.0


def test_columns_that_were_kept_leave_the_same_budget_for_cuts():
    """The fits of the whole market allow those of its parts, also where they were made before."""

    class Fitted(bt.Policy):
        def observe(self, market: Any) -> Any:
            count_work(str(market.n_bars).encode(), 1e3 * market.n_bars)
            return {"x": market.close}

        def leverage(self, bar: Any, account: Any) -> float:
            return 1.0

    columns = Columns(SHORT, lambda _: Fitted(), 1e9)
    columns.of_one({})
    assert columns.check_causal({}) == Columns(SHORT, lambda _: Fitted(), 1e9).check_causal({})


def test_a_slow_warm_up_leaves_fewer_cuts_and_a_chance_that_is_told():
    found = check(lambda seen: pd.Series(seen.close).rolling(2990).mean())
    assert 0 < found.cuts < ENOUGH
    assert describe_cuts("columns", found.cuts) == str(found)


# ----------------------------------------------------------------------- runs, sweeps and searches


class Worded(bt.Policy):
    """A policy that looks ahead under one word, from some number on."""

    word: Annotated[str, Choice("past", "now", "next")] = "past"
    bars: Annotated[float, Range(1.0, 100.0, "bars")] = 10.0

    def observe(self, market: Any) -> Any:
        ahead = self.word == "next" or (self.word == "now" and self.bars > 80.0)
        column = next_up(market) if ahead else market.close * self.bars
        return {"x": column}

    def leverage(self, bar: Any, account: Any) -> float:
        return 1.0 if bar.x > 0.0 else 0.5


SHORT = MARKET.prefix(600)
TERMS = {"venue": free_venue(), "account": bt.Account()}


@pytest.mark.parametrize("sets", [
    {"word": ["past", "now", "next"]},
    {"word": ["now"], "bars": np.linspace(1.0, 100.0, 65)},
    {"word": ["past", "now"], "bars": [100.0, 1.0, 50.0]},
])  # fmt: skip
def test_a_sweep_checks_every_word_and_both_ends_of_numbers(sets: Any):
    with pytest.raises(bt.PolicyError, match="Worded looks ahead: column 'x'"):
        bt.sweep(SHORT, Worded, sets, **TERMS)


class Middling(bt.Policy):
    """A policy that looks ahead between the ends of its number."""

    bars: Annotated[float, Range(1.0, 100.0, "bars")] = 10.0

    def observe(self, market: Any) -> Any:
        return {"x": next_up(market) if 40.0 < self.bars < 60.0 else market.close}

    def leverage(self, bar: Any, account: Any) -> float:
        return 1.0 if bar.x == 1.0 else 0.5


@pytest.mark.slow
def test_a_sweep_checks_its_winner():
    bars = [1.0, 50.0, 100.0]
    with pytest.raises(bt.PolicyError, match="Middling looks ahead: column 'x'"):
        bt.sweep(SHORT, Middling, {"bars": bars}, **TERMS)


@pytest.mark.parametrize("fix", [{"word": "now"}, {"bars": 10.0}])
def test_a_search_checks_the_ends_of_its_space_before_it_begins(fix: Any):
    with pytest.raises(bt.PolicyError, match="Worded looks ahead: column 'x'"):
        bt.tune(SHORT, Worded, fix=fix, trials=8, **TERMS)


def test_an_evaluator_says_how_columns_were_checked_and_keeps_no_part_of_them():
    evaluator = Evaluator(SHORT, Worded, **TERMS)
    sets = {"word": np.array(["past", "now"] * 3, dtype=object), "bars": np.arange(1.0, 7.0)}
    evaluator.check_causal(sets)
    assert evaluator.causality == describe_cuts("columns", 21)
    assert evaluator.doubts == []
    lengths = {
        len(column)
        for columns in evaluator._runner()._columns.values()
        for seen in columns._kept.values()
        for column in seen.values()
    }
    assert lengths == {SHORT.n_bars}
    with pytest.raises(bt.PolicyError, match="looks ahead"):
        evaluator.check_set({"word": "next", "bars": 3.0})


class Windowed(bt.Policy):
    """Takes numbers or arrays, and looks ahead for wide ones if told to."""

    bars: Annotated[float, Range(1.0, 100.0, "bars")] = 10.0
    shift: Annotated[float, Range(0.0, 1.0)] = 0.0

    def observe(self, market: Any) -> Any:
        bars = np.atleast_1d(self.bars)
        column = market.close[:, None] * bars
        ahead = next_up(market)[:, None] * (bars > 50.0) * self.shift
        return {"x": np.squeeze(column + ahead), "y": market.close}

    def leverage(self, bar: Any, account: Any) -> float:
        return 1.0


def test_a_peek_at_one_end_is_found_among_columns_of_both():
    evaluator = Evaluator(SHORT, Windowed, **TERMS)
    with pytest.raises(bt.PolicyError, match="Windowed looks ahead: column 'x' is"):
        evaluator.check_causal({"bars": np.linspace(1.0, 100.0, 9), "shift": np.ones(9)})


class Lagged(bt.Policy):
    """Takes words as arrays if told to; one word is known late, and one looks ahead if told to."""

    lag: Annotated[str, Choice("none", "some", "long")] = "none"
    is_ahead: bool = False

    def observe(self, market: Any) -> Any:
        columns = []
        for lag in np.atleast_1d(np.asarray(self.lag, dtype=object)):
            warm = {"none": 0, "some": 20, "long": 700}[lag]
            some = next_up(market) if lag == "some" and np.any(self.is_ahead) else market.close
            columns.append(np.where(np.arange(market.n_bars) < warm, np.nan, some + warm))
        return {"x": np.column_stack(columns) if np.ndim(self.lag) else columns[0]}

    def leverage(self, bar: Any, account: Any) -> float:
        return 1.0


def test_a_peek_under_one_of_several_words_names_the_policy():
    lags = {"lag": np.array(["none", "some", "long"], dtype=object)}
    evaluator = Evaluator(MARKET, Lagged(), **TERMS)
    evaluator.check_causal(lags)
    assert evaluator.causality == describe_cuts("columns", 21)
    with pytest.raises(bt.PolicyError, match="Lagged looks ahead: column 'x' is"):
        Evaluator(MARKET, Lagged(is_ahead=True), **TERMS).check_causal(lags)


def test_ends_are_chosen_once_and_for_each_word():
    rng = np.random.default_rng(0)
    sets = {
        "word": np.array(rng.choice(["a", "b"], 500), dtype=object),
        "x": rng.normal(size=500),
        "unread": rng.normal(size=500),
        "account.band": rng.normal(size=500),
    }
    ends, none, chosen = Extremes(), np.zeros(500, dtype=bool), []
    while (row := ends.choose(sets, ["word", "x"], none)) is not None:
        ends.accept(sets, ["word", "x"], row)
        chosen.append(row)
    expected = []
    for word in "ab":
        here = np.flatnonzero(sets["word"] == word)
        expected += [here[sets["x"][here].argmin()], here[sets["x"][here].argmax()]]
    assert sorted(chosen) == sorted(expected)


def test_a_space_lists_its_ends_for_every_option():
    space = read_space(Worded, account=bt.Account(), venue=free_venue())
    ends = space.list_ends()
    rows = set(zip(ends["word"].tolist(), ends["bars"].tolist(), strict=True))
    assert rows == {(word, end) for word in ("past", "now", "next") for end in (1.0, 100.0)}


def test_the_manifest_and_the_summary_say_how_columns_and_signal_were_checked():
    given = np.sign(np.sin(np.arange(600.0)))
    result = bt.run(SHORT, Worded(), **TERMS, signal=given, compile=False)
    said = f"{describe_cuts('columns', 28)}; {NOT_CHECKED}"
    assert result.manifest["causality"] == said
    assert "given as data" in " ".join(write_summary(result).split())
    made = bt.signals.from_function(SHORT, lambda seen: np.sign(seen.close - seen.open))
    result = bt.run(SHORT, Worded(), **TERMS, signal=made, compile=False)
    assert "signal checked at " in result.manifest["causality"]


def test_the_note_of_a_signal_holds_for_its_values_only():
    made = bt.signals.from_function(SHORT, lambda seen: np.sign(seen.close - seen.open))
    assert "signal checked at" in describe_signal_check(made)
    assert describe_signal_check(-made) == describe_signal_check(made)
    assert describe_signal_check(made.copy()) == describe_signal_check(made)
    assert describe_signal_check(made.shift(-1).fillna(0.0)) == NOT_CHECKED
    assert describe_signal_check(made.to_numpy()) == NOT_CHECKED
    assert describe_signal_check(None) == describe_signal_check(1.0) == ""


@pytest.mark.parametrize("name", list(PEEKS)[:: len(PEEKS) // 12])
def test_a_signal_of_a_function_is_checked_in_the_same_way(name: str):
    def sign(market: Any) -> Any:
        return np.sign(np.nan_to_num(np.asarray(PEEKS[name](market), dtype=float)))

    with pytest.raises(bt.PolicyError, match="the signal sign looks ahead: it is"):
        bt.signals.from_function(MARKET, sign)
