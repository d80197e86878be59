"""``backtest decide``: the next order of a live account."""

from __future__ import annotations

from typing import Any

import pandas as pd
import typer

import backtest
from backtest.base import ParameterError
from backtest.cli.experiment import Experiment, build_experiment
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_draft import Draft
from backtest.cli.experiment_keys import list_flags
from backtest.cli.flags import AsJson
from backtest.cli.printing import print_json

EXAMPLES = """
backtest decide --data btc/ --policy vol-target --snapshot account.json
backtest decide --data btc/ --snapshot account.json --at 30250 --json
backtest decide live.toml --snapshot account.json
backtest decide --data btc/ --data eth/ --snapshot account.json --at btc=30250,eth=1900
"""
LEFT_OUT = ("compile", "sampling", "calendar", "start")


def decide(draft: Draft, *, as_json: AsJson = False) -> None:
    """Show what a policy decides at the last close, and the order that it leads to.

    Sends no orders and holds no keys. Exit code 1 means: do not act on the order.
    """
    experiment = build_experiment(draft)
    found = ask(experiment, draft)
    if as_json:
        print_json(found.to_dict())
    else:
        typer.echo(str(found))
    if not found.may_act:
        raise typer.Exit(1)


def ask(experiment: Experiment, draft: Draft) -> Any:
    """Return the decision of an experiment, whose table [decide] has the account."""
    table = draft.tables.get("decide", {})
    if "snapshot" not in table:
        raise ParameterError(
            "decide.snapshot is needed, a file with the fields of bt.AccountSnapshot"
        )
    terms = {name: x for name, x in experiment.terms.items() if name not in LEFT_OUT}
    given = {name: table[name] for name in ("at", "mark", "funding") if name in table}
    return backtest.decide(
        experiment.policy,
        experiment.market,
        **terms,
        **given,
        state=backtest.AccountSnapshot.load(draft.find_path("decide", "snapshot")),
        now=table.get("now", pd.Timestamp.now(tz="UTC")),
    )


COMMAND = take_experiment(decide, list_flags("decide"))
