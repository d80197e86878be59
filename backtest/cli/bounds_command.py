"""``backtest bounds``: how far a run depends on the way of prices inside its bars."""

from __future__ import annotations

import backtest
from backtest.cli.experiment import build_experiment
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_draft import Draft
from backtest.cli.flags import Output
from backtest.cli.progress import show_progress
from backtest.cli.run_command import run_with_progress

EXAMPLES = """
backtest bounds --data btc/ --data eth/ --policy constant --set leverage=5
backtest bounds --data btc/ --data eth/ --stop-loss 0.05 --report bounds.html
"""


def bounds(draft: Draft, *, output: Output) -> None:
    """Run an account under both ways of prices inside a bar, and show where they part."""
    result = run_with_progress(build_experiment(draft))
    with show_progress("bars", "bars") as progress:
        found = backtest.bounds(result, progress=progress)
    output.give_out(found)


COMMAND = take_experiment(bounds)
