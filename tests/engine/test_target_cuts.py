"""What kept an account from its targets is told, limit by limit, and adds up."""

import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Annotated

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.account import balances, orders
from backtest.engine.target_cuts import bind_orders, find_decisions
from backtest.strategies import Constant
from tests.agreement import Scripted
from tests.cases import make_exit_case
from tests.fast_cases import every_nth
from tests.markets import bars_market

MARKET = bt.Market.sample(bars=600)
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")


class Wild(bt.Policy):
    """Ask for anything: little, much, nothing known, as much as allowed."""

    top: Annotated[float, bt.Range(0, 200)] = 3.0

    def observe(self, market):
        return {"u": np.random.default_rng(7).uniform(0.0, 2.0, 10_000)[: market.n_bars]}

    def leverage(self, bar, account):
        if bar.u > 1.97:
            return float("inf")
        return float("nan") if bar.u < 0.05 else self.top * bar.u


def make_venue(rng, *, is_inverse, grace):
    """Return a venue with everything that can cut an order, or some of it."""
    floors = np.array([0.0, 2e4, 1e5, 1e9]) * (1e-4 if is_inverse else 1.0)
    rows = zip(floors[:-1], floors[1:], (20, 10, 3), (0.01, 0.03, 0.1), strict=True)
    small = 1e-4 if is_inverse else 1.0
    loan = {"interest_on": "loan", "short_rate": 0.05}
    return bt.Venue(
        contract=bt.Contract(
            kind="inverse" if is_inverse else "linear",
            size=100.0 if is_inverse else 1.0,
            lot=float(rng.choice([0.0, 0.01, 1.0])),
            min_notional=float(rng.choice([0.0, 5.0, 500.0])) * small,
        ),
        brackets=[bt.Bracket(*row) for row in rows][: rng.integers(1, 4)],
        fees=bt.Fees(taker=5e-4, maker=1e-4, maker_share=float(rng.choice([0.0, 0.5]))),
        slippage=bt.Slippage(
            rate=1e-4,
            impact=float(rng.choice([0.0, 0.5])),
            max_participation=None if rng.random() < 0.6 else 1e-3,
        ),
        liquidation=bt.Liquidation(
            mode=str(rng.choice(["close", "takeover", "partial"])), fee=0.005, slippage=0.001,
            step=0.5,
        ),
        **(loan if rng.random() < 0.5 else {"interest_on": "balance"}),
        borrow_rate=0.1,
        cash_rate=0.02,
        isolated_funding=str(rng.choice(["margin", "wallet"])),
        margin_multiplier=float(rng.choice([1.0, 1.5])),
        call_grace=grace,
    )  # fmt: skip


def make_account(rng, *, is_inverse, has_call):
    """Return an account with some of what moves targets."""
    is_isolated = rng.random() < 0.5
    capital = 1.0 if is_inverse else 1e4
    flows = pd.Series([0.01, -0.02], index=MARKET.times[[10, 300]]) * capital
    call = {"margin_call": 0.5, "reserve": 0.2 * capital, "top_up_to": 0.3}
    return bt.Account(
        capital=capital,
        margin="isolated" if is_isolated else "cross",
        venue_leverage=float(rng.choice([2, 3])) if is_isolated or rng.random() < 0.5 else None,
        min_leverage=float(rng.choice([0.0, 0.5])),
        max_leverage=float(rng.choice([2.0, 5.0, np.inf])),
        band=float(rng.choice([0.0, 0.1, 1.0])),
        stop_loss=None if rng.random() < 0.7 else 0.05,
        after_liquidation=str(rng.choice(["continue", "halt"])),
        flows=flows if rng.random() < 0.5 else None,
        **(call if has_call else {}),
    )


def with_terms(rng, venue, account):
    """Return venue and account with a fixed fee, uncounted profits and automatic margin."""
    fee = 1e-3 * account.capital
    fees = pd.Series([0.0, fee], index=MARKET.times[[0, 200]]) if rng.random() < 0.5 else fee
    venue = venue.override({"fees.per_order": fees, "profit_counts": float(rng.choice([0.0, 0.4]))})
    return venue, replace(account, auto_margin=account.margin == "isolated")


@pytest.mark.parametrize("seed", every_nth(range(18), 4))
def test_the_limits_explain_every_position_of_random_accounts(seed):
    """The positions that the limits lead to are those of the accounting, to 1e-9."""
    rng = np.random.default_rng(seed)
    is_inverse, grace = seed % 4 == 3, 2 if seed % 5 == 4 else None
    venue = make_venue(rng, is_inverse=is_inverse, grace=grace)
    has_call = grace is not None or seed % 2 == 0
    account = make_account(rng, is_inverse=is_inverse, has_call=has_call)
    signal = np.repeat(rng.choice([-1.0, -0.5, 0.0, 1.0, 1.0], size=200), 3)
    if seed >= 12:
        venue, account = with_terms(rng, venue, account)
    policy = Wild(float(rng.choice([0.5, 3.0, 30.0])))
    result = bt.run(MARKET, policy, venue=venue, account=account, signal=signal, compile=False)
    found = find_decisions(result.setup.inputs, result.record, result.entries, result.span.first)
    gap = found.asked - found.held - sum(found.cuts.values())
    assert np.all(np.abs(gap) <= 1e-9 * np.maximum(1.0, np.abs(found.asked)))
    if grace is None:
        assert not np.any(np.abs(found.cuts["margin_call"]) > 0.0)
    table = result.target_cuts()
    assert table.loc["all", "decisions"] == len(found.asked)
    assert table["share"].between(0.0, 1.0).all()


@pytest.mark.parametrize("seed", range(4))
def test_orders_on_arrays_have_the_bits_of_one_account(seed):
    """The table calls the account's functions on arrays: their choices are made by element."""
    rng, kernels, n = np.random.default_rng(seed), bind_orders(), 100
    venue = make_venue(rng, is_inverse=seed == 3, grace=None)
    account = make_account(rng, is_inverse=seed == 3, has_call=False)
    run = bt.run(MARKET.prefix(3), Constant(1.0), venue=venue, account=account, compile=False)
    rules = run.setup.inputs.rules.instrument._replace(has_order_fee=True)
    sign = -1.0 if seed == 3 else 1.0
    names = ("volume", "sigma", "adv", "initial", "limit")
    given = {name: rng.uniform(0.5, 2.0, n) for name in names}
    given |= {"fill": sign * rng.uniform(50.0, 200.0, n), "order_fee": rng.uniform(0.0, 9.0, n)}
    held, cash, side = rng.normal(size=n) * 20.0, rng.uniform(1e2, 1e4, n), rng.choice([-1.0, 1], n)
    reach = rng.choice([0.0, 1.0], n) * rng.uniform(1.0, 1e4, n)
    wanted = np.where(rng.random(n) < 0.2, held, held + rng.normal(size=n) * 3.0)

    def order(of, quote, quantity, cash, side, reach, wanted):
        owned = of.make_balances(cash, of.Position(quantity, quote.fill, cash, quote.fill))
        equity = of.compute_equity(rules, owned, quote.fill)
        twice = [of.size_order(rules, owned, quote, equity, side, reach) for _ in range(2)]
        return (
            *twice,  # the first leaves the arrays alone
            of.round_quantity(rules, quantity, quote, wanted),
        )

    found = order(kernels, SimpleNamespace(**given), held, cash, side, reach, wanted)
    plain = SimpleNamespace(**{**vars(balances), **vars(orders)})
    rows = zip(
        held.tolist(), cash.tolist(), side.tolist(), reach.tolist(), wanted.tolist(), strict=True
    )
    quotes = [dict(zip(given, row, strict=True)) for row in np.transpose([*given.values()])]
    each = [order(plain, SimpleNamespace(**q), *row) for q, row in zip(quotes, rows, strict=True)]
    assert np.array_equal(np.transpose(each), found)


def test_initial_margin_is_told_by_hand():
    """3x is asked, 2x allowed: at a constant price, without costs, 2x is held, 1x short."""
    price = np.full(6, 100.0)
    venue = bt.Venue.simple(
        taker=0.0, slippage=0.0, maintenance_rate=0.1, max_leverage=2, liquidation_fee=0.0
    )
    market = bars_market(price, price)
    result = bt.run(market, Constant(3.0), venue=venue, account=bt.Account(), compile=False)
    table = result.target_cuts()
    assert list(table.index) == ["all", "initial_margin"]
    row = table.loc["initial_margin"]
    assert row["decisions"] == 5
    assert row["mean_asked"] == pytest.approx(3.0)
    assert row["mean_held"] == pytest.approx(2.0)
    assert row["mean_shortfall"] == pytest.approx(1.0)


@pytest.mark.parametrize(("account", "leverage", "cause"), [
    ({"max_leverage": 2.0}, 3.0, "max_leverage"),
    ({"min_leverage": 0.5}, 0.1, "min_leverage"),
    ({"band": 0.5}, 0.4, "band"),
    ({"venue_leverage": 2.0}, 3.0, "venue_leverage"),
    ({"capital": 20.0}, 0.6, "lot"),
    ({"capital": 5.0}, 0.5, "min_notional"),
])  # fmt: skip
def test_each_limit_has_its_name(account, leverage, cause):
    price = np.full(6, 100.0)
    venue = bt.Venue(
        contract=bt.Contract(lot=0.05 if cause == "lot" else 0.0, min_notional=3.0),
        brackets=[bt.Bracket(0.0, 1e9, 20.0, 0.01)],
        fees=bt.Fees(taker=0.0, maker=0.0),
        slippage=bt.Slippage(rate=0.0),
        liquidation=bt.Liquidation(fee=0.0, slippage=0.0),
    )
    result = bt.run(
        bars_market(price, price), Constant(leverage), venue=venue, account=bt.Account(**account),
        compile=False,
    )  # fmt: skip
    assert cause in result.target_cuts().index


def test_an_infinite_leverage_is_not_cut_but_counted_and_warned_of():
    with pytest.warns(bt.InfiniteLeverageWarning, match=r"infinite leverage at \d+ of 600 closes"):
        result = bt.run(
            MARKET, Wild(1.0), venue=VENUE, account=bt.Account(max_leverage=2.0), compile=False
        )
    assert result.target_cuts().loc["all", "mean_shortfall"] < 0.5
    assert "infinite leverage asked for" in " ".join(result.summary().split())


# -------------------------------------------------------------------------------------- no fill


class Silent(bt.Policy):
    """Never decide."""

    def leverage(self, bar, account):
        return float("nan")


class Cold(bt.Policy):
    """Need more bars than there are."""

    def observe(self, market):
        return {"sigma": np.full(market.n_bars, np.nan)}

    def leverage(self, bar, account):
        return 1.0 / bar.sigma


@pytest.mark.parametrize(("policy", "account", "signal", "why"), [
    (Silent(), {}, None, "the policy returned NaN"),
    (Cold(), {}, None, "sigma was not known at any of 600 closes"),
    (Constant(1.0), {"band": 5.0}, None, "within the band of 5 turns"),
    (Constant(1.0), {"capital": 2.0}, None, "under one lot, 0.001 contracts"),
    (Constant(1.0), {}, 0.0, "the signal was 0 or NaN at all 600 closes"),
])  # fmt: skip
def test_a_run_without_a_fill_says_why_first(policy, account, signal, why):
    with pytest.warns(bt.NoFillWarning, match="filled no order") as caught:
        result = bt.run(
            MARKET, policy, venue=VENUE, account=bt.Account(**account), signal=signal,
            compile=False,
        )  # fmt: skip
    assert why in str(caught[0].message)
    assert caught[0].filename == __file__
    assert result.summary().startswith("NO FILL")


def test_a_sweep_says_how_many_sets_have_no_fill():
    with pytest.warns(bt.NoFillWarning, match="1 of 2 sets filled no order"):
        bt.sweep(
            MARKET, Constant, {"leverage": [0.0, 1.0]}, venue=VENUE, account=bt.Account(),
            compile=False,
        )  # fmt: skip


# ----------------------------------------------------------------------------------- last prices


def collect(act):
    """Return the warnings about last prices that an act gives, by default filters."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        act()
    return [each for each in caught if each.category is bt.LastPriceWarning]


@pytest.mark.slow
def test_last_prices_are_warned_of_once_per_call():
    price = 100.0 + np.sin(np.arange(24 * 31) / 9.0)
    market = bars_market(price, price)
    terms = {"venue": VENUE, "account": bt.Account(), "compile": False}
    acts = [
        lambda: bt.run(market, Constant(1.0), **terms),
        lambda: bt.sweep(market, Constant, {"leverage": [0.5, 1.0]}, full=True, **terms),
    ]
    for act in acts:
        told = collect(act)
        assert len(told) == 1
        assert told[0].filename == __file__
    assert not collect(lambda: bt.run(MARKET, Constant(1.0), **terms))


@pytest.mark.slow
def test_cuts_of_random_accounts_explain_every_fill_in_every_mode():
    """Computed from the record, the contracts to hold are those held: nothing is unexplained."""
    for seed in range(1000, 1030):
        case = make_exit_case(seed).for_engine(bt)
        found = bt.run(policy=Scripted(), compile=False, **case)
        if case["venue"].call_grace is None:
            assert "margin_call" not in found.target_cuts().index, seed
