"""The wallet, the terms of money and the ledger, and the kinds of events: each said once."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from backtest._compile.object_code import Structs
from backtest.account import events, money
from backtest.account.events import ENTRY, EVENTS, Event
from backtest.account.money import SIGNS, SUMMED, Money, Wallet
from backtest.account.records import MarginCall, PositionState, Quote
from tests.scenes import FEE, play, venue_of


@pytest.mark.parametrize("kind", [Wallet, Money, PositionState, MarginCall, Quote])
def test_the_fields_of_a_struct_are_those_of_its_layout_in_compiled_code(kind):
    layout = np.dtype(kind)
    assert layout.names == kind.names()
    assert {layout[name] for name in layout.names} == {np.dtype(np.float64)}
    assert [layout.fields[name][1] for name in layout.names] == [*range(0, layout.itemsize, 8)]


def test_the_sums_of_a_bar_change_equity_by_their_signs():
    """Of three owners and drawn amounts: gains less costs, flows and top-ups too."""
    rng = np.random.default_rng(7)
    ledger, sums = Structs(Money, 3), Money()
    ledger.numbers[:, : len(SUMMED)] = rng.normal(size=(3, len(SUMMED)))
    ledger[2].top_up, ledger[2].collateral_pnl, ledger[2].conversion = 3.0, 0.7, 0.2
    by_hand = sum(SIGNS[name] * getattr(own, name) for own in ledger for name in SIGNS)
    money.sum_ledger(ledger, sums)
    assert money.sum_changes(sums) == pytest.approx(by_hand + 3.0, rel=1e-12)
    flows = sum(own.flows for own in ledger)
    assert money.earn(ledger) == pytest.approx(by_hand - flows, rel=1e-12)
    one = ledger[0]
    costs = one.fees + one.slippage + one.impact + one.funding + one.liquidation_loss
    assert money.compute_gain(ledger, 0) == pytest.approx(one.price_pnl - costs, rel=1e-12)


def test_a_new_term_of_money_is_in_all_that_follows_from_the_table():
    """The module is made again with one more cost of fills; what derives from it has the cost."""
    text = Path(money.__file__).read_text(encoding="utf-8")
    tax = 'MoneyTerm("tax", -1.0, "tax", "tax paid", "taxes", "tax", is_cost=True,'
    tax += ' of_positions=True, in_trades=True),\n    MoneyTerm(\n        "funding"'
    changed = ModuleType("changed_money")
    exec(text.replace('MoneyTerm(\n        "funding"', tax, 1), vars(changed))
    for names in (changed.COSTS, changed.GROWTH_TERMS, changed.POSITION_TERMS, changed.TRADE_COSTS,
                  changed.FILL_COSTS, changed.Ledger._fields, changed.Money.names()):  # fmt: skip
        assert "tax" in names
    carried = ("fees", "tax", "funding", "interest")  # but not what the price of a fill has
    assert tuple(map(changed.MONEY.index, carried)) == changed.CARRIED_ROWS
    assert changed.sum_changes(changed.Money(price_pnl=5.0, tax=2.0)) == 3.0


def test_every_event_has_one_kind_and_every_kind_one_name():
    names = [each.kind.name for each in EVENTS]
    assert len({*names}) == len(names)
    floors = {"equity_stop", "daily_loss", "weekly_loss"}
    stops = floors | {"stop", "trailing_stop", "time_stop", "take_profit"}
    assert {each.kind.name for each in events.STOPS} == stops
    assert {each.kind.name for each in events.FORCED} == stops | {"liquidation", "ruin"}
    assert {each.kind.name for each in events.INSIDE} == stops - {"time_stop"} | {"liquidation"}
    trades = stops | {"fill", "delisted", "expiry"}
    assert {each.kind.name for each in events.TRADES} == trades
    assert {each.kind.name for each in events.TRADED} == trades | {"liquidation", "ruin"}


def test_the_log_has_named_columns():
    """10 contracts at 100 cost 1,000, and a fee of a thousandth."""
    result = play(100.0, 100.0, targets=1.0, venue=venue_of(fees=FEE))
    entry = result.entries[result.entries["kind"] == Event.FILL][0]
    assert entry.dtype == ENTRY
    assert (entry["bar"], entry["owner"], entry["step"], entry["value"]) == (1, 0, 5, 100.0)
    assert entry["fee"] == pytest.approx(1e-3 * entry["amount"])
    assert entry["amount"] == pytest.approx(100.0 * entry["quantity"])
