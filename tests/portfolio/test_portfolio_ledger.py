"""What an account with several positions earned in a bar, from the terms of its instruments."""

import numpy as np

from backtest.account import records as terms


def test_profit_of_a_bar_is_gains_less_costs_of_all_instruments():
    ledger = np.zeros((terms.N_TERMS, 3))
    gains = (terms.PRICE_PNL, terms.COLLATERAL_PNL, terms.BAD_DEBT)
    costs = (
        terms.FEES, terms.SLIPPAGE, terms.IMPACT, terms.FUNDING, terms.INTEREST, terms.LOSS,
        terms.CONVERSION,
    )  # fmt: skip
    for power, row in enumerate((*gains, *costs)):  # each amount twice: 2, 4, 8; and 16 to 1,024
        ledger[row, [0, 2]] = 2.0**power
    assert terms.earn(ledger) == 2 + 4 + 8 - (16 + 32 + 64 + 128 + 256 + 512 + 1024)
