"""The requirement of each bar by instrument: the parts add up to it."""

import numpy as np
import pytest

import backtest as bt
from backtest.strategies import Constant
from tests import cases, option_cases
from tests.agreement import run_engine
from tests.kit import slow

MAKERS = (
    cases.make_full_case,
    cases.make_margin_case,
    cases.make_spot_case,
    option_cases.make_option_case,
)


@pytest.mark.parametrize(
    ("make", "seed"),
    [(make, 3) for make in MAKERS] + slow((make, seed) for make in MAKERS for seed in range(4, 24)),
)
def test_the_parts_of_drawn_accounts_add_up(make, seed: int):
    result = run_engine(make(seed), is_compiled=False)
    requirement = result.closes.requirement
    equity = np.abs(result.of_account("equity"))

    shares = result.positions.groupby("time")["requirement_share"].sum()
    gap = shares.reindex(result.bars.index).fillna(0.0).to_numpy() - requirement
    size = np.maximum(np.maximum(requirement, equity), 1e-9)
    assert np.all(np.abs(gap) <= 1e-9 * size)


def test_amounts_of_brackets_belong_to_their_instrument():
    """1 % up to 1,000 and 5 % above, so 5 % of the notional less 40; the other stays at 1 %."""
    brackets = [bt.Bracket(0.0, 1000.0, 50.0, 0.01), bt.Bracket(1000.0, 1e9, 10.0, 0.05)]
    venue = bt.Venue(
        contract=bt.Contract(lot=0.0, tick=1e-8, min_notional=0.0), brackets=brackets,
        fees=bt.Fees(taker=0.0, maker=0.0), slippage=bt.Slippage(rate=0.0),
        liquidation=bt.Liquidation(mode="close", fee=0.0, slippage=0.0),
    )  # fmt: skip
    market = bt.Market.sample(bars=4)
    names = ("BIG", "SMALL")
    result = bt.run(
        bt.Markets(dict.fromkeys(names, market)),
        Constant(leverage=1.0),
        venue=dict.fromkeys(names, venue),
        account=bt.Account(capital=4000.0),
        signal={"BIG": 0.9, "SMALL": 0.1},
        compile=False,
    )

    last = result.positions.groupby("instrument", observed=True).tail(1).set_index("instrument")
    notional = last["notional"]
    shares = last["requirement_share"]
    assert shares["BIG"] == pytest.approx(0.05 * notional["BIG"] - 40.0)
    assert shares["SMALL"] == pytest.approx(0.01 * notional["SMALL"])
    assert shares.sum() == pytest.approx(result.bars["requirement"].iloc[-1])
    assert last["option_value_share"].tolist() == [0.0, 0.0]


def test_an_account_of_one_position_has_its_whole_requirement():
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    market = bt.Market.sample(bars=60)
    account = bt.Account(capital=5e7)
    result = bt.run(market, Constant(leverage=3.0), venue=venue, account=account, compile=False)
    np.testing.assert_allclose(
        result.positions["requirement_share"], result.bars["maintenance"], rtol=1e-12
    )
