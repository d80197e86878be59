"""``backtest capacity``: growth and Sharpe ratio by capital, under impact and participation."""

from __future__ import annotations

from typing import Any

import backtest
from backtest.base.json_values import from_plain
from backtest.cli.draft import Draft
from backtest.cli.output_flags import Output
from backtest.cli.sensitivity_command import run_variations
from backtest.scenarios.capacity import Capacity

EXAMPLES = """
backtest capacity --set venue.slippage.impact=1.0
backtest capacity --set venue.slippage.impact=1.0 --capitals 1e4,1e6,1e8 --tolerance 0.05
backtest capacity --set venue.slippage.max_participation=0.05 --report capacity.html
"""


def capacity(draft: Draft, *, output: Output) -> None:
    """Show growth and Sharpe ratio by capital, and the capital at which each is halved."""
    output.give_out(run_variations(draft, backtest.capacity, "capitals"), to_data)


def to_data(found: Capacity) -> dict[str, Any]:
    """Return a capacity as data for JSON."""
    data: dict[str, Any] = from_plain({
        "half_growth": found.half_growth,
        "half_sharpe": found.half_sharpe,
        "table": found.table.reset_index().to_dict("records"),
        "settings": found.settings,
    })  # fmt: skip
    return data
