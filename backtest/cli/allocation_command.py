"""``backtest allocation``: one capital divided into separate accounts (subaccounts)."""

from __future__ import annotations

from typing import Any

from backtest.base import ParameterError
from backtest.cli.cures import naming_source
from backtest.cli.experiment import build_experiment
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_draft import Draft
from backtest.cli.experiment_keys import Key, list_flags
from backtest.cli.flags import POLICY, Output
from backtest.cli.progress import show_progress
from backtest.cli.subaccount_entries import build_allocation, read_pocket_flags

EXAMPLES = """
backtest allocation --pocket 'a=0.6*Cppi()' --pocket 'b=0.4*VolTarget()'
backtest allocation --pocket 'a=0.5*Cppi()' --pocket 'b=0.5*Constant(3)' --transfer losses-only
backtest allocation examples/allocation.toml --report allocation.html
"""
POCKETS = Key(
    "allocation", "pockets", dict[str, Any], "--pocket", POLICY,
    "A subaccount, NAME=SHARE*POLICY, such as 'a=0.6*Cppi()'; repeat for each.", read_pocket_flags,
)  # fmt: skip
TERMS = ("venue", "account", "sampling", "calendar", "compile", "start")


def allocation(draft: Draft, *, output: Output) -> None:
    """Divide one capital into separate accounts with transfers between them."""
    refuse_policy(draft)
    plan = build_allocation(draft)
    experiment = build_experiment(draft)
    terms = {name: each for name, each in experiment.terms.items() if name in TERMS}
    signal = experiment.terms["signal"]
    with naming_source(draft, "allocation"), show_progress("transfers", "dates") as progress:
        found = plan.run(experiment.market, **terms, signal=signal, progress=progress)
    output.give_out(found)


def refuse_policy(draft: Draft) -> None:
    """Refuse the flags of a single policy."""
    given = [each.name for each in draft.flags if each.table in ("policy", "overlay")]
    if given:
        raise ParameterError(
            f"subaccounts have policies of their own, got {given[0]}",
            where=given[0],
            cure="write the policy into its subaccount: --pocket 'a=0.6*Cppi(multiplier=4)'",
        )


COMMAND = take_experiment(allocation, [POCKETS, *list_flags("allocation")])
