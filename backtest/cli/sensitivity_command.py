"""``backtest sensitivity``: how growth changes with one assumption at a time."""

from __future__ import annotations

from typing import Any

import backtest
from backtest.base.json_values import from_plain
from backtest.cli.cures import naming_source
from backtest.cli.draft import Draft
from backtest.cli.flags import RESULTS, AsJson, Results, Save
from backtest.cli.panel_experiment import build_experiment_or_panel
from backtest.cli.progress import show_progress
from backtest.cli.risk_command import ReportFile, give_out
from backtest.scenarios import Sensitivity

EXAMPLES = """
backtest sensitivity
backtest sensitivity --factors fees,funding --report tornado.html
backtest sensitivity --data btc/ --data eth/ --factors correlation,volatility
backtest sensitivity --signal rsi:14:30:70 --factors signal
"""


def sensitivity(
    draft: Draft,
    *,
    report: ReportFile = None,
    as_json: AsJson = False,
    save: Save = True,
    results: Results = RESULTS,
) -> None:
    """Show how growth changes with one assumption at a time, and where nothing is left of it."""
    experiment = build_experiment_or_panel(draft)
    terms = {name: each for name, each in experiment.terms.items() if each is not None}
    table = draft.tables.get("sensitivity", {})
    with naming_source(draft, "sensitivity"), show_progress("factors", "factors") as progress:
        found = backtest.sensitivity(
            experiment.market, experiment.policy, **terms, **table, progress=progress
        )
    give_out(found, to_data, report, results if save else None, as_json=as_json)


def to_data(found: Sensitivity) -> dict[str, Any]:
    """Return a sensitivity as data for JSON."""
    rows = found.table.reset_index().to_dict("records")
    data: dict[str, Any] = from_plain({"growth": found.base, "table": rows})
    return data
