"""Each term of money is declared once, in a table that everything else reads."""

from backtest.account.records import GROWTH_TERMS, MONEY_TERMS, SIGNS
from backtest.engine.record import AccountFields
from backtest.measures.attribution import MEANINGS
from backtest.regress.trace import STEPS


def test_every_term_has_a_column_of_the_record_a_cause_and_a_line_of_growth():
    assert {*SIGNS, "top_up"} == {*AccountFields._fields[5:]}
    assert set(SIGNS) <= set(STEPS)
    assert set(GROWTH_TERMS) <= set(MEANINGS)
    costs = [each for each in MONEY_TERMS if each.sign < 0.0 and each.name != "conversion"]
    assert all(each.in_growth for each in costs)
