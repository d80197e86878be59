"""``backtest stress``: what shocks would do to the account of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import backtest
from backtest.base import ParameterError, did_you_mean
from backtest.cli.experiment import build_experiment
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_draft import Draft
from backtest.cli.experiment_keys import list_flags
from backtest.cli.flags import Output
from backtest.cli.progress import show_progress
from backtest.cli.run_command import run_with_progress
from backtest.cli.typed_values import parse_entries
from backtest.risk import Scenario

EXAMPLES = """
backtest stress --policy constant --set leverage=5
backtest stress --shock price=-0.3 --shock over=2h --shock outage=1h
backtest stress --scenario 2020-03-12,2021-05-19 --rules then
backtest stress --data btc/ --data eth/ --shock prices.eth=-0.4 --shock correlation=0.9
backtest stress --ladder price=-0.5:0.5:41 --ladder depth=0.1,0.3,1 --report stress.html
"""


def stress(draft: Draft, *, output: Output) -> None:
    """Run an experiment, and show what shocks after the last close would do to its account."""
    experiment = build_experiment(draft)
    table = draft.tables.get("stress", {})
    chosen = list_scenarios(table)
    ladder = read_ladder(table.get("ladder"))
    result = run_with_progress(experiment)
    with show_progress("scenarios", "scenarios") as progress:
        found = backtest.stress(
            result, chosen, rules=table.get("rules", "run"), ladder=ladder,
            data=experiment.market, progress=progress,
        )  # fmt: skip
    output.give_out(found)


def list_scenarios(table: Mapping[str, Any]) -> list[Scenario]:
    known = {each.name: each for each in backtest.crashes()}
    shocks = table.get("shocks")
    names = table.get("scenarios", [] if shocks else list(known))
    for name in names:
        if name not in known:
            raise ParameterError(
                f"stress.scenarios must be of {', '.join(known)}, got {name!r}"
                + did_you_mean(name, known)
            )
    chosen = [known[name] for name in names]
    if shocks:
        typed = {"name": "shock", **parse_entries(shocks)}
        chosen.append(Scenario.from_dict(typed, where="stress.shocks"))
    return chosen


def read_ladder(axes: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if axes is None:
        return None
    return {name: read_axis(name, axis) for name, axis in axes.items()}


def read_axis(name: str, axis: Any) -> Any:
    if not isinstance(axis, str):
        return axis if isinstance(axis, list) else [axis]
    try:
        if ":" in axis:
            low, high, n = axis.split(":")
            return (float(low), float(high), int(n))
        return [float(each) for each in axis.split(",")]
    except ValueError as error:
        raise ParameterError(
            f"stress.ladder.{name} must be LOW:HIGH:COUNT or values between commas, got {axis!r}"
        ) from error


COMMAND = take_experiment(stress, list_flags("stress"))
