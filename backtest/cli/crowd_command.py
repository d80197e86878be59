"""``backtest crowd``: what a policy earns as more of the market runs it."""

from __future__ import annotations

from typing import Annotated

import typer

import backtest
from backtest.base import from_plain
from backtest.cli.cascade_command import (
    ImpactText,
    OpenInterest,
    Recovery,
    Volume,
    read_impact,
    read_shares,
)
from backtest.cli.experiment import build_single_experiment
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_draft import Draft
from backtest.cli.flags import CROWD, RESULTS, AsJson, Results, Save, option
from backtest.cli.printing import save_and_print
from backtest.cli.progress import show_progress

EXAMPLES = """
backtest crowd --open-interest 3e9 --policy vol-target --set target=0.8
backtest crowd --open-interest 3e9 --shares 0,0.05,0.1 --impact linear:0.1 --recovery 2h
backtest crowd --open-interest 3e9 --starts 0 --json
"""


def crowd(
    draft: Draft,
    *,
    open_interest: OpenInterest,
    shares: Annotated[
        str, option(CROWD, "Shares of the open interest that run the policy (0,0.01,0.05,0.2).")
    ] = "0,0.01,0.05,0.2",
    impact: ImpactText = "sqrt:1",
    volume: Volume = None,
    recovery: Recovery = None,
    starts: Annotated[
        int,
        option(
            CROWD, "Number of accounts that measure the probability of liquidation (12; 0: none)."
        ),
    ] = 12,
    horizon: Annotated[str, option(CROWD, "Horizon of that probability (30d).")] = "30d",
    as_json: AsJson = False,
    save: Save = True,
    results: Results = RESULTS,
) -> None:
    """Run a policy in a market where a share of the open interest runs it too."""
    law, known = read_impact(impact), read_shares(shares)
    market, policy, terms = build_single_experiment(draft, "backtest crowd", warms=False)
    with show_progress("crowding", "shares") as progress:
        done = backtest.crowding(
            policy,
            market,
            **terms,
            open_interest=open_interest,
            impact=law,
            volume=volume,
            recovery=recovery,
            shares=known,
            starts=starts,
            horizon=horizon,
            progress=progress,
        )

    def to_data(path: str | None) -> object:
        return from_plain({"path": path, **done.to_dict()})

    save_and_print(
        done, results if save else None, lambda: typer.echo(done.summary()),
        to_data if as_json else None,
    )  # fmt: skip


COMMAND = take_experiment(crowd)
