"""Looking ahead: planted peeks are caught, hidden ones too, and honest columns are not accused."""

from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest
from scipy import signal as filters

import backtest as bt
from backtest import engine
from backtest.core import Choice, Range
from backtest.policies import Causality, lookahead
from backtest.policies import observing as observations
from backtest.policies.lookahead import ENOUGH, describe_cuts
from backtest.policies.observing import observe_checked
from backtest.signals import describe_signal_check
from backtest.signals.computed import NOT_CHECKED
from backtest.strategies import VolTarget
from tests.hidden_peeks import LONGEST, POLICIES
from tests.kit import ask_test, check_refused, free_venue, market_of
from tests.peeks import HONEST, MARKET, PEEKS, find_tolerance, log_returns, observing

pytestmark = pytest.mark.peeks
FEW = {"late mean": 13, "unknown": 0}
"""Cuts of what is known in few rows of a short market, or in none."""
SHORT = MARKET.prefix(600)
TERMS: dict[str, Any] = {"venue": free_venue(), "account": bt.Account()}
FREE_TERMS = {**TERMS, "compile": False}
TICK_MOVES = np.random.default_rng(2).integers(-2, 3, 2000)
TICKS = market_of(100.0 + 0.5 * np.cumsum(TICK_MOVES) % 50)
"""Prices in ticks of 0.5 %: a third of all sums of a few moves are 0."""
ONE_TICK_MOVES = np.random.default_rng(1).integers(-1, 2, 2000)
ONE_TICK = market_of(100.0 + 1e-5 * np.cumsum(ONE_TICK_MOVES))
"""Bars of at most one small tick: a flag that looks ahead shows only where moves are equal."""


def check(function: Any, market: bt.Market = MARKET, tolerance: float = 1e-9) -> Causality:
    return observe_checked(observing(function, tolerance), market)[1]


@pytest.mark.parametrize("name", PEEKS)
def test_a_peek_is_caught(name: str):
    said = r"Observing looks ahead: column 'x' (is|uses) .* when"
    with pytest.raises(bt.PolicyError, match=said):
        check(PEEKS[name])


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.slow] * (name == "garch")) for name in HONEST
])  # fmt: skip
def test_an_honest_column_is_not_accused(name: str):
    causality = check(HONEST[name], tolerance=find_tolerance(name))
    if name in FEW:
        assert causality.cuts == FEW[name], str(causality)
    else:
        assert causality.cuts >= ENOUGH, str(causality)


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
    honest = check(lambda seen: pd.Series(seen.close).rolling(20).mean(), market)

    check_refused(lambda: check(next_up, market), "looks ahead", bt.PolicyError)
    assert honest.cuts > 5


def test_a_session_market_is_cut_too():
    days = pd.bdate_range("2015-01-01", periods=900, tz="UTC")
    moves = np.random.default_rng(3).normal(0, 0.01, len(days))
    prices = 100 * np.exp(np.cumsum(moves))
    frame = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), prices), index=days)
    market = bt.Market.from_frames(frame, sessions=True)
    honest = check(lambda seen: pd.Series(seen.close).rolling(50).mean(), market)

    check_refused(lambda: check(next_up, market), "looks ahead", bt.PolicyError)
    assert honest.cuts >= ENOUGH


def test_an_error_says_which_bar_both_values_and_the_cut():
    said = r"Observing looks ahead: column 'x' is 1.0 when bars \d+ to \d+ are seen, 0.0 when bars "
    said += r"\d+ to \d+ are, at bar \d+, \d{4}-\d\d-\d\d \d\d:00 UTC; use only values up to"
    with pytest.raises(bt.PolicyError, match=rf"(?s){said}.*shift\(-1\)"):
        check(next_up)


def test_random_columns_are_told_from_peeks():
    rng = np.random.default_rng(0)
    with pytest.raises(bt.PolicyError, match="is not repeatable: column 'x'"):
        check(lambda market: rng.normal(size=market.n_bars))


def test_a_column_of_another_length_than_its_market_is_refused():
    with pytest.raises(bt.PolicyError, match=r"must be .* numbers, one per bar"):
        check(lambda market: MARKET.close)


@pytest.mark.parametrize("warm", [1, 100, 2000, 9000])
def test_the_parts_have_twice_the_bars_of_a_long_market_at_most(warm: int):
    market = bt.Market.sample(bars=35_064)
    bars = []

    def note(seen: Any) -> Any:
        bars.append(seen.n_bars)
        return pd.Series(seen.close).rolling(warm).mean()

    causality = check(note, market)
    assert causality.cuts > 3
    assert sum(bars) <= 3.5 * market.n_bars
    assert sorted(bars)[-2] <= 2 * warm + 8_192


def test_a_part_too_short_for_observe_is_replaced_by_a_longer_one():
    assert check(HONEST["wants bars"]).cuts > 10

    with pytest.raises(bt.PolicyError, match=r"Observing\.observe raised ValueError: at least 700"):
        check(HONEST["wants bars"], MARKET.prefix(600))


def test_a_declared_tolerance_forgives_rounding_and_no_more():
    def drift(market: Any) -> Any:
        return market.close * (1.0 + 1e-6 * market.n_bars / 3000.0)

    check_refused(lambda: check(drift), "declare tolerance", bt.PolicyError)
    assert check(drift, tolerance=1e-5).cuts >= ENOUGH
    check_refused(lambda: check(next_up, tolerance=1e-2), "looks ahead", bt.PolicyError)


def test_a_slow_warm_up_leaves_fewer_cuts_and_a_chance_that_is_told():
    causality = check(lambda seen: pd.Series(seen.close).rolling(2990).mean())

    assert 0 < causality.cuts < ENOUGH
    assert str(causality).startswith(describe_cuts("columns", causality.cuts))


class Worded(bt.Policy):
    word: Annotated[str, Choice("past", "now", "next")] = "past"
    bars: Annotated[float, Range(1.0, 100.0, "bars")] = 10.0

    def observe(self, market: Any) -> Any:
        is_ahead = self.word == "next" or (self.word == "now" and self.bars > 80.0)
        if is_ahead:
            return {"x": next_up(market)}
        return {"x": market.close * self.bars}

    def leverage(self, bar: Any, account: Any) -> float:
        return 1.0 if bar.x > 0.0 else 0.5


@pytest.mark.parametrize("sets", [
    {"word": ["past", "now", "next"]},
    {"word": ["now"], "bars": np.linspace(1.0, 100.0, 65)},
    {"word": ["past", "now"], "bars": [100.0, 1.0, 50.0]},
])  # fmt: skip
def test_a_sweep_checks_every_word_and_both_ends_of_numbers(sets: Any):
    with pytest.raises(bt.PolicyError, match="Worded looks ahead: column 'x'"):
        ask_test("sweep", SHORT, Worded, sets, **TERMS)


class Middling(bt.Policy):
    bars: Annotated[float, Range(1.0, 100.0, "bars")] = 10.0

    def observe(self, market: Any) -> Any:
        return {"x": next_up(market) if 40.0 < self.bars < 60.0 else market.close}

    def leverage(self, bar: Any, account: Any) -> float:
        return 1.0 if bar.x == 1.0 else 0.5


@pytest.mark.slow
def test_a_sweep_checks_its_winner():
    with pytest.raises(bt.PolicyError, match="Middling looks ahead: column 'x'"):
        ask_test("sweep", SHORT, Middling, {"bars": [1.0, 50.0, 100.0]}, **TERMS)


@pytest.mark.parametrize("fix", [{"word": "now"}, {"bars": 10.0}])
def test_a_search_checks_the_ends_of_its_space_before_it_begins(fix: Any):
    with pytest.raises(bt.PolicyError, match="Worded looks ahead: column 'x'"):
        ask_test("tune", SHORT, Worded, fix=fix, trials=8, **TERMS)


def test_the_manifest_and_the_summary_say_how_columns_and_signal_were_checked():
    signal = np.sign(np.sin(np.arange(600.0)))
    result = bt.run(SHORT, Worded(), **TERMS, signal=signal, compile=False)
    causality = result.manifest["causality"]
    assert causality.startswith("columns checked at ")
    assert causality.endswith(f"; {NOT_CHECKED}")
    assert "given as data" in " ".join(result.summary().split())

    by_function = bt.signals.from_function(SHORT, lambda seen: np.sign(seen.close - seen.open))
    result = bt.run(SHORT, Worded(), **TERMS, signal=by_function, compile=False)
    assert "signal checked at " in result.manifest["causality"]


def test_the_manifest_and_the_summary_name_columns_of_the_market_as_not_checked():
    known = SHORT.with_columns(tomorrow=np.append(SHORT.close[1:], 0.0))
    result = bt.run(known, Worded(), **TERMS, compile=False)

    words = "not checked, as data of the market: own, late, tomorrow"
    assert result.manifest["causality"].endswith(f"; {words}")
    assert f"causality {words}" in " ".join(result.summary().split())


def test_the_note_of_a_signal_holds_for_its_values_only():
    made = bt.signals.from_function(SHORT, lambda seen: np.sign(seen.close - seen.open))
    note = describe_signal_check(made)
    assert "signal checked at" in note
    assert describe_signal_check(-made) == note
    assert describe_signal_check(made.copy()) == note

    assert describe_signal_check(made.shift(-1).fillna(0.0)) == NOT_CHECKED
    assert describe_signal_check(made.to_numpy()) == NOT_CHECKED
    assert describe_signal_check(None) == describe_signal_check(1.0) == ""


@pytest.mark.parametrize("name", list(PEEKS)[:: len(PEEKS) // 12])
def test_a_signal_of_a_function_is_checked_in_the_same_way(name: str):
    def sign(market: Any) -> Any:
        return np.sign(np.nan_to_num(np.asarray(PEEKS[name](market), dtype=float)))

    with pytest.raises(bt.PolicyError, match="the signal sign looks ahead: it is"):
        bt.signals.from_function(MARKET, sign)


@pytest.mark.parametrize("name", POLICIES)
def test_a_hidden_peek_is_refused(name: str):
    LONGEST.clear()
    texts = {
        "market written to": "cannot set WRITEABLE flag",
        "market written through a view": "cannot set WRITEABLE flag",
        "decided by a market on self": "no attribute 'kept'",
    }
    text = texts.get(name, "looks ahead: column 'x'|is not repeatable: column 'x'")
    policy = POLICIES[name]
    check_refused(lambda: bt.run(MARKET, policy(), **FREE_TERMS), text, bt.PolicyError)


@pytest.mark.parametrize("name", ["centered 1, claim", "gradient, claim", "interpolate 1, claim"])
def test_a_peek_that_shows_only_at_equal_moves_is_caught(name: str):
    with pytest.raises(bt.PolicyError, match="looks ahead"):
        observe_checked(observing(PEEKS[name]), ONE_TICK)


def test_a_function_of_a_panel_declares_its_tolerance_too():
    """B is listed later; the signs of sums that are 0 are rounded away."""
    markets = bt.Markets({"A": TICKS, "B": TICKS.slice(700, 2000)})

    def weigh(markets: Any) -> pd.DataFrame:
        columns = {}
        for name, market in markets.items():
            sums = filters.fftconvolve(log_returns(market).astype(np.float32), np.ones(6, "f4"))
            columns[name] = pd.Series(np.tanh(sums[: market.n_bars]), index=market.times)
        return pd.DataFrame(columns).fillna(0.0)

    with pytest.raises(bt.PolicyError, match="the signal weigh looks ahead"):
        bt.signals.from_function(markets, weigh)

    weigh.tolerance = 1e-3  # type: ignore[attr-defined] # as a function declares it
    assert "B" in bt.signals.from_function(markets, weigh)
    weigh.tolerance = 1e-9  # type: ignore[attr-defined]


class Own(VolTarget):
    """A policy of the user, which may compute from more than the market."""


@pytest.fixture
def looked(monkeypatch):
    policies = []
    start_check = observations.start_check

    def note(policy, *given, **more):
        policies.append(policy)
        return start_check(policy, *given, **more)

    monkeypatch.setattr(observations, "start_check", note)
    return policies


def look(policy, market):
    """Return the volatility that a policy observes, and how it was checked."""
    columns, causality = observations.observe_checked(policy, market)
    return columns["sigma"], causality


def test_an_equal_policy_of_the_package_is_not_observed_again(looked):
    market = bt.Market.sample(bars=300)
    sigma, causality = look(VolTarget(), market)
    sigma_again, causality_again = look(VolTarget(), market.with_signal(market.signal))

    assert len(looked) == 1
    assert sigma_again is sigma
    assert causality_again == causality


def test_other_parameters_signals_and_own_policies_are_observed_each_time(looked):
    market = bt.Market.sample(bars=300)
    turning = market.with_signal(np.where(np.arange(300) < 100, 1.0, -1.0))
    cases = [
        (VolTarget(), market),
        (VolTarget(half_life=30.0), market),
        (VolTarget(), market),
        (VolTarget(), market.with_signal(np.array([-1.0]))),
        (VolTarget(), turning),
        (VolTarget(), turning),
        (Own(), market),
        (Own(), market),
        (VolTarget(), market.prefix(200)),
    ]
    for policy, seen in cases:
        look(policy, seen)

    assert len(looked) == 9


class Lagged(bt.Policy):
    """A policy of the user whose code is known, and whose lag may be negative."""

    lag: Annotated[int, Range(-10, 10, "bars")] = 3
    kind: Annotated[str, Choice("close", "volume", "funding")] = "close"

    def observe(self, market: Any) -> Any:
        if self.kind == "funding":
            rates = np.append(market.funding_rate, market.funding_rate[-1])
            values = rates[np.searchsorted(market.funding_time, market.time)]
        elif self.kind == "volume":
            values = market.volume
        else:
            values = market.close

        rows = np.arange(market.n_bars) - self.lag
        return {"x": values[np.clip(rows, 0, market.n_bars - 1)]}

    def leverage(self, bar: Any, account: Any) -> float:
        return 1.0 if bar.x > 0.0 else 0.5


@pytest.mark.parametrize("lag", [-1, -2, -7])
@pytest.mark.parametrize("n_bars", [600, 3_000])
def test_a_lag_that_turns_negative_is_found_after_others_were_checked(lag, n_bars, monkeypatch):
    market = bt.Market.sample(bars=n_bars)
    _, full = observe_checked(Lagged(), market)
    assert not full.is_of_kind
    assert full.cuts >= ENOUGH

    # Another lag is checked by the largest moves alone.
    with monkeypatch.context() as patch:
        patch.setattr(lookahead.LookAheadCheck, "run", None)
        columns, brief = observe_checked(Lagged(lag=5), market)
    assert columns["x"][5:].tolist() == market.close[:-5].tolist()
    words = f"columns checked at {full.cuts} cuts with other numbers, and with these at the"
    assert str(brief).startswith(words)

    with pytest.raises(bt.PolicyError, match="Lagged looks ahead: column 'x'"):
        observe_checked(Lagged(lag=lag), market)


def test_other_choices_are_checked_in_full():
    market = bt.Market.sample(bars=600)
    for kind in ("close", "volume"):
        _, first = observe_checked(Lagged(kind=kind), market)
        _, second = observe_checked(Lagged(kind=kind, lag=4), market)
        assert not first.is_of_kind
        assert second.is_of_kind


def test_code_checked_on_a_beginning_is_compared_on_the_rest_of_its_market():
    """The folds of a walk are beginnings of one market: its code is checked in full once."""
    market = bt.Market.sample(bars=3_000)
    assert not observe_checked(Lagged(), market.prefix(1_600))[1].is_of_kind
    assert observe_checked(Lagged(lag=3), market.prefix(900))[1].is_of_kind
    assert observe_checked(Lagged(lag=2), market)[1].is_of_kind

    for other in (market, market.prefix(2_000), market.prefix(700)):
        with pytest.raises(bt.PolicyError, match="Lagged looks ahead: column 'x'"):
            observe_checked(Lagged(lag=-1), other)


def test_code_is_checked_in_full_on_a_market_that_is_no_beginning_or_much_longer():
    market = bt.Market.sample(bars=3_000)
    assert not observe_checked(Lagged(), market.prefix(1_000))[1].is_of_kind
    assert not observe_checked(Lagged(), market.slice(1_000, 2_000))[1].is_of_kind
    assert not observe_checked(Lagged(), market)[1].is_of_kind


def test_columns_that_warm_up_past_the_largest_moves_are_checked_in_full():
    """A half-life of 550 bars is known at the last 50 of 600 alone, after the largest moves.

    The first policy of some code is checked in full. One with other numbers is compared at the
    largest moves of the market, unless its column is not known there.
    """
    market = bt.Market.sample(bars=600)
    _, first = look(VolTarget(half_life=20.0), market)
    _, similar = look(VolTarget(half_life=30.0), market)
    _, slow = look(VolTarget(half_life=550.0), market)

    assert not first.is_of_kind
    assert similar.is_of_kind
    assert not slow.is_of_kind


def test_a_sweep_without_a_compiled_core_refuses_what_looks_ahead(monkeypatch):
    monkeypatch.setattr(engine, "is_loop_compiled", lambda **_: False)
    with pytest.raises(bt.PolicyError, match="Worded looks ahead: column 'x'"):
        ask_test("sweep", SHORT, Worded, {"word": ["past", "now", "next"]}, **TERMS)
