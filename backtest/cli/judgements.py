"""``backtest judge``: one answer on a policy, from what the other commands compute."""

from __future__ import annotations

from typing import Any

import typer

from backtest import core
from backtest.cli import printing
from backtest.cli.build import Experiment, build_experiment
from backtest.cli.command import Output, command, list_flags
from backtest.core import ParameterError
from backtest.engine import plain
from backtest.experiments.data_table import list_texts, load_data
from backtest.experiments.draft import Draft
from backtest.judgement.judge_policy import QUESTIONS, JudgedRow, expect_walk
from backtest.judgement.judgement import Judgement
from backtest.judgement.rule import check_requirements
from backtest.market import Markets

JUDGED = "tune score require paths draws seed threads"


@command("judge", list_flags("judge", JUDGED), takes_policy=True)
def judge(draft: Draft, *, output: Output) -> None:
    """Test whether a policy beats constant leverage, times well and is safe, and what it costs.

    Each market is judged in an account of its own. Exit code 1 if something required does not hold,
    2 if a market fails.

    backtest judge vol-target --data btc/ --data eth/
    backtest judge steady.py:Steady --tune 32 --require better,safe
    backtest judge vol-target --score      [dim]# and how good such forecasts were[/dim]
    """
    required = check_requirements(draft.table("judge").get("require", []))
    judgement = run_judgement(draft, store=output.store)
    unmet = judgement.list_unmet(required)
    more = []
    if unmet:
        more.append(f"required, and not met: {', '.join(unmet)}")
    output.give_out(judgement, more=more)

    if judgement.faults:
        raise typer.Exit(printing.REFUSED)
    if unmet:
        raise typer.Exit(printing.FAILED)


def run_judgement(draft: Draft, **more: Any) -> Judgement:
    """Judge the policy of an experiment by its table ``[judge]``; rows are printed when known."""
    settings = dict(draft.table("judge"))
    settings.pop("require", None)  # it is of the exit code
    with printing.show_progress("judge: reading the data"):
        (test, policy, is_compiled), unreadable = build_readable(draft)
    if test.overlay is not None:
        raise ParameterError("overlay must be left out: each market has an account of its own")
    if settings.get("tune") is not None:
        sets, seconds = expect_walk(plain(test), settings["tune"])
        printing.print_message(f"judge: re-optimizing, {sets:,} sets, about {seconds:,.0f} s first")

    if isinstance(test.market, Markets):
        printing.print_message(
            f"judge: {len(test.market)} markets, each in an account of its own with all the capital"
        )
    for path, why in unreadable.items():
        printing.print_message(str(JudgedRow("growth", path, f"failed: {why}")))

    with printing.show_progress("judge") as meter:

        def print_row(row: JudgedRow) -> None:
            printing.print_message(str(row))
            meter.what = f"judge: going on after {QUESTIONS[row.question]} {row.market}"

        judgement = test.judge(
            policy,
            **settings,
            **more,
            compile=is_compiled,
            progress=print_row,
        )
    if unreadable:
        return judgement.with_faults(unreadable)
    return judgement


def build_readable(draft: Draft) -> tuple[Experiment, dict[str, str]]:
    """Return the experiment of the paths that can be read, and why others cannot, by path.

    Raises DataError where none can, where what is wrong is not of one path, or where instruments
    are chosen: whether one is in a path that cannot be read is not known.
    """
    try:
        return build_experiment(draft), {}
    except core.DataError:
        if draft.table("data").get("instrument"):
            raise
        readable, unreadable = split_paths(draft)
        if not readable or not unreadable:
            raise
        return build_experiment(choose_paths(draft, readable)), unreadable


def split_paths(draft: Draft) -> tuple[list[str], dict[str, str]]:
    """Return the paths of ``[data]`` that can be read alone, and why the others cannot."""
    readable = []
    unreadable = {}
    for path in list_texts(draft.table("data").get("path", [])):
        try:
            load_data(choose_paths(draft, [path]))
        except core.BacktestError as error:
            unreadable[path] = str(error)
        else:
            readable.append(path)
    return readable, unreadable


def choose_paths(draft: Draft, paths: list[str]) -> Draft:
    """Return a draft of some paths of data."""
    data = {**draft.table("data"), "path": paths}
    return draft._replace(tables={**draft.tables, "data": data})
