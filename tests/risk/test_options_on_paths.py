"""Options on simulated paths: what values them, which are listed, and the account that trades."""

import math
from itertools import pairwise

import numpy as np
import pytest

import backtest as bt
from backtest import paths as models
from backtest.options import SVI, SmileShape
from backtest.policy.option_rule import orders_at_rolls, trades_nothing
from backtest.risk import estimate_difference, make_runner
from backtest.risk.liquidation import risk_rows
from backtest.risk.liquidation.risk_intervals import exact_interval
from backtest.strategies import Collar, Constant, DeltaHedge, LongVolatility, TailHedge
from tests.options.listed_markets import make_markets, make_venue

FLAT = SmileShape(b=0.0, rho=0.0, m=0.0, sigma=1.0)
HEDGE = TailHedge(Constant(4.0), delta=-0.1, tenor=14.0, roll=7.0, budget=0.01)


def sample() -> bt.Market:
    return bt.Market.sample(bars=24 * 20).resample("4h")


def draw(surface: models.SimulatedSurface | None = None, **terms) -> bt.Paths:
    given = {"model": models.GBM(volatility=0.8), "paths": 3, "horizon": "21d", "seed": 3} | terms
    surface = surface or models.SimulatedSurface(ratio=1.1)
    return bt.simulate_paths(sample(), **given, surfaces=surface)


def make_account(**terms) -> bt.Account:
    given = {"capital": 100_000.0, "requirement": "deribit-standard", "band": 0.05}
    return bt.Account(**given, **terms)


def run_on(paths: bt.Paths, policy: bt.Policy = HEDGE, **terms):
    account = make_account(**terms)
    return make_runner(
        paths, policy, venue=make_venue(), account=account, compile=False, where="test"
    )


def surfaces_of(paths: bt.Paths, i: int):
    """Return the surfaces of a path, stamped just before its closes."""
    maker = paths.makers[paths.names[0]]
    stamps = paths.calendar.time + paths.markets.interval - 1
    return maker.make(stamps, paths.closes(i, i + 1)[0])


def test_volatility_is_that_of_the_path_times_the_ratio_with_the_shape_of_the_smile():
    """v_t = .5^(1/60) v_(t-1) + (1 - .5^(1/60)) r_t^2 2190: 10 days are 60 bars, a year 2,190."""
    paths, shape = draw(models.SimulatedSurface(ratio=1.3, volatility=0.7)), SmileShape()
    surfaces, closes, v = surfaces_of(paths, 0), paths.closes(0, 1)[0], 0.49
    for before, after in pairwise(closes[:6]):
        keep = 0.5 ** (1.0 / 60.0)
        v = keep * v + (1.0 - keep) * math.log(after / before) ** 2 * 2190.0
    atm, years, width = 1.3 * math.sqrt(v), 20.0 / 365.0, 1.3 * math.sqrt(v * 20.0 / 365.0)
    assert surfaces.atm("20d").iloc[5] == pytest.approx(atm, rel=1e-12)
    strikes = closes[5] * np.exp(np.array([-2.0, -1.0, 0.0, 1.0]) * width)
    many = [np.full(4, each) for each in (closes[5], years)]
    found = surfaces.evaluate(np.full(4, 5), strikes, *many)[1]
    at = shape.at(atm, years)
    by_hand = np.sqrt(at.total_variance(np.log(strikes / closes[5])) / years)
    assert isinstance(at, SVI)
    assert at.least_density > 0.0
    assert found == pytest.approx(by_hand, rel=1e-12)
    assert found[2] == pytest.approx(atm)
    assert found[0] > found[1] > found[2]


@pytest.mark.parametrize("kind", [models.SimulatedSurface, models.TwoFactorSurface])
def test_a_stored_surface_has_its_ratio(kind):
    """That of paths stored when 1.0 was the default too."""
    made = kind(ratio=1.0)
    (stored,) = draw(made).describe()["surfaces"].values()
    name = stored.pop("name")
    assert (name, stored["ratio"]) == (kind.__name__, 1.0)
    assert kind.from_dict(stored) == made


def test_two_factors_are_the_mean_of_what_is_expected_of_the_variance():
    """dv = 12 (m - v) dt, dm = 1.5 (theta - m) dt, in 20,000 steps over 60 days."""
    paths = draw(models.TwoFactorSurface(ratio=1.0, long_run=0.5))
    maker, surfaces = paths.makers[paths.names[0]], surfaces_of(paths, 1)
    v, m = maker.start
    steps, total, dt = 20_000, 0.0, 60.0 / 365.0 / 20_000
    for _ in range(steps):
        total += 0.5 * v
        v, m = v + 12.0 * (m - v) * dt, m + 1.5 * (0.25 - m) * dt
        total += 0.5 * v
    assert surfaces.atm("60d").iloc[0] == pytest.approx(math.sqrt(total / steps), rel=1e-5)
    short, long = surfaces.atm("1d"), surfaces.atm("365d")
    assert np.ptp(short) > 3.0 * np.ptp(long)


def test_an_option_at_the_volatility_of_its_paths_earns_nothing_before_the_spread():
    surface = models.SimulatedSurface(ratio=1.0, is_constant=True, volatility=0.8, shape=FLAT)
    paths = draw(surface, paths=20_000, seed=1)
    surfaces, last = surfaces_of(paths, 0), float(sample().close[-1])
    years = 20.0 / 365.0
    at_end = paths.closes()[:, 120]  # 20 days of 6 bars
    for kind, strike in (("put", 0.8 * last), ("call", 1.1 * last)):
        numbers = [np.array([each]) for each in (strike, last, years)]
        volatility = float(surfaces.evaluate(np.array([0]), *numbers)[1, 0])
        paid = bt.options.price(kind, last, strike, years, volatility)
        sign = 1.0 if kind == "call" else -1.0
        profit = np.maximum(sign * (at_end - strike), 0.0) - paid
        assert volatility == pytest.approx(0.8)
        assert abs(profit.mean()) < 2.0 * profit.std() / math.sqrt(len(profit))


@pytest.mark.parametrize(("policy", "terms"), [
    (HEDGE, {}),
    (LongVolatility(Constant(0.0), tenor=10.0, roll=3.0), {}),
    (Collar(Constant(1.0), tenor=10.0, roll=3.0), {}),
    (DeltaHedge(LongVolatility(Constant(0.0), tenor=10.0, roll=3.0)), {}),
], ids=["tail hedge", "long volatility", "collar", "delta hedge"])  # fmt: skip
def test_a_path_in_the_loop_is_a_run_on_markets_that_list_its_contracts(policy, terms):
    """The run chooses among the contracts that are listed; the loop among all of the grid."""
    paths = draw(models.TwoFactorSurface(ratio=1.2), horizon="14d")
    account = bt.Account(
        **{"capital": 1e5, "requirement": "deribit-standard", "band": 0.05} | terms
    )
    runner = make_runner(
        paths, policy, venue=make_venue(), account=account, compile=False, where="test"
    )
    lives = runner.run_plan(paths.plan(0, 2), 0, has_ratio=True)
    for i in range(2):
        result = runner.run_path(i)
        assert np.array_equal(result.bars["equity"].to_numpy()[-paths.n_bars :], lives.wealth[i])
        rolls = result.trades[result.trades["instrument"].astype(str).str.contains(":")]
        assert len(rolls) >= 2
        made = float(rolls["profit"].sum())
        assert lives.options[0, i] == pytest.approx(-made, abs=1e-6)
        assert lives.options[1, i] > 0.0


@pytest.mark.parametrize("settlement", ["cash", "coin"])
def test_a_written_path_that_lists_at_each_close_is_the_path_in_the_loop(settlement):
    """What the rule chooses of the grid is listed, so that the run has the same bits."""
    paths = draw(horizon="14d")
    venue = (
        make_venue()
        if settlement == "cash"
        else make_venue(contract=bt.Contract(kind="inverse", size=1.0))
    )
    given = {"venue": venue, "account": make_account(), "compile": False}
    markets = paths.with_options(
        1, deltas=(-0.1,), tenors=(14.0,), every="4h", settlement=settlement
    )
    expected = make_runner(paths, HEDGE, **given, where="test").run_path(1).bars["equity"]
    equity = bt.run(markets, HEDGE, **given).bars["equity"]
    assert 10 < len(markets.options) < paths.n_bars
    assert np.array_equal(equity[1:], expected[-paths.n_bars :])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:1 of 1 test spans")
def test_a_walk_takes_a_hedge_through_a_written_path():
    """The hedge that it chooses on 35 days is run on the 4 after them, with the same bits."""
    paths = draw(paths=1, horizon="40d")
    markets = paths.with_options(0, deltas=(-0.1,), tenors=(14.0,), every="5d")
    given = {"venue": make_venue(), "account": make_account(), "compile": False}
    walk = bt.walk_forward(
        markets, HEDGE, space={"budget": [0.01, 0.05]}, objective="cagr", constraints={},
        robust=False, train="35d", test="4d", **given,
    )  # fmt: skip
    (fold,) = walk.folds.to_dict("records")
    chosen = TailHedge(Constant(4.0), delta=-0.1, tenor=14.0, roll=7.0, budget=fold["budget"])
    alone = bt.run(markets, chosen, start=fold["test_start"], **given)
    assert walk.result.bars["equity"].to_numpy().tolist() == alone.bars["equity"].tolist()
    assert walk.result.rolls("leg").loc["total", "rolls"] >= 1


def test_accounts_are_compared_path_by_path_whatever_the_threads():
    paths = draw(horizon="10d", paths=4)
    given = {"venue": make_venue(), "account": make_account(), "method": "plain", "compile": False}
    hedged, again = (
        bt.liquidation_risk(paths, HEDGE, threads=threads, **given).outcomes for threads in (1, 2)
    )
    plain = bt.liquidation_risk(paths, Constant(4.0), **given).outcomes
    assert hedged.equals(again)
    assert (hedged["option_spread"] > 0.0).all()
    assert (plain["option_cost"] == 0.0).all()
    found = estimate_difference(hedged["wealth"], plain["wealth"], 0.95)
    assert found.low < found.value == (hedged["wealth"] - plain["wealth"]).mean() < found.high


@pytest.mark.filterwarnings("ignore:horizons")
def test_splitting_tries_no_shorter_horizon_where_a_longer_one_saw_no_liquidation(monkeypatch):
    """All rows say so: none of the plain paths, with the upper end of their interval."""
    searched = []
    monkeypatch.setattr(
        risk_rows, "split_paths", lambda runner, bars, *_: searched.append(bars) or []
    )
    found = bt.liquidation_risk(
        draw(paths=4, horizon="2d"), Constant(1.0), venue=make_venue(), account=make_account(),
        method="split", compile=False, horizons=["1d", "2d"],
    ).table  # fmt: skip
    assert searched == [12]
    assert (found["p_liquidation"] == 0.0).all()
    assert found["p_liquidation_high"].tolist() == [exact_interval(0, 4, 0.95)[1]] * 2


class EachClose(TailHedge):
    """The same rule, asked at each close."""

    only_rolls = False


@pytest.mark.filterwarnings("ignore:volatility is flat")
def test_a_rule_that_only_rolls_is_asked_only_where_a_roll_may_be_due():
    """Also where the account is liquidated in between, and its put is sold."""
    terms = {"delta": -0.3, "tenor": 5.0, "roll": 2.0, "budget": 0.05}
    strikes = [27_000.0, 28_000.0, 29_000.0, 30_000.0]
    options = bt.Option.grid(
        "BTC", strikes=strikes, start="2023-01-03", end="2023-02-01", kinds=["put"]
    )
    for leverage in (1.0, 30.0):
        runs = [
            bt.run(
                make_markets(bars=240, options=options),
                rule(Constant(leverage), **terms),
                venue=make_venue(),
                account=make_account(),
                compile=False,
            )
            for rule in (TailHedge, EachClose)
        ]
        first, second = (each.bars["equity"].to_numpy() for each in runs)
        assert np.array_equal(first, second)
        assert runs[0].events.equals(runs[1].events)


class TakeProfit(TailHedge):
    """A rule that also sells between rolls."""

    def orders(self, bar, account, chain):
        held = chain.held("tail")
        if held is not None and held.days < 4.0:
            return {"tail": (held.name, 0.0)}
        return super().orders(bar, account, chain)


class Telling(TakeProfit):
    """One that says when it gives orders."""

    only_rolls = True


def test_what_a_rule_says_of_its_rolls_does_not_hold_for_orders_of_a_subclass():
    assert orders_at_rolls(TailHedge(Constant(1.0)))
    assert orders_at_rolls(Telling(Constant(1.0)))
    assert orders_at_rolls(TailHedge(LongVolatility(Constant(1.0))))
    assert not orders_at_rolls(TakeProfit(Constant(1.0)))
    assert not orders_at_rolls(TailHedge(TakeProfit(Constant(1.0))))
    assert trades_nothing(EachClose(Constant(1.0), budget=0.0))
    assert not trades_nothing(Telling(Constant(1.0), budget=0.0))


def test_a_contract_beyond_the_last_expiry_of_the_grid_is_not_listed():
    paths = draw(horizon="2d", paths=1)
    path = paths.markets_of(paths.draw_plan(paths.plan(0)), 0, 0)
    lister = run_on(paths).loop.make_lister(path, 1)
    at = (len(lister.instants[1].time) - 1, "put", -0.1, 30.0)
    assert lister.list_nearest("", *at, roll=2000.0) == {}
    assert len(lister.list_nearest("", *at, roll=7.0)) == 1


class Never(bt.OptionRule):
    """A rule that chooses no contract."""

    def orders(self, bar, account, chain):
        return {}


def test_a_path_on_which_no_contract_is_chosen_is_run():
    paths = draw(horizon="2d", paths=1)
    runner = run_on(paths, Never(Constant(1.0)))
    lives = runner.run_plan(paths.plan(0), 0)
    own = runner.run_path(0).bars["equity"].to_numpy()
    assert np.array_equal(own[-paths.n_bars :], lives.wealth[0])


@pytest.mark.parametrize(("make", "said"), [
    (lambda: models.SimulatedSurface(half_life="5d"), "(?s)needs ratio: .*begin with ratio=1.1"),
    (lambda: models.TwoFactorSurface.from_dict({}), "needs ratio: implied over realized"),
    (lambda: models.SimulatedSurface(ratoi=1.1), "did you mean 'ratio'"),
    (lambda: models.SimulatedSurface(ratio=1.0, spread=0.0), "spread must be over 0"),
    (lambda: models.TwoFactorSurface(ratio=1.0, spread=-0.01), "choose a value that is over 0"),
    (
        lambda: models.TwoFactorSurface(ratio=1.0, reversion=1.0, slow_reversion=2.0),
        "must be faster",
    ),
    (
        lambda: models.SimulatedSurface(
            ratio=1.0, shape=SmileShape(b=1.5, rho=0.9, m=-4.0, sigma=1.0)
        ),
        "positive everywhere",
    ),
    (
        lambda: run_on(bt.simulate_paths(sample(), "gbm", horizon="1d")),
        "got none of 'SYNTHETIC-PERP'",
    ),
    (
        lambda: make_runner(
            bt.simulate_paths(
                bt.Markets({"A": sample(), "B": sample()}, currency="USD"),
                "gbm",
                surfaces={"A": models.SimulatedSurface(ratio=1.0)},
            ),
            {"A": Constant(1.0), "B": HEDGE},
            venue=dict.fromkeys("AB", make_venue()),
            account=make_account(),
            where="test",
        ),
        "got none of 'B'",
    ),
    (
        lambda: bt.liquidation_risk(
            draw(),
            HEDGE,
            venue=make_venue(option_costs=None),
            account=make_account(),
            method="plain",
            compile=False,
        ),
        r"where: Venue\.option_costs, SYNTHETIC-PERP",
    ),
    (lambda: bt.simulate_paths(make_markets(), "gbm"), "lists no options.*got 'PUT'"),
    (lambda: bt.simulate_paths(sample(), "gbm", surfaces=0.5), "must be a SimulatedSurface"),
    (
        lambda: bt.simulate_paths(
            sample(), "gbm", surfaces={"X": models.SimulatedSurface(ratio=1.0)}
        ),
        "a model for 'X', but the paths are of SYNTHETIC-PERP",
    ),
    (
        lambda: draw().with_settings(surfaces={"X": models.SimulatedSurface(ratio=1.0)}),
        "a model for 'X', but the paths are of SYNTHETIC-PERP",
    ),
    (lambda: draw().with_settings(surfaces={"SYNTHETIC-PERP": 1.1}), "got 1.1"),
    (
        lambda: bt.simulate_paths(
            bt.Markets({"A": sample(), "B": sample()}, currency="USD"),
            "gbm",
            surfaces=dict.fromkeys("AB", models.SimulatedSurface(ratio=1.0)),
        ),
        "on one instrument, got surfaces of A, B",
    ),
    (
        lambda: bt.simulate_paths(sample(), "gbm", horizon="1d").with_options(0),
        "needs? a model of their volatility",
    ),
])  # fmt: skip
def test_what_cannot_be_priced_is_refused(make, said):
    with pytest.raises(bt.BacktestError, match=said):
        make()
