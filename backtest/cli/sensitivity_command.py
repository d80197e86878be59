"""``backtest sensitivity``: how growth changes with one assumption at a time."""

from __future__ import annotations

import typer

import backtest
from backtest.base.json_values import from_plain
from backtest.cli.cures import naming_source
from backtest.cli.draft import Draft
from backtest.cli.experiment import build_experiment
from backtest.cli.flags import AsJson
from backtest.cli.printing import print_json
from backtest.cli.progress import show_progress
from backtest.cli.risk_command import ReportFile

EXAMPLES = """
backtest sensitivity
backtest sensitivity --factors fees,funding --report tornado.html
"""


def sensitivity(draft: Draft, *, report: ReportFile = None, as_json: AsJson = False) -> None:
    """Show how growth changes with one assumption at a time, and where nothing is left of it."""
    experiment = build_experiment(draft)
    terms = {name: each for name, each in experiment.terms.items() if each is not None}
    table = draft.tables.get("sensitivity", {})
    with naming_source(draft, "sensitivity"), show_progress("factors", "factors") as progress:
        found = backtest.sensitivity(
            experiment.market, experiment.policy, **terms, **table, progress=progress
        )
    if report is not None:
        found.report(report)
    if as_json:
        rows = found.table.reset_index().to_dict("records")
        print_json(from_plain({"growth": found.base, "table": rows}))
        return
    typer.echo(found.summary())
    if report is not None:
        typer.echo(f"\nreport: {report}")
