"""What a finished run could have been: bands of its account on resampled bars of its market."""

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.report.charts import draw_declared
from backtest.risk.bands import find_first_passage, list_rows, measure_unit
from backtest.strategies import Constant, VolTarget
from tests.kit import Hold, call, check_refused, free_venue, market_of
from tests.scenes import venue_of

PLAIN = {"venue": free_venue(), "account": bt.Account()}


def make_market(moves, *, start="2024-01-01", **columns):
    """Return hourly bars of log moves, that open at the close before."""
    close = 100.0 * np.exp(np.cumsum(moves))
    opens = np.concatenate([[100.0], close[:-1]])
    frame = pd.DataFrame(
        {"open": opens, "high": np.maximum(opens, close) * 1.001,
         "low": np.minimum(opens, close) * 0.999, "close": close},
        index=pd.date_range(start, periods=len(close), freq="h", tz="UTC"),
    )  # fmt: skip
    return bt.Market.from_frames(frame.assign(volume=1e6, **columns))


def draw_moves(n, seed=0, size=0.01):
    return size * np.random.default_rng(seed).standard_normal(n)


def draw_many(moves, count, block=1.0, seed=0):
    """Yield the log moves of resampled paths, each of as many bars."""
    market = make_market(np.concatenate([[0.0], moves]))

    rows = list_rows(bt.Markets({"A": market}), 0)
    for k in range(count):
        yield moves[rows.draw(block, seed, k)[1:] - 1]


def test_buy_and_hold_without_costs_has_the_bands_of_its_market():
    """Held from the first fill, at the open of bar 1: the value is close / open of bar 1."""
    market = make_market(draw_moves(60))
    result = bt.run(market, Constant(leverage=1.0), **PLAIN, compile=False)
    found = result.bands(8, compile=False)

    returns = []
    falls = []
    for i in range(8):
        path = found.market_of(i)
        value = np.concatenate([[1.0], path.close[1:] / path.open[1]])
        returns.append(value[-1] - 1.0)
        falls.append(np.max(1.0 - value / np.maximum.accumulate(value)))
    assert found.paths["total_return"].tolist() == pytest.approx(returns, rel=1e-9)
    assert found.paths["max_drawdown"].tolist() == pytest.approx(falls, rel=1e-9)

    # A band is the quantiles of the paths.
    for name, values in (("total_return", returns), ("max_drawdown", falls)):
        expected = np.quantile(values, [0.05, 0.5, 0.95])
        row = found.table.loc[("account", name), ["low", "median", "high"]]
        assert row.tolist() == pytest.approx(expected.tolist(), rel=1e-9)

    again = found.table.loc["returns"].drop(columns="run")
    np.testing.assert_allclose(found.table.loc["account"].drop(columns="run"), again, rtol=1e-9)


def test_the_worst_fall_is_that_of_a_random_walk_without_drift():
    """Magdon-Ismail, Atiya, Pratap and Abu-Mostafa (2004): sqrt(pi / 2) sigma sqrt(T), less two
    corrections of .5826 sigma for closes: (1.2533 - 2 x .5826 / sqrt(250)) = 1.180 at 250 bars."""
    from scipy.special import ndtri  # noqa: PLC0415

    moves = 0.01 * ndtri((np.arange(250) + 0.5) / 250)
    np.random.default_rng(0).shuffle(moves)

    falls = []
    for path in draw_many(moves, 4000):
        walk = np.concatenate([[0.0], np.cumsum(path)])
        falls.append(np.max(np.maximum.accumulate(walk) - walk))

    unit = np.std(moves) * math.sqrt(250)
    factor = 1.2533 - 2.0 * 0.5826 / math.sqrt(250)
    assert factor == pytest.approx(1.180, abs=5e-4)
    error = np.std(falls) / math.sqrt(len(falls)) / unit
    assert abs(np.mean(falls) / unit - factor) < 3.0 * error


def test_without_drift_a_goal_is_reached_first_in_the_share_of_the_loss():
    """Moves of one step up or down: 4 steps up before 2 down has the probability 2 / 6."""
    step = 0.05
    moves = np.tile([step, -step], 300)
    goal = math.expm1(4 * step)
    loss = -math.expm1(-2 * step)

    reached = []
    for path in draw_many(moves, 3000):
        value = np.exp(np.cumsum(path))
        reached.append(find_first_passage(value, loss, goal))
    assert set(reached) == {"goal", "loss"}

    share = reached.count("goal") / len(reached)
    assert abs(share - 2 / 6) < 3.0 * math.sqrt(2 / 6 * 4 / 6 / len(reached))


def test_blocks_have_geometric_lengths_of_the_mean_asked_for():
    moves = np.arange(1.0, 401.0) * 1e-6
    steps = [np.diff(path) for path in draw_many(moves, 50, block=8.0)]
    breaks = np.mean(np.abs(np.concatenate(steps) - 1e-6) > 1e-9)

    # A break is drawn with 1 / 8, and is none where it draws the next row, in 1 of 400.
    expected = 1 / 8 * 399 / 400
    n = 50 * 399
    assert abs(breaks - expected) < 3.0 * math.sqrt(expected * (1 - expected) / n) + 1 / 400


def make_pair(n=97):
    """Two instruments with marks of their own, a column, and funding every 8 hours."""
    markets = {}
    for k, name in enumerate(("A", "B")):
        market = make_market(draw_moves(n, seed=k), label=np.arange(n) + 1000.0 * k)
        stamps = market.times[::8]
        funding = pd.DataFrame({"rate": 1e-4 * (1.0 + np.arange(len(stamps)))}, index=stamps)

        mark = market.bars()[["open", "high", "low", "close"]] * (1.001 + 0.001 * k)
        frame = market.bars().assign(label=market.columns["label"])
        markets[name] = bt.Market.from_frames(frame, funding=funding, mark=mark, instrument=name)
    return bt.Markets(markets)


def test_prices_marks_funding_and_columns_of_all_instruments_are_drawn_together():
    markets = make_pair()
    terms = {**PLAIN, "signal": {"A": 1.0, "B": -0.5}}
    result = bt.run(markets, Constant(leverage=1.0), **terms, compile=False)
    found = result.bands(3, block=5.0, compile=False)

    # Each bar has a row in its hour of the eight between two settlements.
    rows = found.resampler.draw(1)
    assert (rows[1:] % 8 == np.arange(1, 97) % 8).all()

    for name, path in found.market_of(1).items():
        history = markets[name]

        # The move of that row, its mark over its price, and its column.
        moves = np.diff(np.log(path.close))
        known = np.diff(np.log(history.close))
        np.testing.assert_allclose(moves, known[rows[1:] - 1], rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(
            path.mark_low / path.low, history.mark_low[rows] / history.low[rows]
        )
        assert path.columns["label"].tolist() == history.columns["label"][rows].tolist()

        # Settlements at their times, each with the rate of the row that is there.
        assert (path.funding_time == history.funding_time).all()
        bars = np.searchsorted(path.time, path.funding_time)
        assert path.funding_rate.tolist() == history.funding_rate[rows[bars] // 8].tolist()


def test_a_path_is_the_run_on_its_market_and_its_own_bars_are_the_run():
    market = bt.Market.sample(bars=300)
    signal = pd.Series(np.where(np.arange(300) // 40 % 2 == 0, 1.0, -0.5), market.times)
    flows = pd.Series([500.0, -300.0], market.times[[100, 200]])
    account = bt.Account(flows=flows, equity_stop=0.15, after_stop="1d", margin_call=0.8)
    terms = {"venue": "binance-usdm:BTCUSDT", "account": account, "compile": False}
    policy = VolTarget(target=2.0, half_life=12.0)
    result = bt.run(market, policy, signal=signal, **terms)
    found = result.bands(3, seed=5, compile=False)

    # Each path is a run on its market, with the signal of its rows.
    for i in range(3):
        rows = found.resampler.draw(i)
        signal_of_path = pd.Series(signal.to_numpy()[rows], market.times)
        again = bt.run(found.market_of(i), policy, signal=signal_of_path, **terms)
        for name in ("total_return", "max_drawdown", "sharpe", "cagr"):
            assert found.paths.loc[i, name] == pytest.approx(again.metrics[name], rel=1e-9)

    own = measure_unit(result, result.of_account("unit") / result.tally.first_unit)
    for name in ("total_return", "max_drawdown", "sharpe", "cagr"):
        assert own[name] == pytest.approx(result.metrics[name], rel=1e-9)


def test_paths_depend_on_the_seed_and_their_number_alone():
    result = bt.run(make_market(draw_moves(50)), Constant(leverage=2.0), **PLAIN, compile=False)
    few = result.bands(3, seed=3, compile=False).paths
    many = result.bands(5, seed=3, compile=False).paths
    pd.testing.assert_frame_equal(few, many.iloc[:3])

    other = result.bands(3, seed=4, compile=False).paths
    assert not np.allclose(few["total_return"], other["total_return"])


def test_no_band_is_under_a_loss_of_all_and_liquidations_are_counted():
    market = make_market(draw_moves(40, size=0.05))
    venue = venue_of(liquidation={"mode": "takeover"})
    terms = {"venue": venue, "account": bt.Account(), "compile": False}
    result = bt.run(market, Hold(level=8.0), **terms)
    found = result.bands(12, compile=False)

    ends = found.table.xs("total_return", level=1)
    assert (ends >= -1.0).all(axis=None)

    # The share of paths on which a run is liquidated; returns that are shuffled never are.
    are_liquidated = []
    for i in range(12):
        run = bt.run(found.market_of(i), Hold(level=8.0), **terms)
        are_liquidated.append(run.metrics["liquidations"] > 0)
    assert any(are_liquidated)
    assert found.chances.loc["liquidated", "account"] == np.mean(are_liquidated)
    assert math.isnan(found.chances.loc["liquidated", "returns"])


def test_growth_per_year_is_shown_from_90_days_on():
    for n, is_shown in ((60, False), (100, True)):
        market = market_of(100.0 * np.exp(np.cumsum(draw_moves(n))), "1D")
        result = bt.run(market, Constant(leverage=1.0), **PLAIN, compile=False)
        found = result.bands(3, compile=False)
        assert (("account", "cagr") in found.table.index) == is_shown


def test_bands_say_what_they_are_and_their_frame_has_both_sources():
    result = bt.run(make_market(draw_moves(50)), Constant(leverage=2.0), **PLAIN, compile=False)
    found = result.bands(4, goal=0.2, loss=0.1, compile=False)

    text = " ".join(found.summary().split())
    assert "a liquidation cannot be shuffled" in text
    assert "gains 20 % first" in text
    assert list(found.chances.index) == ["liquidated", "loss", "goal"]

    frame = found.to_frame()
    assert set(frame.columns.get_level_values(1)) == {"account", "returns"}
    assert "total_return" in frame.index


def test_medians_are_drawn_solid_and_the_ends_of_bands_dotted():
    result = bt.run(make_market(draw_moves(50)), Constant(leverage=2.0), **PLAIN, compile=False)
    chart = result.bands(4, compile=False).list_parts()[0].blocks[0]

    lines = draw_declared(chart).figure["data"]
    is_dotted = {line["name"]: line["line"].get("dash") == "dot" for line in lines}
    assert len(is_dotted) == 6
    assert is_dotted == {name: not name.endswith("median") for name in is_dotted}


def test_wrong_input_is_one_clear_error(tmp_path):
    result = bt.run(make_market(draw_moves(50)), Constant(leverage=2.0), **PLAIN, compile=False)

    check_refused(lambda: result.bands(1), "n must be 2 to")
    check_refused(lambda: result.bands(3, block=0.5), "block must be at least 1")
    check_refused(lambda: result.bands(3, loss=1.5), "loss must be")
    check_refused(lambda: result.bands(3, goal=-0.1), "goal must be")

    loaded = bt.Result.load(result.save(tmp_path))
    check_refused(loaded.bands, "which a loaded result does not hold")

    short = bt.run(make_market(draw_moves(8)), Constant(leverage=2.0), **PLAIN, compile=False)
    check_refused(short.bands, "need at least 13 bars of a run, got 8")

    head = bt.run(make_market(draw_moves(50)).prefix(25), Constant(leverage=2.0), **PLAIN)
    tail = bt.run(make_market(draw_moves(50)), Constant(leverage=2.0), resume=head, **PLAIN)
    check_refused(tail.bands, "need a run from its start")


def test_a_run_whose_policies_changed_on_the_way_is_refused():
    result = bt.run(make_market(draw_moves(50)), Constant(leverage=2.0), **PLAIN, compile=False)

    # As if all had been exchanged for policies at 1x.
    policies = {name: Constant(leverage=1.0) for name in result.setup.policies}
    observed = [
        seen._replace(policy=policy)
        for seen, policy in zip(result.setup.observed, policies.values(), strict=True)
    ]
    vars(result)["setup"] = result.setup._replace(policies=policies, observed=observed)

    check_refused(lambda: result.bands(3, compile=False), "the same policies throughout")


def test_the_command_shows_bands_and_refuses_a_wrong_number(capsys):
    words = ("bands", "--policy", "constant", "--set", "leverage=2", "--to", "2023-01-04")
    code, out, _ = call(capsys, *words, "--n", "3", "--goal", "0.5", "--no-save")
    assert code == 0
    assert "On resampled markets 90 % of accounts return" in " ".join(out.split())

    code, _, error = call(capsys, *words, "--n", "1")
    assert code == 2
    assert "n must be 2 to 1e+06, got 1" in error
