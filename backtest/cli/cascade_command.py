"""``backtest cascade``: shock a crowd of leveraged accounts, with one's own account in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

import backtest
from backtest.base import ParameterError, from_plain
from backtest.cli.experiment import Experiment, build_experiment
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_draft import Draft
from backtest.cli.flags import CROWD, RESULTS, AsJson, Results, Save, option
from backtest.cli.printing import save_and_print
from backtest.cli.run_command import run_with_progress
from backtest.crowd import Cascade, Linear, SquareRoot
from backtest.engine import Result
from backtest.market import unwrap_market

EXAMPLES = """
backtest cascade --shock -0.1 --open-interest 3e9
backtest cascade --shock -0.05 --open-interest 5e9 --leverage loguniform:1:100 --insurance 5e7
backtest cascade --shock 0.1 --open-interest 3e9 --impact linear:0.2 --recovery 2h --json
backtest cascade --shock -0.1 --open-interest 3e9 --policy constant --set leverage=8
"""


def cascade(  # noqa: PLR0913 - one per flag
    draft: Draft,
    *,
    shock: Annotated[
        float, option(CROWD, "The price move that starts the cascade; -0.1 is a fall of 10 %.")
    ],
    open_interest: Annotated[float, option(CROWD, "Notional of all leveraged accounts, in money.")],
    leverage: Annotated[
        str,
        option(
            CROWD,
            "Leverage of the accounts: loguniform:1:50 (default), uniform:1:20 or constant:10.",
        ),
    ] = "loguniform:1:50",
    long_share: Annotated[float, option(CROWD, "Share of the notional that is long (0.5).")] = 0.5,
    accounts: Annotated[int, option(CROWD, "Number of accounts (100,000).")] = 100_000,
    seed: Annotated[int, option(CROWD, "Seed of the accounts (0).", "--crowd-seed")] = 0,
    impact: Annotated[
        str,
        option(
            CROWD,
            "Price impact of sales: sqrt:COEFFICIENT[:VOLATILITY] or linear:COEFFICIENT (sqrt:1).",
        ),
    ] = "sqrt:1",
    volume: Annotated[
        float | None, option(CROWD, "Money traded per day (mean of the last 30 days).")
    ] = None,
    insurance: Annotated[float, option(CROWD, "Money in the insurance fund (0).")] = 0.0,
    adl: Annotated[
        str, option(CROWD, "Auto-deleveraging: 'queue' (default), 'pro-rata' or 'none'.")
    ] = "queue",
    recovery: Annotated[
        str | None,
        option(CROWD, "Half-life of the impact, such as 2h (none: it is permanent)."),
    ] = None,
    jump: Annotated[
        bool, option(CROWD, "The price jumps: nobody trades on the way.", "--jump")
    ] = False,
    as_json: AsJson = False,
    save: Save = True,
    results: Results = RESULTS,
) -> None:
    """Shock a crowd of leveraged accounts at the end of a market, and follow the liquidations.

    The policy's account runs through the market first, and stands in the crowd with what it holds
    at the end.
    """
    law = read_impact(impact)
    experiment = build_single_experiment(draft)
    market = experiment.market
    crowd = backtest.Crowd.from_leverage(
        open_interest=open_interest,
        leverage=leverage,
        entries=market,
        long_share=long_share,
        accounts=accounts,
        seed=seed,
        venue=experiment.terms["venue"],
    )
    done = backtest.cascade(
        crowd,
        experiment.terms["venue"],
        shock=shock,
        impact=law,
        volume=volume,
        insurance=insurance,
        adl=None if adl == "none" else adl,
        recovery=recovery,
        jump=jump,
        me=run_own_account(experiment),
    )
    print_cascade(done, results if save else None, as_json=as_json)


def build_single_experiment(draft: Draft) -> Experiment:
    experiment = build_experiment(draft)
    unwrap_market(experiment.market, "a cascade takes one market")
    if "overlay" in experiment.terms:
        raise ParameterError("a cascade is about one position, got an overlay")
    return experiment


def run_own_account(experiment: Experiment) -> Result | None:
    """Run the policy's account; None, with a note, if it ends without a position."""
    result: Result = run_with_progress(experiment)
    if result.record.positions.quantity[-1, 0] == 0.0:
        typer.echo("note: the policy's account holds nothing at the end of the data", err=True)
        return None
    return result


def print_cascade(done: Cascade, results: Any, *, as_json: bool) -> None:
    def to_data(path: str | None) -> object:
        return from_plain({"path": path, **done.to_dict()})

    save_and_print(done, results, lambda: typer.echo(done.summary()), to_data if as_json else None)


COMMAND = take_experiment(cascade)


LAWS: dict[str, tuple[Callable[..., SquareRoot | Linear], int]] = {
    "sqrt": (SquareRoot, 2),
    "linear": (Linear, 1),
}


def read_impact(text: str) -> SquareRoot | Linear:
    name, *parts = text.split(":")
    law, most = LAWS.get(name, (None, 0))
    try:
        numbers = [float(each) for each in parts]
    except ValueError:
        numbers = []
    if law is None or not 0 < len(numbers) <= most:
        raise ParameterError(
            f"impact must be sqrt:COEFFICIENT[:VOLATILITY] or linear:COEFFICIENT, got {text!r}"
        )
    return law(*numbers)
