"""``backtest replay``: the account of somebody who really traded."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import typer

import backtest
from backtest.base import ParameterError, describe_fault, list_records
from backtest.cli.experiment import build_experiment
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_draft import Draft
from backtest.cli.experiment_keys import list_flags
from backtest.cli.flags import RESULTS, AsJson, Results, Save
from backtest.cli.printing import save_and_print
from backtest.cli.run_command import result_to_dict

EXAMPLES = """
backtest replay --data btc/ --fills trades.csv
backtest replay --data btc/ --fills trades.csv --begin account.json --capital 5000
backtest replay live.toml --fills trades.csv --ledger income.csv --json --no-save
"""
SHOWN = 10
"""Differences that are printed."""
KEPT = ("venue", "account", "sampling", "calendar")


def replay(
    draft: Draft, *, as_json: AsJson = False, save: Save = True, results: Results = RESULTS
) -> None:
    """Take an account through fills that were really made, and summarize the result.

    With --ledger, also show the differences from what the venue says; the exit code is 1 if there
    are any. The policy of the experiment plays no part.
    """
    table = draft.tables.get("replay", {})
    experiment = build_experiment(draft)
    if "fills" not in table:
        raise ParameterError(
            "replay.fills is needed, a table of time, instrument, quantity, price and fee"
        )
    terms: dict[str, Any] = {name: x for name, x in experiment.terms.items() if name in KEPT}
    if "range_tolerance" in table:
        terms["range_tolerance"] = table["range_tolerance"]
    if "begin" in table:
        terms["start"] = backtest.AccountSnapshot.load(draft.find_path("replay", "begin"))
    elif experiment.terms.get("start") is not None:
        terms["start"] = experiment.terms["start"]
    fills = backtest.read_fills(draft.find_path("replay", "fills"))
    found = backtest.replay(experiment.market, fills, **terms)
    compared = None
    if "ledger" in table:
        compared = found.reconcile(read_ledger(draft.find_path("replay", "ledger")))
    save_and_print(
        found,
        results if save else None,
        lambda: print_replay(found, compared),
        partial(list_replay, found, compared) if as_json else None,
    )
    if compared is not None and len(compared):
        raise typer.Exit(1)


def print_replay(found: Any, compared: pd.DataFrame | None) -> None:
    typer.echo(found.summary())
    if compared is None:
        return
    if compared.empty:
        typer.echo("\nthe ledger does not differ")
    else:
        shown = compared.head(SHOWN).to_string()
        typer.echo(f"\nthe ledger differs in {len(compared):,} amounts, first:\n{shown}")


def list_replay(found: Any, compared: pd.DataFrame | None, path: str | None) -> dict[str, Any]:
    data = result_to_dict(found, path)
    if compared is not None:
        data["differences"] = list_records(compared.reset_index()) if len(compared) else []
    return data


def read_ledger(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ParameterError(
            f"a ledger must be a CSV file of time, term and amount, or time and equity, {path}: "
            f"{describe_fault(error)}"
        ) from error


COMMAND = take_experiment(replay, list_flags("replay"))
