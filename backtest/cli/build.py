"""Build the tests and the policies of experiments, and show how far the work is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from backtest.backtest import Backtest
from backtest.cli.printing import show_progress
from backtest.core import list_values
from backtest.experiments import build
from backtest.experiments.draft import Draft
from backtest.experiments.instrument_tables import build_by_instrument
from backtest.market import as_markets
from backtest.policies import Policy
from backtest.results import Result


class Experiment(NamedTuple):
    test: Backtest
    policy: Any
    compile: bool

    def run(self) -> Result:
        with show_progress(name_policies(self.policy), "bars") as progress:
            result: Result = self.test.run(self.policy, compile=self.compile, progress=progress)
        return result


def build_experiment(draft: Draft) -> Experiment:
    test = build_test(draft)
    policy = build_policies(draft.table("policy"), test)
    return Experiment(test, policy, draft.table("run").get("compile", True))


def build_test(draft: Draft) -> Backtest:
    return build.build_test(draft, Backtest, show_progress)


def build_policies(table: Mapping[str, Any], test: Backtest) -> Any:
    """Return the policy of a table, or one for each instrument of the test."""
    names = as_markets(test.market).names
    return build_by_instrument(
        "policy",
        table,
        names,
        known=("name", "settings"),
        build=build.build_policy,
    )


def name_policies(policy: Policy | Mapping[str, Policy]) -> str:
    return ", ".join(dict.fromkeys(type(each).__name__ for each in list_values(policy)))
