"""``backtest compare``: compare policies, and report which differences are more than noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

import backtest
from backtest.base.errors import ParameterError
from backtest.base.json_values import from_plain
from backtest.cli.cures import explained
from backtest.cli.draft import Draft
from backtest.cli.experiment import Experiment, build_experiment, build_policy
from backtest.cli.experiment_schema import Key, list_flags
from backtest.cli.flags import (
    POLICY,
    RESULTS,
    AsJson,
    Results,
    Save,
)
from backtest.cli.policy_entries import (
    list_policy_entries,
    read_policy_flags,
    read_setting_flags,
)
from backtest.cli.printing import print_json, save_result
from backtest.cli.progress import show_progress
from backtest.compare import Comparison, SharedTerms, list_differences
from backtest.policy.policy import Policy

EXAMPLES = """
backtest compare --policy vol-target --policy cppi --set cppi.multiplier=5
backtest compare --policy calm=vol-target --policy bold=vol-target --set bold.target=0.8
backtest compare --policy constant --policy kelly --equal-risk --data btc/ --from 2021-01-01
backtest compare examples/btc-vol-target.toml --policy constant --baseline constant --json
backtest compare calm.toml bold.toml       [dim]# experiments that differ in their policy[/dim]
"""

FLAGS = (
    Key("compare", "policies", dict[str, Any], "--policy", POLICY,
        "NAME, FILE.py:ClassName, or LABEL=NAME to label it; repeat for each.", read_policy_flags),
    Key("compare", "policies", dict[str, Any], "--set", POLICY,
        "A parameter, LABEL.NAME=VALUE, or a field, account.NAME=VALUE; repeat for more.",
        read_setting_flags),
    *list_flags("compare"),
)  # fmt: skip


def compare(
    drafts: list[Draft], *, as_json: AsJson = False, save: Save = True, results: Results = RESULTS
) -> None:
    """Compare policies on one market, and report which differences are more than noise.

    Several files must share data, venue, account and signal: flags go over all of them.
    """
    policies = build_policies(drafts)
    experiments = [build_experiment(draft) for draft in drafts]
    check_shared(drafts, experiments)
    with explained(drafts[0], "compare"):
        done = execute(experiments[0], policies, drafts[0].tables.get("compare", {}))
    path, trouble = save_result(done, results if save else None)
    if as_json:
        print_json(from_plain({"path": None if path is None else str(path), **done.to_dict()}))
    else:
        typer.echo(done.summary())
        if path is not None:
            typer.echo(f"\nfull result: {path}")
    if trouble is not None:
        raise trouble


def build_policies(drafts: Sequence[Draft]) -> dict[str, Policy]:
    """Build the policies, by label."""
    entries = list_policy_entries(drafts)
    if len(entries) < 2:
        found = f"has {', '.join(entries)} alone" if entries else "has none"
        raise ParameterError(
            f"a comparison needs two policies or more, {found}",
            where=drafts[0].command if drafts[0].file is None else str(drafts[0].file),
            cure="add them: --policy vol-target --policy cppi; `backtest policies` lists them",
        )
    return {label: build_policy(each) for label, each in entries.items()}


def check_shared(drafts: Sequence[Draft], experiments: Sequence[Experiment]) -> None:
    """Check that experiments differ in their policy only."""
    first, *others = [SharedTerms(each.market, **each.terms).describe() for each in experiments]
    for draft, other in zip(drafts[1:], others, strict=True):
        differing = list_differences(first, other)
        if differing:
            raise ParameterError(
                "experiments must share data, venue, account and signal, was another "
                f"{', '.join(differing)}",
                where=f"{draft.file}, beside {drafts[0].file}",
                cure="make the files agree, or say it by flags, which go over all of them",
            )


def execute(
    experiment: Experiment, policies: Mapping[str, Policy], table: Mapping[str, Any]
) -> Comparison:
    """Run the comparison; show progress if it takes long and output goes to a terminal."""
    arguments = {name: entry for name, entry in table.items() if name != "policies"}
    with show_progress("comparing", "steps") as progress:
        return backtest.compare(
            experiment.market, policies, **experiment.terms, **arguments, progress=progress
        )
