"""Cascades over several markets: by hand, one market as before, and books that share nothing."""

import os

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.risk.contagion import measure_radius
from tests.kit import check_refused
from tests.scenes import bracket, venue_of

FREE = venue_of(brackets=[bracket(leverage=20.0, rate=0.05)])
PRICES = {"A": 100.0, "B": 100.0}


def crowd_of(rows, cash, prices=PRICES, **more):
    frame = pd.DataFrame(rows, columns=["account", "market", "side", "quantity", "entry"])
    return bt.BookCrowd.from_positions(frame, cash, prices, **more)


def shock_two(crowd, shock, **more):
    impact = bt.Linear(coefficient=0.05)
    return bt.cascade(crowd, FREE, shock=shock, impact=impact, volume=1_000.0, **more)


def test_two_markets_and_three_accounts_by_hand():
    """A falls by 6 %; 1 holds A, 2 both, 3 only B: impact of 5 % per 1,000 carries it over. 1 fails
    at A = 900 / 9.5; 2 where A + B = 1,800 / 9.5; 3 at B = 920 / 9.5."""
    rows = [(1, "A", "long", 10, 100), (2, "A", "long", 10, 100), (2, "B", "long", 10, 100),
            (3, "B", "long", 10, 100)]  # fmt: skip
    hit = shock_two(crowd_of(rows, {1: 100.0, 2: 200.0, 3: 80.0}), {"A": -0.06})
    assert hit.accounts["round"].tolist() == [1, 2, 3]

    first = 900 / 9.5 - 2.5
    second = (1800 / 9.5 - 100) + 5.0 - 7.5  # at B = 100, past impact of 5, own of 5 to 10
    left = [10 * (first - 100), 10 * (second - 102.5), 10 * (92.5 - 100)]
    np.testing.assert_allclose(hit.accounts["after"], np.add([100, 200, 80], left), rtol=1e-9)
    losses = [[10 * (100 - first), 0.0], [10 * (100 - second), 25.0], [0.0, 75.0]]
    np.testing.assert_allclose(hit.losses, losses, atol=1e-9)

    np.testing.assert_allclose(hit.rounds["price A"], [94.0, 89.0, 84.0, 84.0], rtol=1e-12)
    np.testing.assert_allclose(hit.rounds["price B"], [100.0, 100.0, 95.0, 90.0], rtol=1e-12)
    assert hit.spread.to_numpy().tolist() == [[1.0, 0.0], [1.0, 0.0]]

    # A column sums what one unit in A forces: 1 in A and 1 in B.
    assert hit.verdict == (
        "3 of 3 accounts fail in 3 rounds; one unit of forced flow in A causes 2.00 units over all "
        "markets."
    )
    assert np.isnan(hit.radius)
    assert "spectral radius" not in hit.summary()


def test_a_unit_forced_in_one_market_causes_its_column_sum():
    """One unit in BTC forces .50 in BTC and .45 in ETH: .95, where the largest part is .50.

    BTC falls by 6 %: b, with 1 BTC and 9 ETH on 10, fails by the impact of what a sells, 2 x 100.
    Its 1 x 100 and 9 x 10 over these 200 are .50 and .45.
    """
    rows = [("a", "BTC", "long", 2, 100), ("b", "BTC", "long", 1, 100), ("b", "ETH", "long", 9, 10)]
    prices = {"BTC": 100.0, "ETH": 10.0}
    crowd = crowd_of(rows, {"a": 12.0, "b": 10.0}, prices)
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    terms = {"impact": bt.Linear(0.05), "volume": 200.0}
    hit = bt.cascade(crowd, venue, shock={"BTC": -0.06}, **terms)

    np.testing.assert_allclose(hit.spread["BTC"], [0.50, 0.45], rtol=1e-12)
    assert hit.caused.max() == pytest.approx(0.95, rel=1e-12)
    assert "one unit of forced flow in BTC causes 0.95 units over all markets" in hit.verdict


def test_a_spectral_radius_needs_fifty_accounts():
    """A's unit forces a half in itself: eigenvalue .5, told from 50 accounts on."""
    spread = np.array([[0.5, 0.0], [0.45, 0.0]])
    assert measure_radius(spread, 50) == pytest.approx(0.5)
    assert np.isnan(measure_radius(spread, 49))


def test_longs_and_shorts_that_fail_together_are_one_gross_flow():
    """A falls by 6 %: 1 sells 12 B, 2 buys 8. The net 400 move B by 2 %, where 3 fails with 1,000.

    Over the gross 2,000 that is .5; over the net it would be 2.5.
    """
    rows = [(1, "A", "long", 10, 100), (1, "B", "long", 12, 100), (2, "A", "long", 10, 100),
            (2, "B", "short", 8, 100), (3, "B", "long", 10, 100)]  # fmt: skip

    hit = shock_two(crowd_of(rows, {1: 150.0, 2: 120.0, 3: 64.25}), {"A": -0.06})
    np.testing.assert_allclose(hit.spread, [[0.0, 0.0], [0.0, 0.5]], rtol=1e-12)


def draw(n=300, seed=2, most=18.0):
    rng = np.random.default_rng(seed)
    leverage = np.exp(rng.uniform(0.0, np.log(most), n))
    entry = rng.uniform(95.0, 108.0, n)
    quantity = rng.uniform(0.5, 3.0, n)
    sides = np.where(rng.random(n) < 0.7, "long", "short")
    return pd.DataFrame({"side": sides, "quantity": quantity, "entry": entry,
                         "collateral": quantity * entry / leverage})  # fmt: skip


def test_books_that_share_no_account_spread_nothing():
    frame = draw(60, most=6.0)
    rows = frame.assign(account=np.arange(60), market=np.where(np.arange(60) % 2, "A", "B"))
    crowd = bt.BookCrowd.from_positions(rows, dict(enumerate(frame["collateral"])), PRICES)

    hit = shock_two(crowd, {"A": -0.15, "B": -0.15})
    assert hit.spread.loc["A", "B"] == 0.0
    assert hit.spread.loc["B", "A"] == 0.0

    alone = shock_two(crowd, {"A": -0.15})
    np.testing.assert_array_equal(alone.rounds["price B"], alone.rounds["price B"].iloc[0])
    assert (alone.accounts["round"] > 0).any()

    both = alone.accounts["after"][np.arange(60) % 2 == 1]
    np.testing.assert_allclose(hit.accounts["after"][np.arange(60) % 2 == 1], both, rtol=1e-12)


def test_profits_count_from_entries_and_coins_from_the_start():
    """A falls to 94, B rises to 110. 1 sells 10 A at 97.5: it loses 25, and lacks 15.

    At 94 short A from 120 has gained 26, and from 80 nothing, although it gained 6 since the start.
    Short A from 100 has gained 6, and its coin of B 10: 16. Of 15, 42 pay 26 and 16 parts.
    """
    rows = [(1, "A", "long", 10, 100), (2, "A", "short", 1, 120), (3, "A", "short", 1, 80),
            (4, "A", "short", 1, 100)]  # fmt: skip
    cash = {1: 10.0, 2: 50.0, 3: 80.0, 4: 50.0}
    crowd = crowd_of(rows, cash, coins={4: {"B": 1.0}})
    hit = shock_two(crowd, {"A": -0.06, "B": 0.1})

    shares = [0.0, 15.0 * 26 / 42, 0.0, 15.0 * 16 / 42]
    np.testing.assert_allclose(hit.accounts["haircut"], shares, rtol=1e-9)
    assert hit.accounts["equity"].tolist() == [10.0, 70.0, 60.0, 150.0]
    assert hit.accounts["deficit"].tolist() == pytest.approx([15.0, 0.0, 0.0, 0.0])


def test_coins_are_sold_after_the_positions():
    """Long 10 A with 1 coin of B: the cash is negative after A, and B pays it at its own impact."""
    crowd = crowd_of([(1, "A", "long", 10, 100)], {1: 0.0}, coins={1: {"B": 1.0}})
    hit = shock_two(crowd, {"A": -0.06}, haircuts={"B": 0.0})

    trigger = 900 / 9.5
    owed = 10 * (100 - (trigger - 2.5))  # 100 x less impact of x^2 / 4
    sold = (100.0 - np.sqrt(100.0**2 - owed)) / 0.5
    left = (1.0 - sold) * (100.0 - 0.5 * sold)

    assert hit.rounds["long B"].sum() == pytest.approx(100.0 * sold, rel=1e-9)
    assert hit.accounts["after"].iloc[0] == pytest.approx(left, rel=1e-9)
    assert hit.deficit == 0.0


def test_coins_of_several_markets_lose_the_same_share():
    """By hand, without impact: long 10 A with a coin of A and one of B fails at A = 900 / 10.5. It
    then owes 10 x (100 - A). Both coins together, worth A + 100, pay their share of it."""
    crowd = crowd_of([(1, "A", "long", 10, 100)], {1: 0.0}, coins={1: {"A": 1.0, "B": 1.0}})
    terms = {"shock": {"A": -0.2}, "impact": bt.Linear(0.0), "volume": 1_000.0}
    hit = bt.cascade(crowd, FREE, haircuts={"B": 0.0}, **terms)

    trigger = 900 / 10.5
    share = 10 * (100 - trigger) / (trigger + 100)

    assert hit.rounds["long A"].sum() == pytest.approx(1000 + 100 * share, rel=1e-9)
    assert hit.rounds["long B"].sum() == pytest.approx(100 * share, rel=1e-9)
    assert hit.accounts["after"].iloc[0] == pytest.approx((1 - share) * (80 + 100), rel=1e-9)


@pytest.mark.parametrize("order", ["AB", "BA"])
def test_fees_come_after_all_closings_and_make_no_shortfall(order):
    """By hand, without impact: 10 A and 10 B on 200 fail where 10 (A - 100) + 200 = .5 A + 50, with
    .5 A + 50 = 94.74 left. B is sold 4.9 % lower, for 49 less; the fee of A, 8 % of 895 or 71.58,
    takes the 45.74 that remain, and nothing is owed."""
    rows = [(1, "A", "long", 10, 100), (1, "B", "long", 10, 100)]
    crowd = crowd_of(rows, {1: 200.0}, prices=dict.fromkeys(order, 100.0))
    venues = {"A": FREE.override({"liquidation.fee": 0.08}),
              "B": FREE.override({"liquidation.slippage": 0.049})}  # fmt: skip
    terms = {"shock": {"A": -0.2}, "impact": bt.Linear(0.0), "volume": 1_000.0}
    hit = bt.cascade(crowd, venues, **terms)

    assert hit.liquidated == 1
    assert hit.accounts["after"].iloc[0] == pytest.approx(0.0, abs=1e-9)
    assert hit.deficit == 0.0


def draw_books(seed):
    """Draw a crowd over two to four markets with its terms: leverage, coins, fees, slippage."""
    rng = np.random.default_rng([seed, 92])
    names = list("ABCD")[: int(rng.integers(2, 5))]
    prices = {name: float(np.exp(rng.uniform(0.0, 8.0))) for name in names}

    rows = []
    cash = {}
    coins = {}
    for account in map(str, range(int(rng.integers(2, 40)))):
        money = float(np.exp(rng.uniform(2.0, 8.0)))
        cash[account] = money * float(rng.choice([1.0, 0.05]))
        held = rng.choice(names, size=int(rng.integers(1, len(names) + 1)), replace=False)
        for name in held:
            size = money * float(np.exp(rng.uniform(-1.0, 2.5))) / len(held) / prices[name]
            side = str(rng.choice(["long", "long", "short"]))
            rows.append((account, name, side, size, prices[name] * rng.uniform(0.97, 1.03)))

        if rng.random() < 0.5:
            kinds = rng.choice(names, size=int(rng.integers(1, len(names) + 1)), replace=False)
            coins[account] = {x: money * float(rng.uniform(0.1, 1.0)) / prices[x] for x in kinds}

    venues = {
        name: venue_of(
            brackets=[bracket(leverage=9.0, rate=float(rng.uniform(0.005, 0.1)))],
            liquidation={"fee": float(rng.uniform(0.0, 0.08)), "slippage": rng.uniform(0.0, 0.03)},
        )
        for name in names
    }

    total = sum(size * prices[name] for _, name, _, size, _ in rows)
    root = bt.SquareRoot(float(rng.uniform(0.0, 0.3)), volatility=0.5)
    terms = {
        "shock": {name: float(rng.uniform(-0.15, 0.1)) for name in names},
        "impact": root if rng.random() < 0.5 else bt.Linear(float(rng.uniform(0.0, 0.5))),
        "volume": {name: total * float(rng.uniform(0.5, 5.0)) for name in names},
        "haircuts": {name: float(rng.uniform(0.0, 0.5)) for name in names},
        "insurance": float(rng.choice([0.0, 0.001])) * total,
    }
    return (rows, cash, prices, coins), venues, terms


def play_books(books, venues, terms, names):
    rows, cash, prices, coins = books
    crowd = crowd_of(rows, cash, {name: prices[name] for name in names}, coins=coins)
    return bt.cascade(crowd, {name: venues[name] for name in names}, **terms)


CASES = int(os.environ.get("BACKTEST_REFERENCE_CASES", "208"))
"""Drawn books whose markets are put in other orders: each seed tries the same."""


@pytest.mark.parametrize("seeds", [
    range(10),
    *(pytest.param(range(k, k + 99), marks=pytest.mark.slow) for k in range(10, CASES, 99)),
], ids=str)  # fmt: skip
def test_the_order_of_the_markets_decides_nothing(seeds):
    liquidated = 0
    for seed in seeds:
        books, venues, terms = draw_books(seed)
        names = list(books[2])
        shift = 1 + seed % (len(names) - 1)
        orders = [names[::-1], names[shift:] + names[:shift]]
        one = play_books(books, venues, terms, names)
        scale = float(one.accounts["equity"].abs().sum())

        for order in orders[: 1 + seed % 2]:
            two = play_books(books, venues, terms, order)
            near = {"rtol": 1e-9, "atol": 1e-9 * scale, "err_msg": f"{seed}: {order}"}
            np.testing.assert_allclose(two.accounts, one.accounts, **near)
            np.testing.assert_allclose(two.rounds[one.rounds.columns], one.rounds, **near)
            np.testing.assert_allclose(two.losses[names], one.losses, **near)
            spread = two.spread.loc[names, names]
            np.testing.assert_allclose(spread, one.spread, rtol=1e-9, atol=1e-12)

        liquidated += one.liquidated
    assert liquidated > 2 * len(seeds)


def test_bad_crowds_and_terms_are_refused():
    rows = [(1, "A", "long", 10, 100)]
    check_refused(lambda: crowd_of(rows, {2: 1.0}), "account")
    check_refused(lambda: crowd_of(rows * 2, {1: 1.0}), "a second in row 1")

    crowd = crowd_of(rows, {1: 100.0})
    check_refused(lambda: shock_two(crowd, {"C": -0.1}), "shock of the cascade")
    check_refused(lambda: shock_two(crowd, {"A": -0.1}, jump=True), "jump must be left out")

    inverse = venue_of(contract={"kind": "inverse"})
    check_refused(
        lambda: bt.cascade(crowd, {"A": inverse, "B": FREE}, shock=-0.1, impact=bt.Linear(0.1)),
        "must be linear",
    )
    check_refused(
        lambda: bt.cascade(crowd, {"A": FREE}, shock=-0.1, impact=bt.Linear(0.1)), "one for each"
    )


def test_a_contagion_is_saved_and_loaded(tmp_path):
    hit = shock_two(crowd_of([(1, "A", "long", 10, 100)], {1: 100.0}), -0.06)
    loaded = type(hit).load(hit.save(tmp_path))
    assert loaded.verdict == hit.verdict
    assert loaded.losses.equals(hit.losses)
    assert "Losses by round" in hit.summary()
