"""The wallet, the terms of money and the ledger, and the kinds of events: each said once."""

import copy
import pickle
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from backtest._compile.compiler import find_layout
from backtest.account import events, money
from backtest.account.events import ENTRY, EVENTS, Event
from backtest.account.money import SIGNS, SUMMED, Ledger, Money, Wallet
from backtest.account.records import (
    AssetWalk,
    MarginCall,
    OrderPlan,
    PositionState,
    Quote,
    Walk,
)
from backtest.core.structs import Struct, Structs
from backtest.results.tally import Tally
from tests.scenes import FEE, play, venue_of

STRUCTS = (
    Wallet, Ledger, Money, PositionState, MarginCall, Quote, OrderPlan, Walk, AssetWalk, Tally,
)  # fmt: skip


@pytest.mark.parametrize("kind", STRUCTS)
def test_the_fields_of_a_struct_are_those_of_its_layout_in_compiled_code(kind):
    numbers = np.arange(float(len(kind.names())))
    made, layout = kind.read(numbers), find_layout(kind)
    assert layout.size == 8 * len(kind.names())
    assert made.to_dict() == dict(zip(kind.names(), numbers, strict=True))
    for name, inner in kind.fields():
        own = getattr(made, name)
        first = own.tolist()[0] if issubclass(inner, Struct) else own
        assert layout.offset(name) == 8 * first


@pytest.mark.parametrize("kind", STRUCTS)
def test_a_misspelt_field_of_a_struct_is_an_error(kind):
    with pytest.raises(AttributeError, match="fess"):
        kind().fess = 3.0
    with pytest.raises(AttributeError, match="fess"):
        _ = kind().fess
    with pytest.raises(AttributeError, match="fess"):
        kind(fess=3.0)


def test_every_struct_is_among_those_that_refuse_a_misspelt_field():
    def list_kinds(kind: type[Struct]) -> set[type[Struct]]:
        derived = kind.__subclasses__()
        return {*derived}.union(*map(list_kinds, derived))

    assert list_kinds(Struct) == {*STRUCTS}


def test_a_struct_is_copied_and_pickled_with_what_is_inside_it():
    tally = Tally(peak=2.0)
    tally.money.fees = 3.0
    for twin in (tally.copy(), copy.deepcopy(tally), pickle.loads(pickle.dumps(tally))):
        assert twin == tally
        twin.money.fees += 1.0
        assert twin != tally
        assert (twin.peak, twin.money.fees, tally.money.fees) == (2.0, 4.0, 3.0)


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
    gain = sum(SIGNS[name] * getattr(one, name) for name in money.TRADE_TERMS)
    assert money.compute_gain(ledger, 0) == pytest.approx(gain, rel=1e-12)


def test_a_new_term_of_money_is_in_all_that_follows_from_the_table():
    """The module is made again with one more cost of fills; what derives from it has the cost."""
    text = Path(money.__file__).read_text(encoding="utf-8")
    tax = 'MoneyTerm("tax", -1.0, "tax", "tax paid", "taxes", "tax", is_cost=True,'
    tax += ' of_positions=True, in_trades=True),\n    MoneyTerm(\n        "funding"'
    text = text.replace('MoneyTerm(\n        "funding"', tax, 1)
    with pytest.raises(AttributeError, match="tax"):  # a term without its field
        exec(text, vars(ModuleType("changed_money")))
    changed = ModuleType("changed_money")
    exec(
        text.replace("    funding: float\n", "    tax: float\n    funding: float\n", 1),
        vars(changed),
    )
    for names in (changed.COSTS, changed.GROWTH_TERMS, changed.POSITION_TERMS, changed.TRADE_COSTS,
                  changed.FILL_COSTS, changed.Ledger.names(), changed.Money.names()):  # fmt: skip
        assert "tax" in names
    rows = changed.MONEY._asdict()
    assert {rows[name] for name in ("fees", "tax", "funding", "interest")} <= {
        *changed.CARRIED_ROWS
    }
    assert {rows["slippage"], rows["impact"]}.isdisjoint(changed.CARRIED_ROWS)  # of fills' prices
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
