"""``backtest runway``: how long an account can pay for regular spending."""

from __future__ import annotations

import backtest
from backtest.base import ParameterError
from backtest.cli.cures import naming_source
from backtest.cli.experiment import build_experiment
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_draft import Draft
from backtest.cli.experiment_keys import list_flags
from backtest.cli.flags import Output
from backtest.cli.paths_command import draw_paths
from backtest.cli.progress import show_progress
from backtest.cli.risk_command import (
    FromRun,
    WorkThreads,
    list_path_terms,
)
from backtest.subaccounts import Spending

EXAMPLES = """
backtest runway --spend 0.01 --horizon 180d
backtest runway --spend 0.02 --of start --every 30d --horizon 365d --paths 2000
backtest runway --spend 0.01 --least 50 --horizon 180d --report runway.html
"""


def runway(
    draft: Draft,
    *,
    from_run: FromRun = False,
    threads: WorkThreads = 1,
    output: Output,
) -> None:
    """Estimate whether and when an account can no longer pay for regular spending."""
    spending = build_spending(draft)
    experiment = build_experiment(draft)
    drawn = draw_paths(draft, experiment.market, experiment.terms["venue"])
    terms = list_path_terms(experiment, from_run=from_run)
    with naming_source(draft, "spending"), show_progress("paths", "paths") as progress:
        found = backtest.runway(
            drawn,
            experiment.policy,
            spending,
            **terms,
            threads=threads,
            progress=progress,
        )
    output.give_out(found)


def build_spending(draft: Draft) -> Spending:
    """Build the rule of spending."""
    section = draft.section("spending")
    if "share" not in section.entries:
        raise ParameterError(
            "a runway needs a spending rule, got none",
            where="--spend",
            cure="give --spend 0.01 for 1 % of the wealth every 30 days",
        )
    try:
        return Spending.from_dict(dict(section.entries))
    except ParameterError as error:
        field = error.where.rpartition(".")[2]
        is_given = field in section.entries
        source = draft.locate("spending", (field,)) if is_given else section.where
        where = f"{source}: {error.where}"
        raise ParameterError(error.problem, where=where, cure=error.cure) from error


COMMAND = take_experiment(runway, [*list_flags("paths"), *list_flags("spending")])
