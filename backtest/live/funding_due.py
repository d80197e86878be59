"""The next settlement of funding, and what it costs before and after an order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from backtest.live.decision import FundingDue
from backtest.market.tables.settlements import cadence, nearest_minute
from backtest.venue.contract_value import compute_value

if TYPE_CHECKING:
    from backtest.engine.portfolio_setup import Setup
    from backtest.live.filled_bar import Filled


def list_due(setup: Setup, before: tuple[Any, ...], filled: Filled) -> Iterator[FundingDue]:
    """Yield the next settlement of each instrument with funding.

    It comes one usual distance of settlements after the last one, at the predicted rate where the
    data have one, else at the last rate.
    """
    for i, (name, market) in enumerate(setup.markets.items()):
        if not market.funding_time.size:
            continue
        due = int(nearest_minute(market.funding_time[-1])) + cadence(market.funding_time)
        predicted = float(market.funding_predicted[-1])
        is_predicted = not math.isnan(predicted)
        rate = predicted if is_predicted else float(market.funding_rate[-1])
        contract = setup.venues[name].contract
        is_inverse = contract.kind == "inverse"
        unit = abs(compute_value(contract.size, is_inverse, float(market.mark_close[-1])))
        held = (float(each[i].position) * unit * rate for each in (before, filled.views))
        yield FundingDue(name, pd.Timestamp(due, tz="UTC"), rate, is_predicted, *held)
