"""Looking ahead: a zoo of peeks, all caught, and of honest columns, none accused."""

import re
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base.ranges import Choice, Range
from backtest.engine.lookahead import (
    ENOUGH,
    Causality,
    describe_cuts,
    observe_checked,
)
from backtest.engine.signal_rules import NOT_CHECKED, describe_signal_check
from backtest.strategies import Kelly, LiquidationProbability, Regime, TailRisk, TrendVol, VolTarget
from backtest.sweep.lookahead_at_ends import EndsChecker
from backtest.sweep.set_evaluator import Evaluator
from backtest.sweep.sets.space import read_space
from tests.honest_columns import HONEST, find_tolerance
from tests.kit import every_nth, free_venue
from tests.peeks import MARKET, PEEKS, observing

LATE = ("unknown", "late", "wants bars", "closed ME", "garch")
"""Known in so few rows of a short market that it is cut less often."""


def check(
    function: Callable[[Any], Any], market: bt.Market = MARKET, tolerance: float = 1e-9
) -> Causality:
    return observe_checked(observing(function, tolerance), market)[1]


@pytest.mark.parametrize("name", every_nth(PEEKS, 6))
def test_a_peek_is_caught(name: str):
    with pytest.raises(
        bt.PolicyError, match=r"Observing looks ahead: column 'x' (is|uses) .* when"
    ):
        check(PEEKS[name])


@pytest.mark.parametrize("name", every_nth(HONEST, 6))
def test_an_honest_column_is_not_accused(name: str):
    found = check(HONEST[name], tolerance=find_tolerance(name))
    assert found.cuts >= ENOUGH or name.startswith(LATE), str(found)


@pytest.mark.parametrize(
    "policy",
    every_nth(
        [
            *(VolTarget(estimator=name) for name in ("ewma", "garman-klass", "garch", "har")),
            *(VolTarget(half_life=bars) for bars in (2.0, 2000.0)),
            *(TailRisk(model=name) for name in ("historical", "normal")),
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
    market, tolerance = MARKET.prefix(n_bars), find_tolerance(name)
    assert check(lambda seen: np.nan_to_num(kind(seen)), market, tolerance).cuts > 5


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
    assert re.search(
        r"Observing looks ahead: column 'x' is 1.0 when bars \d+ to \d+ are seen, 0.0 when bars "
        r"\d+ to \d+ are, at bar \d+, \d{4}-\d\d-\d\d \d\d:00 UTC; use only values up to",
        text,
    )
    assert "shift(-1)" in text


def test_random_columns_are_told_from_peeks():
    rng = np.random.default_rng(0)
    with pytest.raises(bt.PolicyError, match="is not repeatable: column 'x'"):
        check(lambda market: rng.normal(size=market.n_bars))


def test_a_column_of_another_length_than_its_market_is_refused():
    with pytest.raises(bt.PolicyError, match=r"must be .* numbers, one per bar"):
        check(lambda market: MARKET.close)


# ------------------------------------------------------------- the order of calls, and their work


def test_parts_are_observed_in_the_order_of_their_ends_then_the_whole_then_a_part_again():
    seen: list[Any] = []

    def note(market: Any) -> Any:
        seen.append(market.times)
        return market.close

    check(note)
    *parts, whole, again = seen
    ends = [times[-1] for times in parts]
    assert ends == sorted(ends)
    assert len(whole) == MARKET.n_bars
    assert again.equals(parts[0])


@pytest.mark.parametrize("warm", [1, 100, 2000, 9000])
def test_the_parts_have_twice_the_bars_of_a_long_market_at_most(warm: int):
    market, bars = bt.Market.sample(bars=35_064), []

    def note(seen: Any) -> Any:
        bars.append(seen.n_bars)
        return pd.Series(seen.close).rolling(warm).mean()

    assert check(note, market).cuts > 3
    assert sum(bars) <= 3.5 * market.n_bars
    assert sorted(bars)[-2] <= 2 * warm + 8_192


def test_a_part_too_short_for_observe_is_replaced_by_a_longer_one():
    assert check(HONEST["wants bars"]).cuts > 10
    with pytest.raises(bt.PolicyError, match=r"Observing\.observe raised ValueError: at least 700"):
        check(HONEST["wants bars"], MARKET.prefix(600))


def test_a_declared_tolerance_forgives_rounding_and_no_more():
    def drift(market: Any) -> Any:
        return market.close * (1.0 + 1e-6 * market.n_bars / 3000.0)

    with pytest.raises(bt.PolicyError, match="declare tolerance"):
        check(drift)
    assert check(drift, tolerance=1e-5).cuts >= ENOUGH
    with pytest.raises(bt.PolicyError, match="looks ahead"):
        check(next_up, tolerance=1e-2)


@pytest.mark.parametrize("share", [1e-4, 1e-6])
def test_a_small_share_of_a_mean_of_all_bars_is_caught(share: float):
    with pytest.raises(bt.PolicyError, match="looks ahead"):
        check(lambda market: market.close + share * market.close.mean())


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
    assert evaluator.causality.startswith("columns checked at ")
    assert evaluator.doubts == []
    lengths = {
        len(column)
        for columns in evaluator._runner()._find_panel(0, None).columns
        for seen in columns._kept.values()
        for column in seen.values()
    }
    assert lengths == {SHORT.n_bars}
    with pytest.raises(bt.PolicyError, match="looks ahead"):
        evaluator.check_set({"word": "next", "bars": 3.0})


def test_few_sets_have_both_ends_of_each_number_and_each_word():
    word, x, y, unread = np.meshgrid(["a", "b"], [1.0, 2.0, 3.0], [5.0, 7.0], [0.0, 1.0])
    sets = {"word": word.ravel().astype(object), "x": x.ravel(), "y": y.ravel()}
    sets |= {"unread": unread.ravel(), "account.band": unread.ravel()}
    chosen: list[Any] = []

    def note(values: Any) -> bool:
        chosen.append((values["word"], values["x"], values["y"]))
        return values["word"] != "a" or values["x"] != 1.0  # as if this set could not be built

    ends = EndsChecker()
    for _ in range(2):
        ends.cover(sets, lambda: ("word", "x", "y"), note)
    checked = [each for each in chosen if each[:2] != ("a", 1.0)]
    assert {each[1] for each in checked if each[0] == "b"} == {1.0, 3.0}
    assert {each[2] for each in checked if each[0] == "a"} == {5.0, 7.0}
    assert len(checked) <= 5


def test_a_space_lists_its_ends_for_every_option():
    space = read_space(Worded, account=bt.Account(), venue=free_venue())
    ends = space.list_ends()
    rows = set(zip(ends["word"].tolist(), ends["bars"].tolist(), strict=True))
    assert rows == {(word, end) for word in ("past", "now", "next") for end in (1.0, 100.0)}


def test_the_manifest_and_the_summary_say_how_columns_and_signal_were_checked():
    given = np.sign(np.sin(np.arange(600.0)))
    result = bt.run(SHORT, Worded(), **TERMS, signal=given, compile=False)
    said = result.manifest["causality"]
    assert said.startswith("columns checked at ")
    assert said.endswith(f"; {NOT_CHECKED}")
    assert "given as data" in " ".join(result.summary().split())
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
