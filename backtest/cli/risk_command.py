"""``backtest risk``: how likely the account is liquidated from the end of the data on."""

from __future__ import annotations

from typing import Annotated, Any

import pandas as pd

import backtest
from backtest.base import ParameterError
from backtest.cli.experiment import Experiment, build_experiment
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_draft import Draft
from backtest.cli.experiment_keys import list_flags
from backtest.cli.flags import OUTPUT, WORK, Output, option
from backtest.cli.paths_command import draw_paths
from backtest.cli.progress import EARLY, show_activity, show_phases, show_progress
from backtest.cli.run_command import run_with_progress
from backtest.risk import MaxLeverage, Paths

EXAMPLES = """
backtest risk --policy constant --set leverage=5
backtest risk examples/btc-vol-target.toml --horizons 1d,7d --model gbm
backtest risk --from-run           [dim]# from where a run over the data ends[/dim]
backtest risk --find-leverage 0.01 --horizon 7d
backtest risk --data btc/ --data eth/ --policy constant --set leverage=3
backtest risk --report risk.html
"""
WorkThreads = Annotated[int, option(WORK, "Number of threads (1).", "--threads")]
FromRun = Annotated[
    bool, option(OUTPUT, "Run the experiment, and continue from its last close.", "--from-run")
]


def risk(
    draft: Draft,
    *,
    from_run: FromRun = False,
    threads: WorkThreads = 1,
    output: Output,
) -> None:
    """Estimate the probability that the account is liquidated after the end of the data."""
    with show_activity(describe_start(draft), EARLY):
        experiment = build_experiment(draft)
    if "find_leverage" in draft.tables.get("risk", {}):
        refuse_with_search(draft, from_run=from_run)
        searched = find_leverage(draft, experiment, threads)
        output.give_out(searched)
        return
    fitting = f"fitting the model of the paths to {experiment.market.n_bars:,} bars"
    with show_activity(fitting, EARLY):
        drawn = draw_paths(draft, experiment.market, experiment.terms["venue"])
    terms = list_path_terms(experiment, from_run=from_run)
    settings = dict(draft.tables.get("risk", {}))
    with show_phases(describe_plan(drawn)) as progress:
        found = backtest.liquidation_risk(
            drawn,
            experiment.policy,
            **terms,
            threads=threads,
            progress=progress,
            **settings,
        )
    output.give_out(found)


def describe_start(draft: Draft) -> str:
    """Return what the command does and how long it may take, before the data are read."""
    count = draft.tables.get("paths", {}).get("paths", 10_000)
    return (
        f"risk of liquidation on {count:,} paths: reading the data; this takes seconds, or minutes "
        "if the policy has columns or does not compile"
    )


def describe_plan(drawn: Paths) -> str:
    return (
        f"risk of liquidation on {len(drawn):,} paths of {drawn.n_bars:,} bars: the policy is "
        "checked, then taken through all paths"
    )


SEARCHED = ("find_leverage", "model", "paths", "horizon", "seed", "drift")


def refuse_with_search(draft: Draft, *, from_run: bool) -> None:
    """Refuse flags that a search for the leverage does not read; entries of a file may stay."""
    given = [
        f"{flag.table}.{flag.key}"
        for flag in draft.flags
        if flag.table in ("risk", "paths") and flag.group not in SEARCHED
    ]
    given += ["from_run"] if from_run else []
    if given:
        raise ParameterError(
            f"a search for the leverage uses plain paths of a new account, got {given[0]}"
        )


def find_leverage(draft: Draft, experiment: Experiment, threads: int) -> MaxLeverage:
    """Return the most leverage, or the largest factor on the policy if the draft names one."""
    terms = list_path_terms(experiment, from_run=False)
    table = draft.tables.get("paths", {})
    settings: dict[str, Any] = {name: table[name] for name in SEARCHED if name in table}
    if "model" in settings:
        settings["models"] = [settings.pop("model")]
    has_policy = bool(draft.tables.get("policy"))
    with show_progress("models", "models") as progress:
        return backtest.max_leverage(
            experiment.market,
            experiment.policy if has_policy else None,
            **terms,
            probability=draft.tables["risk"]["find_leverage"],
            threads=threads,
            progress=progress,
            **settings,
        )


def list_path_terms(experiment: Experiment, *, from_run: bool) -> dict[str, Any]:
    """Return the terms of an experiment on simulated paths.

    With ``from_run``, the experiment is run over the data and its account goes on at their end.
    """
    terms = experiment.terms
    return {
        "venue": terms["venue"],
        "account": run_with_progress(experiment) if from_run else terms["account"],
        "signal": read_direction(terms.get("signal")),
        "overlay": terms.get("overlay"),
        "compile": terms.get("compile", True),
    }


def read_direction(signal: Any) -> float | dict[str, float] | None:
    if signal is None:
        return None
    if isinstance(signal, pd.DataFrame):
        return {str(name): float(x) for name, x in signal.iloc[-1].fillna(0.0).items()}
    if isinstance(signal, (int, float)):
        return float(signal)
    raise ParameterError(
        "run.signal must be a number on simulated paths: columns and rules end with the data"
    )


USUAL = (
    "--data", "--policy", "--set", "--signal", "--venue", "--capital", "--margin", "--model",
    "--paths", "--horizons",
)  # fmt: skip
COMMAND = take_experiment(risk, [*list_flags("paths"), *list_flags("risk")], usual=USUAL)
