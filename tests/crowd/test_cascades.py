"""Crowds and cascades: their books, hand-computed and closed forms, and their results."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.risk.crowd import find_failing_moves
from backtest.risk.crowd_books import Books, read_terms
from backtest.risk.impact_laws import ImpactCurve
from tests.kit import ask, bars_market, call, check_refused, free_venue, market_of

RATE = 0.01
"""The maintenance rate of :func:`plain_venue`."""
N = 20_000
FALL = 0.2
SHOCK = 0.01
DENSITY = N * 100.0 / FALL  # notional at the price before the shock, per unit of fall
STILL = market_of(np.full(2, 100.0))
CASCADE = ("cascade", "--shock", "-0.1", "--open-interest", "3e9",
           "--set", "cascade.accounts=2000", "--from", "2023-11-01")  # fmt: skip


def plain_venue(mode: str = "close", **costs: float) -> bt.Venue:
    """Return a venue with one bracket, a maintenance rate of 1 %, and no costs unless given."""
    terms = {"mode": mode, **costs}
    rows = [bt.Bracket(0.0, np.inf, 100.0, RATE)]
    return free_venue().override(brackets=rows, liquidation=terms)


def bracket_venue(mode: str, rng: np.random.Generator) -> bt.Venue:
    """Return a venue with three brackets and random costs."""
    step: Any = "bracket" if rng.random() < 0.3 else float(rng.uniform(0.1, 0.6))
    terms = {"step": step, "full_below": 50.0} if mode == "partial" else {}
    fee, slippage = rng.uniform(0.0, 0.02, 2)

    brackets = [
        bt.Bracket(0.0, 5_000.0, 100.0, 0.005),
        bt.Bracket(5_000.0, 50_000.0, 50.0, 0.01),
        bt.Bracket(50_000.0, np.inf, 20.0, 0.025),
    ]
    venue = plain_venue(mode, fee=float(fee), slippage=float(slippage), **terms)
    return venue.override({"fees.taker": 5e-4, "slippage.rate": 1e-4}, brackets=brackets)


def crowd_of(side: Any, quantity: Any, entry: Any, collateral: Any, **more: Any) -> bt.Crowd:
    """Return positions at a price of 100."""
    frame = {"side": side, "quantity": quantity, "entry": entry, "collateral": collateral, **more}
    return bt.Crowd.from_positions(pd.DataFrame(frame), price=100.0)


def longs_failing_at(prices: Any, quantity: float = 1.0) -> bt.Crowd:
    """Return longs, entered at 100, that :func:`plain_venue` liquidates at these prices. c + q (L -
    100) = RATE q L, so c = q (100 - (1 - RATE) L)."""
    collateral = quantity * (100.0 - (1.0 - RATE) * np.asarray(prices))
    return crowd_of("long", quantity, 100.0, collateral)


def random_crowd(rng: np.random.Generator, n: int) -> bt.Crowd:
    entry = 100.0 * np.exp(0.1 * rng.standard_normal(n))
    quantity = 10.0 ** rng.uniform(-2.0, 3.0, n)
    collateral = quantity * entry / np.exp(rng.uniform(0.0, np.log(80.0), n))
    side = np.where(rng.random(n) < rng.uniform(0.1, 0.9), "long", "short")
    equity = collateral * (1.0 + (rng.random(n) < 0.3) * rng.random(n))
    return crowd_of(side, quantity, entry, collateral, equity=equity)


def two_sides() -> bt.Crowd:
    """Return a long that is bankrupt under 90, and two shorts of 1 contract from 100."""
    return crowd_of(["long", "short", "short"], 1.0, 100.0, [10.0, 50.0, 10.0])


def jump(crowd: bt.Crowd, mode: str = "close", **terms: Any) -> bt.Cascade:
    """Let the price fall from 100 to 80 at once, without impact."""
    given = {"shock": -0.2, "jump": True, "impact": bt.Linear(0.0), **terms}
    return bt.cascade(crowd, plain_venue(mode), **given)


def uniform_ladder(n: int, fall: float) -> bt.Crowd:
    return longs_failing_at(100.0 * (1.0 - fall * (np.arange(n) + 0.5) / n))


def make_cascade() -> bt.Cascade:
    me = {"side": "long", "quantity": 1.0, "entry": 100.0, "collateral": 20.0}
    terms = {"shock": -0.03, "insurance": 20.0, "impact": bt.Linear(5e-5), "volume": 1.0, "me": me}
    return bt.cascade(uniform_ladder(200, 0.2), plain_venue(slippage=0.02), **terms)


def fall(reproduction: float, crowd: bt.Crowd | None = None, shock: float = -SHOCK) -> bt.Cascade:
    impact = bt.Linear(reproduction / DENSITY)
    crowd = crowd or uniform_ladder(N, FALL)
    return bt.cascade(crowd, plain_venue(), shock=shock, impact=impact, volume=1.0)


def test_a_crowd_takes_the_open_interest_of_its_market():
    """A venue counts a contract once: 3,000,000 have a long and a short each."""
    market = bt.Market.sample(bars=60)
    value = np.full(60, 2e6)
    value[57] = 3e6
    value[58:] = np.nan
    crowd = bt.Crowd.from_leverage(
        entries=market.with_columns(open_interest_value=value), leverage=3.0, accounts=100
    )

    assert np.abs(crowd.notional()).sum() == pytest.approx(6e6)
    assert crowd.notional().sum() == pytest.approx(0.0, abs=1.0)

    for entries in (market, 100.0, market.with_columns(open_interest_value=np.full(60, np.nan))):
        check_refused(
            lambda entries=entries: bt.Crowd.from_leverage(entries=entries, leverage=3.0),
            "open_interest must be given where entries are no market with the column",
            bt.ParameterError,
        )


@pytest.mark.parametrize("reproduction", [0.0, 0.3, 0.7, 0.9])
def test_the_fall_with_linear_impact_is_the_shock_over_one_less_reproduction(reproduction):
    # x + R fall = fall, so fall = x / (1 - R): 0.01 / 0.1 = 0.1 with R = 0.9
    hit = fall(reproduction)

    wanted = SHOCK / (1.0 - reproduction)
    near = FALL / N / (1.0 - reproduction)
    assert 1.0 - hit.final_price / 100.0 == pytest.approx(wanted, abs=near)
    assert hit.multiplier == pytest.approx(1.0 / (1.0 - reproduction), rel=2e-2)
    assert hit.reproduction == pytest.approx(reproduction, abs=2e-3)


@pytest.mark.parametrize(("reproduction", "runs_away"), [(0.94, False), (1.001, True)])
def test_it_runs_away_from_a_reproduction_number_of_one(reproduction, runs_away):
    # under 1 the fall is 0.01 / 0.06 = 0.167 < 0.2; from 1 on every rung is reached
    assert (fall(reproduction).liquidated == N) is runs_away


@pytest.mark.parametrize("coefficient", [0.02, 0.2])
def test_the_fall_with_square_root_impact_is_the_root_of_its_quadratic(coefficient):
    # fall = x + k sqrt(r fall), r in daily volumes per unit of fall
    volume = 50.0 * DENSITY
    law = bt.SquareRoot(coefficient)
    crowd = uniform_ladder(N, FALL)
    hit = bt.cascade(crowd, plain_venue(), shock=-SHOCK, volume=volume, impact=law)

    r = DENSITY / volume
    root = (coefficient * math.sqrt(r) + math.sqrt(coefficient**2 * r + 4.0 * SHOCK)) / 2.0
    assert 1.0 - hit.final_price / 100.0 == pytest.approx(root**2, abs=2.0 * FALL / N)


def test_a_rise_squeezes_shorts_as_a_fall_does_longs():
    prices = 100.0 * (1.0 + FALL * (np.arange(N) + 0.5) / N)
    hit = fall(0.5, crowd_of("short", 1.0, 100.0, 1.01 * prices - 100.0), SHOCK)
    assert hit.final_price / 100.0 - 1.0 == pytest.approx(2.0 * SHOCK, abs=2.0 * FALL / N)
    assert hit.rounds["short"].sum() > 0.0
    assert hit.rounds["long"].sum() == 0.0


@pytest.mark.parametrize(("shock", "impact", "closes", "final"), [
    # Each sale of 1 contract (notional 100) makes a fall of 0.2 %, so 0.2 in price. The first sells
    # from 99 to 98.8, at 98.9; the second from 98 to 97.8, at 97.9.
    (-0.02, 0.002, [98.9, 97.9], 100.0 - 2.0 - 0.4),
    # The first takes the price from 99 to 97 (2 %), past the second rung at 98, which sells from 97
    # to 95, at 96.
    (-0.011, 0.02, [98.0, 96.0], 100.0 - 1.1 - 4.0),
])  # fmt: skip
def test_rungs_sell_from_their_own_price_or_from_that_of_the_last(shock, impact, closes, final):
    terms = {"impact": bt.Linear(impact / 100.0), "volume": 1.0, "insurance": math.inf}
    hit = bt.cascade(longs_failing_at([99.0, 98.0]), plain_venue(), shock=shock, **terms)

    assert hit.accounts["close_price"].tolist() == pytest.approx(closes)
    assert hit.final_price == pytest.approx(final)


def test_of_several_clearing_prices_the_nearest_is_taken():
    # shock 1 % fails nobody (first rung at 98); if both rungs were sold, a fall of 2 x 2 % holds
    crowd = longs_failing_at([98.0, 97.0])
    hit = bt.cascade(crowd, plain_venue(), shock=-0.01, impact=bt.Linear(0.02 / 100.0), volume=1.0)
    assert hit.final_price == pytest.approx(99.0)


def find_clearing_move(distance, notional, shock, curve) -> float:
    """Return the nearest adverse move at which a one-sided ladder clears. With k of the accounts
    liquidated the move is ``shock + fall(Q_k)``; the next lies farther."""
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
        terms = {"volume": 1e5, "insurance": math.inf}
        hit = bt.cascade(crowd, venue, shock=-shock, impact=law(curve.factor), **terms)
        if (crowd.liquidation_prices(venue)[crowd.quantity < 0.0] <= 100.0).any():
            continue  # shorts that fail at once buy, which a one-sided ladder does not know

        distance = 1.0 - crowd.liquidation_prices(venue) / 100.0
        move = find_clearing_move(distance, crowd.notional(), shock, curve)
        assert hit.final_price == pytest.approx(100.0 * max(1.0 - move, 1e-6), rel=1e-12)

        reached = (crowd.notional() > 0.0) & (distance <= move * (1.0 + 1e-12))
        assert hit.liquidated == reached.sum()


def test_an_empty_crowd_changes_nothing():
    hit = bt.cascade(NOBODY, plain_venue(), shock=-0.03, impact=bt.SquareRoot(1.0), volume=1.0)
    assert hit.final_price == 97.0
    assert hit.multiplier == pytest.approx(1.0)
    assert len(hit.rounds) == 1
    assert hit.reproduction == 0.0
    assert hit.deficit == 0.0
    assert len(hit.haircuts) == 0


class OpenOnce(bt.Policy):
    """Open a position of 6 times equity, and hold it."""

    def leverage(self, bar, account):
        return 6.0 if account.position == 0.0 else math.nan


@pytest.mark.parametrize("mode", ["close", "takeover", "partial"])
@pytest.mark.parametrize(("margin", "shock", "is_jump"), [
    *((margin, shock, False) for margin in ("cross", "isolated")
      for shock in (-0.03, -0.12, -0.2, 0.1)),
    *(("cross", shock, True) for shock in (-0.12, -0.16, 0.1)),
])  # fmt: skip
def test_own_account_without_impact_is_a_run_on_the_same_bars(mode, margin, shock, is_jump):
    """A jump is a gap before the bar."""
    venue = plain_venue(mode, fee=0.004, slippage=0.003)
    account = bt.Account(capital=1_000.0, margin=margin, venue_leverage=8.0)
    terms: dict = {"venue": venue, "account": account}
    held = bt.run(STILL, OpenOnce(), **terms)

    closes = np.array([100.0, 100.0, 100.0 * (1.0 + shock)])
    bars = bars_market(closes, closes) if is_jump else market_of(closes)
    after = bt.run(bars, OpenOnce(), **terms)

    more: dict = {"jump": True, "adl": None} if is_jump else {}
    more |= {"shock": shock, "impact": bt.Linear(0.0), "me": held, "insurance": math.inf}
    hit = bt.cascade(NOBODY, venue, **more)

    assert hit.me is not None
    assert hit.me["liquidated"] is (after.metrics["liquidations"] > 0)
    assert hit.deficit == pytest.approx(after.metrics["bad_debt"], rel=1e-9, abs=1e-9)
    assert hit.me["equity"] == pytest.approx(after.metrics["final_equity"], rel=1e-9, abs=1e-9)


def test_own_account_may_be_a_position():
    position = {"side": "long", "quantity": 1.0, "entry": 100.0, "collateral": 50.0}
    me = jump(NOBODY, me=position, shock=-0.3, jump=False).me
    assert me is not None
    assert me["equity"] == pytest.approx(20.0)  # 50 - 30
    assert not me["liquidated"]


def random_arguments(rng: np.random.Generator) -> dict[str, Any]:
    is_root = rng.random() < 0.5
    size = rng.uniform(0.0, 1.0)
    law = bt.SquareRoot(0.5 * size) if is_root else bt.Linear(size)
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
    met = 0
    for seed in range(crowds):
        rng = np.random.default_rng(seed)
        venue = bracket_venue(["close", "takeover", "partial"][seed % 3], rng)
        crowd = random_crowd(rng, int(rng.integers(1, 120)))
        hit = bt.cascade(crowd, venue, **random_arguments(rng))

        rounds = hit.rounds
        assert rounds["off"].max() <= 1e-9, seed
        paid = rounds[["fund_paid", "adl_paid", "haircuts", "unpaid"]].sum(axis=1)
        assert paid.to_numpy() == pytest.approx(rounds["deficit"].to_numpy(), abs=1e-6), seed
        assert (rounds["insurance"] >= -1e-6).all()
        parts = rounds[["deficit", "fund_paid", "adl_paid", "haircuts", "unpaid"]]
        assert (parts >= -1e-6).all(axis=None), seed
        assert hit.haircuts.sum() == pytest.approx(rounds["haircuts"].sum(), abs=1e-6)

        met += rounds[["deficit", "adl", "haircuts", "unpaid"]].sum().to_numpy() > 0.0
    assert (met > crowds / 25).all()  # each way of paying was met


def test_books_that_do_not_balance_are_an_error():
    terms = read_terms(plain_venue(), ImpactCurve(0.0, 1.0, 1.0))
    start = np.array([100.0])
    held = {"quantity": np.ones((1, 1)), "entry": np.full((1, 1), 100.0), "money": np.ones(1)}

    books = Books([terms], start, np.zeros(1), **held)
    before = books.sum_money(start)
    books.cash[0] += 1.0
    check_refused(lambda: books.check(start, before), "must balance", bt.AccountingError)


def test_deleveraging_takes_the_highest_return_times_leverage_first():
    # A jump to 80: the long has 10 - 20 = -10. Both shorts gained 20 %; their leverage is 80 / 70
    # and 80 / 30. So the second closes at 90, where the long has nothing left, and gets 10 + 10.
    hit = jump(two_sides())

    assert hit.accounts["deleveraged"].tolist() == [0.0, 0.0, 1.0]
    assert hit.accounts["close_price"].tolist()[::2] == pytest.approx([90.0, 90.0])
    paid = {"fund_paid": 0.0, "adl_paid": 10.0, "haircuts": 0.0, "unpaid": 0.0}
    assert hit.payers() == pytest.approx(paid)
    assert hit.rounds["long"].sum() == 0.0  # nothing was sold in the market


def test_pro_rata_deleveraging_takes_the_same_share_of_all():
    # 1 contract of 2, the liquidity account is long 1 and does not share
    hit = jump(two_sides(), adl="pro-rata")
    assert hit.accounts["deleveraged"].tolist() == pytest.approx([0.0, 0.5, 0.5])


def test_the_fund_pays_first_and_profits_pay_what_it_lacks():
    # Without deleveraging the long is sold at 80 and lacks 10. The fund has 4. The shorts gained 20
    # each, so each gives 3.
    hit = jump(two_sides(), adl=None, insurance=4.0)

    paid = {"fund_paid": 4.0, "adl_paid": 0.0, "haircuts": 6.0, "unpaid": 0.0}
    assert hit.payers() == pytest.approx(paid)
    assert hit.haircuts.tolist() == pytest.approx([0.0, 3.0, 3.0])
    assert hit.rounds["insurance"].tolist() == pytest.approx([4.0, 0.0])


def test_without_profits_the_venue_owes_the_rest():
    hit = jump(crowd_of(["long"], 1.0, 100.0, 10.0), adl=None)
    assert hit.payers()["unpaid"] == pytest.approx(10.0)


def test_a_takeover_leaves_what_is_left_to_the_fund():
    # The long fails at 90 / 0.99 = 90.909 with 0.909 left, which the fund keeps.
    hit = jump(two_sides(), "takeover", jump=False, insurance=5.0)
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


NOBODY = crowd_of([], [], [], [])
BAD: tuple[dict[str, Any], ...] = (
    {"crowd": None}, {"venue": 5}, {"shock": math.nan}, {"shock": -1.0}, {"impact": 0.1},
    {"volume": math.nan}, {"volume": None}, {"insurance": -1.0}, {"adl": "que"},
    {"recovery": "soon"}, {"price": -1.0}, {"me": 3}, {"me": bt.Account()},
)  # fmt: skip
BAD_DRAWS: tuple[dict[str, Any], ...] = (
    {"open_interest": math.nan}, {"leverage": "normal:1:5"}, {"leverage": "uniform:5:1"},
    {"leverage": "loguniform:1:x"}, {"leverage": [1.0, 2.0]}, {"long_share": 1.5},
    {"accounts": 2.5}, {"seed": -1}, {"price": None, "entries": None},
    {"lookback": "long", "entries": bt.Market.sample(bars=10)}, {"venue": 5},
)  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "is_draw"), [*((each, False) for each in BAD), *((each, True) for each in BAD_DRAWS)]
)
def test_bad_arguments_are_refused(bad, is_draw):
    if is_draw:
        function: Any = bt.Crowd.from_leverage
        terms: dict[str, Any] = {"open_interest": 1e6, "entries": 100.0, "accounts": 10}
    else:
        function = bt.cascade
        terms = {"crowd": longs_failing_at([99.0]), "venue": plain_venue(), "shock": -0.1}
        terms |= {"impact": bt.SquareRoot(1.0), "volume": 1.0}

    check_refused(lambda: function(**terms | bad), next(iter(bad)), bt.ParameterError)


def test_a_cascade_of_given_positions_has_a_report(tmp_path):
    """Without a market the page has no time, and an infinite fund is no number."""
    terms = {"shock": -0.05, "impact": bt.Linear(0.0), "insurance": math.inf}
    hit = bt.cascade(longs_failing_at([99.0, 98.0]), plain_venue(), **terms)

    text = hit.report(tmp_path / "page.md").read_text(encoding="utf-8")
    assert "bars of" not in text
    assert "unlimited" in text


def test_a_cascade_prints_gives_json_and_changes_with_its_options(capsys, monkeypatch):
    monkeypatch.setenv("BACKTEST_COMPILE", "auto")

    def run(*more: str) -> dict[str, Any]:
        return ask(capsys, *CASCADE, "--no-save", *more)

    code, out, err = call(capsys, *CASCADE, "--no-save", "--policy", "constant")
    assert code == 0, err
    assert "Multiplier" in out
    assert "This account " in out

    plain = run()
    assert plain["shock"] == -0.1
    assert plain == run()
    for more in (("--insurance", "1e9"), ("--impact", "linear:0.5"), ("--leverage", "constant:20"),
                 ("--set", "cascade.seed=1"), ("--recovery", "1m")):  # fmt: skip
        assert run(*more)["rounds"] != plain["rounds"], more

    bare = ("--insurance", "0", "--jump")  # nobody trades on the way: accounts go bankrupt
    assert run(*bare, "--adl", "none")["rounds"] != run(*bare)["rounds"]


def test_liquidation_prices_are_those_of_the_margin_functions():
    rng = np.random.default_rng(0)
    crowd = random_crowd(rng, 300)
    venue = bracket_venue("close", rng)
    expected = bt.margin.liquidation_price(venue, crowd.quantity, crowd.entry, crowd.collateral)
    np.testing.assert_allclose(crowd.liquidation_prices(venue), expected, rtol=1e-12)


def test_liquidation_prices_of_inverse_contracts():
    contract = bt.Contract(kind="inverse", size=100.0, lot=1.0, tick=0.1)
    venue = plain_venue().override(contract=contract)
    terms = {"open_interest": 50.0, "accounts": 200, "price": 30_000.0, "venue": venue}
    crowd = bt.Crowd.from_leverage(leverage="uniform:2:20", **terms)
    expected = bt.margin.liquidation_price(venue, crowd.quantity, crowd.entry, crowd.collateral)
    np.testing.assert_allclose(crowd.liquidation_prices(venue), expected, rtol=1e-12)
    assert np.abs(crowd.notional()).sum() == pytest.approx(50.0)  # coins

    hit = bt.cascade(crowd, venue, shock=-0.1, impact=bt.SquareRoot(0.1), volume=100.0)
    assert hit.rounds["off"].max() <= 1e-9
    assert hit.multiplier > 1.0

    terms = {"shock": -0.1, "impact": bt.Linear(0.0)}
    check_refused(lambda: bt.cascade(crowd, plain_venue(), **terms), "contract", bt.ParameterError)


def test_drawn_accounts_have_the_stated_interest_leverage_and_sides():
    given = {"open_interest": 1e6, "entries": 200.0}
    how = {"long_share": 0.7, "seed": 1}
    crowd = bt.Crowd.from_leverage(**given, leverage="loguniform:1:50", accounts=20_000, **how)

    notional = crowd.notional()
    assert len(crowd) == 20_000
    assert np.abs(notional).sum() == pytest.approx(1e6)
    assert notional[notional > 0.0].sum() == pytest.approx(0.7e6)

    ratio = np.abs(crowd.leverage)
    assert ratio.min() >= 1.0
    assert ratio.max() <= 50.0
    assert np.median(ratio) == pytest.approx(math.sqrt(50.0), rel=0.03)

    few = bt.Crowd.from_leverage(**given, leverage=7.0, accounts=3)
    assert np.abs(few.leverage) == pytest.approx(7.0)


def test_entries_from_a_market_are_its_closes_that_the_account_survived():
    market = bt.Market.sample(bars=2_000)
    terms = {"open_interest": 1e6, "leverage": "uniform:2:40", "accounts": 2_000}
    crowd = bt.Crowd.from_leverage(entries=market, lookback="20d", **terms)

    closes = market.close[-480:]
    assert np.isin(crowd.entry, closes).all()
    assert crowd.price == market.close[-1]

    # The lowest low of each bar and all later ones; after the last bar there is none.
    lowest = np.minimum.accumulate(market.low[-480:][::-1])[::-1]
    lows = np.append(lowest, math.inf)
    for entry, ratio in zip(crowd.entry, crowd.leverage, strict=True):
        if ratio > 0.0:  # a long: at one of these bars or later nothing was under its bankruptcy
            rows = np.flatnonzero(closes == entry)
            assert lows[rows + 1].max() > entry * (1.0 - 1.0 / ratio)


@pytest.mark.parametrize("margin", [0.0, 0.01])
def test_an_account_fails_where_its_collateral_and_profit_are_its_maintenance_margin(margin):
    """Entry 100, 5x: 20 +- (P - 100) = m P, and in coins 1/500 +- (1/100 - 1/P) = m / P."""
    share = np.array([0.2])
    long, short = find_failing_moves(share, margin, is_inverse=False)
    assert 20.0 + (100.0 * long - 100.0) == pytest.approx(margin * 100.0 * long)
    assert 20.0 - (100.0 * short - 100.0) == pytest.approx(margin * 100.0 * short)

    long, short = find_failing_moves(share, margin, is_inverse=True)
    low = 100.0 * long
    high = 100.0 * short
    assert 1 / 500 + (1 / 100 - 1 / low) == pytest.approx(margin / low)
    assert 1 / 500 - (1 / 100 - 1 / high) == pytest.approx(margin / high)
    assert long > 0.8 / (1.0 - margin)  # coins lose value with the price

    # All of the notional in coins: no rise takes it.
    _, never = find_failing_moves(np.array([1.0]), margin, is_inverse=True)
    assert np.isinf(never)


def test_nobody_fails_before_the_shock_in_a_crowd_drawn_for_a_venue():
    market = bt.Market.sample(bars=2_000)
    venue = plain_venue()
    terms = {"open_interest": 1e6, "leverage": "uniform:2:60", "accounts": 3_000}

    for given, are_failing in (({}, True), ({"venue": venue}, False)):
        crowd = bt.Crowd.from_leverage(entries=market, **terms, **given)
        room = market.close[-1] - crowd.liquidation_prices(venue)
        assert (np.sign(crowd.quantity) * room <= 0.0).any() == are_failing

    assert crowd.contract == venue.contract


def test_the_ladder_counts_notional_by_price():
    crowd = longs_failing_at(np.array([99.2, 97.3, 97.4, 20.0]), quantity=2.0)
    ladder = crowd.ladder(plain_venue(), bins=20, span=0.1)
    assert ladder["long"].sum() == pytest.approx(600.0)  # the one at 20 is out of the span
    level = ladder.iloc[np.abs(ladder.index - 97.5).argmin()]  # from 97 to 98
    assert level["long"] == pytest.approx(400.0)
    assert level["cumulative"] == pytest.approx(600.0)
    assert ladder["short"].sum() == 0.0

    bare = longs_failing_at(np.array([99.2])).ladder(bins=200)
    # bankruptcy: 100 - collateral = 0.99 x 99.2 = 98.2
    assert bare["long"].idxmax() == pytest.approx(98.25)


@pytest.mark.parametrize("bad", [
    {"side": "up"}, {"quantity": math.nan}, {"entry": -1.0}, {"collateral": math.inf},
    {"equity": 1.0},
], ids=str)  # fmt: skip
def test_bad_positions_are_refused_with_their_row(bad):
    row = {"side": "long", "quantity": 1.0, "entry": 100.0, "collateral": 10.0, "equity": 10.0}
    frame = pd.DataFrame([row, {**row, **bad}])
    check_refused(lambda: bt.Crowd.from_positions(frame), "row 1")
    check_refused(lambda: bt.Crowd.from_positions(frame.drop(columns="entry")), "no entry")


def test_the_skew_of_leverage_by_hand():
    """Longs of 10x and 5x with 3 to 1 of the interest; one short of 2x, bankrupt at 150."""
    frame = pd.DataFrame({"side": ["long", "long", "short"], "quantity": [3.0, 1.0, 2.0],
                          "entry": [100.0] * 3, "collateral": [30.0, 20.0, 100.0]})  # fmt: skip
    crowd = bt.Crowd.from_positions(frame, price=100.0)
    near = crowd.skew(within=0.15)
    wide = crowd.skew(within=0.6)

    assert near == {"leverage": pytest.approx(8.75 - 2.0), "liquidations": math.inf}
    assert wide["liquidations"] == pytest.approx(math.log(400.0 / 200.0))
    assert math.isnan(crowd.skew(within=0.01)["liquidations"])

    assert str(near) == (
        "Longs have 6.75x more leverage than shorts (+6.75x); within 15 % of the price all that is "
        "liquidated is below it (log ratio +inf)."
    )
    assert str(wide).endswith(
        "within 60 % of the price 2.00 times the notional is liquidated below it that is above "
        "(log ratio +0.69)."
    )
    assert "nothing is liquidated within 1 % of the price" in str(crowd.skew(within=0.01))

    shorts = bt.Crowd.from_positions(frame[frame["side"] == "short"], price=100.0).skew(within=0.6)
    assert str(shorts) == (
        "Only one side is held, so leverage has no skew; within 60 % of the price all that is "
        "liquidated is above it (log ratio -inf)."
    )

    turned = frame.assign(side=["short", "short", "long"])
    less = bt.Crowd.from_positions(turned, price=100.0).skew(within=0.6)
    assert str(less).startswith("Longs have 6.75x less leverage than shorts (-6.75x); ")


def test_a_ratio_of_longs_to_shorts_is_a_log_ratio():
    market = bt.Market.sample(bars=3).with_columns(ratio=[1.0, math.e, np.nan])
    np.testing.assert_allclose(bt.indicators.leverage_skew(market, "ratio"), [0.0, 1.0, np.nan])

    wrong = market.with_columns(ratio=[1.0, 0.0, 1.0])
    said = "must be a ratio over 0, got 0"
    check_refused(lambda: bt.indicators.leverage_skew(wrong, "ratio"), said, bt.DataError)
