"""Contracts that expire: closed in their last bar, at its mark close, with the taker fee."""

import re
import warnings

import pytest

import backtest as bt
from backtest.base.errors import ParameterError
from backtest.engine import Result
from tests.kit import Hold, flat, make_market, make_venue

TERMS = {"account": bt.Account(capital=1_000.0), "compile": False}


def expire(when: str | None) -> dict[str, bt.Venue]:
    """Return venues of A and B, where B expires."""
    venue = make_venue(taker=0.01)
    contract = {"lot": venue.contract.lot, "min_notional": 0.0}
    return {"A": venue, "B": venue.override(contract=bt.Contract(expires=when, **contract))}


def make_pair() -> bt.Markets:
    """Return A, which stays at 100, and B, which rises by 10 an hour from 50."""
    rising = [(50.0 + 10 * k, 60.0 + 10 * k, 50.0 + 10 * k, 60.0 + 10 * k) for k in range(6)]
    return bt.Markets({"A": make_market([flat(100)] * 6), "B": make_market(rising)})


def run(markets: bt.Markets, venue: object) -> Result:
    """Run half of the capital long in B alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bt.run(
            markets, {"A": Hold(0.0), "B": Hold(1.0)}, venue=venue, signal={"A": 0, "B": 0.5},
            **TERMS,
        )  # fmt: skip


def test_an_expired_contract_is_closed_at_the_mark_close_of_its_last_bar():
    # B is bought at the open of 01:00, at 60: 500 / 60 = 8.333 contracts. Its last bar before 03:00
    # closes at 80, where what is held is sold for a fee of 1 %.
    with pytest.warns(UserWarning, match="history of B ends"):
        result = bt.run(
            make_pair(), {"A": Hold(0.0), "B": Hold(1.0)}, venue=expire("2024-01-01T03:00"),
            signal={"A": 0, "B": 0.5}, **TERMS,
        )  # fmt: skip
    events = result.events
    closed = events[events["kind"] == "delisted"].iloc[0]
    assert (closed["instrument"], closed["price"]) == ("B", 80.0)
    assert str(closed["time"]) == "2024-01-01 02:00:00+00:00"
    after = events.loc[closed.name + 1]
    assert after["kind"] == "fee"
    assert after["amount"] == pytest.approx(0.01 * 80.0 * abs(closed["quantity"]))
    assert (result.quantities["B"].iloc[2:] == 0.0).all()
    assert result.bars["equity"].iloc[2:].nunique() == 1


def test_the_price_of_the_settlement_is_not_rounded_to_a_tick():
    venues = expire("2024-01-01T03:00")
    contract = venues["B"].contract.override(tick=33.0, round_to_tick=True)
    venues["B"] = venues["B"].override(contract=contract)
    with pytest.warns(UserWarning, match="history of B ends"):
        events = bt.run(
            make_pair(), {"A": Hold(0.0), "B": Hold(1.0)}, venue=venues,
            signal={"A": 0, "B": 0.5}, **TERMS,
        ).events  # fmt: skip
    # it buys at 66, the next tick over 60; the last bar closes at 80, between 66 and 99
    prices = {
        kind: events[events["kind"] == kind]["price"].iloc[0] for kind in ("fill", "delisted")
    }
    assert prices == {"fill": 66.0, "delisted": 80.0}


@pytest.mark.parametrize("when", ["2024-01-01T03:00", "2024-01-01T02:30"])
def test_it_equals_a_market_that_ends_there(when):
    whole = make_pair()
    cut = bt.Markets({"A": whole["A"], "B": whole["B"].slice(0, 3)})
    found, wanted = run(whole, expire(when)), run(cut, expire(None))
    assert found.bars.equals(wanted.bars)
    assert found.events.equals(wanted.events)


def test_a_prefix_that_ends_at_the_expiry_closes_it_too():
    found = run(make_pair().prefix(3), expire("2024-01-01T03:00"))
    wanted = run(make_pair(), expire("2024-01-01T03:00"))
    assert found.bars.equals(wanted.bars.iloc[:3])
    assert (found.events["kind"] == "delisted").any()


def test_one_that_expires_after_the_data_changes_nothing():
    found, wanted = run(make_pair(), expire("2025-01-01")), run(make_pair(), expire(None))
    assert found.bars.equals(wanted.bars)
    assert not (found.events["kind"] == "delisted").any()


def test_a_row_of_a_sweep_is_its_run():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        swept = bt.sweep(
            make_pair(), Hold, {"level": [0.5, 1.0]}, venue=expire("2024-01-01T03:00"), **TERMS
        )  # fmt: skip
        single = bt.run(make_pair(), Hold(1.0), venue=expire("2024-01-01T03:00"), **TERMS)
    assert swept.table["final_equity"].iloc[1] == single.metrics["final_equity"]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: run(make_pair(), expire("2023-12-31")), "no bar before it expires"),
        (
            lambda: bt.run(
                make_pair()["B"], Hold(), venue=expire("2024-01-01T03:00")["B"], **TERMS
            ),
            r"cut it: market.between\(end='2024-01-01T03:00'\)",
        ),
    ],
)  # fmt: skip
def test_wrong_dates_are_refused(act, message):
    with pytest.raises(ParameterError) as error:
        act()
    assert re.search(message, str(error.value))
