"""``backtest sensitivity``: how growth changes with one assumption at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import backtest
from backtest.cli.experiment import build_experiment
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_draft import Draft
from backtest.cli.experiment_keys import list_flags
from backtest.cli.flags import Output
from backtest.cli.progress import show_progress

EXAMPLES = """
backtest sensitivity
backtest sensitivity --factors fees,funding --report tornado.html
backtest sensitivity --data btc/ --data eth/ --factors correlation,volatility
backtest sensitivity --signal rsi:14:30:70 --factors signal
"""


def sensitivity(draft: Draft, *, output: Output) -> None:
    """Show how growth changes with one assumption at a time, and where it falls to 0."""
    output.give_out(run_variations(draft, backtest.sensitivity, "factors"))


def run_variations(draft: Draft, vary: Callable[..., Any], unit: str) -> Any:
    """Run an experiment in variations, with the arguments of the table of the function's name."""
    experiment = build_experiment(draft)
    name = vary.__name__
    with show_progress(unit, unit) as progress:
        return vary(
            experiment.market,
            experiment.policy,
            **experiment.list_given_terms(),
            **draft.tables.get(name, {}),
            progress=progress,
        )


COMMAND = take_experiment(sensitivity, list_flags("sensitivity"))
