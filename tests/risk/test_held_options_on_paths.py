"""A result that holds options goes on along simulated paths."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import paths as models
from backtest.risk import make_runner
from backtest.strategies import Constant, DeltaHedge, LongVolatility
from tests.options.listed_markets import make_markets, make_venue
from tests.risk.test_options_on_paths import HEDGE, make_account, surfaces_of

pytestmark = pytest.mark.filterwarnings("ignore:volatility is flat")
GRID = bt.Option.grid(
    "BTC", strikes=[28_000.0, 30_000.0, 32_000.0], start="2023-01-05", end="2023-01-30"
)


def begin_with(policy: bt.Policy, puts: float = 0.0) -> bt.Result:
    """Return a run of four days on listed contracts; a schedule may hold puts of a single one."""
    markets = make_markets(bars=96, options=None if puts else GRID)
    held = pd.DataFrame({"PUT": [puts]}, index=markets["BTC"].index[10:11]) if puts else None
    return bt.run(
        markets, policy, venue=make_venue(), account=make_account(), compile=False,
        option_quantities=held,
    )  # fmt: skip


def name_held(result: bt.Result) -> list[str]:
    """Return the contracts that a result holds at its end."""
    options = result.options
    return [n for n, q in zip(options.terms.names, options.record.quantity[-1], strict=True) if q]


def go_on(result: bt.Result, horizon: str, **terms) -> bt.Paths:
    history = bt.Markets({"BTC": result.markets["BTC"]})
    surface = models.SimulatedSurface(ratio=1.2)
    given = {"model": models.GBM(volatility=0.8), "paths": 3, "surfaces": surface} | terms
    return bt.simulate_paths(history, horizon=horizon, funding=None, **given)


@pytest.mark.parametrize(
    ("policy", "legs"),
    [(HEDGE, 1), (DeltaHedge(LongVolatility(Constant(0.0), tenor=10.0, roll=7.0)), 2)],
    ids=["tail hedge", "delta hedge"],
)
def test_a_rule_goes_on_along_paths_with_what_it_held(policy, legs):
    """As the run that goes on through the same path, bit for bit; it rolls what it held."""
    result = begin_with(policy)
    held = name_held(result)
    assert len(held) == legs
    paths = go_on(result, "4d")
    runner = make_runner(
        paths, policy, venue=make_venue(), account=result, compile=False, where="test"
    )
    lives = runner.run_plan(paths.plan(0, 2), 0)
    for i in range(2):
        own = runner.run_path(i)
        assert np.array_equal(own.bars["equity"].to_numpy(), lives.wealth[i])
        assert {*held} < {*own.options.terms.names}
        assert name_held(own) != held  # rolled


def test_puts_that_were_held_are_marked_by_the_surface_of_the_path_and_paid_at_expiry():
    """Two puts of 30,000 until 2023-01-08 12:00; the account does nothing else.

    Delivery costs .00015 of the price, at most .125 of the payoff.
    """
    result = begin_with(Constant(0.0), puts=2.0)
    paths, before = go_on(result, "5d"), result.bars["equity"].iloc[-1]
    runner = make_runner(
        paths, Constant(0.0), venue=make_venue(), account=result, compile=False, where="test"
    )
    lives, held = runner.run_plan(paths.plan(0, 2), 0), result.options
    cash = before - 2.0 * held.record.value[-1, 0]
    for i in range(2):
        path, volatilities = paths[i]["BTC"], surfaces_of(paths, i)
        mark, expiry = path.mark_close[1], pd.Timestamp("2023-01-08 12:00", tz="UTC")
        years = (expiry - paths.time[1] - pd.Timedelta("1h")) / pd.Timedelta("365D")
        numbers = [np.array([each]) for each in (30_000.0, mark, years)]
        volatility = float(volatilities.evaluate(np.array([1]), *numbers)[1, 0])
        put = bt.options.price("put", mark, 30_000.0, years, volatility)
        assert lives.wealth[i, 0] == pytest.approx(cash + 2.0 * put, rel=1e-12)
        spot = float(path.mark_open[int(np.searchsorted(path.index, expiry))])
        paid = max(30_000.0 - spot, 0.0)
        fee = min(0.00015 * spot, 0.125 * paid)
        assert lives.wealth[i, -1] == pytest.approx(cash + 2.0 * (paid - fee), rel=1e-12)


def test_what_was_held_needs_a_surface_to_go_on():
    result = begin_with(Constant(0.0), puts=2.0)
    with pytest.raises(bt.ParameterError, match="a result that holds PUT on simulated paths needs"):
        make_runner(
            go_on(result, "1d", surfaces=None), Constant(0.0), venue=make_venue(), account=result,
            where="test",
        )  # fmt: skip
