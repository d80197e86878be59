"""Cascades: their books, hand-computed and closed forms, and their results."""

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.crowd.rounds import ImpactCurve, check_books, open_books
from backtest.venue.requirement import read_rules
from tests.crowd.crowds import (
    bracket_venue,
    longs_failing_at,
    make_cascade,
    plain_venue,
    random_crowd,
    uniform_ladder,
)
from tests.kit import call, check_refused

N = 20_000
FALL = 0.2
SHOCK = 0.01
DENSITY = N * 100.0 / FALL  # notional at the price before the shock, per unit of fall


def free_fall(reproduction: float) -> bt.Linear:
    return bt.Linear(reproduction / DENSITY)


@pytest.mark.parametrize("reproduction", [0.0, 0.3, 0.7, 0.9])
def test_the_fall_with_linear_impact_is_the_shock_over_one_less_reproduction(reproduction):
    # x + R fall = fall, so fall = x / (1 - R): 0.01 / 0.1 = 0.1 with R = 0.9
    hit = bt.cascade(
        uniform_ladder(N, FALL), plain_venue(), shock=-SHOCK, impact=free_fall(reproduction),
        volume=1.0,
    )  # fmt: skip
    step = FALL / N
    assert 1.0 - hit.final_price / 100.0 == pytest.approx(
        SHOCK / (1.0 - reproduction), abs=step / (1.0 - reproduction)
    )
    assert hit.multiplier == pytest.approx(1.0 / (1.0 - reproduction), rel=2e-2)
    assert hit.reproduction == pytest.approx(reproduction, abs=2e-3)


@pytest.mark.parametrize(("reproduction", "runs_away"), [(0.94, False), (1.001, True)])
def test_it_runs_away_from_a_reproduction_number_of_one(reproduction, runs_away):
    # under 1 the fall is 0.01 / 0.06 = 0.167 < 0.2; from 1 on every rung is reached
    hit = bt.cascade(
        uniform_ladder(N, FALL), plain_venue(), shock=-SHOCK, impact=free_fall(reproduction),
        volume=1.0,
    )  # fmt: skip
    assert (hit.liquidated == N) is runs_away


@pytest.mark.parametrize("coefficient", [0.02, 0.2])
def test_the_fall_with_square_root_impact_is_the_root_of_its_quadratic(coefficient):
    # fall = x + k sqrt(r fall), r in daily volumes per unit of fall
    volume = 50.0 * DENSITY
    hit = bt.cascade(
        uniform_ladder(N, FALL), plain_venue(), shock=-SHOCK, volume=volume,
        impact=bt.SquareRoot(coefficient),
    )  # fmt: skip
    r = DENSITY / volume
    root = (coefficient * math.sqrt(r) + math.sqrt(coefficient**2 * r + 4.0 * SHOCK)) / 2.0
    assert 1.0 - hit.final_price / 100.0 == pytest.approx(root**2, abs=2.0 * FALL / N)


def test_a_rise_squeezes_shorts_as_a_fall_does_longs():
    prices = 100.0 * (1.0 + FALL * (np.arange(N) + 0.5) / N)
    frame = pd.DataFrame(
        {"side": "short", "quantity": 1.0, "entry": 100.0, "collateral": 1.01 * prices - 100.0}
    )
    crowd = bt.Crowd.from_positions(frame, price=100.0)
    hit = bt.cascade(crowd, plain_venue(), shock=SHOCK, impact=free_fall(0.5), volume=1.0)
    assert hit.final_price / 100.0 - 1.0 == pytest.approx(2.0 * SHOCK, abs=2.0 * FALL / N)
    assert hit.rounds["short"].sum() > 0.0
    assert hit.rounds["long"].sum() == 0.0


def test_rungs_sell_at_their_own_price_less_half_their_impact():
    # Two longs fail at 99 and 98. Each sale of 1 contract (notional 100) makes a fall of 0.2 %, so
    # 0.2 in price. The first sells from 99 to 98.8, at 98.9; the second from 98 to 97.8, at 97.9.
    hit = bt.cascade(
        longs_failing_at(np.array([99.0, 98.0])), plain_venue(), shock=-0.02,
        impact=bt.Linear(0.002 / 100.0), volume=1.0, insurance=math.inf,
    )  # fmt: skip
    assert hit.accounts["close_price"].tolist() == pytest.approx([98.9, 97.9])
    assert hit.final_price == pytest.approx(100.0 - 2.0 - 0.4)


def test_a_rung_that_is_passed_sells_where_the_one_before_it_left_the_price():
    # The first sale takes the price from 99 to 97 (2 %), past the second rung at 98, which sells
    # from 97 to 95, at 96.
    hit = bt.cascade(
        longs_failing_at(np.array([99.0, 98.0])), plain_venue(), shock=-0.011,
        impact=bt.Linear(0.02 / 100.0), volume=1.0, insurance=math.inf,
    )  # fmt: skip
    assert hit.accounts["close_price"].tolist() == pytest.approx([98.0, 96.0])


def test_of_several_clearing_prices_the_nearest_is_taken():
    # shock 1 % fails nobody (first rung at 98); if both rungs were sold, a fall of 2 x 2 % holds
    crowd = longs_failing_at(np.array([98.0, 97.0]))
    impact = bt.Linear(0.02 / 100.0)
    hit = bt.cascade(crowd, plain_venue(), shock=-0.01, impact=impact, volume=1.0)
    assert hit.final_price == pytest.approx(99.0)


def find_clearing_move(distance, notional, shock, curve) -> float:
    """Return the nearest adverse move at which a one-sided ladder clears.

    With k of the accounts liquidated the move is ``shock + fall(Q_k)``; the next lies farther.
    """
    is_known = (notional > 0.0) & ~np.isnan(distance)
    order = np.argsort(distance[is_known], kind="stable")
    move = shock + curve.fall(np.append(0.0, np.cumsum(notional[is_known][order])))
    holds = distance[is_known][order] > move[:-1] * (1.0 + 1e-12)
    return float(move[np.append(holds, True).argmax()])


def test_rounds_end_where_the_sweep_of_the_ladder_does():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        crowd = random_crowd(rng, 300)
        shock = rng.uniform(0.005, 0.1)
        curve = ImpactCurve(rng.uniform(0.01, 0.3), rng.choice([0.5, 1.0]), 1e5)
        law = bt.SquareRoot if curve.exponent == 0.5 else bt.Linear
        venue = plain_venue(slippage=0.003)
        hit = bt.cascade(
            crowd, venue, shock=-shock, impact=law(curve.factor), volume=1e5, insurance=math.inf
        )
        if (crowd.liquidation_prices(venue)[crowd.quantity < 0.0] <= 100.0).any():
            continue  # shorts that fail at once buy, which a one-sided ladder does not know
        distance = 1.0 - crowd.liquidation_prices(venue) / 100.0
        move = find_clearing_move(distance, crowd.notional(), shock, curve)
        assert hit.final_price == pytest.approx(100.0 * max(1.0 - move, 1e-6), rel=1e-12)
        reached = (crowd.notional() > 0.0) & (distance <= move * (1.0 + 1e-12))
        assert hit.liquidated == reached.sum()


def test_an_empty_crowd_changes_nothing():
    frame = pd.DataFrame({"side": [], "quantity": [], "entry": [], "collateral": []})
    crowd = bt.Crowd.from_positions(frame, price=100.0)
    hit = bt.cascade(crowd, plain_venue(), shock=-0.03, impact=bt.SquareRoot(1.0), volume=1.0)
    assert (hit.final_price, hit.multiplier, len(hit.rounds)) == (97.0, pytest.approx(1.0), 1)
    assert (hit.reproduction, hit.deficit, len(hit.haircuts)) == (0.0, 0.0, 0)


def bars_of(prices: list[float]) -> bt.Market:
    """Return a market of closes, each bar opening at the close before."""
    opens = [prices[0], *prices[:-1]]
    bars = pd.DataFrame(
        {
            "open": opens,
            "high": np.maximum(opens, prices),
            "low": np.minimum(opens, prices),
            "close": prices,
        },
        index=pd.date_range("2024-01-01", periods=len(prices), freq="1h", tz="UTC"),
    )
    return bt.Market.from_frames(bars)


class OpenOnce(bt.Policy):
    """Open a position of 6 times equity, and hold it."""

    def leverage(self, bar, account):
        return 6.0 if account.position == 0.0 else math.nan


@pytest.mark.parametrize("mode", ["close", "takeover", "partial"])
@pytest.mark.parametrize("margin", ["cross", "isolated"])
@pytest.mark.parametrize("shock", [-0.03, -0.12, -0.2, 0.1])
def test_own_account_without_impact_is_a_run_on_the_same_bars(mode, margin, shock):
    venue = plain_venue(mode, fee=0.004, slippage=0.003)
    account = bt.Account(capital=1_000.0, margin=margin, venue_leverage=8.0)
    terms: dict = {"venue": venue, "account": account, "compile": False}
    held = bt.run(bars_of([100.0, 100.0]), OpenOnce(), **terms)
    after = bt.run(bars_of([100.0, 100.0, 100.0 * (1.0 + shock)]), OpenOnce(), **terms)
    empty = pd.DataFrame({"side": [], "quantity": [], "entry": [], "collateral": []})
    crowd = bt.Crowd.from_positions(empty, price=100.0)
    hit = bt.cascade(crowd, venue, shock=shock, impact=bt.Linear(0.0), me=held, insurance=math.inf)
    assert hit.me is not None
    assert hit.me["liquidated"] is (after.metrics["liquidations"] > 0)
    assert hit.me["equity"] == pytest.approx(after.metrics["final_equity"], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("mode", ["close", "takeover", "partial"])
@pytest.mark.parametrize("shock", [-0.12, -0.16, 0.1])
def test_own_account_in_a_jump_is_a_run_on_bars_with_that_gap(mode, shock):
    venue = plain_venue(mode, fee=0.004, slippage=0.003)
    terms: dict = {"venue": venue, "account": bt.Account(capital=1_000.0), "compile": False}
    held = bt.run(bars_of([100.0, 100.0]), OpenOnce(), **terms)
    flat = {
        name: [100.0, 100.0, 100.0 * (1.0 + shock)] for name in ("open", "high", "low", "close")
    }
    index = pd.date_range("2024-01-01", periods=3, freq="1h", tz="UTC")
    gapped = bt.Market.from_frames(pd.DataFrame(flat, index=index))
    after = bt.run(gapped, OpenOnce(), **terms)
    empty = pd.DataFrame({"side": [], "quantity": [], "entry": [], "collateral": []})
    hit = bt.cascade(
        bt.Crowd.from_positions(empty, price=100.0), venue, shock=shock, jump=True, adl=None,
        impact=bt.Linear(0.0), me=held, insurance=math.inf,
    )  # fmt: skip
    assert hit.me is not None
    bad_debt = after.metrics["bad_debt"]
    assert hit.deficit == pytest.approx(bad_debt, rel=1e-9, abs=1e-9)
    assert hit.me["equity"] == pytest.approx(after.metrics["final_equity"], rel=1e-9, abs=1e-9)


def test_own_account_may_be_a_position():
    crowd = longs_failing_at(np.array([99.0]))
    position = {"side": "long", "quantity": 1.0, "entry": 100.0, "collateral": 50.0}
    by_position = bt.cascade(
        crowd, plain_venue(), me=position, shock=-0.3, impact=bt.Linear(0.0)
    ).me
    assert by_position is not None
    assert by_position["equity"] == pytest.approx(20.0)  # 50 - 30
    assert not by_position["liquidated"]


def random_arguments(rng: np.random.Generator) -> dict[str, Any]:
    law = (
        bt.SquareRoot(rng.uniform(0.0, 0.5)) if rng.random() < 0.5 else bt.Linear(rng.uniform(0, 1))
    )
    return {
        "shock": float(rng.choice([-1.0, 1.0]) * rng.uniform(0.0, 0.2)),
        "impact": law,
        "volume": 10.0 ** rng.uniform(4.0, 7.0),
        "insurance": float(rng.choice([0.0, 1e3, 1e5, math.inf])),
        "adl": [None, "queue", "pro-rata"][rng.integers(3)],
        "recovery": [None, "3m"][rng.integers(2)],
        "jump": bool(rng.integers(2)),
    }


@pytest.mark.parametrize("crowds", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_the_books_balance_in_every_round_of_random_crowds(crowds):
    bankrupt, deleveraged, cut, owed = 0, 0, 0, 0
    for seed in range(crowds):
        rng = np.random.default_rng(seed)
        venue = bracket_venue(["close", "takeover", "partial"][seed % 3], rng)
        hit = bt.cascade(
            random_crowd(rng, int(rng.integers(1, 120))), venue, **random_arguments(rng)
        )
        rounds = hit.rounds
        assert rounds["off"].max() <= 1e-9, seed
        paid = rounds[["fund_paid", "adl_paid", "haircuts", "unpaid"]].sum(axis=1)
        assert paid.to_numpy() == pytest.approx(rounds["deficit"].to_numpy(), abs=1e-6), seed
        assert (rounds["insurance"] >= -1e-6).all()
        parts = rounds[["deficit", "fund_paid", "adl_paid", "haircuts", "unpaid"]]
        assert (parts >= -1e-6).all(axis=None), seed
        assert hit.haircuts.sum() == pytest.approx(rounds["haircuts"].sum(), abs=1e-6)
        bankrupt += rounds["deficit"].sum() > 0.0
        deleveraged += rounds["adl"].sum() > 0.0
        cut += rounds["haircuts"].sum() > 0.0
        owed += rounds["unpaid"].sum() > 0.0
    assert min(bankrupt, deleveraged, cut, owed) > crowds / 25  # each way of paying was met


def test_books_that_do_not_balance_are_an_error():
    rules = read_rules(plain_venue())
    books = open_books(longs_failing_at(np.array([99.0])), rules, 0.0, 100.0)
    before = books.sum_money(100.0)
    books.base[0] += 1.0
    check_refused(lambda: check_books(books, 100.0, before, 1), "must balance", bt.AccountingError)


def two_sides(short_collateral: tuple[float, float] = (50.0, 10.0)) -> bt.Crowd:
    """Return a long that is bankrupt under 90, and two shorts of 1 contract from 100."""
    frame = pd.DataFrame(
        {
            "side": ["long", "short", "short"],
            "quantity": [1.0, 1.0, 1.0],
            "entry": 100.0,
            "collateral": [10.0, *short_collateral],
        }
    )
    return bt.Crowd.from_positions(frame, price=100.0)


def test_deleveraging_takes_the_highest_return_times_leverage_first():
    # A jump to 80: the long has 10 - 20 = -10. Both shorts gained 20 %; their leverage is 80 / 70
    # and 80 / 30. So the second closes at 90, where the long has nothing left, and gets 10 + 10.
    hit = bt.cascade(two_sides(), plain_venue(), shock=-0.2, jump=True, impact=bt.Linear(0.0))
    assert hit.accounts["deleveraged"].tolist() == [0.0, 0.0, 1.0]
    assert hit.accounts["close_price"].tolist()[::2] == pytest.approx([90.0, 90.0])
    assert hit.payers() == pytest.approx(
        {"fund_paid": 0.0, "adl_paid": 10.0, "haircuts": 0.0, "unpaid": 0.0}
    )
    assert hit.rounds["long"].sum() == 0.0  # nothing was sold in the market


def test_pro_rata_deleveraging_takes_the_same_share_of_all():
    # 1 contract of 2, the liquidity account is long 1 and does not share
    hit = bt.cascade(
        two_sides(), plain_venue(), shock=-0.2, jump=True, impact=bt.Linear(0.0), adl="pro-rata"
    )
    assert hit.accounts["deleveraged"].tolist() == pytest.approx([0.0, 0.5, 0.5])


def test_the_fund_pays_first_and_profits_pay_what_it_lacks():
    # Without deleveraging the long is sold at 80 and lacks 10. The fund has 4. The shorts gained 20
    # each, so each gives 3.
    hit = bt.cascade(
        two_sides(), plain_venue(), shock=-0.2, jump=True, impact=bt.Linear(0.0), adl=None,
        insurance=4.0,
    )  # fmt: skip
    assert hit.payers() == pytest.approx(
        {"fund_paid": 4.0, "adl_paid": 0.0, "haircuts": 6.0, "unpaid": 0.0}
    )
    assert hit.haircuts.tolist() == pytest.approx([0.0, 3.0, 3.0])
    assert hit.rounds["insurance"].tolist() == pytest.approx([4.0, 0.0])


def test_without_profits_the_venue_owes_the_rest():
    frame = pd.DataFrame({"side": ["long"], "quantity": 1.0, "entry": 100.0, "collateral": 10.0})
    crowd = bt.Crowd.from_positions(frame, price=100.0)
    hit = bt.cascade(crowd, plain_venue(), shock=-0.2, jump=True, impact=bt.Linear(0.0), adl=None)
    assert hit.payers()["unpaid"] == pytest.approx(10.0)


def test_a_takeover_leaves_what_is_left_to_the_fund():
    # The long fails at 90 / 0.99 = 90.909 with 0.909 left, which the fund keeps.
    hit = bt.cascade(
        two_sides(), plain_venue("takeover"), shock=-0.2, impact=bt.Linear(0.0), insurance=5.0
    )
    assert hit.rounds["insurance"].iloc[-1] == pytest.approx(5.0 + 90.0 / 0.99 - 90.0)


def test_impact_that_recovers_between_rounds_liquidates_less():
    crowd = longs_failing_at(np.linspace(99.5, 85.0, 200))
    terms: dict[str, Any] = {"shock": -0.02, "impact": bt.Linear(0.06), "volume": 1e4,
                             "insurance": math.inf}  # fmt: skip
    stays = bt.cascade(crowd, plain_venue(), **terms)
    recovers = bt.cascade(crowd, plain_venue(), recovery="1m", **terms)
    assert recovers.liquidated < stays.liquidated
    # what the last round leaves is half of the impact
    falls = 98.0 - np.array([recovers.rounds["price"].iloc[-1], recovers.final_price])
    assert falls[1] == pytest.approx(falls[0] / 2.0)


BAD: tuple[dict[str, Any], ...] = (
    {"crowd": None}, {"venue": "binance"}, {"shock": math.nan}, {"shock": -1.0}, {"impact": 0.1},
    {"volume": math.nan}, {"volume": None}, {"insurance": -1.0}, {"adl": "que"},
    {"recovery": "soon"}, {"price": -1.0}, {"me": 3},
    {"me": bt.Account()},
)  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_bad_arguments_are_refused(bad):
    terms: dict[str, Any] = {
        "crowd": longs_failing_at(np.array([99.0])), "venue": plain_venue(), "shock": -0.1,
        "impact": bt.SquareRoot(1.0), "volume": 1.0, **bad,
    }  # fmt: skip
    check_refused(lambda: bt.cascade(**terms), next(iter(bad)), bt.ParameterError)


def test_a_loaded_cascade_has_all_but_its_crowd(tmp_path):
    made = make_cascade()
    loaded = bt.Cascade.load(made.save(tmp_path))
    assert loaded.me == pytest.approx(made.me, nan_ok=True)
    assert loaded.payers() == made.payers()
    assert (loaded.haircuts == made.haircuts).all()
    pd.testing.assert_frame_equal(loaded.ladder, made.ladder)
    assert loaded.crowd is None


def test_a_cascade_of_given_positions_has_a_report(tmp_path):
    """Without a market the page has no time, and an infinite fund is no number."""
    hit = bt.cascade(
        longs_failing_at([99.0, 98.0]), plain_venue(), shock=-0.05, impact=bt.Linear(0.0),
        insurance=float("inf"),
    )  # fmt: skip
    text = hit.report(tmp_path / "page.md").read_text(encoding="utf-8")
    assert "Positions given" in text
    assert "unlimited" in text


CASCADE = ("cascade", "--shock", "-0.1", "--open-interest", "3e9",
           "--set", "cascade.accounts=2000", "--from", "2023-11-01")  # fmt: skip


@pytest.fixture
def _plainly(monkeypatch):
    monkeypatch.setenv("BACKTEST_COMPILE", "no")


@pytest.mark.usefixtures("_plainly")
def test_cascade_prints_saves_and_reports(capsys, tmp_path):
    code, out, err = call(capsys, *CASCADE, "--results", tmp_path, "--policy", "constant")
    assert code == 0, err
    assert "multiplier" in out
    assert "own account" in out
    (folder,) = tmp_path.iterdir()
    code, _, err = call(
        capsys, "report", folder.name, "--results", tmp_path, "--out", tmp_path / "page.html"
    )
    assert code == 0, err


@pytest.mark.usefixtures("_plainly")
def test_cascade_gives_json_and_changes_with_its_options(capsys):
    def run(*more: str) -> dict[str, Any]:
        code, out, err = call(capsys, *CASCADE, "--no-save", "--json", *more)
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    plain = run()
    assert plain["shock"] == -0.1
    assert plain == run()
    for more in (("--insurance", "1e9"), ("--impact", "linear:0.5"), ("--leverage", "constant:20"),
                 ("--set", "cascade.seed=1"), ("--recovery", "1m")):  # fmt: skip
        assert run(*more)["rounds"] != plain["rounds"], more
    bare = ("--insurance", "0", "--jump")  # nobody trades on the way: accounts go bankrupt
    assert run(*bare, "--adl", "none")["rounds"] != run(*bare)["rounds"]


@pytest.mark.usefixtures("_plainly")
@pytest.mark.parametrize("words", [
    ("cascade", "--open-interest", "1e9"),
    (*CASCADE, "--impact", "cubic:1"),
    (*CASCADE, "--leverage", "much"),
])  # fmt: skip
def test_bad_flags_exit_with_2_and_save_nothing(capsys, tmp_path, words):
    code, out, err = call(capsys, *words, "--results", tmp_path)
    assert code == 2
    assert err.startswith("error: ")
    assert out == ""
    assert not list(tmp_path.iterdir())
