"""Paths: rows, blocks, drift, funding, several instruments, and closed forms of the models."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from arch.bootstrap import optimal_block_length
from scipy.signal import lfilter

import backtest as bt
from backtest import paths as models
from backtest import strategies
from backtest.margin import touch_probability
from backtest.results import find_block_length
from backtest.risk import funding_process, instrument_paths, path_draws, path_kernels
from backtest.risk import path_models as laws
from backtest.risk.path_drift import describe_drift
from backtest.risk.path_rows import RowTable
from backtest.risk.path_runner import PathsRunner
from backtest.risk.paths import factor_correlation
from tests.kit import YEAR, bars_market, check_refused, risk_of, slow
from tests.risk.accounts import Hold, free_account, free_venue, still_market

NAMES = ["filtered", "gbm", *slow(["stationary"])]
"""Models that draw rows of history, and those that draw numbers."""
HOT = models.Filtered(block=15.0, omega=4e-8, alpha=0.0096, beta=0.989, variance_now=2e-4)
DAYS = {"paths": 6, "horizon": "2d", "seed": 3}
GBM = models.GBM(volatility=0.8)
ROWS = models.Stationary(block=30.0)
WEIGHTS = (0.4, 0.3, 0.15, 0.05)
GRID = funding_process.FundingGrid(8 * 3600 * 10**9, 0)


@pytest.fixture(scope="module")
def market() -> bt.Market:
    return bt.Market.sample(bars=2000)


def noise(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n)


@pytest.mark.parametrize("name", NAMES)
def test_paths_are_markets_and_do_not_depend_on_blocks(market, name):
    drawn = bt.simulate_paths(market, name, paths=300, horizon="3d", seed=7)

    # A path passes the checks of a market.
    path = drawn[280]
    again = bt.Market.from_frames(path.bars(), funding=path.funding(), mark=path.mark())
    assert again.n_bars == 73  # the last bar of history, and 72 hours

    # It is the same in a block of all, alone, and as the last of fewer.
    whole = drawn.draw(0, 300)
    alone = drawn.draw(280, 281)
    of_fewer = bt.simulate_paths(market, name, paths=281, horizon="3d", seed=7).draw(280, 281)
    for field_alone, field_of_fewer in zip(alone, of_fewer, strict=True):
        assert np.array_equal(field_alone, field_of_fewer)
    assert np.array_equal(whole.prices[:, 280:281], alone.prices)
    assert np.array_equal(path.close, alone.prices[3, 0])

    other = bt.simulate_paths(market, name, paths=300, horizon="3d", seed=8)
    assert not np.array_equal(other.closes(), drawn.closes())

    # A longer horizon begins with the same bars.
    longer = bt.simulate_paths(market, name, paths=300, horizon="5d", seed=7)
    assert np.array_equal(longer.closes()[:, :73], drawn.closes())


def test_rows_are_never_torn_and_funding_stays_at_its_stamps(market):
    model = models.Stationary(block=50)
    drawn = bt.simulate_paths(market, model, paths=60, horizon="20d", seed=1)
    bars = drawn.draw(0, 60)
    rows = bars.rows.reshape(60, -1)[:, 1:]
    prices = bars.prices.reshape(4, 60, -1)
    close_before = prices[3, :, :-1]

    # What a bar loses to have no drift is the same factor for all its prices and paths.
    move_of_row = market.close[rows[0]] / market.close[rows[0] - 1]
    drift = prices[3, 0, 1:] / close_before[0] / move_of_row
    assert np.all(np.abs(drift - 1.0) < 1e-3)

    # The four prices of a bar are those of one row of history, over the close before it.
    source = np.array([market.open, market.high, market.low, market.close])
    for j in range(4):
        wanted = source[j][rows] / market.close[rows - 1] * drift
        assert np.allclose(prices[j, :, 1:] / close_before, wanted, rtol=1e-13)

    # So is the mark, over the close of the row.
    marks = bars.marks.reshape(4, 60, -1)[3, :, 1:] / prices[3, :, 1:]
    assert np.allclose(marks, (market.mark_close / market.close)[rows], rtol=1e-13)

    # Funding is due at 00, 08 and 16 hours alone, and a row lands on its own hour of these eight.
    assert set(pd.DatetimeIndex(drawn[0].funding().index).hour) == {0, 8, 16}
    hour = 3_600_000_000_000
    hour_of_row = (market.time[rows] // hour) % 8
    hour_of_path = (drawn.calendar.time // hour) % 8
    assert np.array_equal(hour_of_row, np.broadcast_to(hour_of_path[1:], rows.shape))


def test_a_block_is_drawn_though_another_thread_empties_what_is_kept(market):
    class Emptied(dict):
        """Another thread clears it as soon as a block is put there."""

        def __setitem__(self, number, bars):
            super().__setitem__(number, bars)
            self.clear()

    paths = bt.simulate_paths(market, "gbm", paths=3, horizon="2d", seed=1)
    expected = paths.draw(0, 3)

    (name,) = paths.names
    paths._kept[name] = Emptied()
    drawn = paths.draw(0, 3)
    assert drawn.prices.tobytes() == expected.prices.tobytes()


def test_blocks_have_their_length_and_rows_are_equally_likely(market):
    drawn = bt.simulate_paths(market, models.Stationary(block=20), paths=400, horizon="40d", seed=2)
    rows = drawn.draw(0, 400).rows.reshape(400, -1)[:, 1:]

    # A new block follows with probability 1/20, and by chance at the next row again: negligible.
    joined = rows[:, 1:] == rows[:, :-1] + 1
    assert 1.0 / (1.0 - joined.mean()) == pytest.approx(20.0, rel=0.03)

    # Blocks put neighbors together: the variance of a count is below 2 * 20 times its mean.
    counts = np.bincount(rows.ravel(), minlength=market.n_bars)[1:]
    mean_count = rows.size / (market.n_bars - 1)  # 192
    assert counts.min() > 0

    # Each eighth of history, of 249 rows, has its share of the draws.
    counts_of_eighths = counts[: 8 * 249].reshape(8, 249).sum(axis=1)
    shares = counts_of_eighths / 249 / mean_count
    assert abs(shares - 1).max() < 0.1


def test_block_lengths_are_those_of_arch():
    rng = np.random.default_rng(5)
    for n in (12, 30, 50, 500, 3000):
        steps = rng.standard_normal(n)
        rough = np.cumsum(steps) if n == 50 else steps**2
        for series in (rough, np.convolve(rough, np.ones(4), mode="same")):
            expected = float(optimal_block_length(series)["stationary"].iloc[0])
            assert find_block_length(series) == pytest.approx(expected, rel=1e-8)

    assert math.isnan(find_block_length(np.ones(20)))


@pytest.mark.slow
def test_block_length_of_an_autoregression_is_that_of_politis_and_white():
    """AR(1) with rho = 0.6: (2 rho / (1 - rho^2))^(2/3) n^(1/3) for the stationary bootstrap.

    The function squares its argument, so it is given roots of a positive autoregression.
    """
    n = 20_000
    rho = 0.6
    known = (2 * rho / (1 - rho**2)) ** (2 / 3) * n ** (1 / 3)

    found = []
    for seed in range(8):
        x = lfilter([1.0], [1.0, -rho], noise(n, seed))
        found.append(models.block_length(np.sqrt(x - x.min() + 1.0)))
    assert np.mean(found) == pytest.approx(known, rel=0.1)

    assert models.block_length(noise(8000, 1)) == pytest.approx(20.0, rel=0.2)  # at least n^(1/3)


def with_returns(returns):
    close = 100 * np.exp(np.cumsum(returns))
    return bars_market(np.append(100.0, close[:-1]), close, start="2023-01-01")


def garch_returns(shocks, variance, omega, alpha, beta):
    """Return the returns of a GARCH process, and the variance of the one after them."""
    returns = np.zeros(len(shocks))
    for t, shock in enumerate(shocks):
        returns[t] = math.sqrt(variance) * shock
        variance = omega + alpha * returns[t] ** 2 + beta * variance
    return returns, variance


def test_the_long_run_variance_of_resampled_rows_by_hand():
    model = models.Filtered(block=2.0, omega=1.0, alpha=0.1, beta=0.5, variance_now=1.0)
    rows = np.array([1.0, 3.0])

    # a = 0.6 and 0.8; u1 = (1 + 0.8 u2 + W) / 2, u2 = (1 + 0.6 u1 + W) / 2,
    # W = 1 + (0.6 u1 + 0.8 u2) / 2: u1 = 140 / 41, u2 = 130 / 41
    assert laws.find_long_run(model, rows) == pytest.approx((140 + 3 * 130) / 82, rel=1e-9)

    # Each row by itself: (1 + 3) / 2 / (1 - 0.7); three times the rows grow without end.
    alone = model.override(block=1.0)
    assert laws.find_long_run(alone, rows) == pytest.approx(2.0 / 0.3, rel=1e-9)
    assert laws.find_long_run(alone, 3.0 * rows) == math.inf

    # Rows times c have a long run of 2.5 where 2 c / (0.5 - 0.2 c) = 2.5: c = 0.5.
    scale = laws.find_row_scale(alone, rows, 2.5)
    assert scale == pytest.approx(0.5, rel=1e-8)


def test_filtered_paths_have_the_long_run_variance_of_history():
    returns = 0.002 * noise(4000, 1)
    returns[np.random.default_rng(2).choice(4000, 80, replace=False)] *= 6.0
    jumpy = with_returns(returns)

    model = models.Filtered(block=20.0, omega=2e-7, alpha=0.04, beta=0.94, variance_now=2e-5)
    drawn = bt.simulate_paths(jumpy, model, paths=400, horizon="90d", seed=1)
    moves = np.diff(np.log(drawn.closes()), axis=1)[:, -1000:]
    assert np.mean(moves**2) == pytest.approx(np.mean(returns[1:] ** 2), rel=0.15)


def test_a_start_in_the_past_uses_no_later_bar(market):
    early = bt.simulate_paths(market, "gbm", paths=2, start=market.times[1200], horizon="2d")
    assert early.history.n_bars == 1200

    alone = bt.simulate_paths(market.prefix(1200), "gbm", paths=2, horizon="2d")
    assert np.array_equal(early.closes(), alone.closes())


def test_sessions_go_on_at_their_times_of_the_week():
    close = 100 * np.exp(np.cumsum(0.01 * noise(700, 1)))
    stocks = bars_market(close, close, "B", "2020-01-01", {"sessions": True, "interval": "1d"})
    drawn = bt.simulate_paths(stocks, models.Stationary(block=10), paths=5, horizon="28d", seed=1)
    assert drawn.n_bars == 20
    assert set(drawn.time.day_of_week) == {0, 1, 2, 3, 4}

    # The row of a Monday is that of a Monday.
    rows = drawn.draw(0, 5).rows.reshape(5, -1)[:, 1:]
    weekdays = stocks.times.day_of_week.to_numpy()[rows]
    assert np.array_equal(weekdays, np.broadcast_to(drawn.time.day_of_week[1:], weekdays.shape))


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_price_is_todays(market, name):
    drawn = bt.simulate_paths(market, name, paths=4000, horizon="7d", seed=11)
    assert drawn.model.drift == 0.0

    # Four standard errors, fixed seed; history itself rises by 0.2 % a week.
    ratio = drawn.closes()[:, -1] / market.close[-1]
    assert ratio.mean() == pytest.approx(1.0, abs=4.0 * ratio.std() / math.sqrt(4000))


def test_blocks_of_a_trending_history_have_no_drift_either():
    """Rows that follow each other rise together: the mean of a product is not that of means."""
    wave = 0.002 * np.sin(np.arange(3000) / 80.0) + 0.002 * noise(3000, 1)
    trending = with_returns(wave + 0.0005)

    model = models.Stationary(block=100.0)
    closes = bt.simulate_paths(trending, model, paths=4000, horizon="14d", seed=3).closes()
    ends = closes[:, -1] / closes[:, 0]
    assert ends.mean() == pytest.approx(1.0, abs=4.0 * ends.std() / math.sqrt(4000))


def find_log_mean(table: RowTable, variance: float) -> float:
    """Return the log of the mean of exp(move) over the rows of phase 0, as paths have it."""
    first_node, cubics = table.log_means
    return path_kernels.read_log_mean(cubics, 0, math.log(variance), first_node)


def test_log_means_are_those_of_the_rows_of_a_phase():
    history = with_an_extreme_hour(8.0)
    table = bt.simulate_paths(history, HOT, paths=1, horizon="6h", seed=5).leader.table
    moves = table.moves[3, table.order[table.starts[0] :][: table.counts[0]]]
    for variance in (1e-4, 2e-4, 5e-4):
        largest = math.sqrt(variance) * moves.max()
        others = np.exp(math.sqrt(variance) * moves - largest)
        expected = largest + math.log(others.mean())
        assert find_log_mean(table, variance) == pytest.approx(expected, rel=1e-6)


def test_prices_of_repeated_rows_by_hand():
    """A log price is that of the last close plus the sized move, less its log mean and growth."""
    history = with_an_extreme_hour(8.0)
    drawn = bt.simulate_paths(history, HOT, paths=4, horizon="6h", seed=5)
    table = drawn.leader.table
    bars = drawn.draw(0, 4)
    draws = path_draws.Draws(5, 0, (drawn.n_bars, drawn.block))
    uniforms = draws.generator(path_draws.ROWS).random((drawn.n_bars, drawn.block, 2))
    rows, variance = table.choose(uniforms)
    assert bars.rows[:, 1:].tolist() == rows[:4].tolist()

    for path in range(4):
        log_price = 0.0
        for t, row in enumerate(rows[path].tolist()):
            size = variance[path, t]
            taken = find_log_mean(table, size) + table.growth[t + 1]
            logs = log_price + math.sqrt(size) * table.moves[:, row] - taken
            first, high, low, close = history.close[-1] * np.exp(logs)
            by_hand = [first, max(first, high, close), min(first, low, close), close]
            assert bars.prices[:, path, t + 1] == pytest.approx(by_hand, rel=1e-12)
            log_price = logs[3]


def test_the_growth_of_blocks_by_enumeration():
    history = with_returns(np.array([0.0, 0.01, -0.02, 0.03, 0.005]))
    drawn = bt.simulate_paths(history, models.Stationary(block=2.0), paths=1, horizon="3h")
    moves = np.log(history.close[1:] / history.close[:-1])

    # The mean of the price after three bars, over all 64 draws of four rows. The second and the
    # third bar begin a block with a probability of a half, else they follow the row before.
    mean_price = 0.0
    for rows in itertools.product(range(4), repeat=3):
        chance = 0.25
        for t in (1, 2):
            follows = rows[t] == (rows[t - 1] + 1) % 4
            chance *= 0.5 * 0.25 + 0.5 * follows
        mean_price += chance * math.exp(moves[list(rows)].sum())

    # Its log is what the paths lose, bar by bar.
    table = drawn.leader.table
    taken = table.growth[1:].sum() + 3 * find_log_mean(table, 1.0)
    assert math.log(mean_price) == pytest.approx(taken, abs=1e-14)
    assert abs(table.growth).max() > 1e-5


def with_an_extreme_hour(deviations: float, hot: float = 2.0) -> bt.Market:
    """Return 3,000 hours of GARCH with Student's t, one of them extreme, that end volatile."""
    shocks = np.random.default_rng(2).standard_t(4, 3000) / math.sqrt(2.0)
    returns = garch_returns(shocks, 4e-5, 8e-7, 0.06, 0.92)[0]
    returns[2100] = deviations * np.std(returns)
    returns[-24:] *= hot
    return with_returns(returns)


@pytest.mark.parametrize("deviations", [-50.0, 50.0])
@pytest.mark.parametrize("model", [HOT, models.Stationary(block=15.0)])
def test_the_mean_over_rows_is_1_at_every_variance(deviations, model):
    """The sum of four cumulants was 3e5 where the log of the mean is 4.7."""
    history = with_an_extreme_hour(deviations)
    table = bt.simulate_paths(history, model, paths=1, horizon="1d").leader.table
    now, omega, _, beta, most = table.variance

    # From the least variance that the model comes to, up to the largest.
    least = now
    if beta < 1.0:
        least = min(now, omega / (1.0 - beta))

    for variance in np.geomspace(least, most, 40):
        log_mean = find_log_mean(table, variance)
        moves = math.sqrt(variance) * table.moves[3, 1:] - log_mean
        tolerance = 1e-9 if variance < 4 * now else 1e-6
        assert np.mean(np.exp(moves)) == pytest.approx(1.0, abs=tolerance)


@pytest.mark.parametrize("deviations", [-50.0, 50.0])
def test_an_extreme_hour_leaves_the_mean_price_where_it_is(deviations):
    drawn = bt.simulate_paths(
        with_an_extreme_hour(deviations), HOT, paths=2000, horizon="12d", seed=4
    )

    closes = drawn.closes()
    ends = closes[:, -1] / closes[:, 0]
    assert np.std(np.log(ends)) < 1.5
    assert ends.mean() == pytest.approx(1.0, abs=4.0 * ends.std() / math.sqrt(2000))
    assert describe_drift(drawn.describe()) == "no drift"


def test_paths_too_wide_for_a_mean_are_finite_and_told():
    wide = HOT.override(variance_now=0.5)
    drawn = bt.simulate_paths(with_an_extreme_hour(50.0), wide, paths=20, horizon="12d")

    bars = drawn.draw(0, 20)
    assert np.isfinite(bars.prices).all()
    assert bars.prices.min() > 0.0
    assert "few paths make the mean price" in describe_drift(drawn.describe())


@pytest.mark.parametrize("name", NAMES)
def test_a_drift_moves_all_paths_alike(market, name):
    terms = {"paths": 3, "horizon": "7d", "seed": 1}
    plain = bt.simulate_paths(market, name, **terms).closes()[:, -1]

    # A drift of 0.5 a year moves the end of a week by exp(0.5 * 7 / 365).
    moved = bt.simulate_paths(market, name, drift=0.5, **terms)
    assert moved.closes()[:, -1] / plain == pytest.approx(math.exp(0.5 * 7 / 365), rel=1e-12)
    assert [*moved.describe()["drift"].values()] == [0.5]

    # That of history is the log of the mean return of an hour, times 8,760.
    of_history = bt.simulate_paths(market, name, drift="history", **terms)
    simple = market.close[1:] / market.close[:-1] - 1.0
    assert of_history.model.drift == pytest.approx(8760 * math.log1p(simple.mean()), rel=1e-9)
    assert of_history.describe()["drift_of_history"]


def test_a_model_with_parameters_keeps_its_drift(market):
    model = models.GBM(volatility=0.5, drift=0.3)
    assert bt.simulate_paths(market, model, paths=1).model.drift == 0.3
    assert bt.simulate_paths(market, model, paths=1, drift=0.0).model.drift == 0.0

    for wrong in ("histori", math.nan, [1.0]):
        with pytest.raises(bt.ParameterError, match="drift must be"):
            bt.simulate_paths(market, model, paths=1, drift=wrong)


def test_the_first_bar_of_filtered_paths_has_todays_variance():
    returns = np.concatenate([0.002 * noise(3000, 1), 0.006 * noise(48, 2)])
    drawn = bt.simulate_paths(with_returns(returns), "filtered", paths=1, horizon="1h")

    table = drawn.leader.table
    scaled = table.moves[3, 1:] * math.sqrt(table.variance[0])
    assert np.mean(scaled**2) == pytest.approx(drawn.model.variance_now, rel=1e-9)

    # Today's is the filtered one, drawn a fifth of the way (in logs) to the mean.
    mean = np.mean(returns[1:] ** 2)
    today = drawn.model.filter(drawn.history)[-1]
    assert today > 2.0 * mean
    assert drawn.model.variance_now == pytest.approx(mean * (today / mean) ** 0.8, rel=1e-9)

    # Half-lives of 72 hours for news, and of 480 for the way back to the mean.
    alpha = 1.0 - 0.5 ** (1 / 72)
    back = 1.0 - 0.5 ** (1 / 480)
    assert drawn.model.alpha == pytest.approx(alpha, rel=1e-12)
    assert drawn.model.beta == pytest.approx(1.0 - alpha - back, rel=1e-12)
    assert drawn.model.omega == pytest.approx(back * mean, rel=1e-9)


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


def test_rows_of_history_are_drawn_together():
    history = two_markets()
    paths = bt.simulate_paths(history, models.Stationary(block=9.0), **DAYS)
    one, two = (paths.draw(0, 6, name) for name in history)
    assert np.array_equal(one.rows, two.rows)

    rows = one.rows.reshape(6, -1)[:, 1:]
    for name, bars in (("BTCUSDT", one), ("ETHUSDT", two)):
        source = history[name]
        close = bars.prices[3].reshape(6, -1)

        # The move of the row, times the drift that a bar of all paths loses.
        move_of_row = source.close[rows] / source.close[rows - 1]
        drift = close[:, 1:] / close[:, :-1] / move_of_row
        assert np.allclose(drift, drift[0], rtol=1e-12)

        mark = bars.marks[2].reshape(6, -1)[:, 1:] / close[:, 1:]
        assert np.allclose(mark, source.mark_low[rows] / source.close[rows], rtol=1e-12)


def test_rows_keep_their_phase_of_the_longest_funding_interval():
    """One settles every 8 hours, the other every 4: a row keeps its hour of the eight."""
    one, other = two_markets().values()
    stamps = other.time[:: 4 * 3600 * 10**9 // other.interval]
    fields = other.fields() | {
        "funding_time": stamps, "funding_rate": 1e-5 * np.arange(len(stamps)),
        "funding_mark": np.full(len(stamps), np.nan),
    }  # fmt: skip
    history = bt.Markets({"A": one, "B": bt.Market(**fields, source="every 4 hours")})

    paths = bt.simulate_paths(history, models.Stationary(block=5.0), **DAYS)
    bars = {name: paths.draw(0, 6, name) for name in history}
    rows = bars["A"].rows.reshape(6, -1)[:, 1:]
    assert np.array_equal(bars["A"].rows, bars["B"].rows)
    assert (rows % 8 == (np.arange(rows.shape[1]) + history.n_bars) % 8).all()

    # Two days: 6 settlements of one, 12 of the other.
    counts = [len(member.calendar.stamps) for member in paths.members.values()]
    assert counts == [6, 12]


def test_the_first_instrument_has_the_paths_that_it_has_alone():
    history = two_markets()
    for model in (models.GBM(volatility=0.8), models.Stationary(block=9.0)):
        both = bt.simulate_paths(history, model, **DAYS)
        assert both[4]["BTCUSDT"] == bt.simulate_paths(history["BTCUSDT"], model, **DAYS)[4]
        assert isinstance(both[4], bt.Markets)


def test_at_correlation_1_the_same_model_draws_the_same_bars():
    model = models.GBM(volatility=0.8)
    history = bt.Markets(dict.fromkeys(("A", "B"), bt.Market.sample(bars=200)))
    path = bt.simulate_paths(history, model, **DAYS, correlation=1.0)[5]
    assert path["A"].content_hash == path["B"].content_hash

    apart = bt.simulate_paths(history, model, **DAYS, correlation=0.0)[5]
    assert not np.allclose(apart["A"].close[1:], apart["B"].close[1:])


@pytest.mark.parametrize("rho", [-0.6, 0.0, 0.8])
def test_moves_have_the_correlation_and_each_its_own_distribution(rho):
    history = bt.Markets({name: still_market() for name in ("A", "B", "C")})
    matrix = np.array([[1.0, rho, 0.3], [rho, 1.0, 0.0], [0.3, 0.0, 1.0]])
    paths = bt.simulate_paths(history, GBM, paths=400, horizon="100h", seed=1, correlation=matrix)
    moves = [np.diff(np.log(paths.closes(name=name)), axis=1).ravel() for name in "ABC"]

    # The standard error of the correlation of 40,000 pairs is 1 / sqrt(40,000) = 0.005.
    assert np.allclose(np.corrcoef(moves), matrix, atol=0.035)
    deviations = [float(np.std(moves_of_one)) for moves_of_one in moves]
    assert deviations == pytest.approx([deviations[0]] * 3, rel=0.03)


def test_a_correlation_is_factored_also_if_singular():
    for matrix in ([[1, 1], [1, 1]], [[1, 0.5, 0.5], [0.5, 1, 1], [0.5, 1, 1]],
                   [[1, -1, 0.5], [-1, 1, -0.5], [0.5, -0.5, 1]]):  # fmt: skip
        low = factor_correlation(np.array(matrix, dtype=float))
        assert np.allclose(low @ low.T, matrix, atol=1e-12)
        assert np.allclose(low, np.tril(low))


def test_paths_begin_where_all_instruments_have_bars():
    market = bt.Market.sample(bars=300)
    markets = bt.Markets({"A": market, "B": bt.Market.sample(bars=300, seed=5).slice(100, 300)})
    with pytest.warns(UserWarning, match="from 2023-01-05 04:00 UTC on, 200 of 300"):
        paths = bt.simulate_paths(markets, models.Stationary(block=5.0), **DAYS)
    assert paths.history.n_bars == 200

    # What is A's own is fitted to A's past, and stays as it is alone.
    for model in ("gbm", "filtered"):
        with pytest.warns(UserWarning, match="200 of 300"):
            joint = bt.simulate_paths(markets, model, drift="history", **DAYS)
        alone = bt.simulate_paths(market, model, drift="history", **DAYS)
        fitted_joint = joint.models["A"].to_dict()
        fitted_alone = alone.model.to_dict()
        assert {**fitted_joint, "block": 0} == {**fitted_alone, "block": 0}
        assert str(joint.leader.process) == str(alone.leader.process)

    # The last 50 bars of history, then the path.
    joined = paths.markets_of(paths.draw_all(0, 1), 0, 0, 50)
    assert joined.n_bars == 50 + paths.width
    assert joined["B"].time[50] == market.time[-1]
    assert pd.Timestamp(paths.start) == market.times[-1]


ONE = bt.Market.sample(bars=300)
TWO = two_markets(200)


@pytest.mark.parametrize(("market", "settings", "words"), [
    (ONE, {"model": "gbmm"}, "did you mean 'gbm'"),
    (ONE, {"model": "garch"}, "one of filtered, stationary, gbm, got 'garch'"),
    (ONE, {"paths": math.nan}, "paths must be a whole number"),
    (ONE, {"horizon": "30m"}, "horizon must be at least one bar"),
    (ONE, {"start": "2019-01-01"}, "start must lie after two bars"),
    (ONE, {"model": "gbm", "funding": 0.2}, "funding must be"),
    (ONE, {"model": "stationary", "correlation": 0.5}, "correlation needs"),
    (TWO, {"model": "gbm", "correlation": 1.5}, "correlation must be"),
    (TWO, {"model": "gbm", "correlation": [[1, 2], [2, 1]]}, "eigenvalue"),
    (TWO, {"funding": {"BTCUSDT": 0.0}}, "one for each"),
    (ONE.prefix(50), {"model": "gbm"}, "at least 100 returns"),
    (bt.Markets({"A": ONE, "B": ONE.prefix(200)}), {}, "B ended earlier"),
])  # fmt: skip
def test_bad_arguments_are_refused(market, settings, words):
    check_refused(lambda: bt.simulate_paths(market, **settings), words)


class HalfOnPathsThatRise(strategies.VolTarget):
    def observe(self, market):
        columns = super().observe(market)
        columns["sigma"] *= 0.5 if market.close[-1] > market.close[-20] else 1.0
        return columns


@pytest.mark.filterwarnings("ignore:.*looks ahead")
def test_columns_of_a_policy_of_the_user_are_made_for_each_path(monkeypatch):
    paths = bt.simulate_paths(bt.Market.sample(bars=700), horizon="1d", paths=3, seed=3)
    test = bt.Backtest(paths.history, venue=free_venue(), account=free_account())
    runner = PathsRunner(paths, strategies.VolTarget(), test)
    policy = HalfOnPathsThatRise()

    # All three paths at once,
    (observed,) = runner.setup.observed
    columns, _ = runner.observe(observed._replace(policy=policy), paths.names[0], paths.draw(0, 3))
    found = columns["sigma"].reshape(3, -1)

    # and each by itself, behind its history.
    for k in range(3):
        (joined,) = paths.markets_of(paths.draw_all(k, k + 1), 0, k, 2000).values()
        sigma = policy.observe(joined)["sigma"]
        np.testing.assert_array_equal(found[k], sigma[-paths.width :])


def brownian_bars(bridge: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return high, low and close of bars from their open, in standard deviations of a bar."""
    model = models.GBM(volatility=0.8, drift=0.32)  # no drift of the log price
    drawn = bt.simulate_paths(still_market(), model, paths=1500, seed=3, bridge=bridge)
    prices = drawn.draw(0, 1500).prices.reshape(4, 1500, -1)[:, :, 1:]
    start, high, low, close = prices.reshape(4, -1)

    unit = 0.8 / math.sqrt(YEAR)
    return np.log(high / start) / unit, np.log(low / start) / unit, np.log(close / start) / unit


def test_bars_of_brownian_motion_have_the_known_joint_moments():
    """E[H - L] = sqrt(8 / pi), E[HL] = 1 - 2 ln 2, E[H^2 L^2] = 3 - 4 ln 2,
    E[H L C^2] = 2 - 2 ln 2 - 7/8 zeta(3), zeta(3) = 1.2020569."""
    high, low, close = brownian_bars(4)
    assert (high - low).mean() == pytest.approx(math.sqrt(8 / math.pi), rel=2e-3)
    assert (high * low).mean() == pytest.approx(1 - 2 * math.log(2), rel=5e-3)
    assert (high**2 * low**2).mean() == pytest.approx(3 - 4 * math.log(2), rel=0.02)
    known = 2 - 2 * math.log(2) - 7 / 8 * 1.2020569
    assert (high * low * close**2).mean() == pytest.approx(known, rel=0.01)


def test_one_step_draws_each_extreme_right_and_the_two_together_wrong():
    """Independent extremes: E[HL] = E[E[H|C] E[L|C]] = -0.423."""
    high, low, _ = brownian_bars(1)
    assert high.mean() == pytest.approx(math.sqrt(2 / math.pi), rel=3e-3)
    assert (high * low).mean() == pytest.approx(-0.423, abs=2e-3)


def test_watched_at_closes_only_the_barrier_is_shifted():
    """Broadie, Glasserman, Kou (1997): a barrier watched every dt is as one that is 0.5826 sigma
    sqrt(dt) further away and watched always."""
    sigma = 0.8
    days = 3
    drawn = bt.simulate_paths(
        still_market(), models.GBM(volatility=sigma), paths=40_000, horizon=f"{days}d", seed=9
    )

    lowest = np.log(drawn.closes()[:, 1:] / 100.0).min(axis=1)
    for distance in (-0.03, -0.06, -0.1):
        shifted = distance - 0.5826 * sigma * math.sqrt(1 / YEAR)
        known = touch_probability(shifted, sigma, days / 365, drift=-0.5 * sigma**2)
        assert np.mean(lowest <= distance) == pytest.approx(known, abs=0.005)


def test_markets_of_a_block_are_those_of_its_paths_and_cannot_be_written(market):
    count = instrument_paths.AT_ONCE + 8
    drawn = bt.simulate_paths(market, GBM, paths=count, horizon="2d", seed=1)
    bars = drawn.draw(0, count)
    given = {"source": "drawn", "signal": np.full(market.n_bars + 48, 0.5)}

    # The second block begins with the path after the last one of the first.
    first_path = drawn.leader.market_of(bars, 0, market, **given)
    blocks = drawn.leader.list_markets(bars, first_path, {})
    for first, block in zip((0, instrument_paths.AT_ONCE), blocks, strict=True):
        for k in (0, len(block.rows["close"]) - 1):
            whole = drawn.leader.market_of(bars, first + k, market, **given)
            assert block.pick(k).content_hash == whole.content_hash
            for close in (block.pick(k).close, block.join().close[:, k]):
                with pytest.raises(ValueError, match="read-only"):
                    close[0] = 1.0


def draw_rates(n: int, weights=WEIGHTS, scale: float = 1e-5, seed: int = 0) -> np.ndarray:
    """Return settlements of three a day by the regression, with a mean of 1 bp."""
    shocks = scale * np.random.default_rng(seed).standard_normal(n + 500)
    rates = [1e-4] * (n + 500)
    for k in range(90, n + 500):
        means = [sum(rates[k - window : k]) / window for window in (1, 3, 21, 90)]
        rates[k] = 1e-4 * (1 - sum(weights)) + float(np.dot(weights, means)) + shocks[k]

    # Without the first 500, which begin from a constant.
    return np.array(rates[500:])


def settle(rates: np.ndarray, freq: str = "8h", moves: np.ndarray | None = None) -> bt.Market:
    """Return a market that settles these rates, one a bar."""
    n = len(rates)
    if moves is None:
        moves = 0.01 * noise(n, 9)
    close = 100 * np.exp(np.cumsum(moves))
    index = pd.date_range("2021-01-01", periods=n, freq=freq, tz="UTC")
    return bars_market(close, close, freq, "2021-01-01", {"funding": pd.Series(rates, index=index)})


@pytest.fixture(scope="module")
def settled() -> bt.Market:
    return settle(draw_rates(3000))


def spread_of_means(rates: np.ndarray) -> np.ndarray:
    """Return the standard deviation of the mean rate over 7, 30 and 180 days of 3 settlements."""
    sums = np.concatenate([[0.0], np.cumsum(rates)])
    return np.array([np.std(sums[3 * d :] - sums[: -3 * d]) / (3 * d) for d in (7, 30, 180)])


def test_least_squares_find_the_weights_of_a_known_process():
    rates = draw_rates(12_000)
    found = funding_process.fit_process(rates, GRID, 0.1)
    assert found.kind == "heterogeneous autoregression"
    assert found.windows == (1, 3, 21, 90)
    assert found.weights == pytest.approx(WEIGHTS, abs=0.05)
    assert sum(found.weights) == pytest.approx(sum(WEIGHTS), abs=0.02)

    # What the weights leave, of the last 180 days, is as large as the shocks were.
    assert len(found.residuals) == 540
    sums = np.concatenate([[0.0], np.cumsum(rates)])
    k = np.arange(90, len(rates))
    means = [(sums[k] - sums[k - window]) / window for window in found.windows]
    residuals = rates[90:] - found.constant - np.dot(found.weights, means)
    np.testing.assert_allclose(residuals[-540:], found.residuals, rtol=1e-9, atol=1e-15)
    assert np.std(residuals) == pytest.approx(1e-5, rel=0.02)


@pytest.mark.parametrize("model", [ROWS, GBM])
def test_paths_follow_the_regression_from_the_last_settlements(settled, model):
    drawn = bt.simulate_paths(settled, model, paths=7, horizon="60d", seed=3)
    process = drawn.leader.process
    assert np.array_equal(drawn.draw(4, 5).rates[0], drawn.draw(0, 7).rates[4])

    # A path of known weights goes on from the last rates of history.
    weights = np.array(process.weights)[:, None]
    known = funding_process.UnknownParts(process.constant, weights, spread=1.0)
    uniforms = np.random.default_rng(3).random((180, 7))
    rates = process.walk(process.residuals, uniforms, known).T
    whole = np.concatenate([settled.funding_rate, rates[4]])

    # What the regression leaves of each of its rates is a residual of the fit.
    shocks = []
    for k in range(len(settled.funding_rate), len(whole)):
        means = [whole[k - window : k].mean() for window in process.windows]
        shocks.append(whole[k] - process.constant - float(np.dot(process.weights, means)))
    gaps = np.abs(np.array(shocks)[:, None] - process.residuals[None, :])
    assert gaps.min(axis=1).max() < 1e-15


def test_the_band_of_a_short_history_is_wider_by_what_it_does_not_know():
    """180 days of settlements see a variance 6 times: 6 / chi-squared has a mean of 6 / 4."""
    rates = draw_rates(540)
    fit = funding_process.fit_process(rates, GRID, 0.1)
    draws = path_draws.Draws(1, 0, (1, 40_000))
    constant, weights, spread = fit.draw_unknown(draws)
    assert np.mean(spread**2) == pytest.approx(6 / (6 - 2), rel=0.05)
    assert weights.min() >= 0.0
    assert weights.sum(axis=0).max() <= funding_process.LARGEST_PERSISTENCE + 1e-12

    # Rows of the regression: 1, and the means of the last 1, 3, 21 and 90 rates, centered.
    x = np.ones((450, 5))
    for column, window in enumerate((1, 3, 21, 90), start=1):
        x[:, column] = [rates[k - window : k].mean() for k in range(90, 540)]
    residuals = rates[90:] - fit.constant - x[:, 1:] @ fit.weights
    centers = x[:, 1:].mean(axis=0)
    x[:, 1:] -= centers

    # Level and weights have the errors of White's covariance: (X'X)^-1 X' e^2 X (X'X)^-1.
    bread = np.linalg.inv(x.T @ x)
    covariance = bread @ (x.T * residuals**2) @ x @ bread
    assert fit.errors @ fit.errors.T == pytest.approx(covariance, rel=1e-6)
    level = constant + centers @ weights
    assert np.std(level) == pytest.approx(math.sqrt(1.5 * covariance[0, 0]), rel=0.03)

    # Of 1,800 days hardly anything is unknown.
    long = funding_process.fit_process(draw_rates(5400), GRID, 0.1)
    _, _, spread_of_long = long.draw_unknown(draws)
    assert np.mean(spread_of_long**2) < 1.05


@pytest.mark.slow
def test_the_band_of_the_mean_rate_holds_as_told_from_180_days():
    """Of the mean of 30 days, 90 % are told; by errors of the level alone, 80 % were held."""
    count = 300
    held = 0
    for seed in range(count):
        rates = draw_rates(630, seed=seed)
        fit = funding_process.fit_process(rates[:540], GRID, 0.1)

        draws = path_draws.Draws(seed, 0, (90, 200))
        uniforms = draws.generator(path_draws.FUNDING).random((90, 200))
        means = fit.walk(fit.residuals, uniforms, fit.draw_unknown(draws)).mean(axis=0)

        low, high = np.quantile(means, (0.05, 0.95))
        held += low <= rates[540:].mean() <= high

    assert 0.86 <= held / count <= 0.94, held


def test_a_path_as_long_as_history_spreads_as_history(settled):
    wanted = spread_of_means(settled.funding_rate)
    for model in (ROWS, GBM):
        drawn = bt.simulate_paths(settled, model, paths=30, horizon="1000d", seed=1)
        spreads = [spread_of_means(rates) for rates in drawn.draw(0, 30).rates]
        found = np.mean(spreads, axis=0)
        assert np.all(np.abs(found / wanted - 1.0) < (0.25, 0.25, 0.4)), found / wanted


def test_the_level_of_today_goes_on():
    rates = draw_rates(1500)
    rates[-45:] += 5e-4
    drawn = bt.simulate_paths(settle(rates), GBM, paths=200, horizon="15d", seed=1)
    assert 2e-4 < float(drawn.draw(0, 200).rates.mean()) < 6e-4

    # Funding does not move prices.
    for other in (None, 1e-4):
        same = bt.simulate_paths(settle(rates), GBM, paths=2, horizon="2d", seed=1, funding=other)
        assert np.array_equal(same.closes(), drawn.closes(0, 2)[:, :7])


def test_short_histories_have_simpler_processes_and_say_so(settled):
    found = bt.simulate_paths(settled.prefix(3 * 100), GBM, paths=2, horizon="5d")
    assert found.leader.process.kind == "first-order autoregression"
    (sentence,) = funding_process.summarize_funding(found.describe()["funding_fit"])
    assert "first-order autoregression of 300 settlements every 8h" in sentence

    # Of two days, the mean.
    few = bt.simulate_paths(settled.prefix(6), GBM, paths=2, horizon="5d")
    assert np.allclose(few.draw(0, 2).rates, settled.funding_rate[:6].mean(), atol=1e-18)
    sentence, *_ = funding_process.summarize_funding(few.describe()["funding_fit"])
    assert "funding: constant at" in sentence

    # Of none, none.
    none = bt.simulate_paths(bt.Market.from_frames(settled.bars()), GBM, paths=2, horizon="5d")
    assert not none[0].funding_time.size
    terms = {"venue": free_venue(), "account": free_account()}
    assert "funding: none" in risk_of(none, Hold(5.0), **terms).summary()


def test_a_number_is_a_constant_none_is_none_and_terms_cap(settled):
    given = {"paths": 3, "horizon": "10d", "seed": 1}

    # A number: 3 bp at each of 30 settlements.
    fixed = bt.simulate_paths(settled, ROWS, **given, funding=3e-4)
    assert np.array_equal(fixed.draw(0, 3).rates, np.full((3, 30), 3e-4))
    assert len(bt.simulate_paths(settled, ROWS, **given, funding=None).calendar.stamps) == 0

    # Also where history settles none.
    bare = bt.Market.from_frames(settled.bars())
    paid = bt.simulate_paths(bare, GBM, **given, funding=3e-4)[0].funding()
    assert set(pd.DatetimeIndex(paid.index).hour) == {0, 8, 16}

    # The terms of a venue cap what is drawn.
    terms = bt.funding.terms("binance-usdm", "BTCUSDT").override(cap=1.05e-4)
    capped = bt.simulate_paths(settled, GBM, **given, funding=terms).draw(0, 3).rates
    free = bt.simulate_paths(settled, GBM, **given).draw(0, 3).rates
    assert np.abs(capped).max() == 1.05e-4 < np.abs(free).max()


def test_several_instruments_have_processes_of_their_own(settled):
    both = bt.Markets({"A": settled, "B": settle(draw_rates(3000, seed=5, scale=4e-5))})
    given = {"paths": 4, "horizon": "20d", "seed": 2}

    # The first has the rates that it has alone; the residuals of the second are four times its.
    for model, joint in ((GBM, {"correlation": 0.5}), (ROWS, {})):
        paths = bt.simulate_paths(both, model, **given, **joint)
        alone = bt.simulate_paths(settled, model, **given)
        assert np.array_equal(paths.draw(0, 4, "A").rates, alone.draw(0, 4).rates)
        deviations = [np.std(member.process.residuals) for member in paths.members.values()]
        assert deviations[1] == pytest.approx(4 * deviations[0], rel=0.1)

    mixed = bt.simulate_paths(both, GBM, **given, funding={"A": 2e-4, "B": None})
    assert [*mixed.describe()["funding_fit"].values()] == ["constant at 2 bp", "none"]


def test_the_weights_of_funding_leave_no_shock_that_grows():
    """Least squares of this walk would sum to over 1, and of that with b1 alone be negative."""
    walk = 1e-4 + 1e-5 * np.cumsum(np.random.default_rng(1).standard_normal(800))
    turns = 1e-4 + 1e-5 * (-1.0) ** np.arange(800) * (1.0 + 0.1 * np.cos(np.arange(800)))

    def fit(rates):
        return funding_process.fit_process(rates, GRID, 0.1)

    # Alone, the weight of the last rate stands at the bound that it would pass.
    for rates, alone in ((walk + 1e-5 * np.arange(800), 0.9999), (turns, 0.0)):
        assert fit(rates[:539]).weights == pytest.approx((alone,), abs=1e-9)
        for n, windows in ((539, (1,)), (800, (1, 3, 21, 90))):
            found = fit(rates[:n])
            assert found.windows == windows
            assert min(found.weights) >= 0.0
            assert sum(found.weights) <= 0.9999 + 1e-12


def test_a_repeated_rate_is_as_frequent_on_paths_as_it_was():
    """The clamp of a venue: rates within 0.5 bp of 1 bp are 1 bp; levels of paths vary."""
    rates = draw_rates(3000)
    rates[np.abs(rates - 1e-4) < 5e-6] = 1e-4
    share = np.mean(rates[-540:] == 1e-4)
    assert 0.2 < share < 0.6

    drawn = bt.simulate_paths(settle(rates), GBM, paths=100, horizon="180d", seed=1)
    found = drawn.draw(0, 100).rates
    assert np.mean(found == 1e-4) == pytest.approx(share, abs=0.06)
