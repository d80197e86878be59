"""``backtest bounds``: how far a run depends on the order of prices inside its bars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import backtest
from backtest.base.json_values import from_plain
from backtest.cli.cures import naming_source
from backtest.cli.draft import Draft
from backtest.cli.flags import RESULTS, AsJson, Results, Save
from backtest.cli.panel_experiment import build_single_experiment
from backtest.cli.progress import show_progress
from backtest.cli.risk_command import ReportFile, give_out
from backtest.market import Market
from backtest.scenarios import Bounds

EXAMPLES = """
backtest bounds --stop-loss 0.05
backtest bounds --data btc-1h/ --refine btc-1m/ --stop-loss 0.05 --take-profit 0.1
"""


def bounds(
    draft: Draft,
    *,
    report: ReportFile = None,
    as_json: AsJson = False,
    save: Save = True,
    results: Results = RESULTS,
) -> None:
    """Show how far a run depends on the order of prices inside its bars."""
    experiment = build_single_experiment(draft, "backtest bounds")
    table = dict(draft.tables.get("bounds", {}))
    finer = table.pop("refine", None)
    terms = {name: each for name, each in experiment.terms.items() if each is not None}
    with naming_source(draft, "bounds"), show_progress("bars", "bars") as progress:
        refine = None if finer is None else Market.load(Path(finer))
        found = backtest.bounds(
            experiment.market, experiment.policy, **terms, refine=refine, **table,
            progress=progress,
        )  # fmt: skip
    give_out(found, to_data, report, results if save else None, as_json=as_json)


def to_data(found: Bounds) -> dict[str, Any]:
    """Return bounds as data for JSON."""
    rows = found.table.reset_index().to_dict("records")
    facts = {"verdict": found.verdict, "lives": found.lives, "is_inner": found.is_inner}
    data: dict[str, Any] = from_plain({**facts, "ambiguous": len(found.bars), "table": rows})
    return data
