"""``backtest capacity``: growth and Sharpe ratio by capital, under impact and participation."""

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
from backtest.scenarios.capacity import Capacity

EXAMPLES = """
backtest capacity --set venue.slippage.impact=1.0
backtest capacity --set venue.slippage.impact=1.0 --capitals 1e4,1e6,1e8 --tolerance 0.05
backtest capacity --set venue.slippage.max_participation=0.05 --report capacity.html
"""


def capacity(
    draft: Draft,
    *,
    report: ReportFile = None,
    as_json: AsJson = False,
    save: Save = True,
    results: Results = RESULTS,
) -> None:
    """Show growth and Sharpe ratio by capital, and the capital at which each is half."""
    experiment = build_experiment_or_panel(draft)
    terms = {name: each for name, each in experiment.terms.items() if each is not None}
    table = draft.tables.get("capacity", {})
    with naming_source(draft, "capacity"), show_progress("capitals", "capitals") as progress:
        found = backtest.capacity(
            experiment.market, experiment.policy, **terms, **table, progress=progress
        )
    give_out(found, to_data, report, results if save else None, as_json=as_json)


def to_data(found: Capacity) -> dict[str, Any]:
    """Return a capacity as data for JSON."""
    data: dict[str, Any] = from_plain({
        "half_growth": found.half_growth,
        "half_sharpe": found.half_sharpe,
        "table": found.table.reset_index().to_dict("records"),
        "settings": found.settings,
    })  # fmt: skip
    return data
