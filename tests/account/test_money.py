"""The wallet, the terms of money and the ledger, and the kinds of events: each said once."""

import copy
import pickle
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from backtest._compile.compiler import find_layout
from backtest.account import Quote, events, money
from backtest.account.events import ENTRY, EVENTS, Event
from backtest.account.money import SIGNS, SUMMED, Ledger, Money, Wallet
from backtest.account.records import AssetWalk, MarginCall, OrderPlan, PositionState, Walk
from backtest.core.structs import Struct, Structs
from backtest.results import Tally
from tests.scenes import FEE, play, venue_of

STRUCTS = (
    Wallet, Ledger, Money, PositionState, MarginCall, Quote, OrderPlan, Walk, AssetWalk, Tally,
)  # fmt: skip


@pytest.mark.parametrize("kind", STRUCTS)
def test_the_fields_of_a_struct_are_those_of_its_layout_in_compiled_code(kind):
    numbers = np.arange(float(len(kind.names())))
    made = kind.read(numbers)
    layout = find_layout(kind)
    assert layout.size == 8 * len(kind.names())
    assert made.to_dict() == dict(zip(kind.names(), numbers, strict=True))

    # Each number is its own place, so a field that holds k begins 8 k bytes after the start.
    for name, inner in kind.fields():
        value = getattr(made, name)
        if issubclass(inner, Struct):
            value = value.tolist()[0]
        assert layout.offset(name) == 8 * value


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
    ledger = Structs(Money, 3)
    ledger.numbers[:, : len(SUMMED)] = rng.normal(size=(3, len(SUMMED)))
    ledger[2].top_up = 3.0
    ledger[2].collateral_pnl = 0.7
    ledger[2].conversion = 0.2

    sums = Money()
    money.sum_ledger(ledger, sums)
    signed = sum(SIGNS[name] * getattr(owner, name) for owner in ledger for name in SIGNS)
    assert money.sum_changes(sums) == pytest.approx(signed + 3.0, rel=1e-12)

    flows = sum(owner.flows for owner in ledger)
    assert money.earn(ledger) == pytest.approx(signed - flows, rel=1e-12)

    first = ledger[0]
    gain = sum(SIGNS[name] * getattr(first, name) for name in money.TRADE_TERMS)
    assert money.compute_gain(ledger, 0) == pytest.approx(gain, rel=1e-12)


def test_a_new_term_of_money_is_in_all_that_follows_from_the_table():
    """The module is made again with one more cost of fills; what derives from it has the cost."""
    text = Path(money.__file__).read_text(encoding="utf-8")
    tax = 'MoneyTerm("tax", -1.0, "tax", "tax paid", "taxes", "tax", is_cost=True,'
    tax += ' of_positions=True, in_trades=True),\n    MoneyTerm(\n        "funding"'
    with_term = text.replace('MoneyTerm(\n        "funding"', tax, 1)
    with_field = with_term.replace(
        "    funding: float\n", "    tax: float\n    funding: float\n", 1
    )

    with pytest.raises(AttributeError, match="tax"):  # a term without its field
        exec(with_term, vars(ModuleType("changed_money")))

    changed = ModuleType("changed_money")
    exec(with_field, vars(changed))
    assert "tax" in changed.COSTS
    assert "tax" in changed.GROWTH_TERMS
    assert "tax" in changed.POSITION_TERMS
    assert "tax" in changed.TRADE_COSTS
    assert "tax" in changed.FILL_COSTS
    assert "tax" in changed.Ledger.names()
    assert "tax" in changed.Money.names()

    rows = changed.MONEY._asdict()
    carried = {rows[name] for name in ("fees", "tax", "funding", "interest")}
    in_prices = {rows["slippage"], rows["impact"]}  # they are part of the prices of fills
    assert carried <= {*changed.CARRIED_ROWS}
    assert in_prices.isdisjoint(changed.CARRIED_ROWS)
    assert changed.sum_changes(changed.Money(price_pnl=5.0, tax=2.0)) == 3.0


def list_names(declared) -> set[str]:
    return {event.kind.name for event in declared}


def test_every_event_has_one_kind_and_every_kind_one_name():
    assert len(list_names(EVENTS)) == len(EVENTS)

    floors = {"equity_stop", "daily_loss", "weekly_loss"}
    stops = floors | {"stop", "trailing_stop", "time_stop", "take_profit"}
    assert list_names(events.STOPS) == stops
    assert list_names(events.FORCED) == stops | {"liquidation", "ruin"}
    assert list_names(events.INSIDE) == stops - {"time_stop"} | {"liquidation"}

    trades = stops | {"fill", "delisted", "expiry"}
    assert list_names(events.TRADES) == trades
    assert list_names(events.TRADED) == trades | {"liquidation", "ruin"}


def test_the_log_has_named_columns():
    """10 contracts at 100 cost 1,000, and a fee of a thousandth."""
    result = play(100.0, 100.0, targets=1.0, venue=venue_of(fees=FEE))

    entry = result.entries[result.entries["kind"] == Event.FILL][0]

    assert entry.dtype == ENTRY
    assert (entry["bar"], entry["owner"], entry["step"]) == (1, 0, 5)
    assert entry["value"] == 100.0
    assert entry["fee"] == pytest.approx(1e-3 * entry["amount"])
    assert entry["amount"] == pytest.approx(100.0 * entry["quantity"])
