"""``backtest bounds``: how far a run depends on the order of prices inside its bars."""

from __future__ import annotations

from pathlib import Path

import backtest
from backtest.cli.cures import naming_source
from backtest.cli.experiment import build_experiment
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_draft import Draft
from backtest.cli.experiment_keys import list_flags
from backtest.cli.flags import Output
from backtest.cli.progress import show_progress
from backtest.market import Market

EXAMPLES = """
backtest bounds --stop-loss 0.05
backtest bounds --data btc-1h/ --refine btc-1m/ --stop-loss 0.05 --take-profit 0.1
backtest bounds --data btc/ --data eth/ --stop-loss 0.05 --depth 4
"""


def bounds(draft: Draft, *, output: Output) -> None:
    """Show how much a run depends on the order of prices inside its bars."""
    experiment = build_experiment(draft)
    table = dict(draft.tables.get("bounds", {}))
    finer = table.pop("refine", None)
    with naming_source(draft, "bounds"), show_progress("bars", "bars") as progress:
        refine = None if finer is None else Market.load(Path(finer))
        found = backtest.bounds(
            experiment.market,
            experiment.policy,
            **experiment.list_given_terms(),
            refine=refine,
            **table,
            progress=progress,
        )
    output.give_out(found)


COMMAND = take_experiment(bounds, list_flags("bounds"))
