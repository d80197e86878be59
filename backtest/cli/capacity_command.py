"""``backtest capacity``: growth and Sharpe ratio by capital, under impact and participation."""

from __future__ import annotations

import backtest
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_draft import Draft
from backtest.cli.experiment_keys import list_flags
from backtest.cli.flags import Output
from backtest.cli.sensitivity_command import run_variations

EXAMPLES = """
backtest capacity --set venue.slippage.impact=1.0
backtest capacity --set venue.slippage.impact=1.0 --capitals 1e4,1e6,1e8 --tolerance 0.05
backtest capacity --set venue.slippage.max_participation=0.05 --report capacity.html
"""


def capacity(draft: Draft, *, output: Output) -> None:
    """Show growth and Sharpe ratio by capital, and the capital at which each is halved."""
    output.give_out(run_variations(draft, backtest.capacity, "capitals"))


COMMAND = take_experiment(capacity, list_flags("capacity"))
