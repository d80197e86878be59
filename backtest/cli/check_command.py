"""``backtest check``: check a policy against the contract."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated

import typer

from backtest.base.errors import ParameterError
from backtest.cli.draft import DraftTable
from backtest.cli.experiment import draft_experiment, load_market
from backtest.cli.find_policy import load_policies
from backtest.cli.flags import AsJson, flag
from backtest.cli.panel_experiment import (
    NO_SPAN,
    build_experiment_or_panel,
    list_paths,
    load_markets,
)
from backtest.cli.printing import print_json
from backtest.cli.progress import show_activity
from backtest.engine.named_signals import resolve_signal
from backtest.engine.policy_contract import Finding, check_policy
from backtest.market import Market
from backtest.market.read.instrument_folders import is_panel
from backtest.policy import Policy

WIDTH = 80
EXAMPLES = """
backtest check vol-target
backtest check my_policy.py
backtest check my_policy.py:MyPolicy --data btc/ --json
backtest check examples/btc-vol-target.toml
"""


def check(
    policy: Annotated[
        str,
        typer.Argument(
            help="A built-in policy, FILE.py (all its policies), FILE.py:Class, or FILE.toml (the "
            "policies of an experiment, on its data)."
        ),
    ],
    *,
    data: Annotated[
        list[str] | None,
        flag("Data for the checks (default: a synthetic market); repeat for several markets."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that a policy keeps the contract: above all, that it does not look ahead.

    The exit code is 1 if a check fails.
    """
    if policy.endswith(".toml"):
        trials = list_of_experiment(Path(policy), data)
    else:
        classes = load_policies(policy, where="POLICY")
        trials = [
            (each, name, market)
            for each in classes
            for name, market in load_checked(data or []).items()
        ]
    found = {}
    for each, name, market in trials:
        title = f"{each.__name__} on {name}" if name else each.__name__
        with show_activity(f"checking {title}"):
            found[title] = check_policy(each, market)
    if as_json:
        print_json({name: [each._asdict() for each in found[name]] for name in found})
    else:
        for name, findings in found.items():
            print_findings(name, findings)
    if not all(each.passed for findings in found.values() for each in findings):
        raise typer.Exit(1)


def list_of_experiment(
    file: Path, data: list[str] | None
) -> list[tuple[type[Policy], str, Market | None]]:
    """Return the policies of an experiment with the market of each, by name if there are several.

    The market of an overlay is the portfolio index.
    """
    if data:
        raise ParameterError(
            f"the policies of an experiment are checked on its data, was given {', '.join(data)}",
            where="--data",
            cure="leave --data out, or name the policy instead of the file",
        )
    market, policy, terms = build_experiment_or_panel(draft_experiment(file, [], "backtest check"))
    if isinstance(market, Market):
        return [(type(policy), "", market)]
    found: list[tuple[type[Policy], str, Market | None]] = [
        (type(policy if isinstance(policy, Policy) else policy[name]), name, each)
        for name, each in market.items()
    ]
    overlay = terms.get("overlay")
    if overlay is not None:
        found.append(
            (
                type(overlay),
                "the portfolio index",
                market.index(resolve_signal(terms["signal"], market)),
            )
        )
    return found


def load_checked(data: list[str]) -> dict[str, Market | None]:
    """Return the markets to check on by name: one without a name, or each of several."""
    section = DraftTable({"path": data}, "--data", Path())
    if is_panel(list_paths(section)):
        return {**load_markets(section, NO_SPAN)}
    if not data:
        return {"": None}
    return {"": load_market(section)}


def print_findings(name: str, findings: list[Finding]) -> None:
    """Print one line for each check, with its details, and the verdict."""
    typer.secho(name, bold=True)
    width = max(len(each.name) for each in findings)
    for each in findings:
        lead = f"  {'ok   ' if each.passed else 'FAILS'}  {each.name:{width}}  "
        lines = each.detail.splitlines() or [""]
        shown = textwrap.wrap(
            lines[0], WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead)
        ) or [lead.rstrip()]
        shown += [" " * len(lead) + line for line in lines[1:]]
        typer.secho("\n".join(shown), fg=None if each.passed else "red")
    failed = sum(not each.passed for each in findings)
    verdict = f"{failed} of {len(findings)} checks failed" if failed else "keeps the contract"
    typer.secho(f"{name}: {verdict}", bold=True)
