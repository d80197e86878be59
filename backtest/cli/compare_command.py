"""``backtest compare``: compare policies, and report which differences are more than noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

import backtest
from backtest.base import Choice, ParameterError, from_plain
from backtest.cli.compared_terms_text import read_margin_flag, read_venue_flags, replace_terms
from backtest.cli.cures import naming_source
from backtest.cli.experiment import Experiment, build_experiment
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_draft import Draft
from backtest.cli.experiment_keys import Key, list_flags
from backtest.cli.experiment_schema import find_single
from backtest.cli.experiment_venue import build_policy
from backtest.cli.flags import ACCOUNT, COMPARISON, POLICY, RESULTS, VENUE, AsJson, Results, Save
from backtest.cli.policy_entries import list_policy_entries, read_policy_flags, read_setting_flags
from backtest.cli.printing import save_and_print
from backtest.cli.progress import show_progress
from backtest.compare import Comparison, SharedTerms, list_differences
from backtest.engine import resolve_signal
from backtest.policy import Policy

EXAMPLES = """
backtest compare --policy vol-target --policy cppi --set cppi.multiplier=5
backtest compare --policy calm=vol-target --policy bold=vol-target --set bold.target=0.8
backtest compare --policy constant --policy kelly --equal-risk --data btc/ --from 2021-01-01
backtest compare examples/btc-vol-target.toml --policy constant --baseline constant --json
backtest compare --policy vol-target --venue binance-usdm:BTCUSDT --venue hyperliquid:BTC
backtest compare --policy constant --margin cross,isolated --venue-leverage 5 --break-even
backtest compare calm.toml bold.toml       [dim]# experiments that differ in their policy[/dim]
"""

FLAGS = (
    Key("compare", "policies", dict[str, Any], "--policy", POLICY,
        "NAME, FILE.py:ClassName, or LABEL=NAME to label it; repeat for each.", read_policy_flags),
    Key("compare", "policies", dict[str, Any], "--set", POLICY,
        "A parameter, LABEL.NAME=VALUE, or a field, account.NAME=VALUE; repeat for more.",
        read_setting_flags),
    Key("compare", "venues", dict[str, Any], "--venue", VENUE,
        "NAME:SYMBOL[@DATE] or FILE.toml:SYMBOL; repeat to compare venues.",
        read_venue_flags),
    Key("compare", "margins", str, "--margin", ACCOUNT,
        "'cross' (default), 'isolated', or 'cross,isolated' to compare them.", read_margin_flag),
    Key("compare", "accounts", Choice("shared", "separate"), "--accounts", COMPARISON,
        "Several markets: one 'shared' account, or 'separate' ones, averaged."),
    *list_flags("compare"),
)  # fmt: skip


def compare(
    drafts: list[Draft], *, as_json: AsJson = False, save: Save = True, results: Results = RESULTS
) -> None:
    """Compare accounts on one market, and report which differences are more than noise.

    They differ in their policy, or in venue, account or margin mode. Several files must share data,
    venue, account and signal: flags override all of them.
    """
    policies = build_policies(drafts)
    for draft in drafts:
        refuse_single_policies(draft)
    experiments = [build_experiment(draft) for draft in drafts]
    check_shared(drafts, experiments)
    market, _, terms = experiments[0]
    table = drafts[0].tables.get("compare", {})
    given = ("policies", "venues", "accounts")
    arguments = {name: entry for name, entry in table.items() if name not in given}
    terms = replace_terms(drafts[0], terms)
    with (
        naming_source(drafts[0], "compare"),
        show_progress("comparing", "steps") as progress,
    ):
        done = backtest.compare(market, policies, **terms, **arguments, progress=progress)
    print_comparison(done, results if save else None, as_json=as_json)


def refuse_single_policies(draft: Draft) -> None:
    """Refuse policies of single instruments: a comparison runs each policy on all of them."""
    single = [*find_single(draft.tables.get("policy", {}))]
    if single:
        raise ParameterError(
            "a comparison runs each of its policies on all instruments, "
            f"[policy.{single[0]}] is for one",
            where=draft.locate("policy"),
            cure=f"leave [policy.{single[0]}] out, or name it in [compare.policies] to compare it",
        )


def print_comparison(done: Comparison, results: Path | None, *, as_json: bool) -> None:
    """Save a comparison unless there is no folder, and print it."""

    def to_data(path: str | None) -> object:
        return from_plain({"path": path, **done.to_dict()})

    save_and_print(done, results, lambda: typer.echo(done.summary()), to_data if as_json else None)


def build_policies(drafts: Sequence[Draft]) -> dict[str, Policy]:
    """Build the policies, by label."""
    entries = list_policy_entries(drafts)
    table = drafts[0].tables.get("compare", {})
    varies = {name for name in ("venues", "accounts", "margins") if name in table}
    varies -= {"accounts"} if isinstance(table.get("accounts"), str) else set()
    if len(entries) < (1 if varies else 2):
        found = f"got {', '.join(entries)} alone" if entries else "got none"
        raise ParameterError(
            f"a comparison needs two policies or more, {found}",
            where=drafts[0].command if drafts[0].file is None else str(drafts[0].file),
            cure="add one: --policy vol-target --policy cppi, or compare the policy with itself by "
            "--venue A --venue B or --margin cross,isolated; `backtest policies` lists policies",
        )
    return {label: build_policy(each) for label, each in entries.items()}


def check_shared(drafts: Sequence[Draft], experiments: Sequence[Experiment]) -> None:
    """Check that experiments differ only in their policy."""
    if len(experiments) == 1:
        return
    first, *others = [describe_terms(each) for each in experiments]
    for draft, other in zip(drafts[1:], others, strict=True):
        differing = list_differences(first, other)
        if differing:
            raise ParameterError(
                "experiments must share data, venue, account and signal, got another "
                f"{', '.join(differing)}",
                where=f"{draft.file}, beside {drafts[0].file}",
                cure="make the files agree, or use flags, which override all files",
            )


def describe_terms(experiment: Experiment) -> dict[str, Any]:
    """Return what the policies of an experiment share, as data."""
    terms = SharedTerms(experiment.market, **experiment.terms)
    signal = resolve_signal(terms.signal, terms.market)
    return terms._replace(signal=signal).describe()


COMMAND = take_experiment(compare, FLAGS)
