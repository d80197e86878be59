"""``backtest policies``, ``check`` and ``compile``: what can be run, and whether it may."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import sys
import textwrap
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from backtest.backtest import Backtest
from backtest.baselines.contract_trial import Terms
from backtest.baselines.policy_contract import Finding, check_policy
from backtest.cli.build import build_experiment, build_test
from backtest.cli.command import AsJson, Text, Texts, argument, command, flag, name_value
from backtest.cli.experiment import Entry, draft_experiment, find_key, name_flag, read_flags
from backtest.cli.printing import (
    print_json,
    print_paragraph,
    print_title,
    render,
    show_progress,
)
from backtest.core import ParameterError, count_nouns, pick_value
from backtest.engine import plain
from backtest.experiments.data_table import load_data
from backtest.experiments.policy_names import (
    built_in_policies,
    list_installed,
    load_policies,
)
from backtest.market import Market, as_markets, label_names
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

    Policies of installed packages are listed only by name and place, from the entry points
    backtest.policies; they are not imported.

    backtest policies vol-target           [dim]# its formula and its source[/dim]
    backtest policies my_policy.py --json
    backtest policies desk.policies:Steady
    """
    if policy:
        kinds = load_policies(policy)
        installed = {}
    else:
        kinds = built_in_policies()
        installed = list_installed()

    if as_json:
        rows = [describe_kind(kind) for kind in kinds]
        rows += [{"name": name, "policy": place} for name, place in installed.items()]
        print_json(rows)
        return

    for index, kind in enumerate(kinds):
        if index:
            typer.echo("")
        print_kind(kind, in_full=policy is not None)
    if installed:
        typer.echo("")
        print_title("of installed packages")
        render([*installed.items()], ("name", "--policy"))


def describe_kind(kind: Any) -> dict[str, Any]:
    """Return a policy and its parameters as JSON has them."""
    parameters = []
    for parameter in kind.parameters().values():
        facts = {
            "name": parameter.name,
            "type": parameter.kind.__name__,
            "default": parameter.default,
        }
        if parameter.space is not None:
            facts |= dataclasses.asdict(parameter.space)
        parameters.append(facts)
    return {
        "name": kind.title(),
        "class": kind.__name__,
        "summary": kind.summary(),
        "parameters": parameters,
    }


def print_kind(kind: Any, *, in_full: bool) -> None:
    """Print a policy: its first line or its whole docstring, and a table of its parameters."""
    print_title(kind.title())
    text = kind.summary()
    if in_full:
        text = inspect.getdoc(kind)
    typer.echo(textwrap.indent(text or "", "  "))

    rows = []
    for parameter in kind.parameters().values():
        default = ""
        if parameter.default is not None:
            default = str(parameter.default)
        unit = ""
        values = "True, False"
        if parameter.space is not None:
            unit = parameter.space.unit
            values = str(parameter.space).removesuffix(f" {unit}")

        rows.append((parameter.name, default, values, unit))

    if rows:
        render(rows, ("parameter", "default", "range", "unit"))


@command("check")
def check(
    policy: Annotated[
        str,
        argument(
            "A built-in policy, FILE.py (all its policies), FILE.py:Class, package.module:Class, "
            "or FILE.toml (the policies of an experiment, on its data)."
        ),
    ],
    *,
    data: Annotated[
        Texts, typer.Option(help="A folder or file; repeat for several markets.")
    ] = None,
    instrument: Annotated[
        Texts, typer.Option(help="Instrument to read from a folder of several.")
    ] = None,
    venue: Annotated[Texts, option_of("venue.preset")] = None,
    capital: Annotated[Texts, option_of("account.capital")] = None,
    margin: Annotated[Texts, option_of("account.margin")] = None,
    max_leverage: Annotated[Texts, option_of("account.max_leverage")] = None,
    settings: Annotated[
        Texts, flag("account.KEY=VALUE or venue.KEY=VALUE; repeatable.", "--set")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the policy checks: above all, that it does not look ahead.

    Without data, it is checked on a synthetic market. Without a venue and an account, it is checked
    on cross margin, on isolated margin and on an inverse contract; with them, or with those of an
    experiment, only on these. An account in which it held nothing is "not tried". The exit code is
    1 if a check fails, or if no account was tried and the policy does not declare may_hold_nothing.

    backtest check my_policy.py:MyPolicy --data btc/
    backtest check my_policy.py --margin isolated --set account.venue_leverage=20
    backtest check examples/btc-vol-target.toml
    """
    flags = {
        "data.path": data,
        "data.instrument": instrument,
        "venue.preset": venue,
        "account.capital": capital,
        "account.margin": margin,
        "account.max_leverage": max_leverage,
        "policy.settings": settings,
    }
    entries: list[Entry] = []
    for place, texts in flags.items():
        if texts:
            entries += read_flags(find_key(place), texts)

    findings_by_title = {}
    for trial in list_trials(policy, entries):
        title = trial.cls.__name__
        if trial.place.label:
            title = f"{title} on {trial.place.label}"
        findings_by_title[title] = run_checks(trial, title, is_printed=not as_json)

    if as_json:
        content = {}
        for title, findings in findings_by_title.items():
            content[title] = [finding._asdict() for finding in findings]
        print_json(content)

    everything = itertools.chain.from_iterable(findings_by_title.values())
    if not all(finding.passed for finding in everything):
        raise typer.Exit(1)


class Place(NamedTuple):
    """Where a policy is checked: a market, and the terms of its account; None if the check's own.

    ``name`` is that of the instrument, ``label`` what the output calls it.
    """

    name: str = ""
    label: str = ""
    market: Market | None = None
    terms: Terms | None = None


class Trial(NamedTuple):
    """A check to make: the class of a policy, and where it is checked."""

    cls: Any
    place: Place


def run_checks(trial: Trial, title: str, *, is_printed: bool) -> list[Finding]:
    """Return what the checks of a policy find, printed one by one as they end.

    A check may wait for the compiler for half a minute, so progress is shown between findings.
    """
    name = f"checking {title}"
    market = trial.place.market
    terms = trial.place.terms
    if not is_printed:
        with show_progress(name):
            return check_policy(trial.cls, market, terms=terms)

    print_title(title)
    with ExitStack() as waiting:
        waiting.enter_context(show_progress(name))

        def print_made(finding: Finding) -> None:
            """Print a finding on a line of its own: the progress ends before, and begins anew."""
            waiting.close()
            print_finding(finding)
            waiting.enter_context(show_progress(f"{name}, after {finding.name!r}"))

        findings = check_policy(trial.cls, market, terms=terms, progress=print_made)
    print_title(f"{title}: {summarize_findings(findings)}")
    return findings


def option_of(place: str) -> Any:
    """Return the option of a key of an experiment, as other commands have it."""
    key = find_key(place)
    return typer.Option(name_flag(key), help=key.text, metavar=name_value(key))


def list_trials(policy: str, entries: list[Entry]) -> list[Trial]:
    """Return the checks of a policy, of the policies of a file, or of those of an experiment."""
    for key, _ in entries:
        if not key.startswith(("data.", "venue.", "account.")):
            raise ParameterError(
                "a policy is checked as its class declares it; --set accepts account.KEY and "
                f"venue.KEY, got {key.removeprefix('policy.settings.')}"
            )
    if policy.endswith(".toml"):
        return list_experiment_trials(Path(policy), entries)

    places = list_places(entries)
    trials = []
    for kind in load_policies(policy):
        trials += [Trial(kind, place) for place in places]
    return trials


def list_experiment_trials(file: Path, entries: list[Entry]) -> list[Trial]:
    """Return the checks of the policies of an experiment, and of its overlay, on its own data."""
    for key, _ in entries:
        if key.startswith("data."):
            raise ParameterError(
                f"the policies of an experiment are checked on its own data, got {key}"
            )

    test, policies, _ = build_experiment(draft_experiment(file, entries))
    trials = []
    for place in list_places_of(test):
        policy = pick_value(policies, place.name)
        trials.append(Trial(type(policy), place))

    if test.overlay is not None:
        whole = plain(test).market
        index = as_markets(whole).index(resolve_signal(test.signal, whole))
        place = Place(label="the portfolio index", market=index)
        trials.append(Trial(type(test.overlay), place))
    return trials


def list_places(entries: list[Entry]) -> list[Place]:
    """Return where a policy is checked: each market of the data, on the terms if any are given.

    Without data the market is None: the check makes one.
    """
    tables = {key.split(".")[0] for key, _ in entries}
    if not tables:
        return [Place()]

    draft = draft_experiment(None, entries)
    if tables == {"data"}:
        markets = load_data(draft)
        labels = label_names(as_markets(markets))
        return [Place(name, labels[name], market) for name, market in as_markets(markets).items()]

    test = build_test(draft)
    if "data" in tables:
        return list_places_of(test)
    return [Place(terms=Terms(pick_value(test.venue, ""), test.account))]


def list_places_of(test: Backtest) -> list[Place]:
    """Return each market of a test, with the terms that its account has there."""
    markets = as_markets(plain(test).market)
    labels = label_names(markets)
    places = []
    for name, market in markets.items():
        venue = pick_value(test.venue, name)
        account = test.account.for_instrument(name)
        places.append(Place(name, labels[name], market, Terms(venue, account)))
    return places


def print_finding(finding: Finding) -> None:
    """Print what was found of a check, and below it the other lines of its detail."""
    first, *others = finding.detail.splitlines() or [""]
    line = f"{choose_word(finding):9}  {finding.name}: {first}"
    print_paragraph(line.rstrip(": "))  # a check that is right has no detail
    for line in others:
        typer.echo(f"      {line}")
    sys.stdout.flush()


def choose_word(finding: Finding) -> str:
    if finding.warns:
        return "warns"
    if not finding.passed:
        return "FAILS"
    if not finding.tried:
        return "not tried"
    return "ok"


def summarize_findings(findings: list[Finding]) -> str:
    total = len(findings)
    n_failed = sum(not finding.passed for finding in findings)
    if n_failed:
        return f"{n_failed} of {total} checks failed"

    clauses = ["passes the policy checks"]
    n_untried = sum(not finding.tried for finding in findings)
    if n_untried:
        clauses.append(f"{n_untried} of {total} not tried")
    n_warnings = sum(finding.warns for finding in findings)
    if n_warnings:
        clauses.append(count_nouns(n_warnings, "warning"))
    return ", ".join(clauses)
