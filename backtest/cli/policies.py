"""``backtest policies``, ``check`` and ``compile``: what can be run, and whether it may."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from backtest.baselines.policy_contract import Finding, check_policy
from backtest.cli.build import build_experiment, built_in_policies, load_data, load_policies
from backtest.cli.command import AsJson, Text, Texts, argument, command
from backtest.cli.experiment import draft_experiment
from backtest.cli.printing import print_json, print_paragraph, print_title, render
from backtest.core import ParameterError, count_nouns, pick_value
from backtest.market import Market, Markets, as_markets, label_names
from backtest.signals import resolve_signal


@command("policies")
def policies(
    policy: Annotated[
        Text, argument("Show one policy, or all policies of a file, in full.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List the policies: name, one line, and parameters with default, range and unit.

    backtest policies vol-target           [dim]# its formula and its source[/dim]
    backtest policies my_policy.py --json
    """
    found = load_policies(policy) if policy else built_in_policies()
    if as_json:
        rows = []
        for each in found:
            parameters = []
            for one in each.parameters().values():
                facts = {"name": one.name, "type": one.kind.__name__, "default": one.default}
                limits = {} if one.space is None else dataclasses.asdict(one.space)
                parameters.append({**facts, **limits})
            head = {"name": each.title(), "class": each.__name__, "summary": each.summary()}
            rows.append({**head, "parameters": parameters})
        print_json(rows)
        return
    for index, each in enumerate(found):
        if index:
            typer.echo("")
        print_title(each.title())
        text = each.summary() if policy is None else inspect.getdoc(each)
        typer.echo(textwrap.indent(text or "", "  "))
        lines = []
        for parameter in each.parameters().values():
            space, default = parameter.space, parameter.default
            unit = "" if space is None else space.unit
            values = "True, False" if space is None else str(space).removesuffix(f" {unit}")
            lines.append((parameter.name, "" if default is None else str(default), values, unit))
        if lines:
            render(lines, ("parameter", "default", "range", "unit"))


@command("check")
def check(
    policy: Annotated[
        str,
        argument(
            "A built-in policy, FILE.py (all its policies), FILE.py:Class, or FILE.toml (the "
            "policies of an experiment, on its data)."
        ),
    ],
    *,
    data: Annotated[
        Texts, typer.Option(help="A folder or file; repeat for several markets.")
    ] = None,
    instrument: Annotated[Texts, typer.Option(help="Instrument of a folder of several.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the policy checks: above all, that it does not look ahead.

    Without data it is checked on a synthetic market. An account in which it held nothing is "not
    tried". The exit code is 1 if a check fails, or if no account was tried and the policy does not
    declare may_hold_nothing.

    backtest check my_policy.py:MyPolicy --data btc/
    backtest check examples/btc-vol-target.toml
    """
    given = {"data.path": data, "data.instrument": instrument}
    entries = [(name, texts) for name, texts in given.items() if texts]
    if policy.endswith(".toml"):
        if entries:
            raise ParameterError(
                f"the policies of an experiment are checked on its own data, got {entries[0][0]}"
            )
        test, own, _ = build_experiment(draft_experiment(Path(policy)))
        whole, overlay = test.plain.market, test.overlay
        trials = [(type(pick_value(own, x)), x, each) for x, each in label_markets(whole).items()]
        if overlay is not None:
            index = as_markets(whole).index(resolve_signal(test.signal, whole))
            trials.append((type(overlay), "the portfolio index", index))
    else:
        markets: dict[str, Any] = {"": None}
        if entries:
            markets = label_markets(load_data(draft_experiment(None, entries)))
        trials = [(x, name, each) for x in load_policies(policy) for name, each in markets.items()]
    found = {}
    for each, name, market in trials:
        title = f"{each.__name__} on {name}" if name else each.__name__
        if not as_json:
            print_title(title)
        found[title] = check_policy(each, market, progress=None if as_json else print_finding)
        if not as_json:
            print_title(f"{title}: {judge(found[title])}")
    if as_json:
        print_json({name: [each._asdict() for each in found[name]] for name in found})
    if not all(each.passed for findings in found.values() for each in findings):
        raise typer.Exit(1)


def label_markets(market: Market | Markets) -> dict[str, Market]:
    markets = as_markets(market)
    return {label: markets[name] for name, label in label_names(markets).items()}


def print_finding(found: Finding) -> None:
    word = ("ok" if found.tried else "not tried") if found.passed else "FAILS"
    word = "warns" if found.warns else word
    first, *rest = found.detail.splitlines() or [""]
    print_paragraph(f"{word:9}  {found.name}: {first}".rstrip(": "))
    for line in rest:
        typer.echo(f"      {line}")
    sys.stdout.flush()


def judge(findings: list[Finding]) -> str:
    failed = sum(not each.passed for each in findings)
    untried = sum(not each.tried for each in findings)
    if failed:
        return f"{failed} of {len(findings)} checks failed"
    notes = [f"{untried} of {len(findings)} not tried"] if untried else []
    warned = sum(each.warns for each in findings)
    notes += [count_nouns(warned, "warning")] if warned else []
    return ", ".join(["passes the policy checks", *notes])
