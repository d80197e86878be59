"""Each term of money is declared once, in a table that everything else reads."""

from backtest.account.portfolio_ledger import N_TERMS
from backtest.account.terms import GROWTH_LINES, MONEY_TERMS, OPTIONAL, OPTIONAL_ROWS, SIGNS
from backtest.engine.record import AccountFields
from backtest.engine.result_tables import KINDS
from backtest.engine.trades import UNALLOCATED
from backtest.measures.attribution import MEANINGS
from backtest.regress.trace import STEPS


def test_every_term_has_a_column_of_the_record_a_cause_and_a_line_of_growth():
    assert {*SIGNS, "top_up"} == {*AccountFields._fields[5:], "fx_pnl"}
    assert set(SIGNS) <= set(STEPS)
    assert set(GROWTH_LINES) <= set(MEANINGS)
    costs = [each for each in MONEY_TERMS if each.sign < 0.0 and each.name != "conversion"]
    assert all(each.growth for each in costs)


def test_optional_terms_have_rows_and_kinds_of_their_own():
    assert AccountFields._fields[-len(OPTIONAL) :] == OPTIONAL
    assert [*OPTIONAL_ROWS] == [*range(N_TERMS - len(OPTIONAL), N_TERMS)]
    own = [each for each in MONEY_TERMS if each.row >= 0]
    assert [KINDS[each.kind] for each in own] == [each.name for each in own]
    assert all(each.setting for each in own)
    assert set(OPTIONAL) <= set(UNALLOCATED)
