"""Paths of several instruments: rows drawn together, correlated numbers, common jumps."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import paths as models
from backtest.risk.paths import factor_correlation
from tests.kit import every_nth
from tests.risk.accounts import still_market

DAYS = {"paths": 6, "horizon": "2d", "seed": 3}


def two_markets(bars: int = 400) -> bt.Markets:
    """Return two instruments whose moves are correlated, with marks and funding."""
    one = bt.Market.sample(bars=bars, seed=1)
    other = bt.Market.sample(bars=bars, seed=2)
    mixed = np.exp(0.6 * np.log(one.close / one.close[0]) + 0.4 * np.log(other.close))
    scale = mixed / other.close
    fields = other.fields()
    for name in ("open", "high", "low", "close"):
        for prefix in ("", "mark_"):
            fields[prefix + name] = fields[prefix + name] * scale
    fields["instrument"] = "ETHUSDT"
    return bt.Markets({"BTCUSDT": one, "ETHUSDT": bt.Market(**fields, source="mixed")})


def closes(paths, name: str) -> np.ndarray:
    return paths.closes(name=name)


def test_rows_of_history_are_drawn_together():
    history = two_markets()
    paths = bt.simulate_paths(history, models.Stationary(block=9.0), **DAYS, funding="history")
    one, two = (paths.draw(0, 6, name) for name in history)
    assert np.array_equal(one.rows, two.rows)
    drawn = one.rows.reshape(6, -1)[:, 1:]
    for name, bars in (("BTCUSDT", one), ("ETHUSDT", two)):
        own = history[name]
        close = bars.prices[3].reshape(6, -1)
        moves = close[:, 1:] / close[:, :-1] / (own.close[drawn] / own.close[drawn - 1])
        assert np.allclose(moves, moves[0], rtol=1e-12)  # the drift that a bar of all paths loses
        mark = bars.marks[2].reshape(6, -1)[:, 1:] / close[:, 1:]
        assert np.allclose(mark, own.mark_low[drawn] / own.close[drawn], rtol=1e-12)
    # the funding of a path is that of the rows at its stamps, of both instruments
    path, stamps = paths[0], paths.members["ETHUSDT"].calendar
    rows = drawn[0][stamps.stamp_bar - 1]
    for name in history:
        at = np.searchsorted(history[name].funding_time, history[name].time[rows])
        assert np.array_equal(path[name].funding_rate[-len(rows) :], history[name].funding_rate[at])


def test_rows_keep_their_phase_of_the_longest_funding_interval():
    # one settles every 8 hours, the other every 4: a row never lands where it settles otherwise
    one, other = two_markets().values()
    stamps = other.time[:: 4 * 3600 * 10**9 // other.interval]
    fields = other.fields() | {
        "funding_time": stamps, "funding_rate": 1e-5 * np.arange(len(stamps)),
        "funding_mark": np.full(len(stamps), np.nan),
        "funding_predicted": np.full(len(stamps), np.nan),
    }  # fmt: skip
    history = bt.Markets({"A": one, "B": bt.Market(**fields, source="every 4 hours")})
    paths = bt.simulate_paths(history, models.Stationary(block=5.0), **DAYS, funding="history")
    bars = {name: paths.draw(0, 6, name) for name in history}
    rows = bars["A"].rows.reshape(6, -1)[:, 1:]
    assert np.array_equal(bars["A"].rows, bars["B"].rows)
    assert (rows % 8 == (np.arange(rows.shape[1]) + history.n_bars) % 8).all()
    counts = [len(each.calendar.stamps) for each in paths.members.values()]
    assert counts == [6, 12]
    drawn = rows[3][paths.members["B"].calendar.stamp_bar - 1]
    assert np.allclose(bars["B"].rates[3], 1e-5 * drawn / 4)


def test_the_first_instrument_has_the_paths_that_it_has_alone():
    history = two_markets()
    for model in (models.GBM(volatility=0.8), models.Stationary(block=9.0)):
        both = bt.simulate_paths(history, model, **DAYS)
        alone = bt.simulate_paths(history["BTCUSDT"], model, **DAYS)
        assert both[4]["BTCUSDT"] == alone[4]
        assert isinstance(both[4], bt.Markets)


@pytest.mark.parametrize(
    "model",
    every_nth(
        [
            models.GBM(volatility=0.8),
            models.Merton(volatility=0.6, jumps=2000.0, jump_mean=-0.01, jump_deviation=0.03),
            models.Garch(omega=1e-6, alpha=0.1, beta=0.85, degrees_of_freedom=5.0),
        ],
        3,
    ),
    ids=lambda each: type(each).__name__,
)
def test_at_correlation_1_the_same_model_draws_the_same_bars(model):
    history = bt.Markets(dict.fromkeys(("A", "B"), bt.Market.sample(bars=200)))
    paths = bt.simulate_paths(history, model, **DAYS, correlation=1.0)
    path = paths[5]
    assert path["A"].content_hash == path["B"].content_hash
    apart = bt.simulate_paths(history, model, **DAYS, correlation=0.0)[5]
    assert not np.allclose(apart["A"].close[1:], apart["B"].close[1:])


@pytest.mark.parametrize("rho", [-0.6, 0.0, 0.8])
def test_moves_have_the_correlation_and_each_its_own_distribution(rho):
    history = bt.Markets({name: still_market() for name in ("A", "B", "C")})
    given = {"paths": 400, "horizon": "100h", "seed": 1}
    matrix = np.array([[1.0, rho, 0.3], [rho, 1.0, 0.0], [0.3, 0.0, 1.0]])
    garch = models.Garch(omega=1e-4, alpha=0.0, beta=0.0, degrees_of_freedom=6.0)
    for model in (models.GBM(volatility=0.8), garch):
        paths = bt.simulate_paths(history, model, **given, correlation=matrix)
        moves = [np.diff(np.log(closes(paths, name)), axis=1).ravel() for name in "ABC"]
        found = np.corrcoef(moves)
        # of 40,000 pairs of t with 6 degrees of freedom the standard error is below 0.01
        assert np.allclose(found, matrix, atol=0.035)
        deviations = [float(np.std(each)) for each in moves]
        assert deviations == pytest.approx([deviations[0]] * 3, rel=0.03)
        if model is garch:
            assert deviations[0] == pytest.approx(0.01, rel=0.03)
            # Student's t with 6 degrees of freedom: P(|t| > 2.447) = 5 %
            scaled = np.abs(moves[1]) / 0.01 * np.sqrt(6 / 4)
            assert np.mean(scaled > 2.447) == pytest.approx(0.05, abs=0.005)


def test_jumps_are_common_with_the_probability_given():
    history = bt.Markets({name: still_market() for name in ("A", "B")})
    model = models.Merton(volatility=1e-6, jumps=876.0, jump_mean=-0.05, jump_deviation=0.01)
    for chance in (0.0, 0.5, 1.0):
        paths = bt.simulate_paths(
            history, model, paths=200, horizon="100h", seed=1, correlation=0.0, common_jump=chance
        )
        jumped = [np.diff(np.log(closes(paths, name)), axis=1) < -0.001 for name in "AB"]
        rate = np.mean(jumped[0])
        assert rate == pytest.approx(0.095, abs=0.008)  # 1 - exp(-0.1)
        both = np.mean(jumped[0] & jumped[1]) / rate
        assert both == pytest.approx(chance + (1.0 - chance) * 0.095, abs=0.04)


def test_a_correlation_is_factored_also_if_singular():
    for matrix in ([[1, 1], [1, 1]], [[1, 0.5, 0.5], [0.5, 1, 1], [0.5, 1, 1]]):
        low = factor_correlation(np.array(matrix, dtype=float))
        assert np.allclose(low @ low.T, matrix, atol=1e-12)


def test_paths_begin_where_all_instruments_have_bars():
    market = bt.Market.sample(bars=300)
    late = bt.Market.sample(bars=300, seed=5).slice(100, 300)
    paths = bt.simulate_paths(
        bt.Markets({"A": market, "B": late}), models.Stationary(block=5.0), **DAYS
    )
    assert paths.history.n_bars == 200
    joined = paths.join_history(paths[0], 50)
    assert joined.n_bars == 50 + paths.width
    assert joined["B"].time[50] == market.time[-1]
    assert pd.Timestamp(paths.start) == market.times[-1]


def gone() -> bt.Markets:
    market = bt.Market.sample(bars=300)
    return bt.Markets({"A": market, "B": market.prefix(200)})


@pytest.mark.parametrize(("settings", "error", "words"), [
    ({"market": gone()}, bt.DataError, "B ended earlier"),
    ({"model": "stationary", "correlation": 0.5}, bt.ParameterError, "correlation needs"),
    ({"model": "gbm", "correlation": 1.5}, bt.ParameterError, "correlation must be"),
    ({"model": "gbm", "correlation": [[1, 2], [2, 1]]}, bt.ParameterError, "eigenvalue"),
    ({"funding": {"BTCUSDT": 0.0}}, bt.ParameterError, "one for each"),
])  # fmt: skip
def test_bad_arguments_are_refused(settings, error, words):
    given = {"market": two_markets(200), "paths": 4, "horizon": "1d", **settings}
    with pytest.raises(error, match=words):
        bt.simulate_paths(given.pop("market"), **given)
